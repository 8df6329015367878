import numpy as np
import pytest
import scoringrules
import xarray as xr

from data.errors import InputError
from scoring.crps import CRPS, STANDARD
from scoring.intervals import (
    IntervalScore,
    QuantileScore,
    WeightedIntervalScore,
    interval_scores,
    quantile_scores,
    weighted_interval_score,
)
from scoring.quantiles import (
    LINEAR,
    Quantiles,
    ensemble_quantiles,
    interval_statistics,
    quantile_score,
)
from scoring.statistic import evaluate

COVERAGE = (0.5, 0.8, 0.9)
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def ensemble(members: int = 30) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(members)
    forecast = xr.DataArray(rng.normal(20, 2, (members, 60)), dims=("number", "x"))
    return forecast, xr.DataArray(rng.normal(20, 2.5, 60), dims="x")


def quantiles() -> tuple[xr.DataArray, xr.DataArray]:
    forecast, truth = ensemble()
    return ensemble_quantiles(forecast, LEVELS), truth


def test_quantile_scores_are_twice_those_of_scoringrules():
    forecast, truth = quantiles()
    found = quantile_scores(forecast, truth)
    for level in LEVELS:
        expected = 2 * scoringrules.quantile_score(
            truth.values, forecast.sel(quantile=level).values, level, backend="numpy"
        )
        np.testing.assert_allclose(found.sel(quantile=level), expected, atol=1e-12)
    np.testing.assert_allclose(found.mean("quantile"), quantile_score(forecast, truth), rtol=1e-12)


def test_interval_scores_are_those_of_scoringrules_and_their_parts_add_up():
    forecast, truth = quantiles()
    found = interval_scores(forecast, truth, COVERAGE)
    for coverage in COVERAGE:
        low, high = (forecast.sel(quantile=q, method="nearest").values
                     for q in ((1 - coverage) / 2, (1 + coverage) / 2))  # fmt: skip
        expected = scoringrules.interval_score(
            truth.values, low, high, 1 - coverage, backend="numpy"
        )
        np.testing.assert_allclose(
            found.interval_score.sel(level=coverage), expected, rtol=1e-12, atol=1e-13
        )
    parts = found.dispersion + found.overprediction + found.underprediction
    np.testing.assert_allclose(found.interval_score, parts, rtol=1e-14)
    statistics = interval_statistics(forecast, truth, COVERAGE)
    np.testing.assert_array_equal(found.dispersion, statistics.width.T)
    np.testing.assert_array_equal(
        (found.overprediction + found.underprediction) > 0, statistics.covered.T == 0
    )


def test_weighted_interval_score_is_that_of_scoringrules_and_the_mean_quantile_score():
    forecast, truth = quantiles()
    found = weighted_interval_score(forecast, truth, COVERAGE)
    # Its numpy back-end adds what it takes for the median in place of the median's error.
    error = np.abs(forecast.sel(quantile=0.5) - truth).values
    low = [forecast.values[:, LEVELS.index(q)] for q in (0.25, 0.1, 0.05)]
    high = [forecast.values[:, LEVELS.index(q)] for q in (0.75, 0.9, 0.95)]
    expected = scoringrules.weighted_interval_score(
        truth.values, error, np.stack(low, -1), np.stack(high, -1), 1 - np.array(COVERAGE),
        backend="numpy",
    )  # fmt: skip
    np.testing.assert_allclose(found.weighted_interval_score, expected, rtol=1e-12)
    np.testing.assert_allclose(
        found.weighted_interval_score, quantile_score(forecast, truth), rtol=1e-12
    )
    parts = found.dispersion + found.overprediction + found.underprediction
    np.testing.assert_allclose(found.weighted_interval_score, parts, rtol=1e-14)


@pytest.mark.parametrize("definition", [Quantiles().definition, LINEAR])
def test_statistics_of_ensembles_are_those_of_their_quantiles(definition):
    forecast, truth = ensemble()
    wanted = (
        Quantiles(LEVELS, definition), QuantileScore(LEVELS, definition),
        IntervalScore(COVERAGE, definition), WeightedIntervalScore(COVERAGE, definition),
    )  # fmt: skip
    values = evaluate(wanted, forecast, truth)
    levels = values[wanted[0].key]
    for statistic, expected in (
        (wanted[1], quantile_scores(levels, truth)),
        (wanted[2], interval_scores(levels, truth, COVERAGE).interval_score),
        (wanted[3], weighted_interval_score(levels, truth, COVERAGE).weighted_interval_score),
    ):
        np.testing.assert_allclose(values[statistic.key], expected, rtol=1e-11, atol=1e-12)


def test_quantile_scores_of_dense_levels_are_the_standard_crps():
    forecast, truth = ensemble(9)
    # Each member is the quantile of levels (i - 1)/M to i/M; 2 x pinball loss is linear there.
    middle = (np.arange(9) + 0.5) / 9
    ordered = xr.DataArray(np.sort(forecast, axis=0), {"quantile": middle}, ("quantile", "x"))
    expected = CRPS(STANDARD)(forecast, truth)
    found = quantile_scores(ordered, truth).mean("quantile")
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_without_truth_there_is_no_score():
    forecast, truth = quantiles()
    truth[3] = np.nan
    assert np.isnan(quantile_scores(forecast, truth)[3]).all()
    for name, score in weighted_interval_score(forecast, truth, COVERAGE).items():
        assert np.isnan(score[3]), name
        assert np.isfinite(score[4:]).all()
    assert np.isnan(interval_scores(forecast, truth, COVERAGE).to_array().isel(x=3)).all()


def test_missing_levels_are_refused():
    forecast, truth = quantiles()
    with pytest.raises(InputError, match=r"quantile 0\.5 of the 0 interval"):
        weighted_interval_score(forecast.drop_sel(quantile=0.5), truth, COVERAGE)
    with pytest.raises(InputError, match=r"quantile 0\.15 of the 0\.7 interval"):
        interval_scores(forecast, truth, (0.7,))
    for statistic in (QuantileScore, IntervalScore, WeightedIntervalScore):
        with pytest.raises(InputError, match="quantile levels must"):
            statistic((0.5, 1.5))
