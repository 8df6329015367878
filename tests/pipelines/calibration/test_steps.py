from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from data.errors import ConfigurationError, InputError, StoreError
from pipelines.calibration.commands import METHODS
from pipelines.calibration.folder import Calibration
from pipelines.calibration.methods import AnyMethod, method_from, read_method
from pipelines.calibration.steps import FitSettings, apply, fit, update
from pipelines.cli import main
from pipelines.forecasts import open_forecast
from pipelines.validate import validate
from scoring.calibration.conformal import ONE_SIDED, ConformalCalibration
from scoring.calibration.online import OnlineCalibration, calibrate_online
from scoring.calibration.tracking import QuantileTracking
from scoring.quantiles import ensemble_quantiles
from tests.pipelines.calibration.conftest import (
    GRID,
    INITS,
    LEADS,
    MEMBERS,
    SPHERE,
    World,
    write_store,
)

FITTED = 16
MEMBER_METHODS = ("mapping", "emos", "member_by_member", "degree_by_degree")
UNTIL = FitSettings(dates=((None, INITS[FITTED - 1]),))
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def truth_of(world: World, name: str, inits: np.ndarray) -> np.ndarray:
    """(init_time, lead_time, latitude, longitude)"""
    observed = xr.open_zarr(world.truth, consolidated=False)[name].load()
    valid = inits.astype("datetime64[ns]")[:, None] + LEADS[None, :]
    return observed.sel(time=valid.ravel()).values.reshape(*valid.shape, *GRID.shape)


@pytest.mark.parametrize("name", MEMBER_METHODS)
def test_calibrated_members_are_a_store_like_the_raw_one(world, tmp_path, name):
    done = fit(world.forecast, world.truth, tmp_path / "c", method_from({"method": name}), UNTIL)
    apply(Calibration.open(tmp_path / "c"), world.forecast, tmp_path / "out.zarr")
    raw, found = xr.open_zarr(world.forecast), xr.open_zarr(tmp_path / "out.zarr")
    for key in raw.coords:
        xr.testing.assert_identical(raw[key].load(), found[key].load())
    assert list(raw.data_vars) == list(found.data_vars)
    for key in raw.data_vars:
        assert raw[key].attrs == found[key].attrs
        assert raw[key].encoding["shards"] == found[key].encoding["shards"]
    provenance = json.loads(found.attrs["calibration"])
    assert provenance["method"]["method"] == name
    assert provenance["hash"] == done.hash
    assert len(provenance["fitted_on"]) == FITTED
    assert found.attrs["fingerprint"] != raw.attrs["fingerprint"]
    assert not validate(tmp_path / "out.zarr").damages
    assert float(found.ws10m.min()) >= 0


@pytest.mark.parametrize("name", MEMBER_METHODS)
def test_members_spread_as_far_as_they_err_on_later_dates(world, tmp_path, name):
    fit(world.forecast, world.truth, tmp_path / "c", method_from({"method": name}), UNTIL)
    later = [time for time in INITS[FITTED:] if time != INITS[20]]
    apply(Calibration.open(tmp_path / "c"), world.forecast, tmp_path / "out.zarr", later)
    ratios = []
    for path in (world.forecast, tmp_path / "out.zarr"):
        members = xr.open_zarr(path).t850.sel(init_time=np.array(later, "datetime64[ns]"))
        error = members.mean("number").values - truth_of(world, "t850", np.array(later))
        spread = float(members.var("number", ddof=1).mean())
        ratios.append(np.sqrt((MEMBERS + 1) / MEMBERS * spread / (error**2).mean()))
    assert ratios[0] < 0.6
    # Quantiles at r / (M + 1) spread less than draws: 0.86 for 8 members.
    assert abs(ratios[1] - 1) < 0.22


