"""Faults for real: whatever is killed, stopped, filled or damaged, the bytes end up the same.

Each case is seeded and ends in a rerun or a repair, after which every file of the store equals
that of an undisturbed run, every marker tells the truth, and no draft is left over. The default
run takes the first case of each kind; `-m slow` takes the others.
"""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil
import pytest

from data.errors import RunError, StoreError
from data.key import Key
from pipelines import engine
from pipelines.cli import main
from pipelines.clusters import Cluster, DaskScheduler, InProcess, LocalProcesses
from pipelines.experiment import read_experiment
from pipelines.lanes import Outcome, Patience
from pipelines.plan import Plan, Unit, make_plan
from pipelines.store import Marker
from pipelines.validate import repair, validate
from tests.conftest import World
from tests.pipelines.test_engine import digests

ROOT = Path(__file__).parents[2]
HASTY = Patience(factor=3.0, least=45.0, first=90.0, workers=300.0)
CHANGES = {"members": 7, "lead_time": "12h", "cluster": {"kind": "in_process"}}


def seeds(count: int) -> list:
    """Seeds of which the first is a default test and the others slow ones."""
    return [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, count))]


def draws(kind: str, seed: int) -> np.random.Generator:
    return (Key(2026) / kind / seed).generator()


@dataclass(frozen=True)
class Undisturbed:
    """An experiment, its finished store, and the digests of its files."""

    experiment: Path
    plan: Plan
    digests: dict[str, str]
    seconds: float

    def at(self, runs: Path) -> Plan:
        """The same plan for another store."""
        return replace(self.plan, path=runs / "faults" / "forecast.zarr")

    def finish(self, plan: Plan) -> None:
        """Run to the end, and hold what this file promises."""
        engine.run(plan, InProcess(), quiet=True)
        self.hold(plan)

    def hold(self, plan: Plan) -> None:
        assert digests(plan.path) == self.digests
        assert validate(plan.path).damages == ()
        assert not list(plan.path.parent.rglob("*.partial"))


@pytest.fixture(scope="module")
def undisturbed(world: World) -> Undisturbed:
    experiment = world.experiment("faults", **CHANGES)
    path = world.runs / "undisturbed" / "faults" / "forecast.zarr"
    plan = make_plan(read_experiment(experiment), path)
    started = time.monotonic()
    engine.run(plan, InProcess(), quiet=True)
    return Undisturbed(experiment, plan, digests(path), time.monotonic() - started)


def _myriad(arguments: list[str], errors: Path) -> None:
    with errors.open("w") as sys.stderr:
        main(arguments)


