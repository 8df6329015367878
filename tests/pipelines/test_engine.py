"""The engine on real processes: the same bytes whatever happens, and nothing lost."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import xskillscore

from data.errors import DegradedError, MyriadError, RunError, StoreError
from data.key import Key
from pipelines import engine
from pipelines.clusters import InProcess, LocalProcesses, Outcomes, Task
from pipelines.experiment import read_experiment
from pipelines.lanes import Patience
from pipelines.plan import Plan, Unit, make_plan
from pipelines.replay import replay
from pipelines.store import Store, open_store
from scoring.crps import CRPS, STANDARD
from tests.conftest import World

WORKERS = LocalProcesses(2, memory=4 * 10**9)


def planned(world: World, runs: str, **changes: object) -> Plan:
    name = changes.pop("name", "tiny")
    settings = read_experiment(world.experiment(name, **changes))
    return make_plan(settings, world.runs / runs / "forecast.zarr")


def digests(path: Path) -> dict[str, str]:
    """Digest of every file of every array in a store."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def finished(world: World) -> Plan:
    """An undisturbed run."""
    plan = planned(world, "finished")
    done = engine.run(plan, WORKERS, quiet=True)
    assert (done.units, done.resumed) == (10, 0)
    return plan


def test_every_member_is_there_and_completed(finished: Plan) -> None:
    with open_store(finished.path) as dataset:
        assert dataset.completed.values.all()
        assert dataset.z500.shape == (2, 9, 5, 8, 16)
        for name in dataset.data_vars:
            assert np.isfinite(dataset[name].values).all()


def test_members_differ_and_pairs_lie_about_the_control(finished: Plan) -> None:
    with open_store(finished.path) as dataset:
        start = dataset.isel(lead_time=0, init_time=0).load()
    control, plus, minus = (start.t850.values[number] for number in (0, 1, 2))
    quantum = start.t850.attrs["quantum"]
    assert np.abs(plus - control).max() > 10 * quantum
    np.testing.assert_allclose(plus + minus, 2 * control, atol=2 * quantum)


def test_xskillscore_on_the_store_agrees_with_our_standard_estimator(finished: Plan) -> None:
    with xr.open_zarr(finished.path) as dataset:
        forecast = dataset.t850.load()
    truth = forecast.isel(number=0, drop=True) + 1.5
    expected = xskillscore.crps_ensemble(truth, forecast, member_dim="number", dim=[])
    found = CRPS(STANDARD)(forecast, truth)
    np.testing.assert_allclose(found.values, expected.transpose(*found.dims).values, atol=1e-4)


def test_a_second_run_computes_nothing(finished: Plan) -> None:
    before = digests(finished.path)
    done = engine.run(finished, WORKERS, quiet=True)
    assert (done.resumed, done.member_steps) == (10, 0)
    assert digests(finished.path) == before


def test_one_worker_writes_the_same_bytes(world: World, finished: Plan) -> None:
    plan = planned(world, "one-worker")
    engine.run(plan, LocalProcesses(1, memory=4 * 10**9), quiet=True)
    assert digests(plan.path) == digests(finished.path)


def test_only_missing_units_are_done_again(world: World, finished: Plan) -> None:
    plan = planned(world, "finished")
    expected = digests(plan.path)
    unit = plan.units[3]
    (plan.path / f"completed/units/{unit.name}.json").unlink()
    done = engine.run(plan, WORKERS, quiet=True)
    assert (done.units, done.resumed) == (10, 9)
    assert digests(plan.path) == expected


def test_another_block_size_gives_the_same_members(world: World, finished: Plan) -> None:
    plan = planned(world, "other-block", store={"block": 5})
    engine.run(plan, WORKERS, quiet=True)
    with open_store(plan.path) as found, open_store(finished.path) as expected:
        for name in expected.data_vars:
            np.testing.assert_array_equal(found[name].values, expected[name].values)


def test_another_experiments_store_is_refused_before_any_step(world: World, finished: Plan) -> None:
    before = digests(finished.path)
    with pytest.raises(StoreError, match="another experiment"):
        engine.run(planned(world, "finished", seed=8), WORKERS, quiet=True)
    assert digests(finished.path) == before


