import numpy as np
import pytest
import xarray as xr
import xskillscore

from data.errors import InputError
from scoring.moments import ExpectedSquaredError, SquaredError, UnbiasedSquaredError, Variance
from scoring.quantiles import (
    LINEAR,
    STANDARD_LEVELS,
    WEIBULL,
    IntervalHits,
    Quantiles,
    ensemble_quantiles,
    interval_statistics,
    quantile_score,
)
from scoring.rank import Outlier, RankHistogram
from scoring.score import SPREAD_SKILL, SPREAD_SKILL_UNBIASED, rank_histogram, reliability_index
from scoring.statistic import OMIT, evaluate, evaluate_arrays
from scoring.sums import Sums


def exchangeable(members: int, cells: int, seed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 3, cells)
    return centre + rng.standard_normal((members, cells)), centre + rng.standard_normal(cells)


def value(statistic, forecast, truth):
    return evaluate_arrays((statistic,), forecast, truth)[statistic]


@pytest.mark.parametrize(("definition", "method"), [(WEIBULL, "weibull"), (LINEAR, "linear")])
def test_quantiles_are_those_of_numpy(definition, method):
    forecast, truth = exchangeable(23, 40)
    expected = np.quantile(forecast, STANDARD_LEVELS, axis=0, method=method).T
    found = value(Quantiles(STANDARD_LEVELS, definition), forecast, truth)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_variance_is_that_of_numpy_even_far_from_the_truth():
    forecast, truth = exchangeable(23, 40)
    found = value(Variance(), forecast, truth + 1e6)
    np.testing.assert_allclose(found, forecast.var(axis=0, ddof=1), rtol=1e-9)


def test_intervals_of_an_exchangeable_ensemble_cover_what_they_say():
    forecast, truth = exchangeable(39, 100_000)
    hits = value(IntervalHits((0.5, 0.8, 0.9, 0.95)), forecast, truth).mean(axis=0)
    np.testing.assert_allclose(hits, [0.5, 0.8, 0.9, 0.95], atol=0.006)


def test_interval_hits_are_those_of_the_quantiles():
    forecast, truth = exchangeable(15, 500)
    quantiles = value(Quantiles((0.05, 0.25, 0.75, 0.95)), forecast, truth)
    hits = value(IntervalHits((0.5, 0.9)), forecast, truth)
    for index, (low, high) in enumerate(((1, 2), (0, 3))):
        inside = (quantiles[:, low] <= truth) & (truth <= quantiles[:, high])
        np.testing.assert_array_equal(hits[:, index], inside)


def test_rank_histogram_is_that_of_xskillscore():
    forecast, truth = exchangeable(9, 400)
    found = value(RankHistogram(10), forecast, truth).sum(axis=0)
    expected = xskillscore.rank_histogram(
        xr.DataArray(truth, dims="x"), xr.DataArray(forecast, dims=("member", "x")), dim="x"
    )
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("bins", [4, 10, 23])
def test_rank_histogram_of_an_exchangeable_ensemble_is_flat(bins):
    forecast, truth = exchangeable(9, 60_000)
    shares = value(RankHistogram(bins), forecast, truth).mean(axis=0)
    np.testing.assert_allclose(shares, 1 / bins, rtol=0.06)


def test_ties_share_their_ranks():
    forecast = np.array([[0.0], [0.0], [0.0], [2.0]])
    shares = value(RankHistogram(5), forecast, np.array([0.0]))[0]
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.25, 0.25, 0.0])


def test_calibrated_zero_inflated_variable_has_a_flat_histogram():
    rng = np.random.default_rng(9)
    drawn = np.maximum(rng.standard_normal((20, 40_000)) - 0.5, 0)
    shares = value(RankHistogram(20), drawn[:19], drawn[19]).mean(axis=0)
    np.testing.assert_allclose(shares, 0.05, rtol=0.08)


def test_outlier_rate_of_an_exchangeable_ensemble_is_two_over_members_plus_one():
    forecast, truth = exchangeable(9, 60_000)
    assert value(Outlier(), forecast, truth).mean() == pytest.approx(0.2, abs=0.006)


def test_expected_squared_errors_meet_for_an_exchangeable_ensemble():
    forecast, truth = exchangeable(6, 100_000)
    expected = value(ExpectedSquaredError(), forecast, truth).mean()
    assert value(SquaredError(), forecast, truth).mean() == pytest.approx(expected, rel=0.02)
    unbiased = value(UnbiasedSquaredError(), forecast, truth).mean()
    assert unbiased == pytest.approx(value(Variance(), forecast, truth).mean(), rel=0.02)


