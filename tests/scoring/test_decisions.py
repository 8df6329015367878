import numpy as np
import pytest
import xarray as xr
import xskillscore
from scores import probability as peer

from data.errors import InputError
from scoring.decisions import (
    relative_economic_value,
    relative_economic_value_score,
    roc_area,
    roc_area_score,
    roc_curve,
)
from scoring.events import JointDistribution, joint_distribution
from scoring.statistic import evaluate
from scoring.sums import Sums
from scoring.thresholds import Constants

RATIOS = (0.05, 0.2, 0.35, 0.5, 0.9)


def cases(skill: float, count: int = 300, seed: int = 2) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal(count)
    probability = np.round(1 / (1 + np.exp(-skill * signal)), 1)
    event = signal + rng.standard_normal(count) > 0.5
    return xr.DataArray(probability, dims="x"), xr.DataArray(event, dims="x")


def test_area_is_that_of_xskillscore_and_of_comparing_every_pair():
    probability, event = cases(2.0)
    area = roc_area(joint_distribution(probability, event))
    yes, no = probability.values[event], probability.values[~event]
    pairs = np.sign(yes[:, None] - no)
    np.testing.assert_allclose(area, (1 + pairs.mean()) / 2, rtol=1e-13)
    expected = xskillscore.roc(event.astype(int), probability, "continuous", "x")
    np.testing.assert_allclose(area, expected, rtol=1e-12)


def test_area_and_value_are_those_of_scores():
    probability, event = cases(2.0)
    joint, observed = joint_distribution(probability, event), event.astype(float)
    np.testing.assert_allclose(roc_area(joint), peer.roc_auc(probability, observed), rtol=1e-12)
    value = relative_economic_value(joint, RATIOS)
    actions = value.action.values[:-1]
    expected = peer.relative_economic_value(
        probability, observed, cost_loss_ratios=list(RATIOS), probability_thresholds=list(actions)
    )
    expected = expected.rename(probability_threshold="action").transpose("action", ...)
    np.testing.assert_allclose(value.sel(action=actions), expected, atol=1e-12)


def test_rates_are_those_of_acting_at_each_probability():
    probability, event = cases(2.0)
    curve = roc_curve(joint_distribution(probability, event))
    for action in curve.action.values:
        act = probability >= action
        assert float(curve.hit_rate.sel(action=action)) == pytest.approx(act[event].mean().item())
        alarm = act[~event].mean().item()
        assert float(curve.false_alarm_rate.sel(action=action)) == pytest.approx(alarm)
    assert np.isinf(curve.action[-1])
    assert float(curve.hit_rate[-1]) == 0


def test_area_of_a_random_forecast_is_one_half_and_of_a_perfect_one_is_one():
    rng = np.random.default_rng(3)
    probability = xr.DataArray(rng.random(20_000), dims="x")
    event = xr.DataArray(rng.random(20_000) < 0.3, dims="x")
    assert float(roc_area(joint_distribution(probability, event))) == pytest.approx(0.5, abs=0.01)
    constant = xr.full_like(probability, 0.3)
    assert float(roc_area(joint_distribution(constant, event))) == pytest.approx(0.5, abs=1e-14)
    perfect = joint_distribution(event.astype(float), event)
    assert float(roc_area(perfect)) == pytest.approx(1.0, abs=1e-14)


def test_value_is_the_saving_in_expense_by_its_definition():
    probability, event = cases(2.0)
    value = relative_economic_value(joint_distribution(probability, event), RATIOS)
    base = float(event.mean())
    for ratio in RATIOS:
        climate, perfect = min(ratio, base), base * ratio
        for action in value.action.values:
            act = probability >= action
            expense = (ratio * act + (event & ~act)).mean().item()  # in units of the loss
            expected = (climate - expense) / (climate - perfect)
            found = value.sel(action=action, cost_loss_ratio=ratio).item()
            assert found == pytest.approx(expected, abs=1e-12)


def test_value_of_a_perfect_forecast_is_one_and_of_climatology_zero():
    _, event = cases(2.0)
    perfect = joint_distribution(event.astype(float), event)
    best = relative_economic_value(perfect, RATIOS).max("action")
    np.testing.assert_allclose(best, 1.0, rtol=1e-13)
    climate = joint_distribution(xr.full_like(event, event.mean().item(), float), event)
    best = relative_economic_value(climate, RATIOS).max("action")
    np.testing.assert_allclose(best, 0.0, atol=1e-13)


def test_largest_value_is_at_the_base_rate_and_is_the_peirce_score():
    probability, event = cases(2.0)
    joint = joint_distribution(probability, event)
    curve = roc_curve(joint)
    value = relative_economic_value(joint, [event.mean().item()]).squeeze("cost_loss_ratio")
    np.testing.assert_allclose(value, curve.hit_rate - curve.false_alarm_rate, atol=1e-13)


def test_scores_come_from_sums_of_each_threshold():
    rng = np.random.default_rng(5)
    forecast = xr.DataArray(rng.normal(size=(9, 200)), dims=("number", "x"))
    truth = forecast.mean("number") + xr.DataArray(rng.normal(size=200), dims="x")
    statistic = JointDistribution(Constants((0.0, 0.5, 99.0)), 9)
    values = evaluate((statistic,), forecast, truth)
    sums = Sums.of(values, xr.ones_like(values.x, float), ("x",))
    area = roc_area_score(statistic).of(sums)
    value = relative_economic_value_score(statistic, RATIOS).of(sums)
    assert value.dims == ("threshold", "cost_loss_ratio")
    for place, threshold in enumerate(statistic.thresholds.values[:2]):
        joint = joint_distribution((forecast > threshold).mean("number"), truth > threshold)
        np.testing.assert_allclose(area[place], roc_area(joint), rtol=1e-13)
        expected = relative_economic_value(joint, RATIOS).max("action")
        np.testing.assert_allclose(value[place], expected, atol=1e-13)
    assert np.isnan(area[2])
    assert np.isnan(value[2]).all()


def test_ratios_outside_zero_and_one_are_refused():
    with pytest.raises(InputError, match="cost-loss ratios must lie within"):
        relative_economic_value(joint_distribution(*cases(1.0)), (0.0, 0.5))