def test_a_member_alone_equals_the_stored_one(world: World, finished: Plan, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    settings = read_experiment(world.experiment())
    init_time = settings.init_times[1]
    try:
        for number in (0, 4, 8):
            replay(settings, init_time, number, tmp_path / "member.nc")
            with (
                xr.open_dataset(tmp_path / "member.nc") as alone,
                open_store(finished.path) as dataset,
            ):
                stored = dataset.sel(init_time=init_time, number=number)
                for name in dataset.data_vars:
                    np.testing.assert_array_equal(alone[name].values, stored[name].values)
    finally:
        torch.set_num_threads(threads)


def test_stochastic_members_differ_and_are_the_same_alone(world: World, tmp_path: Path) -> None:
    changes = {
        "name": "seeds", "members": 4, "perturbations": [],
        "forecaster": {"kind": "neural", "checkpoints": ["stochastic"]},
    }  # fmt: skip
    plan = planned(world, "seeds", **changes)
    engine.run(plan, WORKERS, quiet=True)
    settings = read_experiment(world.folder / "seeds.yaml")
    alone = replay(settings, settings.init_times[0], 3, tmp_path / "member.nc")
    with open_store(plan.path) as dataset:
        first = dataset.isel(init_time=0).load()
    np.testing.assert_array_equal(first.t850.values[3], alone.t850.values)
    np.testing.assert_array_equal(first.t850.values[3, 0], first.t850.values[0, 0])
    assert np.abs(first.t850.values[3, -1] - first.t850.values[2, -1]).max() > 0


def test_two_runs_on_one_store_are_refused(finished: Plan) -> None:
    with engine.alone(finished.path), pytest.raises(StoreError, match="another run is at work"):
        engine.run(finished, WORKERS, quiet=True)


def test_the_first_units_have_time_for_as_many_members_and_steps_as_they_have(
    world: World,
) -> None:
    """128 members x 60 steps of a second are two hours, in which no worker hangs."""
    plan = planned(world, "patient", lead_time="6h")
    assert engine.patience_for(plan) == Patience()
    [unit, *_] = plan.units
    large = replace(plan, units=(replace(unit, numbers=tuple(range(7_680))),))
    assert engine.patience_for(large).first == 76_800

    given = []

    class Watched:
        def outcomes(self, task: Task, units: list[Unit], patience: Patience) -> Outcomes:
            given.append(patience)
            yield from InProcess().outcomes(task, units[:0], patience)

    engine.run(large, Watched(), quiet=True)
    assert given == [engine.patience_for(large)]


def test_a_unit_that_fails_costs_only_itself(world: World) -> None:
    plan = planned(world, "failing")
    store = Store(plan.path, plan.layout)
    store.create()
    blocked = plan.path / "t850" / "c" / "1" / "2"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder must be")
    with pytest.raises(RunError, match=r"1 of 10 units failed, the first is 00001-00002"):
        engine.run(plan, WORKERS, quiet=True)
    with open_store(plan.path) as dataset:
        completed = dataset.completed.values
    assert completed.sum() == completed.size - 2
    blocked.unlink()
    done = engine.run(plan, WORKERS, quiet=True)
    assert done.resumed == 9


@pytest.mark.slow  # test_faults has more of the kind, and its first case in the default run
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(
    world: World, finished: Plan
) -> None:
    """`kill -9` of the run and its workers, three times, then a rerun to the end."""
    runs = world.runs / "killed"
    myriad = Path(sys.executable).with_name("myriad")
    experiment = world.experiment()
    command = [myriad, "run", experiment, "--runs", runs, "--workers", "2"]
    path = runs / "tiny" / "forecast.zarr"
    for wanted in (1, 4, 7):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        markers = path / "completed" / "units"
        while process.poll() is None and len(list(markers.glob("*.json"))) < wanted:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert digests(path) == digests(finished.path)


@pytest.mark.slow  # as above
@pytest.mark.parametrize(
    ("stop", "number"), [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT)]
)
def test_a_stopped_run_says_so_and_goes_on_later(
    world: World, finished: Plan, stop: Callable[[int, int], None], number: signal.Signals
) -> None:
    """SIGTERM to the run alone, as a scheduler of jobs sends it; Ctrl-C, to its workers as well."""
    runs = world.runs / f"stopped-{number.name}"
    myriad = Path(sys.executable).with_name("myriad")
    command = [myriad, "run", world.experiment(), "--runs", runs, "--workers", "2"]
    path = runs / "tiny" / "forecast.zarr"
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    while process.poll() is None and not list((path / "completed" / "units").glob("*.json")):
        time.sleep(0.01)
    stop(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.decode().splitlines()[-1].startswith(f"myriad: stopped by {number.name}")
    assert "Traceback" not in errors.decode()
    subprocess.run(command, check=True, capture_output=True)
    assert digests(path) == digests(finished.path)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"init_times": ["2006-01-01T00"]}, 3),
        ({"init_times": ["2007-01-01T00"]}, 3),
        ({"forecaster": {"kind": "neural", "checkpoints": ["none"]}}, 5),
        ({"analyses": "none.zarr"}, 3),
        ({"lead_time": "9h"}, 4),
        ({"perturbations": [{"kind": "bred_vectors", "seed_channel": "z999"}]}, 4),
        ({"perturbations": [{"kind": "correlated_noise", "channels": ["t999"]}]}, 4),
    ],
)
def test_a_wrong_experiment_ends_before_the_first_step(
    world: World, changes: dict, code: int
) -> None:
    with pytest.raises(MyriadError) as caught:
        planned(world, "wrong", name="wrong", **changes)
    assert caught.value.exit_code == code
    assert not (world.runs / "wrong").exists()


