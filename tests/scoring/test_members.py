from itertools import combinations

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from scoring.members import (
    BestMemberError,
    ExpectedOutlier,
    Gain,
    closest_member,
    expected_best_member_error,
    expected_gain,
    expected_outlier_rate,
)
from scoring.rank import Outlier
from scoring.statistic import OMIT, evaluate_arrays

SIZES = (1, 3, 6)


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """(member 6, cell 40) with ties, and (cell,)."""
    rng = np.random.default_rng(0)
    return np.round(rng.normal(size=(6, 40)), 1), np.round(rng.normal(size=40), 1)


def value(statistic, forecast, truth, **options):
    return evaluate_arrays((statistic,), forecast, truth, **options)[statistic]


def over_subsets(of_subset, size: int) -> np.ndarray:
    """Mean over all ensembles of some size that can be drawn."""
    forecast, _ = arrays()
    return np.mean([of_subset(forecast[list(some)]) for some in combinations(range(6), size)], 0)


def test_expected_outlier_is_the_mean_over_all_smaller_ensembles():
    forecast, truth = arrays()
    found = value(ExpectedOutlier(SIZES), forecast, truth)
    for place, size in enumerate(SIZES):
        expected = over_subsets(lambda some: (some < truth).all(0) | (some > truth).all(0), size)
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-12)
    np.testing.assert_array_equal(found[:, -1], value(Outlier(), forecast, truth))


def test_best_member_error_is_the_mean_over_all_smaller_ensembles():
    forecast, truth = arrays()
    found = value(BestMemberError(SIZES), forecast, truth)
    for place, size in enumerate(SIZES):
        expected = over_subsets(lambda some: np.abs(some - truth).min(0), size)
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-12, atol=1e-15)


def test_gain_is_the_reach_of_the_extremes_in_standard_deviations():
    forecast, truth = arrays()
    mean, spread = forecast.mean(0), forecast.std(0, ddof=1)
    expected = np.maximum(forecast.max(0) - mean, mean - forecast.min(0)) / spread
    np.testing.assert_allclose(value(Gain(), forecast, truth), expected, rtol=1e-11)
    np.testing.assert_allclose(value(Gain(), 7 * forecast - 30, truth), expected, rtol=1e-11)
    assert value(Gain(), np.full((6, 3), 2.5), np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("statistic", [ExpectedOutlier(SIZES), BestMemberError(SIZES), Gain()])
def test_missing_members_are_propagated_or_left_out(statistic):
    forecast, truth = np.tile(arrays()[0], (2, 1)), arrays()[1]
    forecast[4, :5] = np.nan
    assert np.isnan(value(statistic, forecast, truth)[:5]).all()
    found = value(statistic, forecast, truth, missing=OMIT)
    without = value(statistic, np.delete(forecast, 4, 0), truth)
    np.testing.assert_allclose(found[:5], without[:5], rtol=1e-12)


def test_more_members_than_there_are_cannot_be_drawn():
    forecast, truth = arrays()
    with pytest.raises(InputError, match="needs at least 7 members, found 6"):
        value(BestMemberError((2, 7)), forecast, truth)
    with pytest.raises(InputError, match="sizes of ensembles"):
        ExpectedOutlier((0, 2))


@pytest.fixture(scope="module")
def calibrated() -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(1).standard_normal((31, 30_000))
    return 5 + 3 * drawn[:30], 5 + 3 * drawn[30]


def test_null_values_are_those_of_a_calibrated_ensemble(calibrated):
    sizes = (1, 5, 30)
    outlier = value(ExpectedOutlier(sizes), *calibrated)
    best = value(BestMemberError(sizes), *calibrated) / 3
    for place, size in enumerate(sizes):
        for found, expected in (
            (outlier[:, place], expected_outlier_rate(size)),
            (best[:, place], expected_best_member_error(size)),
        ):
            error = found.std() / np.sqrt(found.size)
            assert found.mean() == pytest.approx(expected, abs=3.5 * error + 1e-12)
    gain = value(Gain(), *calibrated)
    assert gain.mean() == pytest.approx(expected_gain(30), abs=3 * gain.std() / np.sqrt(30_000))


def test_null_values_in_closed_form():
    assert expected_best_member_error(1) == pytest.approx(2 / np.sqrt(np.pi), rel=1e-10)
    assert expected_gain(2) == pytest.approx(1 / np.sqrt(2), rel=1e-12)
    # Three residuals are a vector of random direction in a plane.
    assert expected_gain(3) == pytest.approx(np.sqrt(4 / 3) * 3 / np.pi, rel=1e-5)
    assert [round(expected_gain(members), 2) for members in (50, 7424)] == [2.50, 3.95]
    with pytest.raises(InputError, match="at least 2 members"):
        expected_gain(1)


def labelled() -> tuple[xr.DataArray, xr.DataArray]:
    forecast, truth = arrays()
    members = xr.DataArray(forecast, {"number": np.arange(6) + 1}, ("number", "x"))
    checkpoints = np.array(["a", "b", "a", "a", "b", "c"])
    return members.assign_coords(checkpoint=("number", checkpoints)), xr.DataArray(truth, dims="x")


def test_closest_member_is_the_closest_and_ties_share():
    forecast, truth = labelled()
    found = closest_member(forecast, truth)
    assert found.dims == ("x", "number")
    distance = np.abs(forecast - truth).transpose("x", "number").values
    for row, distances in zip(found.values, distance, strict=True):
        winners = distances == distances.min()
        np.testing.assert_allclose(row, winners / winners.sum())
    np.testing.assert_allclose(found.expected, 1 / 6)
    np.testing.assert_array_equal(found.number, np.arange(6) + 1)


def test_closest_checkpoint_adds_up_its_members():
    forecast, truth = labelled()
    found = closest_member(forecast, truth, by="checkpoint")
    each = closest_member(forecast, truth).groupby(forecast.checkpoint).sum()
    np.testing.assert_allclose(found, each.transpose("x", "checkpoint"), atol=1e-15)
    np.testing.assert_allclose(found.expected, [3 / 6, 2 / 6, 1 / 6])


def test_closest_member_of_a_calibrated_ensemble_is_each_as_often(calibrated):
    forecast = xr.DataArray(calibrated[0], dims=("number", "x"))
    found = closest_member(forecast, xr.DataArray(calibrated[1], dims="x")).mean("x")
    np.testing.assert_allclose(found, found.expected, rtol=0.15)


def test_closest_member_is_missing_where_one_is():
    forecast, truth = labelled()
    forecast[2, 3], truth[5] = np.nan, np.nan
    found = closest_member(forecast, truth, by="checkpoint")
    assert np.isnan(found[[3, 5]]).all()
    assert np.isnan(found).sum() == 6
    forecast[2, 4], forecast[1, 6], truth[6], truth[7] = np.inf, -np.inf, -np.inf, np.inf
    found = closest_member(forecast, truth)
    assert np.isnan(found[3:8]).all()
    assert np.isnan(found).sum() == 30
    with pytest.raises(InputError, match="no coordinate 'model' along number"):
        closest_member(forecast, truth, by="model")
