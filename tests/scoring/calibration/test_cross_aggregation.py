"""Weights trained without each block of dates, and CV+."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError, StoreError
from data.key import Key
from scoring.calibration.aggregation import Aggregator
from scoring.calibration.aggregation_training import Training
from scoring.calibration.aggregation_weights import Coarse
from scoring.calibration.conformal import ONE_SIDED, SYMMETRIC
from scoring.calibration.cross_aggregation import DISTRIBUTIONS, CrossAggregator
from scoring.quantiles import interval

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = np.array([-1.645, -0.6745, 0.0, 0.6745, 1.645])
DAY = np.timedelta64(24 * 3600, "s").astype("timedelta64[ns]")
RECIPE = CrossAggregator(Aggregator(Coarse(), training=Training(0.05, most_rounds=10)), folds=4)
KEY = Key(3)


def forecasts(dates: int = 24, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """Three models that are far too sure of themselves, for two leads and four sites; truth."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(dates, 2, 4))
    bias = np.array([0.0, 1.0, -2.0])[:, None, None, None]
    centre = truth + bias + rng.normal(size=(3, dates, 2, 4)) * np.array([[[1.0], [2.0]]])
    at = {
        "init_time": np.datetime64("2024-01-01", "ns") + np.arange(dates) * DAY,
        "lead_time": np.arange(1, 3) * DAY,
        "site": list("abcd"),
    }
    quantiles = xr.DataArray(
        (centre[..., None] + 0.3 * NORMAL).astype(np.float32),
        {"model": ["x", "y", "z"]} | at | {"quantile": list(LEVELS)},
        ("model", *at, "quantile"),
    )
    return quantiles, xr.DataArray(truth.astype(np.float32), at, tuple(at))


def holds(forecast: xr.DataArray, truth: xr.DataArray, level: float = 0.9) -> float:
    low, high = interval(forecast, level)
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("conformity", [SYMMETRIC, ONE_SIDED], ids=lambda one: one.name)
def test_intervals_hold_new_truths_as_often_as_they_promise(conformity):
    found, raw = [], []
    recipe = replace(RECIPE, conformity=conformity)
    for seed in range(5):
        quantiles, truth = forecasts(64, seed)
        past, new = {"init_time": slice(24)}, {"init_time": slice(24, None)}
        fitted = recipe.fit(quantiles.isel(past), truth.isel(past), KEY)
        calibrated = fitted.apply(quantiles.isel(new))
        assert calibrated.dims == ("init_time", "lead_time", "site", "quantile")
        assert (calibrated.diff("quantile") >= 0).all()
        found.append(holds(calibrated, truth.isel(new)))
        alone = recipe.aggregator.fit(quantiles.isel(past), truth.isel(past), KEY)
        raw.append(holds(alone.apply(quantiles.isel(new)), truth.isel(new)))
    assert np.mean(raw) < 0.5
    assert np.mean(found) == pytest.approx(0.9, abs=0.03)


def test_no_truth_of_a_block_has_trained_what_scores_it():
    quantiles, truth = forecasts()
    fitted = RECIPE.fit(quantiles, truth, KEY)
    assert fitted.conformal.fold.reshape(24, 4)[:, 0].tolist() == np.repeat(range(4), 6).tolist()
    # The second block: init times 6 to 11, valid times 7 to 13 (in days).
    valid = np.arange(24)[:, None] + np.array([1, 2])
    within = (valid >= 7) & (valid <= 13)
    inside = xr.DataArray(within, dims=("init_time", "lead_time"))
    shaken = RECIPE.fit(quantiles, truth.where(~inside, truth + 100), KEY)
    own, other = (one.fits[1].network.state_dict().values() for one in (fitted, shaken))
    assert all(a.equal(b) for a, b in zip(own, other, strict=True))
    # Every other fit has seen some of them, and what is just outside has trained this one.
    for fold in (0, 2, 3):
        weights = (next(iter(one.fits[fold].network.parameters())) for one in (fitted, shaken))
        assert not next(weights).equal(next(weights))
    for day in (6, 14):
        edge = xr.DataArray(valid == day, dims=("init_time", "lead_time"))
        moved = RECIPE.fit(quantiles, truth.where(~edge, truth + 100), KEY)
        weights = (next(iter(one.fits[1].network.parameters())) for one in (fitted, moved))
        assert not next(weights).equal(next(weights))


