import numpy as np
import properscoring
import pytest
import xarray as xr

from data.errors import InputError
from scoring.decomposition import (
    MemberIntervals,
    crps_potential,
    crps_reliability,
    uncertainty,
)
from scoring.statistic import OMIT, evaluate, evaluate_arrays
from scoring.sums import Sums


def draws(members: int, cases: int, spread: float = 1.0, seed: int = 0):
    """Members, (number, case), and truth, (case,): exchangeable where spread is 1."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 2, cases)
    forecast = centre + spread * rng.standard_normal((members, cases))
    truth = centre + rng.standard_normal(cases)
    return xr.DataArray(forecast, dims=("number", "case")), xr.DataArray(truth, dims="case")


def sums_of(forecast, truth, weights=None) -> Sums:
    values = evaluate((MemberIntervals(forecast.sizes["number"]),), forecast, truth)
    return Sums.of(values, xr.ones_like(truth) if weights is None else weights, ("case",))


def hersbach(forecast: np.ndarray, truth: np.ndarray, weights: np.ndarray):
    """Reliability and potential CRPS, straight from the paper's equations 26 to 37."""
    members = len(forecast)
    x, y, w = np.sort(forecast, axis=0), truth, weights / weights.sum()
    reliability = potential = 0.0
    for i in range(members + 1):
        p = i / members
        if i == 0:
            o = (w * (y < x[0])).sum()
            g = (w * np.maximum(x[0] - y, 0)).sum() / o if o else 0.0
        elif i == members:
            o = (w * (y <= x[-1])).sum()
            g = (w * np.maximum(y - x[-1], 0)).sum() / (1 - o) if o < 1 else 0.0
        else:
            alpha = np.clip(y, x[i - 1], x[i]) - x[i - 1]
            beta = x[i] - np.clip(y, x[i - 1], x[i])
            g = (w * (alpha + beta)).sum()
            o = (w * beta).sum() / g if g else 0.0
        reliability += g * (o - p) ** 2
        potential += g * o * (1 - o)
    return reliability, potential


@pytest.mark.parametrize("members", [1, 2, 10, 51])
@pytest.mark.parametrize("tied", [False, True])
def test_parts_are_those_of_the_paper_and_add_up_to_the_standard_crps(members, tied):
    forecast, truth = draws(members, 300, spread=0.7)
    if tied:
        forecast, truth = forecast.round(), truth.round()
    weights = xr.DataArray(np.random.default_rng(1).random(300), dims="case")
    sums = sums_of(forecast, truth, weights)
    found = crps_reliability(members).of(sums), crps_potential(members).of(sums)
    expected = hersbach(forecast.values, truth.values, weights.values)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)
    whole = properscoring.crps_ensemble(truth.values, forecast.values.T)
    assert float(sum(found)) == pytest.approx(np.average(whole, weights=weights), rel=1e-10)


def test_parts_are_those_of_merged_samples():
    forecast, truth = draws(9, 200)
    halves = [sums_of(*(array.isel(case=half) for array in (forecast, truth)))
              for half in (slice(0, 70), slice(70, 200))]  # fmt: skip
    merged, whole = halves[0] + halves[1], sums_of(forecast, truth)
    for score in (crps_reliability(9), crps_potential(9)):
        assert float(score.of(merged)) == pytest.approx(float(score.of(whole)), rel=1e-12)


def test_exchangeable_members_are_reliable_and_too_narrow_ones_are_not():
    good = float(crps_reliability(20).of(sums_of(*draws(20, 50_000))))
    narrow = float(crps_reliability(20).of(sums_of(*draws(20, 50_000, spread=0.5))))
    assert good < 0.01 < 0.05 < narrow


def test_climatology_has_its_uncertainty_as_potential_and_no_resolution():
    rng = np.random.default_rng(2)
    truth = xr.DataArray(rng.standard_normal(400), dims="case")
    forecast = xr.DataArray(np.repeat(truth.values[:, None], 400, 1), dims=("number", "case"))
    potential = float(crps_potential(400).of(sums_of(forecast, truth)))
    weights = xr.ones_like(truth)
    assert float(uncertainty(truth, weights, ("case",))) == pytest.approx(potential, rel=1e-10)


def test_uncertainty_is_half_the_weighted_mean_difference():
    rng = np.random.default_rng(3)
    truth = xr.DataArray(rng.standard_normal((3, 20, 4)), dims=("lead", "case", "x"))
    weights = xr.DataArray(rng.random((20, 4)), dims=("case", "x"))
    found = uncertainty(truth, weights, ("case", "x"))
    share = (weights / weights.sum()).values.ravel()
    for lead in range(3):
        values = truth.values[lead].ravel()
        differences = np.abs(values[:, None] - values[None])
        assert float(found[lead]) == pytest.approx(share @ differences @ share / 2, rel=1e-12)


def test_another_number_of_members_is_refused_or_missing():
    forecast, truth = draws(6, 5)
    with pytest.raises(InputError, match="is for 5 members, found 6"):
        evaluate((MemberIntervals(5),), forecast, truth)
    with pytest.raises(InputError, match="at least 7 members, found 6"):
        evaluate((MemberIntervals(7),), forecast, truth)
    forecast[2, 3] = np.nan
    statistic = MemberIntervals(6)
    found = evaluate_arrays((statistic,), forecast.values, truth.values, missing=OMIT)[statistic]
    assert np.flatnonzero(np.isnan(found).all(axis=(1, 2))).tolist() == [3]