def test_quantiles_cover_later_dates_and_go_to_a_store(world, tmp_path):
    method = method_from({"method": "conformal", "levels": LEVELS})
    fit(world.forecast, world.truth, tmp_path / "c", method, UNTIL)
    apply(Calibration.open(tmp_path / "c"), world.forecast, tmp_path / "out.zarr", INITS[FITTED:])
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False)
    assert found.t850.dims == ("init_time", "quantile", "lead_time", "latitude", "longitude")
    assert json.loads(found.attrs["calibration"])["method"]["method"] == "conformal"
    truth = truth_of(world, "t850", INITS[FITTED:])
    low, high = found.t850.sel(quantile=0.1).values, found.t850.sel(quantile=0.9).values
    assert np.isfinite(low).all()
    covered = ((low <= truth) & (truth <= high)).mean()
    # A field has as many independent values as coefficients, and dates and leads are independent:
    # binomial errors of the judged dates and of those that fitted add up.
    independent = LEADS.size * (SPHERE.truncation + 1) ** 2
    error = np.sqrt(0.8 * 0.2 / independent * (1 / (INITS.size - FITTED) + 1 / FITTED))
    assert abs(covered - 0.8) < 3 * error


def test_regions_are_calibrated_each_by_itself(world, tmp_path):
    method = method_from({"method": "conformal", "levels": LEVELS, "groups": ["region"]})
    some = FitSettings(("t850",), dates=UNTIL.dates)
    done = fit(world.forecast, world.truth, tmp_path / "c", method, some)
    shifts = done.states["t850"].shifts
    regions = ["northern_extratropics", "southern_extratropics", "tropics"]
    assert shifts.region.values.tolist() == regions
    with open_forecast([world.forecast]) as forecast:
        loaded = forecast[["t850"]].load()
    members = loaded.t850.isel(init_time=slice(FITTED)).drop_vars("valid_time")
    quantiles = ensemble_quantiles(members, LEVELS).astype(np.float32)
    truth = members.isel(number=0, drop=True).copy(data=truth_of(world, "t850", INITS[:FITTED]))
    for name, rows in (("tropics", abs(GRID.latitude) < 20), (regions[0], GRID.latitude > 20)):
        some = {"latitude": np.flatnonzero(rows)}
        area = xr.DataArray(GRID.area_weights[rows][:, :1], dims=("latitude", "longitude"))
        alone = ConformalCalibration.fit(
            quantiles.isel(some), truth.isel(some), ("init_time", "latitude", "longitude"),
            area.isel(longitude=0), ONE_SIDED,
        )  # fmt: skip
        np.testing.assert_allclose(shifts.sel(region=name), alone.shifts, rtol=1e-5, atol=1e-4)
    write_store(tmp_path / "t.zarr", loaded)
    apply(done, tmp_path / "t.zarr", tmp_path / "out.zarr", [INITS[2]])
    found = xr.open_zarr(tmp_path / "out.zarr", consolidated=False).t850[0].load()
    moved = (found - quantiles.isel(init_time=2)).isel(latitude=np.flatnonzero(GRID.latitude > 20))
    middle = {"quantile": 0.5}
    difference = moved.sel(middle) - shifts.sel(middle).sel(region=regions[0])
    assert float(abs(difference).max()) < 0.1  # sorting moves a few


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "conformal", "groups": ["latitude", "season"], "shrinkage": 100.0},
        {"method": "conformal", "groups": ["region", "season"], "shrinkage": 100.0},
        {"method": "tracking", "groups": ["latitude"]},
        {"method": "adaptive", "levels": LEVELS},
        {"method": "degree_by_degree"},
        {"method": "emos"},
    ],
)
def test_memory_changes_nothing(world, tmp_path, settings):
    method = method_from(settings)
    large, small = (FitSettings(("t850",), memory, UNTIL.dates) for memory in (2**28, 1))
    one = fit(world.forecast, world.truth, tmp_path / "a", method, large)
    other = fit(world.forecast, world.truth, tmp_path / "b", method, small)
    for name, value in one.states["t850"].items():
        wanted = other.states["t850"][name].values
        if wanted.dtype.kind == "M":
            np.testing.assert_array_equal(value.values, wanted)
        else:
            np.testing.assert_allclose(value.values, wanted, rtol=2e-4, atol=1e-4)