def test_scores_are_the_errors_of_the_fit_without_the_block():
    quantiles, truth = forecasts()
    order = np.random.default_rng(1).permutation(24)
    for recipe in (RECIPE, replace(RECIPE, average=DISTRIBUTIONS)):
        fitted = recipe.fit(quantiles.isel(init_time=order), truth.isel(init_time=order), KEY)
        at = {"init_time": slice(6, 12)}
        held = recipe.average.of(fitted.fits[1], quantiles.isel(at))
        expected = (truth.isel(at) - held).transpose("lead_time", "init_time", "site", "quantile")
        found = fitted.conformal.error.values[:, fitted.conformal.fold == 1]
        where = [list(range(6, 12)).index(one) for one in order if 6 <= one < 12]
        np.testing.assert_allclose(
            found, expected.values[:, where].reshape(2, 24, 5), rtol=1e-4, atol=1e-5
        )


def test_what_is_kept_makes_the_same_forecast(tmp_path):
    quantiles, truth = forecasts()
    fitted = RECIPE.fit(quantiles, truth, KEY)
    fitted.save(tmp_path / "c")
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == [*(f"fold_{number}.safetensors" for number in range(1, 5)), "scores.zarr"]
    restored = type(fitted).load(tmp_path / "c", RECIPE)
    xr.testing.assert_identical(restored.apply(quantiles), fitted.apply(quantiles))
    with pytest.raises(StoreError, match="is one-sided CQR, expected symmetric CQR"):
        type(fitted).load(tmp_path / "c", replace(RECIPE, conformity=SYMMETRIC))
    with pytest.raises(StoreError, match="no aggregation is there"):
        type(fitted).load(tmp_path / "c", replace(RECIPE, folds=5))


def test_a_model_of_one_block_alone_costs_no_case():
    quantiles, truth = forecasts()
    late = quantiles.copy()
    late[2, :18] = np.nan
    fitted = RECIPE.fit(late, truth, KEY)
    assert [fit.models.tolist() for fit in fitted.fits] == [["x", "y", "z"]] * 3 + [["x", "y"]]
    assert fitted.models.tolist() == ["x", "y", "z"]
    # It alone has a forecast for the last case: the fit that knows nothing of it has no say.
    late[:2, -1, 1, 3] = np.nan
    assert fitted.apply(late).notnull().all()
    gone = quantiles.copy()
    gone[2] = np.nan
    with pytest.raises(InputError, match=r"models \['z'\] have no case to be fitted on"):
        RECIPE.fit(gone, truth, KEY)
    with pytest.raises(InputError, match=r"fitted for the models \['x', 'y', 'z'\], found"):
        fitted.apply(quantiles.isel(model=[0, 1]))


def test_dates_without_truth_are_in_no_block():
    quantiles, truth = forecasts()
    known = RECIPE.fit(quantiles.isel(init_time=slice(16)), truth.isel(init_time=slice(16)), KEY)
    other = RECIPE.fit(quantiles, truth.where(truth.init_time < truth.init_time[16]), KEY)
    xr.testing.assert_identical(known.conformal.error, other.conformal.error)


def test_what_cannot_be_had_is_refused():
    quantiles, truth = forecasts()
    few = {"init_time": slice(9), "site": [0]}
    with pytest.raises(InputError, match="at least 19 cases, found 9 for lead_time 24 h"):
        RECIPE.fit(quantiles.isel(few), truth.isel(few), KEY)
    with pytest.raises(InputError, match="30 folds need as many init times, found 24"):
        replace(RECIPE, folds=30).fit(quantiles, truth, KEY)
    one = {"init_time": slice(8)}
    leads = {"lead_time": np.array([1, 60]) * DAY}
    quantiles, truth = (each.isel(one).assign_coords(leads) for each in (quantiles, truth))
    with pytest.raises(
        InputError, match="fold 1 of 4, without 2024-01-01T00 to 2024-01-02T00: no "
    ):
        RECIPE.fit(quantiles, truth, KEY)