def test_spread_skill_of_an_exchangeable_ensemble_is_one_at_any_size():
    for members in (2, 10):
        forecast, truth = exchangeable(members, 100_000)
        score = rank_histogram(5)
        statistics = {
            *SPREAD_SKILL.statistics, *SPREAD_SKILL_UNBIASED.statistics, *score.statistics
        }  # fmt: skip
        values = evaluate(
            tuple(statistics), xr.DataArray(forecast, dims=("number", "x")),
            xr.DataArray(truth, dims="x"),
        )  # fmt: skip
        sums = Sums.of(values, xr.ones_like(values[Variance().key]), ("x",))
        assert float(SPREAD_SKILL.of(sums)) == pytest.approx(1.0, abs=0.01)
        assert float(SPREAD_SKILL_UNBIASED.of(sums)) == pytest.approx(1.0, abs=0.015)
        assert float(reliability_index(5).of(sums)) < 0.02


def test_ensemble_quantiles_are_labelled_and_do_not_need_a_truth():
    rng = np.random.default_rng(6)
    values = (54_000 + 60 * rng.standard_normal((2, 30, 5))).astype(np.float32)
    forecast = xr.DataArray(values, {"x": np.arange(5)}, ("t", "number", "x"), "z500")
    quantiles = ensemble_quantiles(forecast, (0.1, 0.5, 0.9))
    assert quantiles.dims == ("t", "x", "quantile")
    expected = np.quantile(values.astype(float), (0.1, 0.5, 0.9), axis=1, method="weibull")
    np.testing.assert_allclose(quantiles.transpose("quantile", "t", "x"), expected, rtol=1e-7)


@pytest.mark.parametrize("gap", [np.nan, np.inf])
def test_ensemble_quantiles_without_a_member_are_those_of_the_others(gap):
    values = np.random.default_rng(7).normal(54_000, 60, (12, 4)).astype(np.float32)
    values[0, 0], values[3, 1], values[:, 2] = gap, gap, gap
    forecast = xr.DataArray(values, dims=("number", "x"))
    found = ensemble_quantiles(forecast, (0.2, 0.5), missing=OMIT)
    for cell in (0, 1, 3):
        present = values[np.isfinite(values[:, cell]), cell].astype(float)
        expected = np.quantile(present, (0.2, 0.5), method="weibull")
        np.testing.assert_allclose(found[cell], expected, rtol=1e-7)
    assert np.isnan(found[2]).all()


@pytest.mark.parametrize("levels", [(), (0.0, 0.5), (0.5, 1.0), (0.5, 0.5), (0.9, 0.1)])
def test_levels_that_do_not_increase_within_zero_and_one_are_refused(levels):
    with pytest.raises(InputError, match="quantile levels must"):
        Quantiles(levels)


def test_quantile_score_is_the_weighted_interval_score():
    rng = np.random.default_rng(7)
    quantiles = np.sort(rng.standard_normal((8, 5)), axis=1)
    truth, levels = rng.standard_normal(8), np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    expected = 0.5 * np.abs(truth - quantiles[:, 2])
    for low, high, alpha in ((0, 4, 0.1), (1, 3, 0.5)):
        below = np.maximum(quantiles[:, low] - truth, 0)
        above = np.maximum(truth - quantiles[:, high], 0)
        width = quantiles[:, high] - quantiles[:, low]
        expected += alpha / 2 * (width + 2 / alpha * (below + above))
    labelled = xr.DataArray(quantiles, {"quantile": levels}, ("x", "quantile"))
    found = quantile_score(labelled, xr.DataArray(truth, dims="x"))
    np.testing.assert_allclose(found, expected / 2.5, rtol=1e-12)


def test_interval_statistics_are_missing_without_truth():
    quantiles = xr.DataArray(
        [[0.0, 1.0], [0.0, 1.0]], {"quantile": [0.25, 0.75]}, ("x", "quantile")
    )
    found = interval_statistics(quantiles, xr.DataArray([0.5, np.nan], dims="x"), (0.5,))
    np.testing.assert_array_equal(found.covered.squeeze("level"), [1.0, np.nan])
    np.testing.assert_array_equal(found.width.squeeze("level"), [1.0, np.nan])
    with pytest.raises(InputError, match=r"quantile 0\.1 of the 0\.8 interval"):
        interval_statistics(quantiles, xr.DataArray([0.5, 0.5], dims="x"), (0.8,))
