"""Several forecasts of tables into one quantile store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

from data.errors import ConfigurationError, InputError
from pipelines.calibration.aggregated import Aggregated
from pipelines.calibration.folder import Calibration
from pipelines.calibration.methods import method_from
from pipelines.calibration.models import model_quantiles
from pipelines.calibration.steps import FitSettings, apply, fit, update
from pipelines.cli import main
from scoring.calibration.pools import Mean
from scoring.quantiles import quantile_score

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
NORMAL = np.array([-1.2816, -0.6745, 0.0, 0.6745, 1.2816])
DATES = np.datetime64("2024-01-01", "ns") + np.arange(24) * np.timedelta64(1, "D")
LEADS = np.array([24, 48])
PLACES = ["01", "02", "north"]
# Of each model: bias and width of its forecasts of something of standard deviation 1.
MODELS = {"good": (0.0, 1.0), "low": (-2.0, 1.0), "wide": (1.0, 3.0)}
SETTINGS = {"method": "aggregation", "levels": LEVELS, "learning_rate": 0.05, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """A folder with `forecast.csv` of three models, one of which is right, and `truth.csv`."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(3)
    shape = (DATES.size, LEADS.size, len(PLACES))
    centre, rows = 10 * rng.normal(size=shape), []
    known = {}
    for (date, lead, place), value in np.ndenumerate(centre):
        time = DATES[date] + np.timedelta64(int(LEADS[lead]), "h")
        known.setdefault((time, PLACES[place]), value + rng.normal())
        truth = known[time, PLACES[place]]
        # Every model is right about the truth but for its own bias and noise.
        for model, (bias, width) in MODELS.items():
            around = truth + bias + rng.normal() * (1.0 if model == "good" else 2.0)
            rows.append(
                [model, DATES[date], LEADS[lead], PLACES[place], *(around + width * NORMAL)]
            )
    names = ["model", "init_time", "lead_time", "location", *(f"q{level}" for level in LEVELS)]
    pd.DataFrame(rows, columns=names).to_csv(folder / "forecast.csv", index=False)
    observed = pd.DataFrame(
        [[*key, value] for key, value in known.items()], columns=["valid_time", "location", "value"]
    )
    observed.to_csv(folder / "truth.csv", index=False)
    return folder


def changed(path: Path, folder: Path, name: str, **columns: object) -> Path:
    """A table of which some columns are replaced by what they give of the table."""
    table = pd.read_csv(path, dtype={"location": str})
    table.assign(**columns).to_csv(folder / name, index=False)
    return folder / name


def quantiles_in(store: Path) -> xr.DataArray:
    return xr.open_zarr(store, consolidated=False)["value"].load()


def test_weights_go_to_the_model_that_is_right_and_are_kept(tables, tmp_path):
    forecast, truth = tables / "forecast.csv", tables / "truth.csv"
    done = fit(forecast, truth, tmp_path / "c", method_from(SETTINGS))
    again = Calibration.open(tmp_path / "c")
    state, restored = done.states["value"].aggregation, again.states["value"].aggregation
    assert state.models.tolist() == ["good", "low", "wide"]
    for name, tensor in state.network.state_dict().items():
        assert tensor.equal(restored.network.state_dict()[name])
    pd.testing.assert_frame_equal(done.states["value"].table, again.states["value"].table)
    parts = [tmp_path / f"{model}.csv" for model in MODELS]
    table = pd.read_csv(forecast, dtype={"location": str})
    for path in parts:
        own = table[table.model == path.stem].drop(columns="model")
        own.to_csv(path, index=False)
    assert fit(parts, truth, tmp_path / "p", method_from(SETTINGS)).hash == done.hash
    (folder,) = (tmp_path / "c").glob("state-*")
    assert sorted(file.name for file in folder.iterdir()) == ["value.json", "value.safetensors"]
    apply(again, forecast, tmp_path / "out.zarr")
    found = quantiles_in(tmp_path / "out.zarr")
    assert found.dims == ("init_time", "quantile", "lead_time", "location")
    assert found.shape == (24, 5, 2, 3)
    assert found.notnull().all()
    assert (found.diff("quantile") >= 0).all()
    dataset = Aggregated(**SETTINGS).open(forecast, None)
    raw = xr.concat(
        [model_quantiles(dataset.value.isel(init_time=i), LEVELS, MODELS) for i in range(24)],
        "init_time",
    ).transpose("model", "init_time", ...)
    weights = restored.weights(raw).mean("quantile")
    assert float(weights.sel(model="good")) > 0.6
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.values, restored.apply(raw).values, rtol=1e-6)