def started(undisturbed: Undisturbed, runs: Path) -> BaseProcess:
    """`myriad run` in a process of its own, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.job", "tests.pipelines.test_faults"])
    arguments = ["run", str(undisturbed.experiment), "--runs", str(runs)]
    process = context.Process(target=_myriad, args=(arguments, runs / "errors"))
    process.start()
    return process


def marked(plan: Plan) -> int:
    return len(list((plan.path / "completed/units").glob("*.json")))


def wait_for_marker(plan: Plan, count: int, runs: Callable[[], bool]) -> None:
    while marked(plan) < count and runs():
        time.sleep(0.002)


def lies(plan: Plan) -> list[str]:
    """Markers whose shards are not what they say."""
    return [damage.what for damage in validate(plan.path).damages if damage.unit]


@pytest.mark.parametrize("seed", seeds(30))
def test_kill_9_of_the_whole_run(undisturbed: Undisturbed, tmp_path: Path, seed: int) -> None:
    rng, plan = draws("run", seed), undisturbed.at(tmp_path)
    process = started(undisturbed, tmp_path)
    wait_for_marker(plan, int(rng.integers(0, 7)), process.is_alive)
    time.sleep(rng.uniform(0, undisturbed.seconds / len(plan.units)))
    process.kill()
    process.join()
    if plan.path.exists():
        assert lies(plan) == []
    undisturbed.finish(plan)


@pytest.mark.parametrize("seed", seeds(12))
def test_sigterm(undisturbed: Undisturbed, tmp_path: Path, seed: int) -> None:
    rng, plan = draws("terminate", seed), undisturbed.at(tmp_path)
    process = started(undisturbed, tmp_path)
    wait_for_marker(plan, int(rng.integers(1, 7)), process.is_alive)
    process.terminate()
    process.join()
    assert process.exitcode == 128 + signal.SIGTERM
    said = (tmp_path / "errors").read_text().splitlines()[-1]
    assert said.startswith("myriad: stopped by SIGTERM")
    assert not list(plan.path.parent.rglob("*.partial"))
    undisturbed.finish(plan)


@pytest.mark.parametrize("seed", seeds(6))
def test_two_runs_at_once(undisturbed: Undisturbed, tmp_path: Path, seed: int) -> None:
    plan = undisturbed.at(tmp_path)
    first = started(undisturbed, tmp_path)
    wait_for_marker(plan, seed % 5 + 1, first.is_alive)
    with pytest.raises(StoreError, match="another run is at work"):
        engine.run(plan, InProcess(), quiet=True)
    first.join()
    assert first.exitcode == 0
    undisturbed.hold(plan)


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    position = int(rng.integers(len(content)))
    byte = content[position] ^ int(rng.integers(1, 256))
    return content[:position] + bytes([byte]) + content[position + 1 :]


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


@pytest.mark.parametrize("spoil", [flipped, truncated])
@pytest.mark.parametrize("seed", seeds(12))
def test_a_damaged_shard(
    undisturbed: Undisturbed,
    tmp_path: Path,
    seed: int,
    spoil: Callable[[bytes, np.random.Generator], bytes],
) -> None:
    rng, plan = draws(spoil.__name__, seed), undisturbed.at(tmp_path)
    shutil.copytree(undisturbed.plan.path, plan.path)
    shards = sorted(file for file in plan.path.glob("*/c/*/*/0/0/0") if file.is_file())
    shard = shards[int(rng.integers(len(shards)))]
    shard.write_bytes(spoil(shard.read_bytes(), rng))
    found = validate(plan.path)
    assert len({damage.unit for damage in found.damages}) == 1
    assert str(shard.relative_to(plan.path)) in found.damages[0].what
    repair(plan, found, InProcess(), quiet=True)
    undisturbed.hold(plan)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A small disk of its own."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("disks can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


@pytest.mark.parametrize("seed", seeds(10))
def test_a_full_disk(undisturbed: Undisturbed, tmp_path: Path, seed: int) -> None:
    rng = draws("full", seed)
    used = sum(
        -(-file.stat().st_size // 4096) * 4096
        for file in undisturbed.plan.path.rglob("*")
        if file.is_file()
    )
    with disk(tmp_path / "disk", int(used * rng.uniform(0.3, 0.95))) as folder:
        plan = undisturbed.at(folder)
        with pytest.raises(StoreError, match="No space left on device"):
            engine.run(plan, InProcess(), quiet=True)
        assert not list(folder.rglob("*.partial"))
        if plan.path.exists():
            assert lies(plan) == []
        remount(folder, "size=64m")
        undisturbed.finish(plan)


@pytest.mark.parametrize("seed", seeds(3))
def test_a_read_only_target(undisturbed: Undisturbed, tmp_path: Path, seed: int) -> None:
    rng = draws("read-only", seed)
    with disk(tmp_path / "disk", 2**26) as folder:
        plan = undisturbed.at(folder)
        engine.run(plan, InProcess(), quiet=True)
        for unit in rng.choice(plan.units, size=3, replace=False):
            (plan.path / f"completed/units/{unit.name}.json").unlink()
        remount(folder, "ro")
        with pytest.raises(StoreError, match="cannot be written"):
            engine.run(plan, InProcess(), quiet=True)
        remount(folder, "rw")
        undisturbed.finish(plan)


@dataclass(frozen=True)
class Clock:
    """A wall clock of processes that are started with its environment."""

    library: Path
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"LD_PRELOAD": str(self.library), "CLOCK": str(self.file)}

    def move(self, seconds: int) -> None:
        draft = self.file.with_suffix(".draft")
        draft.write_text(str(seconds))
        draft.rename(self.file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    compiler, library = shutil.which("cc"), tmp_path / "clock.so"
    if compiler is None or sys.platform != "linux":
        pytest.skip("a clock can be moved on Linux with a C compiler only")
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    clock = Clock(library, tmp_path / "clock")
    clock.move(-(10**9))
    asked = [sys.executable, "-c", "import time; print(time.time())"]
    said = subprocess.check_output(asked, env=clock.environment, text=True)
    assert float(said) == pytest.approx(time.time() - 10**9, abs=60)
    clock.move(0)
    return clock


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_clock_that_is_moved_back(
    undisturbed: Undisturbed, clock: Clock, tmp_path: Path, seed: int
) -> None:
    """During a run on worker processes, which is then stopped, and during its resumption."""
    rng, plan = draws("clock", seed), undisturbed.at(tmp_path)
    program = Path(sys.executable).with_name("myriad")
    command = [program, "run", undisturbed.experiment, "--runs", tmp_path, "--workers", "2"]
    stop = int(rng.integers(2, 6))
    back = np.sort(rng.integers(60, 10**9, size=2))
    for seconds, count, codes in ((back[0], stop - 1, {0, 143}), (back[1], stop + 1, {0})):
        with (tmp_path / "errors").open("w") as errors:
            process = subprocess.Popen(command, env=clock.environment, stderr=errors)
        running = partial(lambda process: process.poll() is None, process)
        wait_for_marker(plan, count, running)
        clock.move(-int(seconds))
        if count < stop:
            wait_for_marker(plan, stop, running)
            process.terminate()
        assert process.wait(120) in codes, (tmp_path / "errors").read_text()
    undisturbed.hold(plan)


@dataclass(frozen=True)
class Saboteur:
    """Does a unit, after harm has come to the worker that is at it the first time."""

    task: Callable[[Unit], object]
    harm: dict[str, str]
    folder: Path

    def __call__(self, unit: Unit) -> object:
        done = self.folder / unit.name
        if unit.name in self.harm and not done.exists():
            with suppress(FileNotFoundError):  # without a folder the harm comes every time
                done.write_text(self.harm[unit.name])
            HARM[self.harm[unit.name]]()
        return self.task(unit)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _eat() -> None:
    eaten = []
    for _ in range(400):  # 4 GB at most
        eaten.append(np.ones(10 * 2**20, dtype=np.uint8))
        time.sleep(0.002)
    time.sleep(30)


def _raise() -> None:
    raise ArithmeticError("a fault that passes")


HARM = {"stop": _stop, "die": _die, "eat": _eat, "raise": _raise}


@dataclass(frozen=True)
class Sabotaged:
    """A cluster with a saboteur."""

    cluster: Cluster
    harm: dict[str, str]
    folder: Path

    def outcomes(self, task: object, units: list[Unit], patience: Patience) -> Iterator[Outcome]:
        saboteur = Saboteur(task, self.harm, self.folder)
        yield from self.cluster.outcomes(saboteur, units, patience)


def sabotage(
    undisturbed: Undisturbed, folder: Path, kinds: list[str], seed: int, cluster: Cluster
) -> None:
    """One run in which each of these befalls a unit of its own."""
    plan = undisturbed.at(folder)
    order = draws("workers", seed).permutation(len(plan.units))[: len(kinds)]
    harm = {plan.units[k].name: kind for k, kind in zip(order, kinds, strict=True)}
    (folder / "harm").mkdir()
    sabotaged = Sabotaged(cluster, harm, folder / "harm")
    done = engine.run(plan, sabotaged, quiet=True, patience=HASTY)
    assert {file.name for file in (folder / "harm").iterdir()} == harm.keys()
    assert done.lost == ""
    undisturbed.hold(plan)


def test_a_worker_that_dies_costs_its_unit_a_retry(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    cluster = LocalProcesses(2, memory=2 * 10**9)
    sabotage(undisturbed, tmp_path, ["die", "raise"], 0, cluster)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["die", "stop", "eat"])
@pytest.mark.parametrize("seed", [1, 2])
def test_workers_that_die_hang_or_run_out_of_memory(
    undisturbed: Undisturbed, tmp_path: Path, kind: str, seed: int
) -> None:
    cluster = LocalProcesses(2, memory=2 * 10**9)
    sabotage(undisturbed, tmp_path, [kind] * 3, seed, cluster)


@pytest.mark.slow
def test_a_unit_that_kills_every_worker_fails_alone(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    plan = undisturbed.at(tmp_path)
    poisoned = plan.units[2].name
    cluster = Sabotaged(LocalProcesses(2, memory=2 * 10**9), {poisoned: "die"}, tmp_path / "none")
    with pytest.raises(RunError, match=f"1 of 8 units failed, the first is {poisoned}: its worker"):
        engine.run(plan, cluster, quiet=True, patience=HASTY)
    assert marked(plan) == 7
    undisturbed.finish(plan)


@contextmanager
def dask(folder: Path, workers: int, code: Path = ROOT) -> Iterator[tuple[str, subprocess.Popen]]:
    """A Dask scheduler and its workers, as somebody else has started them.

    `code` is where they find what they are to run that is not installed: the tests'.
    """
    program = str(Path(sys.executable).with_name("dask"))
    file = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet["env"] = os.environ | {"PYTHONPATH": str(code)}
    local = ["--scheduler-file", file, "--host", "127.0.0.1", "--no-dashboard"]
    scheduler = subprocess.Popen([program, "scheduler", "--port", "0", *local], **quiet)
    options = ["--nworkers", str(workers), "--nthreads", "1", "--death-timeout", "60"]
    worker = subprocess.Popen([program, "worker", *local, *options], **quiet)
    try:
        while not file.exists():
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], scheduler
    finally:
        for process in (worker, scheduler):
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()


@pytest.mark.slow
def test_an_existing_scheduler_gives_the_same_bytes_and_may_lose_workers(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with dask(tmp_path, 2) as (address, _):
        sabotage(undisturbed, tmp_path, ["die", "raise", "stop"], 5, DaskScheduler(address))


@dataclass(frozen=True)
class Killer:
    """A cluster whose scheduler is killed when some units are done."""

    cluster: Cluster
    scheduler: subprocess.Popen
    after: int

    def outcomes(self, task: object, units: list[Unit], patience: Patience) -> Iterator[Outcome]:
        for count, outcome in enumerate(self.cluster.outcomes(task, units, patience), 1):
            yield outcome
            if count == self.after:
                self.scheduler.kill()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_kill_9_of_the_scheduler(undisturbed: Undisturbed, tmp_path: Path, seed: int) -> None:
    plan = undisturbed.at(tmp_path)
    with dask(tmp_path, 2) as (address, scheduler):
        cluster = Killer(DaskScheduler(address), scheduler, after=1 + 2 * seed)
        with pytest.raises(RunError, match="scheduler is gone"):
            engine.run(plan, cluster, quiet=True, patience=HASTY)
    assert marked(plan) > 0
    assert lies(plan) == []
    undisturbed.finish(plan)


def test_a_late_twin_of_a_unit_changes_nothing(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """A worker that was given up wakes and writes the unit that another has finished."""
    plan = undisturbed.at(tmp_path)
    shutil.copytree(undisturbed.plan.path, plan.path)
    store = engine.Store(plan.path, plan.layout)
    unit = plan.units[3]
    time_of_unit = plan.layout.init_times[unit.init]
    fields = engine.unit_fields(plan, time_of_unit, unit.numbers)
    assert isinstance(store.marker(unit.name), Marker)
    engine.StoreSink(store).take(unit, lambda _: iter(np.moveaxis(fields, 2, 0)))()
    undisturbed.hold(plan)
