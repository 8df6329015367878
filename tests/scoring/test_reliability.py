from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
import xskillscore
from scipy import optimize

from data.errors import InputError
from data.key import Key
from scoring.calibration.isotonic import isotonic_regression
from scoring.events import JointDistribution, joint_distribution
from scoring.reliability import (
    consistency_band,
    corp_decomposition,
    discrimination,
    miscalibration,
    murphy_decomposition,
    reliability_diagram,
    uncertainty,
)
from scoring.statistic import evaluate
from scoring.sums import Sums, merge
from scoring.thresholds import Constants


def cases(count: int = 400, steps: int = 10, seed: int = 3) -> tuple[xr.DataArray, xr.DataArray]:
    """Overconfident probabilities and events."""
    rng = np.random.default_rng(seed)
    probability = rng.integers(0, steps + 1, count) / steps
    event = rng.random(count) < 0.2 + 0.5 * probability
    return xr.DataArray(probability, dims="x"), xr.DataArray(event, dims="x")


def greatest_minorant(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Isotonic regression by its definition: max over a <= i of min over b >= i of the means."""
    count = values.size
    mean = np.full((count, count), np.nan)
    for a in range(count):
        for b in range(a, count):
            mean[a, b] = np.average(values[a : b + 1], weights=weights[a : b + 1])
    return np.array([max(np.min(mean[a, i:]) for a in range(i + 1)) for i in range(count)])


def test_isotonic_regression_is_its_definition_and_that_of_scipy():
    rng = np.random.default_rng(0)
    values, weights = np.round(rng.random((30, 12)), 1), rng.random((30, 12))
    fit = isotonic_regression(values, weights)
    for value, weight, row in zip(values, weights, fit, strict=True):
        np.testing.assert_allclose(row, greatest_minorant(value, weight), atol=1e-12)
        np.testing.assert_allclose(
            row, optimize.isotonic_regression(value, weights=weight).x, atol=1e-12
        )


def test_isotonic_regression_projects():
    rng = np.random.default_rng(1)
    values, weights = rng.random((40, 25)), rng.random((40, 25))
    fit = isotonic_regression(values, weights)
    assert (np.diff(fit, axis=1) >= -1e-15).all()
    np.testing.assert_allclose(isotonic_regression(fit, weights), fit, atol=1e-14)
    np.testing.assert_allclose((fit * weights).sum(1), (values * weights).sum(1), rtol=1e-13)
    np.testing.assert_allclose(
        -isotonic_regression(-fit[:, ::-1], weights[:, ::-1])[:, ::-1], fit, atol=1e-14
    )


def test_entries_without_weight_have_no_say():
    values = np.array([[np.nan, 0.4, 9.0, 0.2, np.nan, 0.8]])
    fit = isotonic_regression(values, np.array([0, 1, 0, 1, 0, 1.0]))
    np.testing.assert_allclose(fit, [[0.3, 0.3, 0.3, 0.3, 0.3, 0.8]])
    assert np.isnan(isotonic_regression(np.array([0.1, np.nan]), np.ones(2))).all()
    assert np.isnan(isotonic_regression(np.array([0.1, 0.2]), np.zeros(2))).all()


def test_diagram_by_probability_is_that_of_xskillscore():
    probability, event = cases(steps=4)
    found = reliability_diagram(joint_distribution(probability, event))
    edges = np.array([-0.1, 0.1, 0.3, 0.6, 0.9, 1.1])
    expected = xskillscore.reliability(event, probability, "x", edges)
    np.testing.assert_allclose(found.observed, expected, atol=1e-12)
    np.testing.assert_allclose(found.frequency * 400, expected.samples, atol=1e-10)


def test_corp_is_isotonic_regression_of_single_events_and_its_parts_add_up():
    probability, event = cases()
    joint = joint_distribution(probability, event)
    parts = corp_decomposition(joint)
    order = np.argsort(probability.values, kind="stable")
    p, y = probability.values[order], event.values[order].astype(float)
    blocks = [y[p == value] for value in np.unique(p)]
    means = np.array([block.mean() for block in blocks])
    fit = optimize.isotonic_regression(means, weights=[block.size for block in blocks]).x
    curve = fit[np.searchsorted(np.unique(p), p)]
    brier, recalibrated = ((p - y) ** 2).mean(), ((curve - y) ** 2).mean()
    reference = ((y.mean() - y) ** 2).mean()
    np.testing.assert_allclose(reliability_diagram(joint).calibrated, fit, atol=1e-12)
    np.testing.assert_allclose(parts.brier, brier, rtol=1e-12)
    np.testing.assert_allclose(parts.miscalibration, brier - recalibrated, atol=1e-12)
    np.testing.assert_allclose(parts.discrimination, reference - recalibrated, atol=1e-12)
    total = parts.miscalibration - parts.discrimination + parts.uncertainty
    np.testing.assert_allclose(total, parts.brier, rtol=1e-15)


def test_counts_and_shares_give_the_same_and_series_do_not_mix():
    joints = xr.concat([joint_distribution(*cases(seed=seed)) for seed in (3, 4)], "channel")
    whole = corp_decomposition(joints * 400)
    for number in range(2):
        xr.testing.assert_allclose(
            corp_decomposition(joints[number]), whole.isel(channel=number), rtol=1e-13
        )


def test_murphy_is_its_definition_and_corp_lies_within():
    probability, event = cases()
    joint = joint_distribution(probability, event)
    diagram, parts = reliability_diagram(joint), murphy_decomposition(joint)
    distance = (diagram.probability - diagram.observed) ** 2
    base = float(event.mean())
    np.testing.assert_allclose(parts.reliability, (diagram.frequency * distance).sum(), atol=1e-14)
    resolution = (diagram.frequency * (diagram.observed - base) ** 2).sum()
    np.testing.assert_allclose(parts.resolution, resolution, atol=1e-14)
    corp = corp_decomposition(joint)
    assert 0 <= corp.miscalibration <= parts.reliability
    assert 0 <= corp.discrimination <= parts.resolution


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_climatological_forecast_has_only_uncertainty_and_a_perfect_one_nothing(rate):
    event = xr.DataArray(np.arange(10) < 10 * rate, dims="x")
    climate = corp_decomposition(joint_distribution(xr.full_like(event, rate, float), event))
    np.testing.assert_allclose(climate.miscalibration, 0, atol=1e-15)
    np.testing.assert_allclose(climate.discrimination, 0, atol=1e-15)
    np.testing.assert_allclose(climate.uncertainty, rate * (1 - rate), atol=1e-15)
    perfect = corp_decomposition(joint_distribution(event.astype(float), event))
    np.testing.assert_allclose(perfect.brier, 0, atol=1e-15)
    np.testing.assert_allclose(perfect.discrimination, rate * (1 - rate), atol=1e-15)


def test_scores_come_from_merged_sums():
    rng = np.random.default_rng(5)
    forecast = xr.DataArray(rng.normal(size=(4, 7, 60)), dims=("init_time", "number", "x"))
    truth = xr.DataArray(rng.normal(size=(4, 60)), dims=("init_time", "x"))
    statistic = JointDistribution(Constants((0.0, 1.0)), 7)
    parts = []
    for date in range(4):
        values = evaluate((statistic,), forecast.isel(init_time=date), truth.isel(init_time=date))
        parts.append(Sums.of(values, xr.ones_like(values.x, float), ("x",)))
    parts = [part.label({"init_time": date}) for date, part in enumerate(parts)]
    sums = merge(parts)
    for place, threshold in enumerate(statistic.thresholds.values):
        joint = joint_distribution((forecast > threshold).mean("number"), truth > threshold)
        expected = corp_decomposition(joint)
        for score in (miscalibration, discrimination, uncertainty):
            found = score(statistic).of(sums)
            np.testing.assert_allclose(found[place], expected[found.name], atol=1e-13)
    assert "init_time" in miscalibration(statistic).of(sums, over=()).dims


def test_no_cases_are_no_diagram():
    joint = joint_distribution(*cases()) * 0
    assert np.isnan(corp_decomposition(joint).to_array()).all()
    assert np.isnan(reliability_diagram(joint).calibrated).all()
    assert np.isnan(consistency_band(joint, 10, Key(1)).lower).all()


def test_band_holds_the_curve_of_a_calibrated_forecast_as_often_as_it_says():
    rng = np.random.default_rng(6)
    count, inside, excess = 300, [], []
    for trial in range(60):
        probability = rng.integers(0, 6, count) / 5
        event = xr.DataArray(rng.random(count) < probability, dims="x")
        joint = joint_distribution(xr.DataArray(probability, dims="x"), event)
        band = consistency_band(joint, count, Key(7) / trial, level=0.8, resamples=100)
        curve = reliability_diagram(joint).calibrated[1:-1]  # 0 and 1 cannot be missed
        inside.append((curve >= band.lower[1:-1]) & (curve <= band.upper[1:-1]))
        excess.append(corp_decomposition(joint).miscalibration - band.miscalibration)
    assert np.mean(inside) == pytest.approx(0.8, abs=0.07)
    assert abs(np.mean(excess)) < 3 * np.std(excess) / np.sqrt(60)


def test_band_tells_an_overconfident_forecast_and_is_reproducible():
    probability, event = cases(4000)
    joint = joint_distribution(probability, event)
    band = consistency_band(joint, 4000, Key(1), resamples=100)
    curve = reliability_diagram(joint).calibrated
    assert curve[0] > band.upper[0]
    assert curve[-1] < band.lower[-1]
    xr.testing.assert_identical(band, consistency_band(joint, 4000, Key(1), resamples=100))
    wider = consistency_band(joint, 100, Key(1), resamples=100)
    assert (wider.upper - wider.lower >= band.upper - band.lower).all()
    for low, high in pairwise(band.lower.values):
        assert low <= high


def test_band_without_cases_is_refused():
    with pytest.raises(InputError, match="a band needs cases"):
        consistency_band(joint_distribution(*cases()), 0, Key(1))