def test_members_that_turn_nan_are_marked_named_and_kept_out(world: World) -> None:
    """Noise beyond what float32 holds: all but the control diverge."""
    changes = {
        "members": 4,
        "perturbations": [{"kind": "correlated_noise", "amplitude": 1e38, "paired": False}],
    }  # fmt: skip
    plan = planned(world, "diverging", name="diverging", **changes)
    with pytest.raises(
        RunError, match=r"member 1 from 2006-01-02T00:00:00.* and 1 more; 1 members"
    ):
        engine.run(plan, InProcess(), quiet=True)
    plan = planned(world, "diverging", name="diverging", min_members=1, **changes)
    done = engine.run(plan, InProcess(), quiet=True)
    assert (done.units, done.resumed) == (4, 4)
    with pytest.raises(DegradedError, match="not finite, and kept out of scores: member 1"):
        done.check()
    with open_store(plan.path) as dataset:
        assert dataset.completed.values.tolist() == [[True, False, False, False]] * 2


def test_a_unit_that_keeps_failing_leaves_a_degraded_run(world: World) -> None:
    plan = planned(world, "degraded", name="degraded", min_members=7)
    Store(plan.path, plan.layout).create()
    blocked = plan.path / "t850" / "c" / "1" / "2"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder must be")
    done = engine.run(plan, InProcess(), quiet=True)
    assert "1 of 10 units failed, the first is 00001-00002" in done.lost
    with open_store(plan.path) as dataset:
        assert dataset.completed.values.sum(axis=1).tolist() == [9, 7]
    too_few = planned(world, "degraded", name="degraded", min_members=8)
    with pytest.raises(RunError, match=r"7 members .* are whole, expected 8 \(min_members\)"):
        engine.run(too_few, InProcess(), quiet=True)


def test_the_run_itself_writes_the_same_bytes_as_processes(world: World, finished: Plan) -> None:
    plan = planned(world, "in-process")
    engine.run(plan, InProcess(), quiet=True)
    assert digests(plan.path) == digests(finished.path)


@dataclass(frozen=True)
class Disordered:
    """The run itself, with the units in another order."""

    def outcomes(self, task: Task, units: list[Unit], patience: Patience) -> Outcomes:
        order = (Key(5) / "order").generator().permutation(len(units))
        yield from InProcess().outcomes(task, [units[k] for k in order], patience)


def test_another_order_of_units_writes_the_same_bytes(world: World, finished: Plan) -> None:
    plan = planned(world, "disordered")
    engine.run(plan, Disordered(), quiet=True)
    assert digests(plan.path) == digests(finished.path)
