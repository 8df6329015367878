"""The sums behind every score, against their definitions."""

import numpy as np
import properscoring
import pytest
import scoringrules

from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, ExpectedCRPS, SubEnsemble
from scoring.extremes import DISCRETE, ExtremeForecastIndex
from scoring.moments import MeanError, Variance
from scoring.probability import BrierScore, Exceedance
from scoring.quantiles import Quantiles
from scoring.rank import Rank
from scoring.statistic import OMIT, PROPAGATE, evaluate_arrays
from scoring.thresholds import Constants, Reference
from scoring.tile import Structure, three_axes, tiles
from scoring.weighted import Above, Below, OutcomeWeightedCRPS, ThresholdWeightedCRPS

PERCENTILES = Reference("climate", tuple(np.linspace(0, 1, 101)))
SIZES = (1, 2, 3, 15, 16, 17, 50, 64, 65, 300, 1000)
TRUTHS = ("continuous", "tied", "zero_inflated", "constant", "far")


def case(kind: str, members: int, cells: int = 24, seed: int = 0):
    """Members, (member, cell), and truth, (cell,), float64."""
    rng = np.random.default_rng([seed, members])
    forecast, truth = rng.normal(1.0, 2.0, (members, cells)), rng.normal(0.0, 2.0, cells)
    if kind == "tied":
        return np.round(forecast), np.round(truth)
    if kind == "zero_inflated":
        return np.maximum(forecast - 1.5, 0), np.maximum(truth - 0.5, 0)
    if kind == "constant":
        return np.broadcast_to(forecast[0], forecast.shape).copy(), truth
    return forecast, truth + (100 if kind == "far" else 0)


def tile_of(forecast: np.ndarray, truth: np.ndarray):
    """One tile with all cells."""
    structure = Structure.independent(len(forecast))
    ((_, tile),) = tiles(three_axes(forecast, 0), truth[None], structure, tile_values=2**22)
    return tile


@pytest.mark.parametrize("members", SIZES)
@pytest.mark.parametrize("kind", TRUTHS)
def test_sums_beyond_thresholds_are_those_of_the_definition(kind, members):
    forecast, truth = case(kind, members)
    values = (-3.0, 0.0, 0.5, 1.0, 2.7, 40.0)
    tile = tile_of(forecast, truth)
    cut = tile.cut(Constants(values))
    ascending = np.sort(forecast, axis=0)[:, :, None]
    weights = np.arange(1 - members, members, 2)[:, None, None]
    above, below = np.maximum(ascending - values, 0), np.maximum(values - ascending, 0)
    scale = {"rtol": 1e-10, "atol": 1e-11 * members**2}
    np.testing.assert_array_equal(cut.not_above, (ascending <= values).sum(axis=0))
    np.testing.assert_array_equal(cut.below, (ascending < values).sum(axis=0))
    np.testing.assert_allclose(cut.excess, above.sum(axis=0), **scale)
    np.testing.assert_allclose(cut.shortfall, below.sum(axis=0), **scale)
    np.testing.assert_allclose(cut.ranked_excess, (weights * above).sum(axis=0), **scale)
    np.testing.assert_allclose(cut.ranked_shortfall, (weights * below).sum(axis=0), **scale)


