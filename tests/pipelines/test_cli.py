"""The command line: wrong input is one clear message, one exit code, and nothing touched."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result

from data.climatology import climatology_from, write_climatology
from data.grid import Grid
from data.source import open_source
from pipelines.cli import main, stopped_by_terminate
from pipelines.score import families_in
from pipelines.store import Store
from tests.conftest import World


def myriad(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("run", "e.yaml"), "what was finished is kept, the same command goes on from there"),
        (("all", "e.yaml"), "what was finished is kept, the same command goes on from there"),
        (("score", "e.yaml"), "the same command begins anew"),
        (("calibrate", "judge", "e.yaml"), "the same command begins anew"),
    ],
)
def test_a_stopped_command_says_what_calling_it_again_does(monkeypatch, command, said):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt(signal.SIGTERM)

    monkeypatch.setattr("pipelines.job.Job.read", stopped)
    done = myriad(*command)
    assert done.exit_code == 143
    assert done.stderr == f"myriad: stopped by SIGTERM; {said}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_where_nothing_can_be_raised_is_not_lost(number: int) -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(number)

    @stopped_by_terminate()
    def computing() -> None:
        Dying()
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        computing()


def test_a_copy_of_an_experiment_is_told_where_its_paths_start(tmp_path):
    demo = Path(__file__).parents[2] / "examples" / "demo.yaml"
    copy = Path(shutil.copy(demo, tmp_path))
    hint = f"relative paths in {copy} start at its own folder, {tmp_path.resolve()}"
    for text, code in ((copy.read_text(), 5), (with_checkpoints_in_place(copy.read_text()), 3)):
        copy.write_text(text)
        done = myriad("plan", copy)
        assert done.exit_code == code
        assert done.stderr.strip().endswith(hint)


def test_analyses_that_cannot_be_looked_at_are_one_message(world: World) -> None:
    name = world.folder / ("a" * 300 + ".nc")
    done = myriad("plan", world.experiment("long", analyses=str(name)))
    assert (done.exit_code, done.stderr) == (
        3,
        f"myriad: {name}: cannot be read: File name too long\n",
    )


def with_checkpoints_in_place(text: str) -> str:
    """With checkpoints where they are."""
    samples = Path(__file__).parents[2] / "data" / "samples" / "checkpoints"
    return text.replace("../data/samples/checkpoints", str(samples))


def spoiled(world: World, name: str, change: Callable[[xr.Dataset], xr.Dataset]) -> str:
    """The world's analyses with something wrong, as a NetCDF file beside them."""
    path = world.folder / f"{name}.nc"
    with xr.open_zarr(world.folder / "analysis.zarr", consolidated=False) as dataset:
        change(dataset.load()).to_netcdf(path)
    return path.name


def with_nan(dataset: xr.Dataset) -> xr.Dataset:
    dataset.t850.values[4, 2, 3] = np.nan
    return dataset


def in_unknown_units(dataset: xr.Dataset) -> xr.Dataset:
    dataset.t850.attrs["units"] = "furlong"
    return dataset


def in_celsius_called_kelvin(dataset: xr.Dataset) -> xr.Dataset:
    dataset.t850.values[:] -= 273.15
    return dataset


def in_metres(dataset: xr.Dataset) -> xr.Dataset:
    dataset.z500.values[:] /= 9.80665
    return dataset


def on_another_grid(dataset: xr.Dataset) -> xr.Dataset:
    other = Grid("equiangular", 8, 16)
    return dataset.assign_coords(latitude=other.latitude)


