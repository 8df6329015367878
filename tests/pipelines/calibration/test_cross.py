"""Weights that are trained, and calibrated, by the same dates: through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner, Result

from data.errors import ConfigurationError, InputError
from data.key import Key
from pipelines.calibration.cases import Cases
from pipelines.calibration.folder import Calibration
from pipelines.calibration.methods import method_from
from pipelines.calibration.steps import FitSettings, apply, fit
from pipelines.cli import main
from scoring.calibration.conformal import ONE_SIDED, SYMMETRIC
from scoring.quantiles import interval
from tests.pipelines.calibration.conftest import World

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = np.array([-1.645, -0.6745, 0.0, 0.6745, 1.645])
DATES = np.datetime64("2024-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D")
LAST = np.datetime64("2024-01-30", "s")  # that is fitted on
LEADS = np.array([24, 48])
PLACES = ["01", "02", "03", "04", "05", "06", "07", "north"]
SETTINGS = {
    "method": "aggregation", "levels": list(LEVELS), "learning_rate": 0.05, "most_rounds": 4,
    "weight_decay": 0.0,
}  # fmt: skip
CROSS = SETTINGS | {"conformal": "cross"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `forecast.csv` of two models that are far too sure, one of them too low, the
    more the longer the lead, and `truth.csv`."""
    folder = tmp_path_factory.mktemp("cross")
    rng = np.random.default_rng(5)
    times = DATES[0] + np.arange(DATES.size + 3) * np.timedelta64(1, "D")
    truth = 10 * rng.normal(size=(times.size, len(PLACES)))
    observed = [
        [times[time], PLACES[place], value] for (time, place), value in np.ndenumerate(truth)
    ]
    names = ["valid_time", "location", "value"]
    pd.DataFrame(observed, columns=names).to_csv(folder / "truth.csv", index=False)
    rows = []
    for date, lead, place in np.ndindex(DATES.size, LEADS.size, len(PLACES)):
        days = LEADS[lead] // 24
        for model, bias in (("fair", 0.0), ("low", -1.0)):
            centre = truth[date + days, place] + days * (bias + rng.normal())
            at = [model, DATES[date], LEADS[lead], PLACES[place]]
            rows.append([*at, *(centre + 0.3 * NORMAL)])
    names = ["model", "init_time", "lead_time", "location", *(f"q{level}" for level in LEVELS)]
    pd.DataFrame(rows, columns=names).to_csv(folder / "forecast.csv", index=False)
    return folder


def ran(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["calibrate", *map(str, arguments)])


def coverage(store: Path, truth: Path, level: float = 0.9) -> dict[int, float]:
    """Of the dates that were not fitted on, by lead in hours."""
    found = xr.open_zarr(store)["value"].load()
    known = pd.read_csv(truth, dtype={"location": str}, parse_dates=["valid_time"])
    known = known.set_index(["valid_time", "location"]).value.to_xarray()
    late = found.sel(init_time=slice(LAST + np.timedelta64(1, "D"), None))
    valid = late.init_time + late.lead_time
    observed = known.sel(valid_time=valid, location=late.location)
    low, high = interval(late, level)
    held = ((low <= observed) & (observed <= high)).mean(["init_time", "location"])
    return {int(lead): float(held[place]) for place, lead in enumerate(LEADS)}