@pytest.mark.parametrize("members", SIZES)
@pytest.mark.parametrize("kind", TRUTHS)
def test_crps_is_that_of_properscoring(kind, members):
    forecast, truth = case(kind, members)
    found = evaluate_arrays((CRPS(STANDARD),), forecast, truth)[CRPS(STANDARD)]
    expected = properscoring.crps_ensemble(truth, forecast.T)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
    single = evaluate_arrays((CRPS(STANDARD),), forecast.astype("f4"), truth.astype("f4"))
    rounded = properscoring.crps_ensemble(
        truth.astype("f4").astype(float), forecast.T.astype("f4").astype(float)
    )
    np.testing.assert_allclose(single[CRPS(STANDARD)], rounded, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", TRUTHS)
def test_rank_and_variance_are_those_of_the_definition(kind):
    forecast, truth = case(kind, 41)
    found = evaluate_arrays((Rank(), Variance()), forecast, truth)
    rank = ((forecast < truth).sum(axis=0) + (forecast <= truth).sum(axis=0)) / 2
    np.testing.assert_array_equal(found[Rank()], rank)
    expected = forecast.var(axis=0, ddof=1)
    np.testing.assert_allclose(found[Variance()], expected, rtol=1e-10, atol=1e-20)


@pytest.mark.parametrize("members", [2, 50, 1000, 7424])
def test_geopotential_in_float32_keeps_five_digits(members):
    rng = np.random.default_rng(3)
    forecast = (54_000 + 60 * rng.standard_normal((members, 20))).astype(np.float32)
    truth = (54_000 + 60 * rng.standard_normal(20)).astype(np.float32)
    weighted = ThresholdWeightedCRPS(Above(Constants((53_950.0, 54_030.0))))
    found = evaluate_arrays((CRPS(FAIR), Variance(), weighted), forecast, truth)
    wide, exact = forecast.T.astype(float), truth.astype(float)
    oracle = {"estimator": "pwm", "backend": "numpy"}
    expected = scoringrules.crps_ensemble(exact, wide, **oracle)
    np.testing.assert_allclose(found[CRPS(FAIR)], expected, rtol=1e-5)
    np.testing.assert_allclose(found[Variance()], wide.var(axis=1, ddof=1), rtol=1e-5)
    for place, threshold in enumerate((53_950.0, 54_030.0)):
        tail = scoringrules.twcrps_ensemble(exact, wide, a=threshold, **oracle)
        np.testing.assert_allclose(found[weighted][:, place], tail, rtol=1e-5, atol=1e-4)


def test_a_cell_that_is_all_missing_spoils_no_other():
    forecast, truth = case("continuous", 200)
    expected = evaluate_arrays((CRPS(), Variance()), forecast, truth)
    forecast[:, 3], truth[5], forecast[7, 8] = np.nan, np.nan, np.nan
    for missing, gone in (({}, [3, 5, 8]), ({"missing": OMIT}, [3, 5])):
        found = evaluate_arrays((CRPS(), Variance()), forecast, truth, **missing)
        for statistic, values in found.items():
            assert np.flatnonzero(np.isnan(values)).tolist() == gone
            others = np.delete(np.arange(24), [3, 5, 8])
            np.testing.assert_array_equal(values[others], expected[statistic][others])


def test_expected_scores_are_those_of_each_size():
    forecast, truth = case("continuous", 12)
    sizes = tuple(range(1, 13))
    curve = evaluate_arrays((ExpectedCRPS(sizes),), forecast, truth)[ExpectedCRPS(sizes)]
    for place, size in enumerate(sizes):
        one = CRPS(SubEnsemble(size))
        expected = evaluate_arrays((one,), forecast, truth)[one]
        np.testing.assert_allclose(curve[:, place], expected, rtol=1e-14)
    standard = evaluate_arrays((CRPS(STANDARD),), forecast, truth)[CRPS(STANDARD)]
    np.testing.assert_allclose(curve[:, -1], standard, rtol=1e-12)


EVERYTHING = (
    CRPS(FAIR),
    CRPS(STRATIFIED),
    Variance(),
    Rank(),
    Quantiles(),
    ThresholdWeightedCRPS(Above(Constants((0.0, 1.5)))),
    ThresholdWeightedCRPS(Below(Constants((0.0, 1.5)))),
    OutcomeWeightedCRPS(Above(Constants((0.0, 1.5)))),
    BrierScore(Constants((0.0, 1.5))),
    ExtremeForecastIndex(PERCENTILES, DISCRETE),
    ExtremeForecastIndex(PERCENTILES),
)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("missing", [PROPAGATE, OMIT])
def test_infinite_is_missing(missing, dtype):
    forecast, truth = (array.astype(dtype) for array in case("continuous", 200))
    climate = np.sort(case("continuous", 101, seed=1)[0].T, axis=1).astype(dtype)
    options = {"missing": missing, "references": {PERCENTILES: climate}}
    structure = Structure(np.repeat([0, 1], 100), np.full(200, -1))
    gaps, infinite = (forecast.copy(), truth.copy()), (forecast.copy(), truth.copy())
    places = ((7, 2, np.inf), (9, 3, -np.inf), (0, 4, np.inf), (1, 4, -np.inf), (5, 6, np.inf))
    for member, cell, value in places:
        gaps[0][member, cell], infinite[0][member, cell] = np.nan, value
    gaps[0][6, 6], infinite[0][6, 6] = np.nan, np.nan
    gaps[1][8], infinite[1][8] = np.nan, -np.inf
    expected = evaluate_arrays(EVERYTHING, *gaps, structure=structure, **options)
    found = evaluate_arrays(EVERYTHING, *infinite, structure=structure, **options)
    for statistic, values in found.items():
        np.testing.assert_array_equal(values, expected[statistic])
        assert np.isnan(values[8]).all()
        assert np.isnan(values[2]).all() == (missing is PROPAGATE)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("members", [50, 7424])
def test_a_truth_in_float64_is_not_rounded_to_the_precision_of_the_members(members, axis):
    rng = np.random.default_rng(4)
    forecast = (54_000 + 60 * rng.standard_normal((members, 30))).astype(np.float32)
    truth = 54_000 + 60 * rng.standard_normal(30) + 1e-3
    # A member on the threshold is not above it, whatever the truth.
    threshold = float(forecast[3, 0])
    statistics = CRPS(FAIR), Exceedance(Constants((threshold,))), MeanError()
    found = evaluate_arrays(statistics, np.moveaxis(forecast, 0, axis), truth, axis)
    wide = forecast.T.astype(float)
    expected = scoringrules.crps_ensemble(truth, wide, estimator="pwm", backend="numpy")
    # Rounding the truth would be 1e-4. What is left are sums of a block in float32, in the order
    # that BLAS has for the processor: 1e-7 with AVX-512, 1.5e-6 without.
    np.testing.assert_allclose(found[statistics[0]], expected, rtol=5e-6)
    above = (forecast > np.float32(threshold)).mean(axis=0)
    np.testing.assert_allclose(found[statistics[1]][:, 0], above, atol=1e-15)
    np.testing.assert_allclose(found[statistics[2]], wide.mean(axis=1) - truth, atol=5e-4)


def test_whole_numbers_do_not_wrap():
    forecast, truth = np.array([[1, 9], [3, 4]], np.uint8), np.array([2, 7], np.uint8)
    for axis in (0, 1):
        found = evaluate_arrays((MeanError(),), forecast, truth, axis)[MeanError()]
        np.testing.assert_array_equal(found, forecast.mean(axis=axis) - truth)
