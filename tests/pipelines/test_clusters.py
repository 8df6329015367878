"""Clusters: who computes decides nothing about the bytes; who gets which unit, and when."""

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from dask.config import deserialize
from distributed import Client, LocalCluster

from data.errors import ConfigurationError, MissingExtraError, RunError
from forecast.builds import library
from pipelines import engine, plan, unit_worker
from pipelines import experiment as settings
from pipelines.clusters import (
    Cluster,
    DaskScheduler,
    InProcess,
    LocalGpus,
    LocalProcesses,
    Slurm,
    Task,
    make_cluster,
    visible_gpus,
)
from pipelines.experiment import read_experiment
from pipelines.lanes import Attempt, Lane, Patience, Waiting
from pipelines.plan import Unit, make_plan
from pipelines.slurm import SlurmJobs
from pipelines.unit_worker import UnitWorker
from tests.conftest import World
from tests.pipelines.test_engine import digests
from tests.pipelines.test_faults import dask


def units(checkpoints: list[int]) -> list[Unit]:
    return [Unit(0, block, (block,), one, "") for block, one in enumerate(checkpoints)]


@pytest.mark.slow
def test_every_kind_of_cluster_writes_the_same_bytes(world: World, tmp_path: Path) -> None:
    experiment = read_experiment(world.experiment("kinds", members=5, lead_time="12h"))

    def done(name: str, cluster: Cluster) -> dict[str, str]:
        plan = make_plan(experiment, world.runs / name / "forecast.zarr")
        engine.run(plan, cluster, quiet=True)
        return digests(plan.path)

    expected = done("kind-self", InProcess())
    assert done("kind-local", LocalProcesses(2, memory=4 * 10**9)) == expected
    with dask(tmp_path, 2) as (address, _):
        assert done("kind-scheduler", DaskScheduler(address)) == expected


def test_a_worker_stays_with_its_checkpoint_and_others_spread() -> None:
    waiting = Waiting(units([0, 0, 0, 1, 1, 1, 2]))
    loaded: dict[str, int] = {}
    for worker in "abc":
        attempt = waiting.take(worker, Lane(), Counter(loaded.values()))
        loaded[worker] = attempt.unit.checkpoint
    assert sorted(loaded.values()) in ([0, 0, 1], [0, 1, 1], [0, 1, 2])
    attempt = waiting.take("a", Lane(loaded["a"]), Counter(loaded.values()))
    assert attempt.unit.checkpoint == loaded["a"]
    for _ in range(3):
        waiting.take("b", Lane(1), Counter(loaded.values()))
    assert len(waiting) == 0


def test_a_unit_goes_elsewhere_than_where_it_failed_unless_there_is_nowhere_else() -> None:
    waiting = Waiting([])
    waiting.add(Attempt(units([0])[0], failures=1, failed_on="a"))
    assert waiting.take("a", Lane(0), Counter({0: 2})) is None
    assert waiting.take("b", Lane(), Counter({0: 2})).failures == 1
    waiting.add(Attempt(units([0])[0], failures=1, failed_on="a"))
    assert waiting.take("a", Lane(0), Counter({0: 1})).failures == 1


