import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from scoring import crps, moments
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair, SubEnsemble
from scoring.quantiles import LINEAR, IntervalHits, Quantiles
from scoring.rank import Outlier, Rank, RankHistogram
from scoring.statistic import OMIT, evaluate, evaluate_arrays
from scoring.tile import Structure, three_axes, tiles

STATISTICS = (
    CRPS(FAIR), CRPS(STANDARD), CRPS(STRATIFIED), CRPS(AlmostFair()), CRPS(SubEnsemble(4)),
    moments.EnsembleMean(), moments.MeanError(), moments.AbsoluteError(), moments.SquaredError(),
    moments.Variance(), moments.ExpectedSquaredError(), moments.UnbiasedSquaredError(),
    moments.AnomalyProduct(), moments.SquaredForecast(), moments.SquaredTruth(),
    moments.OfAreaMean(moments.Variance()), Rank(), Outlier(), RankHistogram(11), RankHistogram(7),
    Quantiles(), Quantiles((0.1, 0.5), LINEAR), IntervalHits(), IntervalHits((0.5,)),
)  # fmt: skip
each_statistic = pytest.mark.parametrize("statistic", STATISTICS, ids=lambda s: s.key)


def arrays(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(4, member 10, 5, 6) and (4, 5, 6), float64, with ties."""
    rng = np.random.default_rng(seed)
    forecast = np.round(rng.normal(5.0, 2.0, (4, 10, 5, 6)), 1)
    return forecast, np.round(rng.normal(5.0, 2.0, (4, 5, 6)), 1)


def value(statistic, forecast, truth, axis=1, **options):
    return evaluate_arrays((statistic,), forecast, truth, axis, **options)[statistic]


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
    result = statistic(labelled, observed)
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