def test_recent_dates_count_more(world, tmp_path):
    recent = method_from({"method": "conformal", "levels": LEVELS, "half_life_days": 4})
    fit(world.forecast, world.truth, tmp_path / "c", recent, UNTIL)
    found = Calibration.open(tmp_path / "c").states["t850"]["shifts"]
    dates = np.array(INITS[:FITTED], "datetime64[ns]")
    members = xr.open_zarr(world.forecast).t850.sel(init_time=dates).load().drop_vars("valid_time")
    truth = members.isel(number=0, drop=True).copy(data=truth_of(world, "t850", dates))
    age = (dates[-1] - dates) / np.timedelta64(4, "D")
    weights = xr.DataArray(0.5**age, dims="init_time") * xr.DataArray(
        GRID.area_weights, dims=("latitude", "longitude")
    )
    wanted = ConformalCalibration.fit(
        ensemble_quantiles(members, LEVELS).astype(np.float32),
        truth,
        ("init_time", "latitude", "longitude"),
        weights.assign_coords(init_time=dates, latitude=members.latitude,
                              longitude=members.longitude),
        ONE_SIDED,
    )  # fmt: skip
    xr.testing.assert_allclose(
        found.drop_attrs(), wanted.shifts.drop_attrs().reset_coords(drop=True)
    )


def test_learning_day_by_day_is_learning_at_once_and_as_in_real_time(world, tmp_path):
    settings = {"method": "tracking", "rate": 0.3, "levels": LEVELS}
    method, first = method_from(settings), 12
    start = FitSettings(dates=((None, INITS[5]),))
    early = world.cut(tmp_path / "early", first)
    daily = fit(world.forecast, world.truth, tmp_path / "daily", method, start)
    for dates in (7, 8, first):
        part = world.cut(tmp_path / f"cut{dates}", dates)
        daily, changed = update(daily, tmp_path / "daily", part.forecast, part.truth)
        assert changed
        daily, changed = update(daily, tmp_path / "daily", part.forecast, part.truth)
        assert not changed
    batch = fit(world.forecast, world.truth, tmp_path / "batch", method, start)
    batch, _ = update(batch, tmp_path / "batch", early.forecast, early.truth)
    xr.testing.assert_allclose(batch.states["t850"], daily.states["t850"])
    with open_forecast([world.forecast]) as forecast:
        members = forecast.t850.isel(init_time=slice(first)).load().drop_vars("valid_time")
    quantiles = ensemble_quantiles(members, LEVELS).astype(np.float32)
    truth = members.isel(number=0, drop=True).copy(data=truth_of(world, "t850", INITS[:first]))
    past, new = slice(6), slice(6, None)
    started = OnlineCalibration.start(
        QuantileTracking(0.3), quantiles.isel(init_time=past), truth.isel(init_time=past),
        ("latitude", "longitude"),
    )  # fmt: skip
    # What an update learns is not yet in what was issued before it: a moment of latency.
    latency = np.timedelta64(1, "s")
    new_quantiles, new_truth = quantiles.isel(init_time=new), truth.isel(init_time=new)
    issued, _ = calibrate_online(started, new_quantiles, new_truth, latency)
    apply(daily, early.forecast, tmp_path / "out.zarr", [INITS[first - 1]])
    found = xr.open_zarr(tmp_path / "out.zarr").t850[0]  # a warning is an error
    [state] = (tmp_path / "daily").glob("state-*/t850.zarr")
    assert set(xr.open_zarr(state).variables) == set(daily.states["t850"].variables)
    wanted = issued.isel(init_time=-1).transpose(*found.dims)
    np.testing.assert_allclose(found.values, wanted.values, rtol=1e-6)


def test_groups_that_learn_may_lean_on_their_pool(world, tmp_path):
    shifts = []
    for share in (0.0, 0.5, 1.0):
        settings = {"method": "tracking", "rate": 0.3, "levels": LEVELS, "groups": ["latitude"]}
        start, folder = FitSettings(dates=((None, INITS[5]),)), tmp_path / f"{share:g}"
        early = world.cut(folder, 12)
        method = method_from(settings | {"share": share})
        before = fit(world.forecast, world.truth, folder / "c", method, start)
        after, _ = update(before, folder / "c", early.forecast, early.truth)
        moved = after.states["t850"]["theta"] - before.states["t850"]["theta"]
        shifts.append(float(moved.std("latitude").mean()))
    assert shifts[0] > shifts[1] > shifts[2]
    with pytest.raises(ConfigurationError, match="share: is of groups' steps"):
        method_from({"method": "tracking", "share": 0.5})


