import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from scoring import crps, moments
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair, ExpectedCRPS, SubEnsemble
from scoring.decomposition import MemberIntervals
from scoring.events import JointDistribution
from scoring.extremes import DISCRETE, ExtremeForecastIndex, ShiftOfTails
from scoring.gaussian import GaussianCRPS
from scoring.intervals import IntervalScore, QuantileScore, WeightedIntervalScore
from scoring.members import BestMemberError, ExpectedOutlier, Gain, closest_member
from scoring.multivariate import EnergyScore
from scoring.probability import BrierScore, Exceedance, RankedProbabilityScore
from scoring.quantiles import LINEAR, IntervalHits, Quantiles, ensemble_quantiles
from scoring.rank import Outlier, Rank, RankHistogram
from scoring.score import rank_histogram
from scoring.statistic import OMIT, PROPAGATE, evaluate, evaluate_arrays
from scoring.thresholds import Constants, Reference
from scoring.tile import Structure, three_axes, tiles
from scoring.weighted import Above, Below, Between, OutcomeWeightedCRPS, ThresholdWeightedCRPS

THRESHOLDS = Constants((3.0, 5.0))
CLIMATE = Reference("climate", (0.0, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0))
QUANTILES = np.array([-3.0, 2.375, 3.625, 5.0, 7.625, 9.75, 13.0])
WIDE = Between(Constants((-1.0, 1.0)), Constants((9.0, 11.0)))
INTERVALS = Between(Constants((3.0, 4.0)), Constants((5.0, 4.5)))

STATISTICS = (
    CRPS(FAIR), CRPS(STANDARD), CRPS(STRATIFIED), CRPS(AlmostFair()), CRPS(SubEnsemble(4)),
    moments.EnsembleMean(), moments.MeanError(), moments.AbsoluteError(), moments.SquaredError(),
    moments.Variance(), moments.ExpectedSquaredError(), moments.UnbiasedSquaredError(),
    moments.AnomalyProduct(), moments.SquaredForecast(), moments.SquaredTruth(),
    moments.OfAreaMean(moments.Variance()), Rank(), Outlier(), RankHistogram(11), RankHistogram(7),
    Quantiles(), Quantiles((0.1, 0.5), LINEAR), IntervalHits(), IntervalHits((0.5,)),
    ExpectedCRPS((1, 5, 20)), Exceedance(THRESHOLDS), Exceedance(CLIMATE), BrierScore(THRESHOLDS),
    BrierScore(THRESHOLDS, STRATIFIED), BrierScore(CLIMATE, STANDARD),
    RankedProbabilityScore(THRESHOLDS), RankedProbabilityScore(CLIMATE, STANDARD),
    *(ThresholdWeightedCRPS(weight(THRESHOLDS)) for weight in (Above, Below)),
    ThresholdWeightedCRPS(Above(CLIMATE), STANDARD), ThresholdWeightedCRPS(INTERVALS),
    ThresholdWeightedCRPS(Below(THRESHOLDS), STRATIFIED), OutcomeWeightedCRPS(WIDE, STANDARD),
    OutcomeWeightedCRPS(Above(Constants((2.0,)))), OutcomeWeightedCRPS(Below(Constants((8.0,)))),
    ExtremeForecastIndex(CLIMATE), ExtremeForecastIndex(CLIMATE, DISCRETE), ShiftOfTails(CLIMATE),
    JointDistribution(THRESHOLDS, 10), JointDistribution(CLIMATE, 4), ExpectedOutlier((1, 4, 9)),
    BestMemberError((1, 4, 9)), Gain(), QuantileScore(), QuantileScore((0.1, 0.5), LINEAR),
    IntervalScore(), IntervalScore((0.5,), LINEAR), WeightedIntervalScore(), GaussianCRPS(),
)  # fmt: skip
each_statistic = pytest.mark.parametrize("statistic", STATISTICS, ids=lambda s: s.key)