def test_baselines_are_judged_beside_it_on_dates_that_trained_nothing(tables, tmp_path):
    truth = tables / "truth.csv"
    done = fit(tables / "forecast.csv", truth, tmp_path / "a", method_from(SETTINGS))
    table = done.states["value"].table
    named = {"aggregation", "mean", "median", "trimmed mean", "linear pool", "logarithmic pool"}
    assert set(table.index) == named | {"best single model"} | set(MODELS)
    assert table.cases["mean"] == 6 * LEADS.size * len(PLACES)
    assert table.score["aggregation"] < table.score["mean"]
    assert table.score["good"] == table.score["best single model"]
    assert table.relative.is_monotonic_increasing
    # Scores by hand.
    dataset = Aggregated(**SETTINGS).open(tables / "forecast.csv", None)
    raw = xr.concat(
        [model_quantiles(dataset.value.isel(init_time=i), LEVELS, MODELS) for i in range(18, 24)],
        "init_time",
    )
    known = pd.read_csv(truth, dtype={"location": str}).set_index(["valid_time", "location"]).value
    known.index = known.index.set_levels(pd.to_datetime(known.index.levels[0]), level=0)
    observed = raw.isel(model=0, quantile=0, drop=True).copy()
    for place in np.ndindex(observed.shape):
        one = observed[place]
        observed[place] = known[
            one.init_time.values + one.lead_time.values, str(one.location.values)
        ]
    expected = float(quantile_score(Mean().of(raw), observed).mean())
    assert table.score["mean"] == pytest.approx(expected, rel=1e-5)
    # Truth of the judged dates changes what is judged, never the weights that are judged.
    late = changed(
        truth, tmp_path, "late.csv",
        value=lambda one: np.where(one.valid_time > "2024-01-19", 99.0, one.value),
    )  # fmt: skip
    other = fit(tables / "forecast.csv", late, tmp_path / "b", method_from(SETTINGS))
    assert other.states["value"].table.score["mean"] > 5 * table.score["mean"]


def test_a_missing_model_is_made_up_for_and_an_unknown_one_refused(tables, tmp_path):
    forecast, truth = tables / "forecast.csv", tables / "truth.csv"
    done = fit(forecast, truth, tmp_path / "c", method_from(SETTINGS))
    table = pd.read_csv(forecast, dtype={"location": str})
    table[table.model == "low"].to_csv(tmp_path / "alone.csv", index=False)
    some = table[(table.model == "low") | (table.init_time < "2024-01-05")]
    some.to_csv(tmp_path / "some.csv", index=False)
    apply(done, tmp_path / "some.csv", tmp_path / "out.zarr")
    found = quantiles_in(tmp_path / "out.zarr").isel(init_time=-1, location=2, lead_time=0)
    wanted = table[
        (table.model == "low") & (table.init_time == "2024-01-24")
        & (table.location == "north") & (table.lead_time == 24)
    ].iloc[0, 4:]  # fmt: skip
    np.testing.assert_allclose(found.values, wanted.to_numpy(float), rtol=1e-4)
    with pytest.raises(InputError, match="one model, low: there is nothing to combine"):
        apply(done, tmp_path / "alone.csv", tmp_path / "o.zarr")
    named = changed(forecast, tmp_path, "n.csv", model=lambda one: one.model.replace("low", "new"))
    with pytest.raises(InputError, match="model new is not among those fitted: good, low, wide"):
        apply(done, named, tmp_path / "o.zarr")
    assert not (tmp_path / "o.zarr").exists()


