import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from scoring.events import JointDistribution, joint_distribution
from scoring.statistic import evaluate
from scoring.sums import Sums, merge
from scoring.thresholds import Constants, Reference

THRESHOLDS = (0.0, 0.8)


def ensemble(members: int = 8, dates: int = 6, cells: int = 50) -> tuple[xr.DataArray, ...]:
    """Zero-inflated, so that members and truth tie with the threshold."""
    rng = np.random.default_rng(members)
    centre = rng.standard_normal((dates, 1, cells))
    drawn = np.maximum(centre + rng.standard_normal((dates, members + 1, cells)), 0)
    drawn = xr.DataArray(drawn, {"init_time": np.arange(dates)}, ("init_time", "number", "x"))
    return drawn.isel(number=slice(1, None)), drawn.isel(number=0)


def test_table_is_that_of_counting():
    forecast, truth = ensemble()
    statistic = JointDistribution(Constants(THRESHOLDS), 8)
    table = statistic(forecast, truth).sum(("init_time", "x"))
    assert table.dims == ("threshold", "event", "probability")
    for threshold in THRESHOLDS:
        count = (forecast > threshold).sum("number")
        for event in (0, 1):
            chosen = count.values[(truth > threshold).values == event]
            np.testing.assert_array_equal(
                table.sel(threshold=threshold, event=event), np.bincount(chosen, minlength=9)
            )


def test_table_in_single_precision_counts_ties_as_not_exceeded():
    forecast = xr.DataArray(np.array([[0.1], [0.2]], np.float32), dims=("number", "x"))
    truth = xr.DataArray(np.array([0.1], np.float32), dims="x")
    table = JointDistribution(Constants((0.1,)), 2)(forecast, truth).squeeze(drop=True)
    assert float(table.sel(event=0, probability=0.5)) == 1


def test_ensembles_of_different_size_merge_on_a_common_step():
    statistic = JointDistribution(Constants(THRESHOLDS), 24)
    parts = []
    for members in (8, 3):
        values = evaluate((statistic,), *ensemble(members))
        weights = xr.ones_like(values.x, float)
        parts.append(Sums.of(values, weights, ("init_time", "x")).label({"init_time": members}))
    table = merge(parts).mean(statistic.key)
    used = table.probability.values[(table > 0).any(("threshold", "event"))]
    expected = np.union1d(np.arange(9) / 8, np.arange(4) / 3)
    assert np.isin(np.round(used, 12), np.round(expected, 12)).all()
    np.testing.assert_allclose(table.sum(("event", "probability")), 1.0, rtol=1e-14)


def test_thresholds_may_be_those_of_a_climatology():
    forecast, truth = ensemble()
    upper = xr.DataArray(np.linspace(0.1, 1.5, 50)[:, None], {"quantile": [0.9]}, ("x", "quantile"))
    upper[3] = np.nan
    statistic = JointDistribution(Reference("climate", (0.9,)), 8)
    found = evaluate((statistic,), forecast, truth, references={"climate": upper})
    table = found[statistic.key].isel(climate_quantile=0)
    assert np.isnan(table.isel(x=3)).all()
    level = upper.isel(quantile=0, drop=True)
    plain = JointDistribution(Constants((0.0,)), 8)(forecast - level, truth - level)
    known = np.arange(50) != 3
    np.testing.assert_array_equal(table.isel(x=known), plain.isel(threshold=0, x=known))


def test_any_number_of_members_and_steps_finds_its_step():
    members = 50_000
    forecast = xr.DataArray(np.arange(members) < 0.05 * members, dims="number").astype(np.float32)
    found = JointDistribution(Constants((-0.5, 0.5)), members)(1 - forecast, xr.DataArray(1.0))
    assert found.isel(event=1).argmax("probability").values.tolist() == [members, 47_500]


def test_probabilities_go_to_the_nearest_step():
    forecast = xr.DataArray(np.arange(7.0)[:, None], dims=("number", "x"))
    truth = xr.DataArray([9.0], dims="x")
    found = [
        int(JointDistribution(Constants((6.5 - k,)), 3)(forecast, truth).values[0, 0, 1].argmax())
        for k in range(8)
    ]
    assert found == [0, 0, 1, 1, 2, 2, 3, 3]


def test_joint_distribution_of_any_probabilities_is_that_of_the_members():
    forecast, truth = ensemble()
    table = JointDistribution(Constants((0.8,)), 8)(forecast, truth).mean(("init_time", "x"))
    probability = (forecast > 0.8).mean("number")
    joint = joint_distribution(probability, truth > 0.8)
    expected = table.squeeze("threshold", drop=True).sel(probability=joint.probability)
    np.testing.assert_allclose(joint, expected, rtol=1e-13, atol=1e-16)


def test_a_case_without_probability_or_with_weight_zero_is_left_out():
    probability = xr.DataArray([0.2, np.nan, 0.2, 0.7], dims="x")
    event = xr.DataArray([True, True, False, True], dims="x")
    weights = xr.DataArray([3.0, 1.0, 1.0, 0.0], dims="x")
    joint = joint_distribution(probability, event, weights)
    np.testing.assert_allclose(joint, [[0.25, 0.0], [0.75, 0.0]])


def test_what_is_no_probability_or_event_is_refused():
    with pytest.raises(InputError, match="at least one step"):
        JointDistribution(Constants((0.0,)), 0)
    with pytest.raises(InputError, match=r"reach from 0\.5 to 1\.5"):
        joint_distribution(xr.DataArray([0.5, 1.5]), xr.DataArray([True, False]))