def test_no_unit_is_lost_or_doubled_in_waiting() -> None:
    everything = units([k % 3 for k in range(100)])
    waiting, taken = Waiting(everything), []
    while len(waiting):
        lane = Lane(taken[-1].checkpoint if taken else None)
        taken.append(waiting.take("a", lane, Counter()).unit)
    assert sorted(unit.block for unit in taken) == list(range(100))
    assert sum(a.checkpoint != b.checkpoint for a, b in pairwise(taken)) == 2


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_named() -> None:
    cluster = DaskScheduler("tcp://127.0.0.1:9")
    with pytest.raises(RunError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers"):
        list(cluster.outcomes(print, units([0]), Patience()))


@dataclass(frozen=True)
class Nothing:
    """Does nothing, in a module that is not installed."""

    def __call__(self, unit: Unit) -> None:
        """Do it."""


@pytest.mark.slow
def test_workers_that_lack_the_code_of_the_run_are_one_message(tmp_path: Path) -> None:
    with dask(tmp_path, 1, code=tmp_path) as (address, _):
        cluster = DaskScheduler(address)
        with pytest.raises(RunError, match=r"workers cannot take up the run: .*No module named"):
            list(cluster.outcomes(Nothing(), units([0]), Patience()))


def unpickled_nowhere() -> None:
    """Stands for code that the workers lack."""
    raise ModuleNotFoundError("No module named 'theirs'")


class Elsewhere:
    """Can be sent, and not be received."""

    def __call__(self, unit: Unit) -> None:
        """Never gets as far."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return unpickled_nowhere, ()


@pytest.mark.parametrize(
    ("task", "here", "message"),
    [
        (Elsewhere(), plan.versions(), "No module named 'theirs'"),
        (Nothing(), {"torch": "0"}, "the run was planned with {'torch': '0'}"),
    ],
)
def test_what_workers_cannot_take_up_is_not_left_at_a_scheduler_that_stays(
    monkeypatch: pytest.MonkeyPatch, task: Task, here: dict[str, str], message: str
) -> None:
    monkeypatch.setattr(unit_worker, "UnitWorker", partial(UnitWorker, versions=here))
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as theirs:
        before = set(theirs.scheduler.worker_plugins)
        with pytest.raises(RunError, match=re.escape(message)):
            list(DaskScheduler(theirs.scheduler_address).outcomes(task, units([0]), Patience()))
        assert set(theirs.scheduler.worker_plugins) == before


def test_a_worker_that_comes_late_with_other_versions_says_so() -> None:
    plugin = UnitWorker("late", Nothing(), versions={"torch": "0"})
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as theirs,
        Client(theirs) as client,
    ):
        client.register_plugin(plugin)
        theirs.scale(1)
        found = client.submit(unit_worker._on_worker, "late", units([0])[0], pure=False)
        with pytest.raises(RunError, match=r"the run was planned with \{'torch': '0'\}"):
            found.result(60)


@pytest.mark.slow
def test_a_scheduler_without_workers_is_named(tmp_path: Path) -> None:
    with dask(tmp_path, 0) as (address, _):
        cluster = DaskScheduler(address)
        with pytest.raises(RunError, match=f"{address}: no worker has come in 1 s"):
            list(cluster.outcomes(Nothing(), units([0]), Patience(workers=1.0)))


@dataclass(frozen=True)
class Beside:
    """Computes alone; the rest of the first two units ends only when the next one is begun."""

    folder: Path

    def __call__(self, unit: Unit) -> Callable[[], None]:
        busy = self.folder / "busy"
        busy.touch(exist_ok=False)
        (self.folder / f"begun-{unit.block}").touch()
        time.sleep(0.1)
        busy.unlink()
        return partial(self.rest, unit)

    def rest(self, unit: Unit) -> None:
        """Wait for the next unit."""
        limit = time.monotonic() + 60
        while unit.block < 2 and not (self.folder / f"begun-{unit.block + 1}").exists():
            assert time.monotonic() < limit, "the next unit is not begun"
            time.sleep(0.01)
        (self.folder / f"ended-{unit.block}").touch()


def test_one_unit_is_computed_while_the_one_before_is_written(tmp_path: Path) -> None:
    cluster = LocalProcesses(1, memory=2 * 10**9)
    done = list(cluster.outcomes(Beside(tmp_path), units([0] * 4), Patience(attempts=1)))
    assert [outcome.failure for outcome in done] == [None] * 4
    assert len(list(tmp_path.glob("ended-*"))) == 4


def test_the_experiment_names_its_cluster(world: World) -> None:
    def chosen(**cluster: object) -> object:
        return make_cluster(read_experiment(world.experiment("c", cluster=cluster)).cluster)

    assert chosen(kind="in_process") == InProcess()
    assert chosen(kind="local", workers=3, memory_gb=2) == LocalProcesses(3, 2 * 10**9)
    assert chosen(kind="gpus", devices=["0", "3"], memory_gb=2) == LocalGpus(("0", "3"), 2 * 10**9)
    assert chosen(kind="scheduler", address="tcp://a:1") == DaskScheduler("tcp://a:1")
    assert isinstance(chosen(kind="slurm", jobs=4, memory_gb=16), Slurm)
    with pytest.raises(ConfigurationError, match="cluster"):
        chosen(kind="cloud")


def test_each_gpu_has_a_process_of_its_own(tmp_path: Path) -> None:
    def note(unit: Unit) -> None:
        seen = tmp_path / f"{unit.block}-{os.environ['CUDA_VISIBLE_DEVICES']}"
        seen.write_text(f"{os.getpid()} {torch.get_num_threads()}")
        while len({file.name.split("-", 1)[1] for file in tmp_path.iterdir()}) < 2:
            time.sleep(0.01)  # so that the first to start does not do all

    cluster = LocalGpus(("3", "GPU-7f"), memory=4 * 10**9)
    outcomes = list(cluster.outcomes(note, units([0] * 4), Patience()))
    assert [outcome.failure for outcome in outcomes] == [None] * 4
    processes: dict[str, set[str]] = {}
    for file in tmp_path.iterdir():
        process, threads = file.read_text().split()
        assert threads == "1"
        processes.setdefault(file.name.split("-", 1)[1], set()).add(process)
    assert {device: len(found) for device, found in processes.items()} == {"3": 1, "GPU-7f": 1}


def test_gpus_are_those_that_the_run_sees() -> None:
    assert visible_gpus({}, 3) == ("0", "1", "2")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "4, 6"}, 2) == ("4", "6")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, 0) == ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_said_and_a_run_can_still_be_planned(
    world: World, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="no GPU is to be seen"):
        make_cluster(settings.LocalGpus(kind="gpus"))
    forecaster = {"kind": "neural", "checkpoints": ["a"], "device": "cuda"}
    experiment = read_experiment(world.experiment("gpu", forecaster=forecaster))
    plan = make_plan(experiment, tmp_path / "f.zarr")
    with pytest.raises(RunError, match="finds no GPU that torch"):
        next(plan.models.trajectories(plan.layout.init_times[0], (0,)))


def test_the_cluster_is_no_part_of_the_fingerprint(world: World, tmp_path: Path) -> None:
    def fingerprint(**changes: object) -> str:
        experiment = read_experiment(world.experiment("f", **changes))
        return make_plan(experiment, tmp_path / "f.zarr").units[0].fingerprint

    expected = fingerprint()
    assert fingerprint(cluster={"kind": "in_process"}, min_members=2) == expected
    assert fingerprint(init_times=["2006-01-02T00"]) == expected
    assert fingerprint(seed=8) != expected


def test_what_steps_a_network_is_part_of_it_and_the_same_on_every_worker(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, here = read_experiment(world.experiment("stepped")), UnitWorker("here", print)
    expected = make_plan(experiment, tmp_path / "f.zarr").units[0].fingerprint
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # this process goes on
    here.setup(None)
    steps = "C" if library() is None else "torch"  # the other one
    monkeypatch.setattr(plan, "library", lambda: None if steps == "torch" else object())
    assert make_plan(experiment, tmp_path / "f.zarr").units[0].fingerprint != expected
    with pytest.raises(RunError, match=f"a worker has .*'network step': '{steps}'"):
        here.setup(None)


def test_slurm_jobs_are_what_the_experiment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("dask_jobqueue") is None:
        pytest.skip("there is no dask-jobqueue")
    chosen = settings.Slurm(
        kind="slurm", jobs=2, workers=4, memory_gb=16, walltime="02:00:00", queue="weather",
        account="me", directives=("--gres=gpu:1",), prologue=("module load python",),
    )  # fmt: skip
    monkeypatch.setattr("shutil.which", lambda program: program)
    interrupt = signal.getsignal(signal.SIGINT)
    with SlurmJobs(chosen, 2, 2, {"distributed.worker.memory.pause": False}) as jobs:
        script = jobs.script("job-0")
        address = jobs.cluster.scheduler.address
    assert signal.getsignal(signal.SIGINT) is interrupt  # dask-jobqueue puts its own there
    for line in ("-p weather", "-A me", "-t 02:00:00", "--gres=gpu:1", "module load python"):
        assert line in script
    assert "--cpus-per-task=4" in script  # each computes on one, and writes on the same
    assert f"dask_worker {address} --name job-0 " in script
    assert "--nthreads 2 " in script
    assert "--nworkers 4 " in script
    [given] = re.findall(r"export DASK_INTERNAL_INHERIT_CONFIG=(\S+)", script)
    assert deserialize(given) == {"distributed.worker.memory.pause": False}


def slurm() -> Slurm:
    return Slurm(settings.Slurm(kind="slurm", jobs=1, memory_gb=1))


def test_without_dask_jobqueue_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(MissingExtraError, match=r"myriadcast\[slurm\]"):
        next(slurm().outcomes(print, units([0]), Patience()))


def test_without_slurm_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("dask_jobqueue") is None:
        pytest.skip("there is no dask-jobqueue")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunError, match="no sbatch, squeue, scancel on the PATH"):
        next(slurm().outcomes(print, units([0]), Patience()))
