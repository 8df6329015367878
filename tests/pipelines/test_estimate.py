"""What a run will cost, against what it did cost."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from data.errors import StoreError
from pipelines import engine
from pipelines.cli import main
from pipelines.clusters import InProcess
from pipelines.estimate import estimate
from pipelines.experiment import read_experiment
from pipelines.plan import make_plan
from tests.conftest import World
from tests.pipelines.test_faults import disk

CHANGES = {"cluster": {"kind": "in_process"}, "perturbations": [], "lead_time": "24h"}


def files(path: Path) -> list[Path]:
    return [
        file
        for pattern in ("*/c/*/*/0/0/0", "completed/units/*.json")
        for file in path.glob(pattern)
    ]


def test_files_and_bytes_are_those_of_the_run(world: World) -> None:
    experiment = read_experiment(world.experiment("cost", **CHANGES))
    plan = make_plan(experiment, world.runs / "cost" / "forecast.zarr")
    before = estimate(plan)
    assert not plan.path.exists()
    assert (before.units, before.pending, before.member_steps) == (10, 10, 2 * 9 * 4)
    engine.run(plan, InProcess(), quiet=True)
    written = files(plan.path)
    shards = [file.stat().st_size for file in written if file.suffix != ".json"]
    assert before.files == len(written)
    assert sum(shards) <= before.most
    assert 0.3 * sum(shards) < before.likely < 3 * sum(shards)
    after = estimate(plan)
    assert (after.pending, after.files, after.most, after.likely) == (0, 0, 0, 0)
    said = CliRunner().invoke(main, ["plan", str(world.folder / "cost.yaml"), "--runs",
                                     str(world.runs)])  # fmt: skip
    assert said.output == f"{world.runs / 'cost'}: finished, all 10 units are done\n"


def test_what_cannot_fit_is_refused_with_code_6_before_anything_is_written(
    world: World, tmp_path: Path
) -> None:
    experiment = world.experiment("huge", **CHANGES | {"members": 49})
    with disk(tmp_path / "disk", 2**18) as runs:
        for command in ("plan", "run"):
            result = CliRunner().invoke(main, [command, str(experiment), "--runs", str(runs)])
            assert result.exit_code == 6, result.output
            assert "more, and the disk has" in result.stderr
        assert not list(runs.iterdir())


def test_too_few_files_left_are_refused(world: World) -> None:
    plan = make_plan(read_experiment(world.experiment("cost", **CHANGES)), world.runs / "x.zarr")
    with pytest.raises(StoreError, match="needs 40 files more, and the disk has room for 39"):
        replace(estimate(plan), free_files=39).check()


def test_the_command_says_all_of_it(world: World) -> None:
    experiment = world.experiment("said", **CHANGES)
    result = CliRunner().invoke(
        main, ["plan", str(experiment), "--runs", str(world.runs), "--rate", "2", "--workers", "3"]
    )
    assert result.exit_code == 0, result.output
    assert "10 of 10 to be done" in result.stdout
    assert (
        "12 s beside the workers' start, at 2 member-steps/s on each worker (72 member-steps)"
        in result.stdout
    )
    assert "for each of 3 workers" in result.stdout


def test_ten_thousand_units_are_planned_in_two_seconds(world: World, tmp_path: Path) -> None:
    changes = CHANGES | {"members": 20_000, "store": {"block": 4}}
    experiment = read_experiment(world.experiment("many", **changes))
    started = time.process_time()
    plan = make_plan(experiment, tmp_path / "forecast.zarr")
    assert estimate(plan).pending == 10_000
    assert time.process_time() - started < 2
