"""Several forecasts of stores into one quantile store, and their scores in the report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from pipelines.calibration.aggregated import Aggregated
from pipelines.calibration.by_model import checkpoints_of
from pipelines.calibration.judge import CalibrationSettings, calibrate
from pipelines.calibration.methods import method_from
from pipelines.calibration.models import by_lag, model_quantiles, models_of
from pipelines.calibration.steps import FitSettings, apply, fit
from pipelines.forecasts import open_forecast
from pipelines.labels import open_labelled
from pipelines.report.calibration import model_section
from pipelines.report.sections import Findings
from scoring.dates import KnownBefore
from tests.pipelines.calibration.conftest import INITS, write_store

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
SETTINGS = {"method": "aggregation", "levels": LEVELS, "learning_rate": 0.05, "weight_decay": 0.0}


def test_checkpoints_are_models_as_stores_of_their_own_are(world, tmp_path):
    settings = {"method": "aggregation", "levels": LEVELS, "most_rounds": 3}
    some = FitSettings(("t850",))
    one = fit(world.forecast, world.truth, tmp_path / "a", method_from(settings), some)
    with open_forecast([world.forecast]) as forecast:
        loaded = forecast[["t850"]].load()
    stores = {}
    for checkpoint in (0, 1):
        stores[str(checkpoint)] = tmp_path / f"{checkpoint}.zarr"
        own = loaded.isel(number=np.flatnonzero(loaded.checkpoint == checkpoint))
        write_store(stores[str(checkpoint)], own)
    other = fit(stores, world.truth, tmp_path / "b", method_from(settings))
    assert one.states["t850"].aggregation.models.tolist() == ["0", "1"]
    assert one.hash == other.hash
    only = [INITS[3]]
    narrow = tmp_path / "one.zarr"
    write_store(narrow, loaded)
    apply(one, narrow, tmp_path / "x.zarr", only)
    apply(other, stores, tmp_path / "y.zarr", only)
    found, wanted = (
        xr.open_zarr(tmp_path / name, consolidated=False).load() for name in ("x.zarr", "y.zarr")
    )
    np.testing.assert_array_equal(found.t850.values, wanted.t850.values)
    assert found.t850.attrs["units"] == "K"
    assert found.t850.notnull().all()


def test_memory_changes_no_weight(world, tmp_path):
    method = method_from({"method": "aggregation", "most_rounds": 2, "features": ["latitude"]})
    large, small = (FitSettings(("t850",), memory) for memory in (2**28, 1))
    one = fit(world.forecast, world.truth, tmp_path / "a", method, large)
    other = fit(world.forecast, world.truth, tmp_path / "b", method, small)
    assert one.hash == other.hash


def test_earlier_init_times_are_models(world, tmp_path):
    with open_forecast([world.forecast]) as forecast:
        loaded = forecast[["t850"]].load()
    lags = np.array([0, 24], "timedelta64[h]").astype("timedelta64[ns]")
    both = by_lag(loaded, lags)
    assert models_of(both) == ("lag 0 h", "lag 24 h")
    later = model_quantiles(both.t850.isel(init_time=5).load(), LEVELS, models_of(both))
    earlier = model_quantiles(both.t850.isel(init_time=4).load(), LEVELS, models_of(both))
    ours, theirs = later.sel(model="lag 24 h"), earlier.sel(model="lag 0 h")
    np.testing.assert_array_equal(ours[:, 0].values, theirs[:, 1].values)
    np.testing.assert_array_equal(ours[:, 1].values, theirs[:, 2].values)
    assert ours[:, 2].isnull().all()
    assert not both.completed.isel(init_time=0).sel(number=slice(8, None)).any()
    method = method_from(
        {"method": "aggregation", "lags_hours": [0, 24], "levels": LEVELS, "most_rounds": 2}
    )
    done = fit(world.forecast, world.truth, tmp_path / "c", method, FitSettings(("t850",)))
    write_store(tmp_path / "t.zarr", loaded)
    apply(done, tmp_path / "t.zarr", tmp_path / "out.zarr", [INITS[7]])
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False).t850.load()
    assert found.sizes["init_time"] == 1
    assert found.notnull().all()


def test_a_store_of_quantiles_is_a_model(world, tmp_path):
    some = FitSettings(("t850",))
    conformal = method_from({"method": "conformal", "levels": LEVELS})
    with open_forecast([world.forecast]) as forecast:
        write_store(tmp_path / "raw.zarr", forecast[["t850"]].load())
    raw = tmp_path / "raw.zarr"
    shifted = fit(raw, world.truth, tmp_path / "c", conformal, some)
    apply(shifted, raw, tmp_path / "calibrated.zarr")
    models = {"raw": raw, "calibrated": tmp_path / "calibrated.zarr"}
    method = method_from(SETTINGS)
    done = fit(models, world.truth, tmp_path / "d", method, some)
    weights = done.states["t850"]
    assert weights.table.score["calibrated"] < weights.table.score["raw"]
    opened = method.open(models, ("t850",))
    found = model_quantiles(opened.t850.isel(init_time=2).load(), LEVELS, ("raw", "calibrated"))
    held = xr.open_zarr(tmp_path / "calibrated.zarr", consolidated=False).t850[2].load()
    np.testing.assert_array_equal(found.sel(model="calibrated").values, held.values)
    with pytest.raises(InputError, match=r"calibrated.zarr has no quantile of level 0.025"):
        method_from({"method": "aggregation"}).open(models, ("t850",))


def test_wrong_models_are_one_clear_error(world, tmp_path):
    with open_forecast([world.forecast]) as forecast:
        loaded = forecast[["t850"]].load()
    write_store(tmp_path / "a.zarr", loaded)
    moved = loaded.assign_coords(longitude=loaded.longitude + 1).drop_vars("valid_time")
    moved.drop_encoding().to_zarr(tmp_path / "moved.zarr", zarr_format=3, consolidated=False)
    one = loaded.isel(number=slice(0, 4))
    write_store(tmp_path / "one.zarr", one)
    settings = {"method": "aggregation", "levels": LEVELS}
    raw, own = world.forecast, tmp_path / "a.zarr"
    for forecast, changes, message in (
        (raw, {"models": "magic"}, "'magic' is no coordinate of its members, found .*checkpoint"),
        (tmp_path / "one.zarr", {}, "all members are of one checkpoint, 0"),
        ({"a": raw, "b": own}, {}, "model b: channel 'ws10m' is missing"),
        ({"a": own, "b": tmp_path / "moved.zarr"}, {}, "model b: t850 lies on another grid"),
        ({"a": own, "b": tmp_path / "b.csv"}, {}, "models are tables or stores, found both"),
        ({"a": own, "b": own}, {"lags_hours": [0, 24]}, "lags_hours is of one forecast"),
        ({"a": own}, {}, "one model, a: there is nothing to combine"),
    ):
        with pytest.raises(InputError, match=message):
            fit(forecast, world.truth, tmp_path / "c", method_from(settings | changes))
    assert not (tmp_path / "c").exists()


def test_checkpoints_are_judged_where_there_are_dates_enough(world):
    pair = Aggregated(levels=LEVELS).open_pair(world.forecast, world.truth, ("t850",))
    assert checkpoints_of(pair) == Aggregated()
    few = pair.forecast.isel(init_time=slice(9))
    scored = {"t850": pair.scored["t850"][:9]}
    assert checkpoints_of(replace(pair, forecast=few, scored=scored)) is None
    late = pair.forecast.assign_coords(lead_time=pair.forecast.lead_time + np.timedelta64(30, "D"))
    assert checkpoints_of(replace(pair, forecast=late)) is None
    alike = pair.forecast.assign_coords(checkpoint=("number", np.zeros(8, int)))
    assert checkpoints_of(replace(pair, forecast=alike)) is None


def test_judged_checkpoints_stand_in_the_report(world, tmp_path):
    settings = CalibrationSettings(("t850",), rule=KnownBefore(12))
    found = calibrate(world.forecast, world.truth, tmp_path / "out", settings).coverage
    score = found.model_score
    assert score.dims == ("channel", "lead_time", "combination")
    assert {"aggregation", "mean", "median", "0", "1"} <= set(score.combination.values.tolist())
    assert score.notnull().all()
    kept = open_labelled(tmp_path / "out" / "coverage.zarr").load()
    xr.testing.assert_identical(kept, found)
    scores = xr.Dataset(coords={"channel": ["t850"], "lead_time": found.lead_time.values})
    section = model_section(Findings(scores, kept))
    assert "That is 6 init times: with fewer than 20 only large differences are" in section.text
    assert len(section.panels) == 1
    ranked = section.text.split("t850: ")[1].removesuffix(".").split(", ")
    assert "mean 1.000" in ranked
    numbers = [float(one.rsplit(" ", 1)[1]) for one in ranked]
    assert numbers == sorted(numbers)
    assert len(numbers) == score.sizes["combination"]
    bare = Findings(scores, kept.drop_vars("model_score"))
    assert model_section(bare).text == "Absent: no models have been combined."
