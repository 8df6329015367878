"""Cores: every worker has one to itself, and the successor of one that dies has its core."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipelines.clusters import LocalProcesses
from pipelines.cores import usable_cores
from pipelines.lanes import Patience
from pipelines.pinning import PinnedWorker, has_whole_cores, whole_first
from tests.pipelines.test_clusters import units

pytestmark = pytest.mark.skipif(len(usable_cores()) < 2, reason="there are no two cores")


@pytest.fixture
def cores(tmp_path: Path) -> Path:
    """A folder of two cores in which nobody else claims one."""
    for core in usable_cores()[:2]:
        (tmp_path / "cores" / f"cpu{core}").mkdir(parents=True)
    return tmp_path / "cores"


@dataclass(frozen=True)
class Note:
    """Notes the cores of all threads of a worker; one worker is killed, and its successor noted."""

    folder: Path
    workers: int
    killed: bool

    def __call__(self, unit: object) -> None:
        """Note, and wait until all are noted."""
        threads = [thread.id for thread in psutil.Process().threads()]
        seen = sorted({core for one in threads for core in os.sched_getaffinity(one)})
        (self.folder / f"{os.getpid()}").write_text(" ".join(map(str, seen)))
        if self.killed:
            try:
                (self.folder / "killed").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        limit = time.monotonic() + 60
        while len(noted(self.folder)) < self.workers:
            assert time.monotonic() < limit, "a worker has not come"
            time.sleep(0.01)


def noted(folder: Path) -> dict[str, tuple[int, ...]]:
    """The cores of each worker, by its process."""
    files = (file for file in folder.iterdir() if file.name.isdigit())
    return {file.name: tuple(map(int, file.read_text().split())) for file in files}


def test_each_worker_has_a_core_of_its_own_and_so_has_the_successor_of_one_that_is_killed(
    tmp_path: Path, cores: Path
) -> None:
    cluster = LocalProcesses(2, 2 * 10**9, cores)
    done = list(cluster.outcomes(Note(tmp_path, 3, killed=True), units([0] * 8), Patience()))
    assert [outcome.failure for outcome in done] == [None] * 8
    found = sorted(noted(tmp_path).values())
    assert len(found) == 3
    assert set(found) == {(core,) for core in usable_cores()[:2]}


def test_more_workers_than_cores_are_not_pinned(tmp_path: Path, cores: Path) -> None:
    cluster = LocalProcesses(len(usable_cores()) + 1, 2 * 10**9, cores)
    assert len(list(cluster.outcomes(Note(tmp_path, 1, killed=False), units([0]), Patience()))) == 1
    assert set(noted(tmp_path).values()) == {usable_cores()}


@pytest.fixture
def unpinned() -> object:
    """Gives this process its cores back."""
    before = os.sched_getaffinity(0)
    yield
    for thread in psutil.Process().threads():
        os.sched_setaffinity(thread.id, before)


@pytest.mark.usefixtures("unpinned")
def test_a_core_is_claimed_once_until_it_is_let_go(cores: Path) -> None:
    first, second = usable_cores()[:2]
    mask = os.sched_getaffinity(0)

    def claim() -> tuple[PinnedWorker, set[int]]:
        os.sched_setaffinity(0, mask)
        worker = PinnedWorker(cores)
        worker.setup(None)
        return worker, os.sched_getaffinity(0)

    one, on_one = claim()
    two, on_two = claim()
    three, on_three = claim()
    assert (on_one, on_two, on_three) == ({first}, {second}, mask)
    one.teardown(None)
    again, on_again = claim()
    assert on_again == {first}
    for worker in (one, two, three, again):
        worker.teardown(None)


def test_whole_cores_are_claimed_before_second_threads(cores: Path) -> None:
    first, second = usable_cores()[:2]
    order = whole_first([first, second, second + 1], cores)
    assert order == [first, second, second + 1]
    (cores / f"cpu{second}" / "topology").mkdir()
    (cores / f"cpu{second}" / "topology" / "thread_siblings_list").write_text(f"{first}-{second}\n")
    assert whole_first([first, second, second + 1], cores) == [first, second + 1, second]


@pytest.mark.usefixtures("unpinned")
def test_where_no_core_can_be_claimed_a_worker_stays_free(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    worker = PinnedWorker(tmp_path / "nothing")
    worker.setup(None)
    worker.teardown(None)
    assert os.sched_getaffinity(0) == before


def test_a_container_with_a_share_of_time_has_no_whole_cores(tmp_path: Path) -> None:
    quota, cores = tmp_path / "cpu.max", len(usable_cores())
    assert has_whole_cores(cores, quota)
    assert not has_whole_cores(cores + 1, quota)
    quota.write_text("max 100000\n")
    assert has_whole_cores(cores, quota)
    quota.write_text(f"{cores * 100_000} 100000\n")
    assert has_whole_cores(cores, quota)
    quota.write_text("150000 100000\n")
    assert not has_whole_cores(1, quota)