def test_update_fits_again_with_new_dates_and_a_second_one_changes_nothing(world, tmp_path):
    early = world.cut(tmp_path / "early", 14)
    method = method_from({"method": "conformal", "levels": LEVELS})
    first = FitSettings(("t850",), dates=((None, INITS[9]),))
    before = fit(early.forecast, early.truth, tmp_path / "c", method, first)
    after, changed = update(before, tmp_path / "c", world.forecast, world.truth)
    assert changed
    whole = FitSettings(("t850",))
    anew = fit(world.forecast, world.truth, tmp_path / "d", method, whole)
    assert after.hash == anew.hash != before.hash
    again, changed = update(after, tmp_path / "c", world.forecast, world.truth)
    assert not changed
    assert again.hash == after.hash
    assert len([name for name in os.listdir(tmp_path / "c") if name.startswith("state-")]) == 1
    later = FitSettings(("t850",), dates=((INITS[15], None),))
    late = fit(world.forecast, world.truth, tmp_path / "e", method, later)
    with pytest.raises(InputError, match="needs the old dates"):
        update(late, tmp_path / "e", early.forecast, early.truth)


def test_settings_are_strict(tmp_path):
    for settings, message in (
        ({"method": "conformal", "levels": [0.9, 0.1]}, "must increase"),
        ({"method": "conformal", "levels": [0.0, 0.5]}, r"within \(0, 1\)"),
        ({"method": "conformal", "levels": [0.1, 0.1, 0.5]}, "must increase"),
        ({"method": "tracking", "rat": 0.1}, "nearest known key is 'rate'"),
        ({"method": "magic"}, "magic"),
        ({}, "method"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            method_from(settings)
    with pytest.raises(ConfigurationError, match=r"none.yaml: cannot be read"):
        read_method(tmp_path / "none.yaml")
    (tmp_path / "m.yaml").write_text("method: emos\n")
    assert read_method(tmp_path / "m.yaml").method == "emos"


def test_too_few_cases_are_refused_with_the_number_before_anything_is_read(world, tmp_path):
    few = FitSettings(dates=((None, INITS[8]),))
    for settings, message in (
        ({"method": "conformal", "counting": "dates"}, "needs at least 39 cases, found 9"),
        ({"method": "conformal", "groups": ["latitude", "longitude"]}, "at least 39 cases"),
        ({"method": "tracking", "groups": ["latitude", "longitude"]}, "at least 39 cases"),
        ({"method": "emos"}, "at least 10 init times"),
        ({"method": "degree_by_degree"}, "at least 10 init times"),
        ({"method": "conformal", "groups": ["site"]}, "'site' is none of"),
    ):
        with pytest.raises(InputError, match=message):
            fit(world.forecast, world.truth, tmp_path / "c", method_from(settings), few)
    none = FitSettings(dates=((np.datetime64("2010-01-01"), None),))
    with pytest.raises(InputError, match="no init time lies within"):
        fit(world.forecast, world.truth, tmp_path / "c", method_from({"method": "emos"}), none)
    unknown = FitSettings(known_by=INITS[2])
    method = method_from({"method": "conformal"})
    with pytest.raises(InputError, match="found 0"):
        fit(world.forecast, world.truth, tmp_path / "c", method, unknown)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["conformal", "mapping"])
def test_a_fit_of_some_channels_is_applied_to_these_alone(world, tmp_path, name):
    method = method_from({"method": name, "levels": LEVELS})
    for channels, store in ((("t850",), "one"), ((), "all")):
        fitted = fit(world.forecast, world.truth, tmp_path / store, method, FitSettings(channels))
        apply(fitted, world.forecast, tmp_path / f"{store}.zarr")
    one, both = (xr.open_zarr(tmp_path / f"{store}.zarr").load() for store in ("one", "all"))
    assert list(one.data_vars) == ["t850"]
    xr.testing.assert_identical(one.t850, both.t850)
    if name == "mapping":
        assert not validate(tmp_path / "one.zarr").damages


@pytest.mark.parametrize("name", METHODS)
def test_truth_that_is_missing_everywhere_is_refused_by_every_method(world, tmp_path, name):
    truth = xr.open_zarr(world.truth, consolidated=False)[["t850"]].load().drop_encoding()
    truth["t850"] = truth.t850.where(truth.time > LEADS[-1] + INITS[FITTED - 1].astype("M8[ns]"))
    truth.to_zarr(tmp_path / "truth.zarr", zarr_format=3, consolidated=False)
    method, until = method_from({"method": name}), replace(UNTIL, channels=("t850",))
    with pytest.raises(InputError, match=r"truth.zarr: has no truth of t850: every value is miss"):
        fit(world.forecast, tmp_path / "truth.zarr", tmp_path / "c", method, until)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["tracking", "adaptive"])