@pytest.mark.parametrize("sides", ["one", "both"])
def test_held_out_dates_are_held_as_often_as_is_promised(tables, tmp_path, sides):
    forecast, truth = tables / "forecast.csv", tables / "truth.csv"
    found = {}
    for name, settings in (("none", SETTINGS), ("cross", CROSS | {"sides": sides})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        folder, output = tmp_path / name, tmp_path / f"{name}.zarr"
        done = ran(
            "fit", "--calibration", folder, "--settings", tmp_path / f"{name}.yaml",
            "--forecast", forecast, "--truth", truth, "--dates", f"/{LAST}",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        done = ran("apply", "--calibration", folder, "--forecast", forecast, "--output", output)
        assert done.exit_code == 0, done.output
        found[name] = coverage(output, truth)
    kept = Calibration.open(tmp_path / "cross").states["value"].aggregation
    assert kept.conformal.conformity == {"one": ONE_SIDED, "both": SYMMETRIC}[sides]
    # 240 cases calibrate, 240 are judged: a standard deviation of about 0.03.
    for lead in LEADS:
        assert found["none"][lead] < 0.6
        assert found["cross"][lead] == pytest.approx(0.9, abs=0.05)


def test_it_is_judged_beside_the_same_weights_by_what_was_known(tables, tmp_path):
    forecast, truth = tables / "forecast.csv", tables / "truth.csv"
    past = FitSettings(dates=((None, LAST),))
    done = fit(forecast, truth, tmp_path / "c", method_from(CROSS), past)
    table = done.states["value"].table
    plain = fit(forecast, truth, tmp_path / "p", method_from(SETTINGS), past).states["value"].table
    pd.testing.assert_series_equal(
        table.loc["aggregation, as trained"], plain.loc["aggregation"], check_names=False
    )
    for name in ("mean", "median", "best single model", "low"):
        pd.testing.assert_series_equal(table.loc[name], plain.loc[name])
    assert table["coverage 0.9"]["aggregation"] > 0.8 > table["coverage 0.9"]["mean"]
    assert table.score["aggregation"] < table.score["aggregation, as trained"]


def test_truths_known_later_change_nothing_that_is_judged(tables):
    method, forecasts = method_from(CROSS), []
    for shift in (0.0, 1000.0):
        pair = method.open_pair(tables / "forecast.csv", tables / "truth.csv", None)
        inits = np.arange(30)
        cases = Cases.of(pair, "value", inits, pair.scored["value"][inits], 2**28)
        quantiles, truth = method.sampled(cases)
        # Init times from 22 on are judged: what is valid by then is known.
        late = truth.init_time + truth.lead_time > DATES[22]
        judged, _ = method.judged(quantiles, truth.where(~late, truth + shift), Key(0))
        forecasts.append(judged)
    for name in ("aggregation", "aggregation, as trained"):
        assert forecasts[0][name].sizes["init_time"] == 8
        xr.testing.assert_identical(forecasts[0][name], forecasts[1][name])


def test_state_is_kept_restored_and_taught_new_dates(tables, tmp_path):
    forecast, truth = tables / "forecast.csv", tables / "truth.csv"
    past = FitSettings(dates=((None, LAST),))
    done = fit(forecast, truth, tmp_path / "c", method_from(CROSS), past)
    again = Calibration.open(tmp_path / "c")
    assert again.method == done.method
    ours, theirs = done.states["value"], again.states["value"]
    pd.testing.assert_frame_equal(ours.table, theirs.table)
    (state,) = (tmp_path / "c").glob("state-*")
    kinds = {path.suffix for path in state.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ""}
    assert len(list((state / "value.cross").glob("fold_*.safetensors"))) == 5
    for name, calibration in (("a", done), ("b", again)):
        apply(calibration, forecast, tmp_path / f"{name}.zarr")
    a, b = (xr.open_zarr(tmp_path / f"{name}.zarr").load() for name in "ab")
    xr.testing.assert_identical(a, b)
    assert json.loads(a.attrs["calibration"])["method"]["conformal"] == "cross"
    updated = ran(
        "update", "--calibration", tmp_path / "c", "--forecast", forecast, "--truth", truth
    )
    assert updated.exit_code == 0, updated.output
    assert "aggregation, as trained" in updated.output
    whole = fit(forecast, truth, tmp_path / "d", method_from(CROSS))
    assert Calibration.open(tmp_path / "c").hash == whole.hash != done.hash
    updated = ran(
        "update", "--calibration", tmp_path / "c", "--forecast", forecast, "--truth", truth
    )
    assert "nothing is new" in updated.output
    damaged = next((tmp_path / "c").glob("state-*/value.cross/fold_2.safetensors"))
    damaged.unlink()
    done = ran("apply", "--calibration", tmp_path / "c", "--forecast", forecast,
               "--output", tmp_path / "e.zarr")  # fmt: skip
    assert done.exit_code != 0
    assert "missing or not as it was written" in done.output


def test_a_store_of_checkpoints_is_combined_and_calibrated_lead_by_lead(world: World, tmp_path):
    settings = tmp_path / "s.yaml"
    settings.write_text(yaml.safe_dump(CROSS | {"folds": 3}))
    done = ran("fit", "--calibration", tmp_path / "c", "--settings", settings, "--forecast",
               world.forecast, "--truth", world.truth)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "aggregation, as trained" in done.output
    assert "by 6 init times, of each row alone. With fewer than 20 only large diff" in done.output
    for name in ("t850", "ws10m"):
        assert re.search(rf"{name}: 100%.* 6/6 .* trainings", done.stderr)
    error = Calibration.open(tmp_path / "c").states["t850"].aggregation.conformal.error
    # 50,000 cases would be more cells than there are: each once, at each lead.
    assert error.sizes == {"lead_time": 3, "case": 24 * 8 * 16, "quantile": 5}
    calibration = Calibration.open(tmp_path / "c")
    apply(calibration, world.forecast, tmp_path / "whole.zarr")
    apply(calibration, world.forecast, tmp_path / "parts.zarr", memory=1)
    whole, parts = (xr.open_zarr(tmp_path / f"{n}.zarr").load() for n in ("whole", "parts"))
    xr.testing.assert_identical(whole, parts)
    truth = xr.open_zarr(world.truth, consolidated=False).t850.load()
    observed = truth.sel(time=whole.init_time + whole.lead_time)
    low, high = whole.t850.sel(quantile=0.05), whole.t850.sel(quantile=0.95)
    held = ((low <= observed) & (observed <= high)).mean(["init_time", "latitude", "longitude"])
    np.testing.assert_allclose(held, 0.9, atol=0.02)


def test_too_few_cases_are_refused_with_how_many_are_needed(tables, tmp_path):
    forecast, truth = tables / "forecast.csv", tables / "truth.csv"
    fine = {"levels": [0.001, 0.5, 0.999]}
    table = pd.read_csv(forecast, dtype={"location": str})
    wide = table.rename(columns={"q0.05": "q0.001", "q0.95": "q0.999"})
    wide.to_csv(tmp_path / "wide.csv", index=False)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(CROSS | fine))
    done = ran("fit", "--calibration", tmp_path / "c", "--settings", tmp_path / "s.yaml",
               "--forecast", tmp_path / "wide.csv", "--truth", truth)  # fmt: skip
    assert done.exit_code == InputError.exit_code
    said = "a miss rate of 0.001 needs at least 999 cases, found 480 for value"
    assert said in " ".join(done.output.split())
    one = table[table.location == "01"]
    one.to_csv(tmp_path / "one.csv", index=False)
    few = FitSettings(dates=((None, DATES[23].astype("M8[s]")),))
    known = r"by what was known at 2024-01-19T00, .*: calibrating to a miss rate of 0\.05 needs at "
    with pytest.raises(InputError, match=known + "least 19 cases, found 17 for lead_time 48 h"):
        fit(tmp_path / "one.csv", truth, tmp_path / "c", method_from(CROSS), few)
    with pytest.raises(InputError, match="40 folds need as many init times with truth, found 24"):
        fit(forecast, truth, tmp_path / "c", method_from(CROSS | {"folds": 40}), few)
    assert not (tmp_path / "c").exists()
    for settings, message in (
        ({"conformal": "split"}, "conformal: Input should be 'none' or 'cross'"),
        ({"folds": 1}, "folds"),
        ({"sides": "both", "levels": [0.1, 0.5]}, "do not come in pairs"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            method_from(CROSS | settings)
