"""Slurm for real: the bytes of every other cluster, jobs that are cancelled, nothing left behind.

These run where `sbatch` and dask-jobqueue are there and a partition is up. Where nodes do not
share `/tmp`, give pytest a folder that they share: `--basetemp`.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from data.errors import RunError
from data.key import Key
from pipelines import engine
from pipelines import experiment as settings
from pipelines.clusters import Cluster, InProcess, LocalProcesses, Outcomes, Slurm
from pipelines.experiment import read_experiment
from pipelines.lanes import Patience
from pipelines.plan import Plan, Unit, make_plan
from pipelines.validate import validate
from tests.conftest import World
from tests.pipelines.test_engine import digests

pytestmark = pytest.mark.slow

LIMIT = 300.0  # seconds, for whatever is waited for
# Long enough not to be over when its first unit is seen.
CHANGES = {"members": 15, "lead_time": "20d"}


def asked(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope="module", autouse=True)
def partition() -> None:
    """Slurm answers, and takes jobs."""
    if find_spec("dask_jobqueue") is None:
        pytest.skip("there is no dask-jobqueue")
    if shutil.which("sbatch") is None:
        pytest.skip("there is no sbatch")
    try:
        states = asked("sinfo", "--noheader", "--format=%a %D %t")
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"Slurm does not answer: {error}")
    if not any(line.startswith("up") and "down" not in line for line in states.splitlines()):
        pytest.skip(f"no partition of Slurm is up: {states}")


def slurm(jobs: int, workers: int = 1, **more: object) -> settings.Slurm:
    return settings.Slurm(
        kind="slurm", jobs=jobs, workers=workers, memory_gb=2 * workers, walltime="00:10:00", **more
    )


def jobs_of(process: int) -> list[str]:
    """Numbers of the jobs that a run has submitted and that wait or run."""
    name = f"myriad-{socket.gethostname()}-{process}"
    return asked("squeue", "--noheader", f"--name={name}", "--format=%A").split()


def wait_until(holds: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < limit, f"{what} has not come"
        time.sleep(0.05)


@dataclass(frozen=True)
class Undisturbed:
    """A plan, and what the files of its finished store are."""

    plan: Plan
    digests: dict[str, str]

    def at(self, folder: Path) -> Plan:
        return replace(self.plan, path=folder / "slurm" / "forecast.zarr")

    def hold(self, plan: Plan) -> None:
        assert digests(plan.path) == self.digests
        assert validate(plan.path).damages == ()
        assert not list(plan.path.parent.rglob("*.partial"))


@pytest.fixture(scope="module")
def undisturbed(world: World) -> Undisturbed:
    path = world.runs / "before-slurm" / "forecast.zarr"
    plan = make_plan(read_experiment(world.experiment("slurm", **CHANGES)), path)
    engine.run(plan, InProcess(), quiet=True)
    return Undisturbed(plan, digests(path))


@dataclass
class Running:
    """`myriad run` on Slurm, in a process of its own."""

    folder: Path
    plan: Plan
    process: subprocess.Popen[bytes]

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()

    def ended(self) -> int:
        try:
            return self.process.wait(LIMIT)
        finally:
            self.process.kill()

    def units(self) -> int:
        return len(list((self.plan.path / "completed/units").glob("*.json")))


def started(
    world: World, undisturbed: Undisturbed, folder: Path, chosen: settings.Slurm
) -> Running:
    cluster = chosen.model_dump(exclude_defaults=True, mode="json")
    cluster["directives"] = [f"--output={folder}/%j.out", *chosen.directives]
    experiment = world.experiment("slurm", cluster=cluster, **CHANGES)
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "run", experiment]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen([*command, "--runs", folder], stdout=errors, stderr=errors)
    return Running(folder, undisturbed.at(folder), process)


@pytest.mark.parametrize(("jobs", "workers"), [(2, 1), (1, 2)])
def test_jobs_write_the_bytes_of_every_other_cluster(
    world: World, undisturbed: Undisturbed, tmp_path: Path, jobs: int, workers: int
) -> None:
    run = started(world, undisturbed, tmp_path, slurm(jobs, workers))
    assert run.ended() == 0, run.errors
    assert jobs_of(run.process.pid) == []
    assert len(list(tmp_path.glob("*.out"))) == jobs
    undisturbed.hold(run.plan)
    local = undisturbed.at(tmp_path / "local")
    engine.run(local, LocalProcesses(2, memory=2 * 10**9), quiet=True)
    undisturbed.hold(local)


@dataclass(frozen=True)
class Cancelling:
    """Does a unit; before some, the first time, the job that is at them is cancelled."""

    task: Callable[[Unit], object]
    units: frozenset[str]
    folder: Path

    def __call__(self, unit: Unit) -> object:
        note = self.folder / unit.name
        if unit.name in self.units and not note.exists():
            job = os.environ["SLURM_JOB_ID"]
            note.write_text(job)
            subprocess.run(["scancel", job], check=True)
            time.sleep(60)
        return self.task(unit)


@dataclass(frozen=True)
class Cancelled:
    """A cluster of which jobs are cancelled while they are at these units."""

    cluster: Cluster
    units: frozenset[str]
    folder: Path

    def outcomes(self, task: object, units: list[Unit], patience: Patience) -> Outcomes:
        harmed = Cancelling(task, self.units, self.folder)
        yield from self.cluster.outcomes(harmed, units, patience)


@pytest.mark.parametrize(("jobs", "workers"), [(1, 1), (2, 1), (1, 2)])
def test_a_job_that_is_cancelled_is_followed_by_another(
    undisturbed: Undisturbed, tmp_path: Path, jobs: int, workers: int
) -> None:
    plan = undisturbed.at(tmp_path)
    draw = (Key(2026) / "scancel" / jobs / workers).generator()
    chosen = frozenset(plan.units[k].name for k in draw.permutation(len(plan.units))[:2])
    (tmp_path / "cancelled").mkdir()
    cluster = Slurm(slurm(jobs, workers, directives=(f"--output={tmp_path}/%j.out",)))
    # Were no job to follow, the run would end with an error instead of waiting.
    impatient = Patience(workers=120.0)
    done = engine.run(
        plan, Cancelled(cluster, chosen, tmp_path / "cancelled"), quiet=True, patience=impatient
    )
    cancelled = {file.name: file.read_text() for file in (tmp_path / "cancelled").iterdir()}
    assert cancelled.keys() == chosen
    assert done.lost == ""
    assert len(list(tmp_path.glob("*.out"))) > jobs
    assert jobs_of(os.getpid()) == []
    undisturbed.hold(plan)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_takes_its_jobs_along(
    world: World, undisturbed: Undisturbed, tmp_path: Path, how: signal.Signals
) -> None:
    run = started(world, undisturbed, tmp_path, slurm(2))
    wait_until(lambda: run.units() or run.process.poll() is not None, "the first unit")
    assert len(jobs_of(run.process.pid)) == 2, run.errors
    run.process.send_signal(how)
    assert run.ended() == 128 + how, run.errors
    assert jobs_of(run.process.pid) == []
    assert run.errors.splitlines()[-1].startswith(f"myriad: stopped by {how.name}")
    assert not list(run.plan.path.parent.rglob("*.partial"))
    engine.run(run.plan, InProcess(), quiet=True)
    undisturbed.hold(run.plan)


def test_a_run_that_is_stopped_while_its_jobs_wait_takes_them_along(
    world: World, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    run = started(world, undisturbed, tmp_path, slurm(2, directives=("--begin=now+1hour",)))
    wait_until(lambda: len(jobs_of(run.process.pid)) == 2 or run.process.poll(), "the jobs")
    run.process.terminate()
    assert run.ended() == 128 + signal.SIGTERM, run.errors
    assert jobs_of(run.process.pid) == []


def test_jobs_end_by_themselves_when_their_run_is_killed(
    world: World, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    run = started(world, undisturbed, tmp_path, slurm(1))
    wait_until(lambda: run.units() or run.process.poll() is not None, "the first unit")
    run.process.kill()
    run.ended()
    wait_until(lambda: not jobs_of(run.process.pid), "the end of the jobs")
    engine.run(run.plan, InProcess(), quiet=True)
    undisturbed.hold(run.plan)


def test_a_partition_that_is_not_there_is_named(undisturbed: Undisturbed, tmp_path: Path) -> None:
    cluster = Slurm(slurm(1, queue="no-such-partition"))
    with pytest.raises(RunError, match=r"sbatch refuses: .*no-such-partition"):
        engine.run(undisturbed.at(tmp_path), cluster, quiet=True)


def test_jobs_that_end_before_their_worker_comes_are_given_up(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    directives = (f"--output={tmp_path}/%j.out",)
    cluster = Slurm(slurm(1, directives=directives, prologue=("exit 3",)))
    with pytest.raises(RunError, match=r"3 Slurm jobs ended .*FAILED.*ExitCode 3:0, StdOut .*out"):
        engine.run(undisturbed.at(tmp_path), cluster, quiet=True)
    assert len(list(tmp_path.glob("*.out"))) == 3
    assert jobs_of(os.getpid()) == []