def arrays(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(4, member 10, 5, 6) and (4, 5, 6), float64, with ties."""
    rng = np.random.default_rng(seed)
    forecast = np.round(rng.normal(5.0, 2.0, (4, 10, 5, 6)), 1)
    return forecast, np.round(rng.normal(5.0, 2.0, (4, 5, 6)), 1)


def value(statistic, forecast, truth, axis=1, **options):
    references = {
        reference: np.broadcast_to(
            QUANTILES[np.isin(CLIMATE.levels, reference.levels)],
            (*truth.shape, len(reference.levels)),
        )
        for reference in statistic.references
    }
    options = {"references": references} | options
    return evaluate_arrays((statistic,), forecast, truth, axis, **options)[statistic]


@each_statistic
def test_a_forecast_needs_its_dimension_of_members(statistic):
    forecast, truth = (xr.DataArray(array) for array in arrays())
    truth = truth.rename(dim_1="dim_2", dim_2="dim_3")
    beside = {"climate": xr.DataArray(QUANTILES, {"quantile": list(CLIMATE.levels)}, ("quantile",))}
    given = {"references": beside} if statistic.references else {}
    assert statistic(forecast, truth, "dim_1", **given).dims[:3] == truth.dims
    with pytest.raises(InputError, match="no dimension 'number' of members, found dim_0, dim_1, "):
        statistic(forecast, truth, **given)


def test_units_that_differ_are_refused():
    forecast, truth = (xr.DataArray(array) for array in arrays())
    truth = truth.rename(dim_1="dim_2", dim_2="dim_3")
    for units, others in (("K", "degC"), ("m", "m2 s-2")):
        known = forecast.assign_attrs(units=units), truth.assign_attrs(units=others)
        with pytest.raises(InputError, match=f"has units '{units}', the truth '{others}'"):
            CRPS()(*known, "dim_1")
    expected = CRPS()(forecast, truth, "dim_1")
    for units, others in (("m2 s-2", "m**2 s**-2"), ("K", None)):
        stated = {} if others is None else {"units": others}
        known = forecast.assign_attrs(units=units), truth.assign_attrs(stated)
        xr.testing.assert_equal(CRPS()(*known, "dim_1"), expected)


@each_statistic
def test_values_have_cells_then_labels(statistic):
    forecast, truth = arrays()
    labels = tuple(axis.size for axis in statistic.labels.values())
    values = value(statistic, forecast, truth)
    assert values.shape == (*truth.shape, *labels)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()


@each_statistic
def test_order_of_members_does_not_matter(statistic):
    forecast, truth = arrays()
    shuffled = forecast[:, np.random.default_rng(2).permutation(10)]
    expected = value(statistic, forecast, truth)
    np.testing.assert_allclose(value(statistic, shuffled, truth), expected, rtol=1e-12, atol=1e-12)


@each_statistic
def test_member_axis_may_be_anywhere(statistic):
    forecast, truth = arrays()
    expected = value(statistic, forecast, truth)
    for axis in (0, 2, 3, -1):
        moved = np.moveaxis(forecast, 1, axis)
        np.testing.assert_array_equal(value(statistic, moved, truth, axis), expected)


@each_statistic
def test_a_cell_does_not_depend_on_its_company(statistic):
    forecast, truth = arrays()
    expected = value(statistic, forecast, truth)
    alone = value(statistic, forecast[2:3, :, 1:2, 3:4], truth[2:3, 1:2, 3:4])
    np.testing.assert_allclose(alone[0, 0, 0], expected[2, 1, 3], rtol=1e-13, atol=1e-13)


@each_statistic
def test_threads_change_nothing(statistic):
    forecast, truth = arrays()
    expected = value(statistic, forecast, truth)
    np.testing.assert_array_equal(value(statistic, forecast, truth, threads=3), expected)


@each_statistic
def test_float32_agrees_with_float64(statistic):
    forecast, truth = (x.astype(np.float32) for x in arrays())
    exact = value(statistic, forecast.astype(float), truth.astype(float))
    single = value(statistic, forecast, truth)
    np.testing.assert_allclose(single, exact, rtol=1e-5, atol=1e-5)


@each_statistic
def test_missing_member_makes_its_cell_missing_and_no_other(statistic):
    forecast, truth = arrays()
    expected = value(statistic, forecast, truth)
    forecast[1, 4, 2, 3] = np.nan
    values = value(statistic, forecast, truth)
    assert np.isnan(values[1, 2, 3]).all()
    values[1, 2, 3] = expected[1, 2, 3]
    np.testing.assert_array_equal(values, expected)


@each_statistic
def test_omitting_a_missing_member_is_leaving_it_out(statistic):
    forecast, truth = arrays()
    without = value(statistic, np.delete(forecast, 4, axis=1), truth)
    forecast[:, 4] = np.nan
    values = value(statistic, forecast, truth, missing=OMIT)
    np.testing.assert_allclose(values, without, rtol=1e-12, atol=1e-12)


@each_statistic
def test_all_missing_is_missing_under_both_policies(statistic):
    forecast, truth = arrays()
    forecast[0] = np.nan
    for options in ({}, {"missing": OMIT}):
        assert np.isnan(value(statistic, forecast, truth, **options)[0]).all()


@each_statistic
def test_labelled_call_gives_the_same_numbers(statistic):
    forecast, truth = arrays()
    coordinates = {"y": np.arange(5) * 2.0}
    labelled = xr.DataArray(forecast, coordinates, ("time", "number", "y", "x"))
    observed = xr.DataArray(truth, coordinates, ("time", "y", "x")).transpose("x", "time", "y")
    climate = xr.DataArray(QUANTILES, {"quantile": list(CLIMATE.levels)}, "quantile")
    result = statistic(labelled, observed, references={"climate": climate})
    assert result.dims == ("time", "y", "x", *statistic.labels)
    np.testing.assert_array_equal(result, value(statistic, forecast, truth))


def test_keys_tell_all_parameters_apart():
    keys = [statistic.key for statistic in STATISTICS]
    assert len(set(keys)) == len(keys)
    assert CRPS(FAIR).key == "crps_fair"
    assert CRPS(AlmostFair(0.9)).key != CRPS(AlmostFair(0.95)).key
    many = Quantiles(tuple(np.linspace(0.01, 0.99, 99)))
    assert len(many.key) < 80
    assert many.key != Quantiles(tuple(np.linspace(0.02, 0.98, 99))).key


def test_statistics_are_equal_by_value():
    assert CRPS(AlmostFair(0.9)) == CRPS(AlmostFair(0.9))
    assert len({Quantiles((0.5,)), Quantiles((0.5,)), Quantiles((0.5,), LINEAR)}) == 2


def test_tiling_changes_nothing():
    forecast, truth = arrays()
    blocks, target = three_axes(forecast, 1), truth.reshape(4, 30)
    structure = Structure.independent(10)
    whole = evaluate_arrays((CRPS(),), forecast, truth, 1)[CRPS()].ravel()
    for size in (10, 70, 300, 650, 10_000):
        for place, tile in tiles(blocks, target, structure, tile_values=size):
            np.testing.assert_allclose(CRPS().of_tile(tile), whole[place], rtol=1e-13, atol=1e-14)


def test_structure_is_read_from_the_coordinates():
    forecast, truth = arrays()
    groups, pairs = np.repeat([0, 1], 5), np.array([-1, 0, 0, 1, 1] * 2)
    labelled = xr.DataArray(forecast, dims=("t", "number", "y", "x")).assign_coords(
        checkpoint=("number", groups), pair=("number", pairs)
    )
    result = CRPS(crps.STRATIFIED)(labelled, xr.DataArray(truth, dims=("t", "y", "x")))
    expected = value(CRPS(STRATIFIED), forecast, truth, structure=Structure(groups, pairs))
    np.testing.assert_array_equal(result, expected)


def test_structure_can_be_given_and_members_declared_independent():
    forecast, truth = arrays()
    members = xr.DataArray(forecast, dims=("t", "number", "y", "x"))
    observed = xr.DataArray(truth, dims=("t", "y", "x"))
    groups, pairs = np.repeat([0, 1], 5), np.array([-1, 0, 0, 1, 1] * 2)
    labelled = members.assign_coords(checkpoint=("number", groups), pair=("number", pairs))
    score, given = CRPS(crps.STRATIFIED), Structure(groups, pairs)
    read = score(labelled, observed)
    np.testing.assert_array_equal(score(members, observed, structure=given), read)
    alone = score(labelled, observed, structure=Structure.independent(10))
    np.testing.assert_allclose(alone, CRPS()(members, observed), rtol=1e-5)
    found = evaluate((score,), members, observed, structure=given)
    np.testing.assert_array_equal(found[score.key], read)
    with pytest.raises(InputError, match=r"pairs have shape \(9,\), expected \(10,\)"):
        score(members, observed, structure=Structure(groups, pairs[1:]))


def test_a_coordinate_of_one_member_dimension_alone_counts():
    forecast, truth = arrays()
    members = xr.DataArray(forecast, dims=("t", "number", "y", "x"))
    observed, score = xr.DataArray(truth, dims=("t", "y", "x")), CRPS(crps.STRATIFIED)
    pairs = np.array([-1, 0, 0, 1, 1, 2, 2, 3, 3, -1])
    paired = members.assign_coords(pair=("number", pairs))
    expected = score(paired, observed)
    # What is the same of all members of a cell does not take away what pairs say.
    for one in (3, ("t", np.arange(members.sizes["t"]))):
        np.testing.assert_array_equal(
            score(paired.assign_coords(checkpoint=one), observed), expected
        )
    tangled = np.zeros((members.sizes["t"], 10), int)
    with pytest.raises(InputError, match="coordinate 'checkpoint' has dimensions"):
        score(paired.assign_coords(checkpoint=(("t", "number"), tangled)), observed)


def test_truth_with_other_coordinates_is_refused():
    forecast, truth = arrays()
    labelled = xr.DataArray(forecast, {"x": np.arange(6)}, ("t", "number", "y", "x"))
    shifted = xr.DataArray(truth, {"x": np.arange(6) + 1}, ("t", "y", "x"))
    with pytest.raises(InputError, match="different coordinates"):
        evaluate((CRPS(),), labelled, shifted)
    with pytest.raises(InputError, match="truth has dimensions"):
        evaluate((CRPS(),), labelled, shifted.rename(x="longitude"))


def test_truth_of_another_shape_is_refused():
    forecast, truth = arrays()
    with pytest.raises(InputError, match="truth has shape"):
        value(CRPS(), forecast, truth[:3])


def test_no_members_are_refused():
    with pytest.raises(InputError, match="fair needs at least 2 members, found 0"):
        value(CRPS(), np.empty((0, 3)), np.zeros(3), 0)
    none = xr.DataArray(np.empty((0, 3)), dims=("number", "site"))
    truth = xr.DataArray(np.zeros(3), dims="site")
    for use in (
        lambda: evaluate((CRPS(),), none, truth),
        lambda: ensemble_quantiles(none),
        lambda: closest_member(none, truth),
        lambda: EnergyScore(("site",))(none, truth),
    ):
        with pytest.raises(InputError, match="no members: its dimension 'number' has length 0"):
            use()


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_one_are_refused(number):
    for make, what in (
        (SubEnsemble, "1 member or more"),
        (RankHistogram, "at least one bin"),
        (MemberIntervals, "between members"),
        (rank_histogram, "at least one bin"),
    ):
        with pytest.raises(InputError, match=f"{what}.*{number}"):
            make(number)
    forecast, truth = arrays()
    labelled = xr.DataArray(forecast, dims=("t", "number", "y", "x"))
    observed = xr.DataArray(truth, dims=("t", "y", "x"))
    with pytest.raises(InputError, match=f"threads must be at least 1, found {number}"):
        evaluate((CRPS(),), labelled, observed, threads=number)
    with pytest.raises(InputError, match=f"threads must be at least 1, found {number}"):
        evaluate_arrays((CRPS(),), forecast, truth, 1, threads=number)


def test_references_are_asked_for_by_name_and_level():
    forecast, truth = arrays()
    labelled = xr.DataArray(forecast, dims=("t", "number", "y", "x"))
    observed = xr.DataArray(truth, dims=("t", "y", "x"))
    statistic = Exceedance(Reference("era5", (0.5, 0.95)))
    with pytest.raises(InputError, match="no reference 'era5' was given"):
        statistic(labelled, observed)
    climate = xr.DataArray([1.0, 2.0], {"quantile": [0.5, 0.9]}, "quantile")
    with pytest.raises(InputError, match=r"reference 'era5' has no quantiles at \[0\.95\]"):
        statistic(labelled, observed, references={"era5": climate})
    with pytest.raises(InputError, match="has no dimension quantile"):
        statistic(labelled, observed, references={"era5": climate[0]})
    with pytest.raises(InputError, match="needs the reference 'era5'"):
        evaluate_arrays((statistic,), forecast, truth, 1)


def test_reference_may_lack_dimensions_and_have_them_in_any_order():
    forecast, truth = arrays()
    fields = np.sort(np.random.default_rng(3).normal(5, 2, (6, 3, 5)), axis=1)
    climate = xr.DataArray(fields, {"quantile": [0.1, 0.5, 0.9]}, ("x", "quantile", "y"))
    statistic = Exceedance(Reference("era5", (0.5, 0.9)))
    found = statistic(
        xr.DataArray(forecast, dims=("t", "number", "y", "x")),
        xr.DataArray(truth, dims=("t", "y", "x")), references={"era5": climate},
    )  # fmt: skip
    expected = (forecast[..., None] > fields[:, 1:].transpose(2, 0, 1)).mean(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_statistics_that_label_an_axis_differently_are_refused_together():
    forecast, truth = arrays()
    labelled = xr.DataArray(forecast, dims=("t", "number", "y", "x"))
    observed = xr.DataArray(truth, dims=("t", "y", "x"))
    statistics = (Exceedance(Constants((1.0,))), Exceedance(Constants((2.0,))))
    with pytest.raises(InputError, match="different values of threshold: evaluate them apart"):
        evaluate(statistics, labelled, observed)


def test_omitting_keeps_who_depends_on_whom():
    forecast, truth = arrays()
    structure = Structure(np.repeat([0, 1], 5), np.array([-1, 0, 0, 1, 1] * 2))
    gone = {1: [0, 6], 2: [1, 7], 3: [5, 9]}  # as many, but not the same ones
    gaps = forecast.copy()
    for time, members in gone.items():
        gaps[time, members] = np.nan
    for statistic in (CRPS(STRATIFIED), ThresholdWeightedCRPS(Above(THRESHOLDS), STRATIFIED)):
        found = value(statistic, gaps, truth, structure=structure, missing=OMIT)
        for time in range(4):
            kept = np.delete(np.arange(10), gone.get(time, []))
            smaller = Structure(structure.groups[kept], structure.pairs[kept])
            expected = value(
                statistic, forecast[time : time + 1, kept], truth[time : time + 1],
                structure=smaller,
            )  # fmt: skip
            np.testing.assert_allclose(found[time], expected[0], rtol=1e-12, atol=1e-12)


def test_a_cell_where_only_a_pair_is_left_has_no_stratified_score():
    forecast, truth = arrays()
    structure = Structure(np.zeros(10, int), np.array([-1, -1, 0, 0, 1, 1, 2, 2, 3, 3]))
    expected = value(CRPS(STRATIFIED), forecast, truth, structure=structure)
    gaps = forecast.copy()
    gaps[1, [0, 1, 4, 5, 6, 7, 8, 9]] = np.nan
    found = value(CRPS(STRATIFIED), gaps, truth, structure=structure, missing=OMIT)
    assert np.isnan(found[1]).all()
    kept = [0, 2, 3]
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-12)
    paired = Structure(np.zeros(2, int), np.zeros(2, int))
    with pytest.raises(InputError, match="two independent members"):
        value(CRPS(STRATIFIED), forecast[:, 2:4], truth, structure=paired)


@pytest.mark.parametrize("missing", [PROPAGATE, OMIT], ids=["propagate", "omit"])
@each_statistic
def test_a_missing_reference_makes_its_cell_missing(statistic, missing):
    forecast, truth = arrays()
    holes = {}
    for reference in statistic.references:
        holes[reference] = np.tile(
            QUANTILES[np.isin(CLIMATE.levels, reference.levels)], (*truth.shape, 1)
        )
        holes[reference][1, 2, 3] = np.nan
    found = value(statistic, forecast, truth, references=holes, missing=missing)
    expected = value(statistic, forecast, truth)
    if statistic.references:
        assert np.isnan(found[1, 2, 3]).all()
        found[1, 2, 3] = expected[1, 2, 3]
    np.testing.assert_array_equal(found, expected)


def test_common_slips_are_one_clear_error():
    forecast = xr.DataArray(np.zeros((3, 2)), dims=("number", "x"))
    truth = xr.DataArray(np.zeros(2), dims="x")
    with pytest.raises(InputError, match="`missing` is PROPAGATE or OMIT"):
        evaluate((CRPS(),), forecast, truth, missing="omit")
    with pytest.raises(InputError, match=r"`statistics` is a sequence such as \(CRPS\(\),\)"):
        evaluate(CRPS(), forecast, truth)
    with pytest.raises(
        InputError, match=r"the forecast is a ndarray, expected an xarray\.DataArray"
    ):
        evaluate((CRPS(),), forecast.values, truth)
    with pytest.raises(InputError, match="the truth is a ndarray"):
        evaluate((CRPS(),), forecast, truth.values)
