import numpy as np
import pytest
import scoringrules
import xarray as xr
from scores.probability import interval_tw_crps_for_ensemble, tail_tw_crps_for_ensemble

from data.errors import InputError
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair
from scoring.statistic import OMIT, evaluate_arrays
from scoring.thresholds import Constants, Reference
from scoring.tile import Structure
from scoring.weighted import Above, Below, Between, OutcomeWeightedCRPS, ThresholdWeightedCRPS

VALUES = (-1.0, 0.0, 0.5, 2.0, 9.0)
UPPER = (0.25, 0.5, 3.0, 2.5, 10.0)
WEIGHTS = (
    Above(Constants(VALUES)),
    Below(Constants(VALUES)),
    Between(Constants(VALUES), Constants(UPPER)),
)
each_weight = pytest.mark.parametrize("weight", WEIGHTS, ids=["above", "below", "between"])


def sample(members: int, kind: str = "continuous", cells: int = 50):
    """Members, (member, cell), and truth, (cell,), float64."""
    rng = np.random.default_rng(members)
    forecast, truth = rng.normal(0.5, 2.0, (members, cells)), rng.normal(0.0, 2.0, cells)
    if kind == "tied":
        return np.round(2 * forecast) / 2, np.round(2 * truth) / 2
    if kind == "zero_inflated":
        return np.maximum(forecast, 0), np.maximum(truth, 0)
    return forecast, truth


def ends(weight) -> list[tuple[float, float]]:
    """Lower and upper end of each weight."""
    if isinstance(weight, Above):
        return [(value, np.inf) for value in VALUES]
    if isinstance(weight, Below):
        return [(-np.inf, value) for value in VALUES]
    return list(zip(VALUES, UPPER, strict=True))


def value(statistic, forecast, truth, **options):
    return evaluate_arrays((statistic,), forecast, truth, **options)[statistic]


@each_weight
@pytest.mark.parametrize("kind", ["continuous", "tied", "zero_inflated"])
@pytest.mark.parametrize("members", [1, 2, 11, 120])
def test_threshold_weighted_is_that_of_scoringrules(weight, kind, members):
    forecast, truth = sample(members, kind)
    for estimator, name in ((STANDARD, "nrg"), (FAIR, "fair")):
        if members < estimator.minimum_members:
            continue
        found = value(ThresholdWeightedCRPS(weight, estimator), forecast, truth)
        rounded = forecast.astype("f4"), truth.astype("f4")
        single = value(ThresholdWeightedCRPS(weight, estimator), *rounded)
        for place, (low, high) in enumerate(ends(weight)):
            oracle = {"a": low, "b": high, "estimator": name, "backend": "numpy"}
            expected = scoringrules.twcrps_ensemble(truth, forecast.T, **oracle)
            np.testing.assert_allclose(found[:, place], expected, rtol=1e-10, atol=1e-12)
            wide = rounded[1].astype(float), rounded[0].T.astype(float)
            expected = scoringrules.twcrps_ensemble(*wide, **oracle)
            np.testing.assert_allclose(single[:, place], expected, rtol=1e-5, atol=1e-6)


def test_threshold_weighted_is_that_of_scores():
    forecast, truth = sample(20)
    labelled, observed = xr.DataArray(forecast, dims=("m", "x")), xr.DataArray(truth, dims="x")
    for tail, weight in (("upper", Above), ("lower", Below)):
        found = value(ThresholdWeightedCRPS(weight(Constants((1.0,)))), forecast, truth)[:, 0]
        expected = tail_tw_crps_for_ensemble(
            labelled, observed, "m", 1.0, tail=tail, method="fair", preserve_dims="all"
        )
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
    found = value(
        ThresholdWeightedCRPS(Between(Constants((-0.5,)), Constants((1.0,)))), forecast, truth
    )
    expected = interval_tw_crps_for_ensemble(
        labelled, observed, "m", -0.5, 1.0, method="fair", preserve_dims="all"
    )
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("estimator", [FAIR, STANDARD, STRATIFIED, AlmostFair()])
def test_parts_above_and_below_a_threshold_add_up_to_the_crps(estimator):
    forecast, truth = sample(12)
    structure = Structure(np.repeat([0, 1, 2], 4), np.array([0, 0, -1, -1] * 3))
    above, below = (
        value(ThresholdWeightedCRPS(weight(Constants(VALUES)), estimator), forecast, truth,
              structure=structure)
        for weight in (Above, Below)
    )  # fmt: skip
    whole = value(CRPS(estimator), forecast, truth, structure=structure)
    expected = np.broadcast_to(whole[:, None], above.shape)
    np.testing.assert_allclose(above + below, expected, rtol=1e-10)