def test_update_trains_again_with_what_is_new(tables, tmp_path):
    forecast, truth = tables / "forecast.csv", tables / "truth.csv"
    first = FitSettings(dates=((None, np.datetime64("2024-01-16", "s")),))
    before = fit(forecast, truth, tmp_path / "c", method_from(SETTINGS), first)
    after, is_new = update(before, tmp_path / "c", forecast, truth)
    assert is_new
    whole = fit(forecast, truth, tmp_path / "d", method_from(SETTINGS))
    assert after.hash == whole.hash != before.hash
    assert not update(after, tmp_path / "c", forecast, truth)[1]


def test_the_command_line_prints_what_it_beats(tables, tmp_path):
    (tmp_path / "a.yaml").write_text(
        "method: aggregation\naverage: distributions\nlevels: [0.1, 0.5, 0.9]\n"
    )
    folder, runner = str(tmp_path / "c"), CliRunner()
    table = pd.read_csv(tables / "forecast.csv", dtype={"location": str})
    for model in MODELS:
        own = table[table.model == model].drop(columns="model")
        own[own.init_time < "2024-01-09"].to_csv(tmp_path / f"{model}_1.csv", index=False)
        own[own.init_time >= "2024-01-09"].to_csv(tmp_path / f"{model}_2.csv", index=False)
    named = [part for m in MODELS for part in ("--model", f"{m}={tmp_path / m}_*.csv")]
    done = runner.invoke(
        main,
        ["calibrate", "fit", "--calibration", folder, *named, "--truth", str(tables / "truth.csv"),
         "--settings", str(tmp_path / "a.yaml")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "aggregation" in done.output
    for name in ("aggregation", "median", "trimmed mean", "linear pool", "best single", *MODELS):
        assert f"\n{name}" in done.output
    output = str(tmp_path / "out.zarr")
    done = runner.invoke(
        main,
        ["calibrate", "apply", "--calibration", folder, *named, "--output", output,
         "--init-time", "2024-01-24"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert quantiles_in(Path(output)).shape == (1, 3, 2, 3)
    for arguments, code, said in (
        (["--model", "good"], 2, "expected NAME=PATH"),
        (["--model", "a=none*.csv"], 3, "matches no file"),
        ([*named, "--forecast", "x.zarr"], 2, "give --forecast or --model"),
    ):
        done = runner.invoke(
            main, ["calibrate", "apply", "--calibration", folder, *arguments, "--output", output]
        )
        assert (done.exit_code, said in done.output) == (code, True), done.output


def test_wrong_tables_are_one_clear_error(tables, tmp_path):
    forecast, truth = tables / "forecast.csv", tables / "truth.csv"
    twice = pd.read_csv(forecast, dtype={"location": str})
    pd.concat([twice, twice.iloc[[7]]]).to_csv(tmp_path / "twice.csv", index=False)
    levels = {"q0.1": "q0.9", "q0.9": "q0.1"}
    twice.rename(columns=levels).to_csv(tmp_path / "unsorted.csv", index=False)
    twice.rename(columns={"q0.9": "q1.0"}).to_csv(tmp_path / "outside.csv", index=False)
    twice[twice.init_time < "2024-01-09"].to_csv(tmp_path / "few.csv", index=False)
    lone = changed(
        forecast, tmp_path, "lone.csv",
        **{f"q{level}": lambda one, name=f"q{level}": one[name].where(one.model != "low")
           for level in LEVELS},
    )  # fmt: skip
    crossed = changed(forecast, tmp_path, "crossed.csv", **{"q0.9": lambda one: one["q0.1"]})
    pd.read_csv(truth).assign(
        valid_time="2020-01-01", location=range(len(pd.read_csv(truth)))
    ).to_csv(tmp_path / "nowhere.csv", index=False)
    changed(
        truth,
        tmp_path,
        "never.csv",
        valid_time=lambda one: one.valid_time.str.replace("4-", "0-", n=1),
    )
    for name, observed, message in (
        ("twice.csv", truth, "1 rows repeat a key"),
        ("unsorted.csv", truth, "must increase"),
        ("outside.csv", truth, r"within \(0, 1\)"),
        ("few.csv", truth, "at least 10 init times with truth, found 8"),
        (lone.name, truth, r"models \['low'\] have no case to be fitted on"),
        (crossed.name, truth, "model good: quantiles of value at 2024-01-01T00 cross in 6 cases"),
        ("none.csv", truth, "no such file"),
    ):
        where = tmp_path / name
        with pytest.raises(InputError, match=message):
            fit(where, observed, tmp_path / "c", method_from(SETTINGS))
    for observed, message in (
        ("nowhere.csv", "has no location of the forecasts"),
        ("never.csv", "has no truth of value at a valid time"),
        ("none.csv", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            fit(forecast, tmp_path / observed, tmp_path / "c", method_from(SETTINGS))
    with pytest.raises(InputError, match=r"model good has no quantile of level 0.025, but those"):
        fit(forecast, truth, tmp_path / "c", method_from({"method": "aggregation"}))
    with pytest.raises(InputError, match=r"has no column 'site', found model, init_time"):
        fit(forecast, truth, tmp_path / "c", method_from(SETTINGS | {"cells": ["site"]}))
    with pytest.raises(InputError, match="this method calibrates one forecast, found 1 models"):
        fit({"a": forecast}, truth, tmp_path / "c", method_from({"method": "emos"}))
    assert not (tmp_path / "c").exists()
    for settings, message in (
        ({"levels": [0.9, 0.1]}, "must increase"),
        ({"lags_hours": [24.0, 0.0]}, "lags begin with 0 and increase"),
        ({"average": "distributions", "weights": "fine"}, "takes coarse convex weights"),
        ({"weights": "finest"}, "weights"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            method_from(SETTINGS | settings)


def test_what_was_combined_is_calibrated_like_any_forecast(tables, tmp_path):
    truth = tables / "truth.csv"
    combined = fit(tables / "forecast.csv", truth, tmp_path / "c", method_from(SETTINGS))
    apply(combined, tables / "forecast.csv", tmp_path / "one.zarr")
    one = tmp_path / "one.zarr"
    past = FitSettings(dates=((None, np.datetime64("2024-01-20", "s")),))
    for method in ("conformal", "tracking", "adaptive"):
        settings = method_from({"method": method, "levels": LEVELS})
        folder, output = tmp_path / method, tmp_path / f"{method}.zarr"
        done = fit(one, truth, folder, settings, past)
        apply(done, one, output)
        raw, found = quantiles_in(one), quantiles_in(output)
        assert found.sizes == raw.sizes
        shifts = (found - raw).isel(init_time=-1, location=0, lead_time=0)
        assert abs(shifts).max() > 0
        assert update(done, folder, one, truth)[1]
    # Split CQR by hand: the median moves by the median of past errors, (n + 1) p-th smallest.
    raw, found = quantiles_in(one).sel(quantile=0.5), quantiles_in(tmp_path / "conformal.zarr")
    known = pd.read_csv(truth, dtype={"location": str}).set_index(["valid_time", "location"]).value
    valid = (raw.init_time + raw.lead_time).values.astype("datetime64[D]").astype(str)
    names = raw.location.values.tolist()
    observed = np.array([[[known[t, n] for n in names] for t in row] for row in valid])
    error = np.sort((observed - raw.values)[:20, 0].ravel())
    shift = (found.sel(quantile=0.5) - raw).isel(lead_time=0).values
    np.testing.assert_allclose(shift, error[int(np.ceil(61 * 0.5)) - 1], atol=1e-5)
    table = pd.read_csv(tables / "forecast.csv", dtype={"location": str})
    own = table[table.model == "low"].drop(columns="model")
    own.to_csv(tmp_path / "low.csv", index=False)
    settings = method_from({"method": "conformal", "levels": LEVELS})
    alone = fit(tmp_path / "low.csv", truth, tmp_path / "low", settings)
    # It is 2 too low, for each of its levels that are as far apart as they should be.
    assert alone.states["value"].shifts.mean() == pytest.approx(2, abs=0.6)
    with pytest.raises(InputError, match=r"found 3 models in tables \(good, low, wide\)"):
        fit(tables / "forecast.csv", truth, tmp_path / "d", settings)
    with pytest.raises(InputError, match="emos needs members, found quantiles"):
        fit(one, truth, tmp_path / "d", method_from({"method": "emos"}), past)
    with pytest.raises(InputError, match=r"one.zarr has no quantile of level 0\.025, but"):
        fit(one, truth, tmp_path / "d", method_from({"method": "conformal"}), past)
