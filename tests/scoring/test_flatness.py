import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom, chisquare

from data.errors import InputError
from scoring.flatness import expected_reliability_index, histogram_flatness, reliability_index
from scoring.rank import RankHistogram


def histograms(bins: int, cases: int, number: int) -> xr.DataArray:
    """Shares of calibrated ranks, (histogram, bin)."""
    counts = np.random.default_rng(bins).multinomial(cases, np.full(bins, 1 / bins), number)
    return xr.DataArray(counts / cases, dims=("histogram", "bin"))


@pytest.mark.parametrize(("bins", "cases"), [(2, 1), (5, 3), (10, 40), (10, 37), (51, 700)])
def test_expected_index_is_the_sum_over_all_counts(bins, cases):
    counts = np.arange(cases + 1)
    chance = binom.pmf(counts, cases, 1 / bins)
    expected = bins * (np.abs(counts / cases - 1 / bins) * chance).sum()
    assert expected_reliability_index(bins, cases) == pytest.approx(expected, rel=1e-10)


def test_indices_of_calibrated_histograms_are_their_null_values_on_average():
    found = histogram_flatness(histograms(8, 60, 4000), 60)
    index = found.reliability_index
    assert float(index.mean() - found.expected_reliability_index) == pytest.approx(
        0, abs=3 * float(index.std()) / np.sqrt(4000)
    )
    assert float(found.delta.mean()) == pytest.approx(1.0, abs=0.03)
    assert float((found.p_value < 0.05).mean()) == pytest.approx(0.05, abs=0.015)


def test_index_of_many_cases_goes_with_their_root():
    expected = np.sqrt(2 * 9 / (np.pi * 1e6))
    assert expected_reliability_index(10, 1_000_000) == pytest.approx(expected, rel=1e-4)


def test_chi_square_is_that_of_scipy():
    shares = histograms(8, 60, 5)
    found = histogram_flatness(shares, 60)
    expected = chisquare(shares.values * 60, axis=1)
    np.testing.assert_allclose(found.chi_square, expected.statistic, rtol=1e-12)
    np.testing.assert_allclose(found.p_value, expected.pvalue, rtol=1e-10)
    np.testing.assert_allclose(found.delta, expected.statistic / 7, rtol=1e-12)


def test_flat_is_zero_and_one_bin_for_all_is_the_worst():
    flat = histogram_flatness(xr.DataArray(np.full(4, 0.25), dims="bin"), 100)
    assert float(flat.reliability_index) == 0
    assert float(flat.p_value) == 1
    single = xr.DataArray([1.0, 0, 0, 0], dims="bin")
    assert float(reliability_index(single)) == 1.5
    assert float(histogram_flatness(single, 100).chi_square) == pytest.approx(300)
    assert np.isnan(histogram_flatness(single * np.nan, 100).p_value)
    assert expected_reliability_index(1, 10) == 0


def test_an_underdispersed_ensemble_is_told_apart():
    rng = np.random.default_rng(4)
    forecast = xr.DataArray(0.6 * rng.standard_normal((7, 300)), dims=("number", "x"))
    truth = xr.DataArray(rng.standard_normal(300), dims="x")
    found = histogram_flatness(RankHistogram(8)(forecast, truth).mean("x"), 300)
    assert found.reliability_index > 3 * found.expected_reliability_index
    assert found.delta > 5
    assert found.p_value < 1e-6


def test_no_cases_and_one_bin_are_refused():
    with pytest.raises(InputError, match="needs bins and cases, found 5 and 0"):
        expected_reliability_index(5, 0)
    with pytest.raises(InputError, match="whether 1 bin is flat"):
        histogram_flatness(xr.DataArray([1.0], dims="bin"), 10)