@each_weight
def test_stratified_is_that_of_the_chained_members(weight):
    forecast, truth = sample(12)
    structure = Structure(np.repeat([0, 1, 2], 4), np.array([0, 0, -1, -1] * 3))
    found = value(ThresholdWeightedCRPS(weight, STRATIFIED), forecast, truth, structure=structure)
    for place, (low, high) in enumerate(ends(weight)):
        chained = np.clip(forecast, low, high), np.clip(truth, low, high)
        expected = value(CRPS(STRATIFIED), *chained, structure=structure)
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-10, atol=1e-12)


def test_thresholds_may_differ_between_cells():
    forecast, truth = sample(30)
    fields = np.sort(np.random.default_rng(1).normal(size=(50, 2)), axis=1)
    climate = Reference("climate", (0.5, 0.9))
    found = value(
        ThresholdWeightedCRPS(Above(climate)), forecast, truth, references={climate: fields}
    )
    for place in range(2):
        limit = fields[:, place]
        expected = value(CRPS(), np.maximum(forecast, limit), np.maximum(truth, limit))
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-10, atol=1e-12)


def test_a_rare_event_keeps_its_digits_in_float32():
    rng = np.random.default_rng(2)
    forecast = (280 + 2 * rng.standard_normal((1000, 40))).astype(np.float32)
    truth = (280 + 2 * rng.standard_normal(40)).astype(np.float32)
    for weight, low, high in ((Above, 285.5, np.inf), (Below, -np.inf, 274.5)):
        limit = high if weight is Below else low
        found = value(ThresholdWeightedCRPS(weight(Constants((limit,)))), forecast, truth)[:, 0]
        expected = scoringrules.twcrps_ensemble(
            truth.astype(float), forecast.T.astype(float), low, high, estimator="pwm",
            backend="numpy",
        )  # fmt: skip
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


@each_weight
@pytest.mark.parametrize("kind", ["continuous", "zero_inflated"])
@pytest.mark.parametrize("members", [1, 2, 40])
def test_outcome_weighted_is_that_of_scoringrules(weight, kind, members):
    forecast, truth = sample(members, kind)
    found = value(OutcomeWeightedCRPS(weight, STANDARD), forecast, truth)
    for place, (low, high) in enumerate(ends(weight)):

        def inside(x, low=low, high=high):
            return ((x > low) & (x <= high)).astype(float)

        some = inside(forecast).any(axis=0)
        expected = scoringrules.owcrps_ensemble(
            truth[some], forecast.T[some], w_func=inside, backend="numpy"
        )
        np.testing.assert_allclose(found[some, place], expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(np.isnan(found[:, place]), ~some & (inside(truth) > 0))


@each_weight
def test_fair_outcome_weighted_is_the_fair_crps_of_the_members_within(weight):
    forecast, truth = sample(25, "tied")
    found = value(OutcomeWeightedCRPS(weight), forecast, truth)
    for place, (low, high) in enumerate(ends(weight)):
        for cell, outcome in enumerate(truth):
            column = forecast[:, cell]
            within = column[(column > low) & (column <= high)]
            if not low < outcome <= high:
                assert found[cell, place] == 0
            elif within.size < 2:
                assert np.isnan(found[cell, place])
            else:
                expected = value(CRPS(), within[:, None], truth[cell, None])[0]
                assert found[cell, place] == pytest.approx(expected, rel=1e-10, abs=1e-12)


@each_weight
def test_true_counts_are_used_where_members_are_missing(weight):
    forecast, truth = sample(30)
    gaps = forecast.copy()
    gaps[np.random.default_rng(5).random(gaps.shape) < 0.3] = np.nan
    gaps[:, 4] = np.nan
    for statistic in (ThresholdWeightedCRPS(weight), OutcomeWeightedCRPS(weight, STANDARD)):
        found = value(statistic, gaps, truth, missing=OMIT)
        assert np.isnan(found[4]).all()
        for cell in (0, 10, 49):
            column = gaps[~np.isnan(gaps[:, cell]), cell][:, None]
            expected = value(statistic, column, truth[cell, None])[0]
            np.testing.assert_allclose(found[cell], expected, rtol=1e-12, atol=1e-12)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="2 lower thresholds do not fit 1 upper"):
        Between(Constants((0.0, 1.0)), Constants((2.0,)))
    with pytest.raises(InputError, match=r"lower threshold must not lie above .* 3 to 2"):
        Between(Constants((1.0, 3.0)), Constants((2.0, 2.0)))
    Between(Reference("high", (0.9,)), Constants((2.0,)))  # only cells can tell
    with pytest.raises(InputError, match="thresholds must be finite"):
        Constants((0.0, np.inf))
    with pytest.raises(InputError, match="thresholds must be finite"):
        Constants(())
    with pytest.raises(InputError, match=r"must increase within \[0, 1\]"):
        Reference("climate", (0.5, 1.5))
    forecast, truth = sample(5)
    with pytest.raises(InputError, match="no stratified estimator"):
        value(OutcomeWeightedCRPS(Above(Constants((0.0,))), STRATIFIED), forecast, truth)