def test_a_row_without_truth_is_refused_where_it_is_a_group_of_its_own(world, tmp_path, name):
    truth = xr.open_zarr(world.truth, consolidated=False)[["t850"]].load().drop_encoding()
    truth.t850[:, 2] = np.nan
    truth.to_zarr(tmp_path / "truth.zarr", zarr_format=3, consolidated=False)
    method, until = method_from({"method": name, "groups": ["latitude"]}), FitSettings(("t850",))
    with pytest.raises(InputError, match=r"t850: calibrating .* needs at least 39 cases, found 0"):
        fit(world.forecast, tmp_path / "truth.zarr", tmp_path / "c", method, until)


def test_what_does_not_fit_is_refused(world, tmp_path):
    method = method_from({"method": "conformal", "levels": LEVELS})
    both = fit(world.forecast, world.truth, tmp_path / "d", method)
    with open_forecast([world.forecast]) as forecast:
        loaded = forecast.load()
    write_store(tmp_path / "wind.zarr", loaded[["ws10m"]])
    with pytest.raises(InputError, match=r"wind.zarr: channel 't850' is missing, which the calibr"):
        apply(both, tmp_path / "wind.zarr", tmp_path / "o.zarr")
    write_store(tmp_path / "leads.zarr", loaded.isel(lead_time=slice(2)))
    with pytest.raises(InputError, match="has 2 lead times, 24 to 48 h; the calibration"):
        apply(both, tmp_path / "leads.zarr", tmp_path / "o.zarr")
    moved = loaded.assign_coords(longitude=loaded.longitude + 1).drop_vars("valid_time")
    moved.drop_encoding().to_zarr(tmp_path / "grid.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(InputError, match="lies on another grid: longitude"):
        apply(both, tmp_path / "grid.zarr", tmp_path / "o.zarr")
    with pytest.raises(InputError, match="has no forecast of 2010"):
        apply(both, world.forecast, tmp_path / "o.zarr", [np.datetime64("2010-01-01")])
    with pytest.raises(StoreError, match="is the forecast itself"):
        apply(both, world.forecast, world.forecast)
    with pytest.raises(StoreError, match="was not written by a calibration"):
        apply(both, world.forecast, tmp_path / "leads.zarr")
    assert not (tmp_path / "o.zarr").exists()


def test_a_damaged_calibration_is_one_clear_error(world, tmp_path):
    method = method_from({"method": "conformal", "levels": LEVELS})
    fit(world.forecast, world.truth, tmp_path / "c", method, FitSettings(("t850",)))
    file = tmp_path / "c" / "calibration.json"
    whole = file.read_text()
    for content, message in (
        (whole[:100], "is damaged"),
        ("{}", "is damaged"),
        (whole.replace("calibration 1", "calibration 9"), "expected 'myriadcast calibration 1'"),
        (whole.replace('"channels"', '"chanels"'), "is damaged"),
    ):
        file.write_text(content)
        with pytest.raises(StoreError, match=message):
            Calibration.open(tmp_path / "c")
    file.write_text(whole)
    chunk = next(path for path in (tmp_path / "c").rglob("shifts/**/*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(StoreError, match="not as it was written"):
        Calibration.open(tmp_path / "c")
    with pytest.raises(StoreError, match="no calibration is there"):
        Calibration.open(tmp_path / "none")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    with pytest.raises(StoreError, match="something that is no calibration"):
        fit(world.forecast, world.truth, tmp_path / "other", method)


def test_the_command_line_fits_applies_and_updates(world, tmp_path):
    inputs = ["--forecast", str(world.forecast), "--truth", str(world.truth)]
    folder, output = str(tmp_path / "c"), str(tmp_path / "out.zarr")
    dates = ["--dates", "2006-01-01/2006-01-06", "--dates", "2006-01-08/2006-01-12"]
    runner = CliRunner()
    done = runner.invoke(
        main, ["calibrate", "fit", "--calibration", folder, *inputs, "--method", "mapping", *dates]
    )
    assert done.exit_code == 0, done.output
    assert "fitted on 11 init times of 2 channels" in done.output
    done = runner.invoke(
        main,
        ["calibrate", "apply", "--calibration", folder, *inputs[:2], "--output", output,
         "--init-time", "2006-01-20"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert xr.open_zarr(output).sizes["init_time"] == 1
    for said in ("now ", "nothing is new"):
        done = runner.invoke(main, ["calibrate", "update", "--calibration", folder, *inputs])
        assert done.exit_code == 0, done.output
        assert said in done.output
    for arguments, code in (
        (["fit", "--calibration", folder, "--method", "emos"], 2),
        (["fit", "--calibration", folder, *inputs], 2),
        (["fit", "--calibration", folder, *inputs, "--method", "emos", "--dates", "now"], 2),
        (["fit", "--calibration", folder, *inputs, "--settings", "none.yaml"], 4),
        (["apply", "--calibration", "none", *inputs[:2], "--output", output], 6),
        (
            ["fit", "--calibration", folder, *inputs, "--method", "emos", "--dates", "2010-01-01/"],
            3,
        ),
    ):
        assert runner.invoke(main, ["calibrate", *arguments]).exit_code == code, arguments


def test_the_command_line_names_every_method() -> None:
    kinds = get_args(get_args(AnyMethod)[0])
    assert {kind.model_fields["method"].default for kind in kinds} == set(METHODS)


def test_patterns_name_stores_of_some_init_times_each(world, tmp_path):
    with open_forecast([world.forecast]) as forecast:
        loaded = forecast.load()
    parts = tmp_path / "parts"
    for first in (0, 8, 16):
        write_store(parts / f"{first}.zarr", loaded.isel(init_time=slice(first, first + 8)))
    runner, found = CliRunner(), {}
    for name, where in (("whole", world.forecast), ("cut", parts / "*.zarr")):
        inputs = ["--calibration", str(tmp_path / name), "--forecast", str(where)]
        truth = ["--truth", str(world.truth)]
        for arguments in (
            ["fit", *inputs, *truth, "--method", "conformal", "--dates", "/2006-01-16"],
            ["apply", *inputs, "--output", str(tmp_path / f"{name}.zarr")],
            ["update", *inputs, *truth],
        ):
            done = runner.invoke(main, ["calibrate", *arguments])
            assert done.exit_code == 0, done.output
        kept = xr.open_zarr(tmp_path / f"{name}.zarr", consolidated=False).load()
        found[name] = Calibration.open(tmp_path / name), kept
    assert found["whole"][0].hash == found["cut"][0].hash
    for name in ("t850", "ws10m"):
        np.testing.assert_array_equal(found["whole"][1][name], found["cut"][1][name])
    first = str(parts / "0.zarr")
    for other, message in (("none*.zarr", "matches no file"), (first, "is in two of them")):
        done = runner.invoke(
            main,
            ["calibrate", "apply", "--calibration", str(tmp_path / "whole"), "--output",
             str(tmp_path / "o.zarr"), "--forecast", first, "--forecast", other],
        )  # fmt: skip
        assert done.exit_code == 3
        assert message in done.output