def with_a_time_twice(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.isel(time=[0, 1, 2, 3, 3, 4, 5, 6, 7, 8])


def truncated(world: World) -> str:
    name = spoiled(world, "truncated", lambda dataset: dataset)
    path = world.folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return name


def with_a_flipped_byte(world: World) -> str:
    path = world.folder / "flipped"
    shutil.copytree(world.folder / "a", path, dirs_exist_ok=True)
    weights = path / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    return path.name


CASES = {
    "missing channel": (
        lambda world: {"analyses": spoiled(world, "missing", lambda ds: ds.drop_vars("z500"))},
        3, ["missing.nc", "z500"],
    ),
    "NaN field": (
        lambda world: {"analyses": spoiled(world, "nan", with_nan)},
        3, ["nan.nc", "t850", "2006-01-02T00", "1 of 128 values are not finite"],
    ),
    "wrong units": (
        lambda world: {"analyses": spoiled(world, "furlong", in_unknown_units)},
        3, ["furlong.nc", "t850", "furlong", "K"],
    ),
    "units that are not what they say": (
        lambda world: {"analyses": spoiled(world, "celsius", in_celsius_called_kelvin)},
        3, ["celsius.nc", "t850", "are the units right?"],
    ),
    "metres called m2 s-2": (
        lambda world: {"analyses": spoiled(world, "metres", in_metres)},
        3, ["metres.nc", "z500", "are the units right?"],
    ),
    "truth that is not there": (lambda world: {"truth": "none.zarr"}, 3, ["none.zarr"]),
    "truth on another grid": (
        lambda world: {"truth": spoiled(world, "coarse", on_another_grid)},
        3, ["coarse.nc", "equiangular 8 x 16"],
    ),
    "truth without a channel": (
        lambda world: {"truth": spoiled(world, "bare", lambda ds: ds.drop_vars("z500"))},
        3, ["bare.nc", "z500"],
    ),
    "a climatology that is not there": (
        lambda world: {"climatology": "none.zarr"}, 3, ["none.zarr"],
    ),
    "channels of a network": (lambda world: {"channels": ["z500"]}, 4, ["channels", "neural"]),
    "a lead time of ages": (lambda world: {"lead_time": f"{'9' * 18}d"}, 4, ["lead_time"]),
    "an init time that is a number": (
        lambda world: {"init_times": [20060904]}, 4, ["init_times", "20060904"],
    ),
    "an init time that is none": (
        lambda world: {"init_times": ["NaT"]}, 4, ["init_times", "NaT"],
    ),
    "one checkpoint twice": (
        lambda world: {"forecaster": {"kind": "neural", "checkpoints": ["a", "a"]}},
        5, ["given twice"],
    ),
    "more members than analyses": (
        lambda world: {
            "perturbations": [{"kind": "lagged_analyses", "interval": "6h", "count": 3}]
        },
        4, ["3 analyses", "4"],
    ),
    "another grid": (
        lambda world: {"analyses": spoiled(world, "grid", on_another_grid)},
        3, ["grid.nc", "equiangular 8 x 16", "legendre-gauss 8 x 16"],
    ),
    "time not in the source": (
        lambda world: {"init_times": ["2006-02-01T00"]},
        3, ["analysis.zarr", "2006-02-01T00", "2006-01-05T18"],
    ),
    "duplicate times": (
        lambda world: {"analyses": spoiled(world, "twice", with_a_time_twice)},
        3, ["twice.nc", "2006-01-01T18"],
    ),
    "truncated NetCDF": (
        lambda world: {"analyses": truncated(world)},
        3, ["truncated.nc"],
    ),
    "checkpoint whose hash does not match": (
        lambda world: {
            "forecaster": {"kind": "neural", "checkpoints": [with_a_flipped_byte(world)]}
        },
        5, ["weights.safetensors", "SHA-256", "expected"],
    ),
    "unknown key": (
        lambda world: {"member": 9},
        4, ["unknown key 'member'", "'members'"],
    ),
    "too few analyses before the init time": (
        lambda world: {"init_times": ["2006-01-01T06"]},
        3, ["analysis.zarr", "2005-12-31"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_with_its_code_before_anything_is_written(world: World, case: str) -> None:
    changes, code, said = CASES[case]
    runs = world.runs / "bad"
    result = myriad("run", world.experiment("bad", **changes(world)), "--runs", runs)
    assert result.exit_code == code, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    for words in said:
        assert words in result.stderr
    assert not (runs / "bad").exists()


def test_the_store_of_another_experiment_stays_as_it_is(world: World) -> None:
    path = world.runs / "other" / "other" / "forecast.zarr"
    path.mkdir(parents=True)
    (path / "zarr.json").write_text(json.dumps({"attributes": {"fingerprint": "someone else's"}}))
    result = myriad("run", world.experiment("other"), "--runs", world.runs / "other")
    assert result.exit_code == 6
    assert "someone else's" in result.stderr
    assert [file.name for file in path.iterdir()] == ["zarr.json"]


def test_finished_forecasts_from_another_analysis_stay_as_they_are(world: World) -> None:
    for kind in ("persistence", "climatology"):
        runs = world.runs / f"again-{kind}"
        changes = {
            "forecaster": {"kind": kind}, "channels": ["t850"], "perturbations": [], "members": 1,
            "climatology": "climatology.zarr", "cluster": {"kind": "in_process"},
        }  # fmt: skip
        source = open_source(world.folder / "truth.zarr")
        write_climatology(climatology_from(source, ("t850",)), world.folder / "climatology.zarr")
        assert myriad("run", world.experiment("again", **changes), "--runs", runs).exit_code == 0
        store = runs / "again" / "forecast.zarr"
        before = {file: file.read_bytes() for file in store.rglob("*") if file.is_file()}
        if kind == "persistence":
            changes["analyses"] = "truth.zarr"
        else:
            other = open_source(world.folder / "analysis.zarr")
            path = world.folder / "other-climatology.zarr"
            write_climatology(climatology_from(other, ("t850",)), path)
            changes["climatology"] = path.name
        result = myriad("run", world.experiment("again", **changes), "--runs", runs)
        assert result.exit_code == 6
        assert "another analysis or climatology" in result.stderr
        assert before == {file: file.read_bytes() for file in store.rglob("*") if file.is_file()}


ONE_INIT_TIME = {
    "forecaster": {"kind": "persistence"}, "channels": ["t850"], "members": 3,
    "perturbations": [{"kind": "lagged_analyses", "interval": "6h", "count": 2}],
    "init_times": ["2006-01-02T00"], "cluster": {"kind": "in_process"},
}  # fmt: skip


def test_one_init_time_is_reported_without_calibration(world: World) -> None:
    result = myriad("all", world.experiment("one", **ONE_INIT_TIME), "--runs", world.runs)
    assert result.exit_code == 0, result.output
    assert "left out" in result.stderr
    assert (world.runs / "one" / "report.html").exists()


def test_families_outlive_a_later_all_and_scores_may_go_elsewhere(
    world: World, tmp_path: Path
) -> None:
    experiment = world.experiment("rescored", **ONE_INIT_TIME)
    own = ("score", experiment, "--runs", world.runs)
    assert myriad("run", experiment, "--runs", world.runs).exit_code == 0
    scored = myriad(*own, "--family", "gaussian")
    assert scored.exit_code == 0
    everything = myriad("all", experiment, "--runs", world.runs)
    assert everything.exit_code == 0
    for result, names in (
        (scored, ["scores.zarr", "sums.zarr", "scores.csv"]),
        (everything, ["scores.zarr", "sums.zarr", "scores.csv", "report.html"]),
    ):
        written = [Path(line) for line in result.stdout.split("\nwritten\n")[1].splitlines()]
        assert [path.name for path in written] == names
        assert all(path.exists() for path in written)
        assert "Families: gaussian." in result.stdout
    assert families_in(world.runs / "rescored" / "scores") == ("gaussian",)
    refused = myriad(*own)
    assert refused.exit_code == 6
    assert "--family gaussian" in refused.stderr
    assert myriad(*own, "--output", tmp_path / "out").exit_code == 0
    assert families_in(tmp_path / "out") == ()
    assert myriad(*own, "--climatology", "c.zarr").exit_code == 2


def test_a_truth_of_other_times_ends_all_before_the_forecast(world: World) -> None:
    times = {"init_times": ["2006-01-02T00", "2006-01-02T12"]}
    early = spoiled(world, "early", lambda dataset: dataset.isel(time=slice(0, 3)))
    result = myriad("all", world.experiment("early", truth=early, **times), "--runs", world.runs)
    assert result.exit_code == 3
    assert "early.nc" in result.stderr
    assert not (world.runs / "early").exists()


def test_scores_do_not_go_into_a_store(world: World) -> None:
    store, truth = world.folder / "analysis.zarr", world.folder / "truth.zarr"
    result = myriad("score", "--forecast", store, "--truth", truth, "--output", store / "scores")
    assert result.exit_code in (3, 6)
    assert not (store / "scores").exists()


def test_an_unwritable_target_is_named(world: World) -> None:
    blocked = world.folder / "blocked"
    blocked.write_text("a file")
    result = myriad("run", world.experiment("blocked"), "--runs", blocked)
    assert result.exit_code == 6
    assert "cannot be written" in result.stderr
    assert blocked.read_text() == "a file"


def test_no_forecast_step_is_taken_for_a_bad_target(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is laid out before the first worker starts."""

    def never(*_: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("pipelines.engine._compute_all", never)
    monkeypatch.setattr(Store, "write", never)
    (world.folder / "occupied").write_text("")
    result = myriad("run", world.experiment("early"), "--runs", world.folder / "occupied")
    assert result.exit_code == 6


def test_what_a_plan_finds_wrong_is_said_of_the_experiments_file(world: World) -> None:
    path = world.experiment("uneven", lead_time="7h")
    for command in ("plan", "run"):
        result = myriad(command, path, "--runs", world.runs)
        assert result.exit_code == 4
        assert f"{path}: lead_time: 7 h is no multiple" in result.stderr


def test_a_wrong_command_line_is_code_2() -> None:
    assert myriad("run").exit_code == 2
    assert myriad("rnu").exit_code == 2


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_explains_itself(command: str) -> None:
    result = myriad(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_an_init_time_that_is_no_time_is_a_wrong_command_line(world: World, tmp_path: Path) -> None:
    result = myriad(
        "member", world.experiment("tiny"), "--init-time", "yesterday", "--number", 1,
        "--output", tmp_path / "member.nc",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "yesterday" in result.stderr


def test_a_member_that_does_not_exist_is_named(world: World, tmp_path: Path) -> None:
    result = myriad(
        "member", world.experiment("tiny"), "--init-time", "2006-01-02T00", "--number", 99,
        "--output", tmp_path / "member.nc",
    )  # fmt: skip
    assert result.exit_code == 4
    assert "tiny.yaml: members: 99 is not among" in result.stderr
    assert not (tmp_path / "member.nc").exists()


def test_a_pattern_stands_for_the_files_it_matches(world: World, tmp_path: Path) -> None:
    result = myriad(
        "score", "--forecast", tmp_path / "fc*.nc", "--truth", world.folder / "truth.zarr",
        "--output", tmp_path / "scores",
    )  # fmt: skip
    assert result.exit_code == 3
    assert "fc*.nc: matches no file" in result.stderr


def test_all_needs_a_truth_before_it_forecasts(world: World) -> None:
    path = world.experiment("untold", truth=None)
    result = myriad("all", path, "--runs", world.runs)
    assert result.exit_code == 4
    assert "truth" in result.stderr
    assert not (world.runs / "untold").exists()
