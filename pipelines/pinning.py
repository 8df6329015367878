"""A core of its own for each worker: it claims one for itself, and the system frees it again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distributed import WorkerPlugin

from pipelines.cores import usable_cores

# The kernel's own folders of the cores: nothing is written, nothing is left behind, and processes
# of all users meet there.
CORES = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass
class PinnedWorker(WorkerPlugin):
    """Pins a worker to the first core that no other worker has claimed; to none if there is none.

    A claim is a lock on the core's folder. The system lets go of it when the process ends, however
    it does, so that its successor finds the core free, and workers of several runs on one machine
    do not share a core while another one is idle.

    Attributes
    ----------
    folder : pathlib.Path
        Where ``cpu0``, ``cpu1``, ... lie.
    name : str
        Of the plugin, among those of a worker.
    claim : int or None
        On the worker: the open lock.
    """

    folder: Path = CORES
    name: str = "core"
    claim: int | None = None

    def setup(self, worker: object) -> None:
        """Claim a core and stay on it with all threads, those that are there already as well."""
        for core in whole_first(usable_cores(), self.folder):
            self.claim = _claimed(self.folder / f"cpu{core}")
            if self.claim is not None:
                _stay_on(core)
                return

    def teardown(self, worker: object) -> None:
        """Let go of the core; the threads stay."""
        if self.claim is not None:
            os.close(self.claim)
            self.claim = None


def has_whole_cores(count: int, quota: Path = _QUOTA) -> bool:
    """Whether this process has so many cores to itself, as far as it can know.

    A container with a quota of time has none: it sees the cores of the whole machine, and what
    others do there moves from core to core.

    Parameters
    ----------
    count : int
        How many are wanted.
    quota : pathlib.Path
        Where the kernel says what share of time this container has: microseconds, or ``max``, and
        the period that they are for.
    """
    cores = len(usable_cores())
    with suppress(OSError, ValueError):
        limit, period = quota.read_text().split()
        if limit != "max" and int(limit) < cores * int(period):
            return False
    return count <= cores


def whole_first(cores: Iterable[int], folder: Path) -> list[int]:
    """The cores in the order in which to claim them: one thread of each, then their second ones."""
    return sorted(cores, key=lambda core: (_is_second_thread(folder / f"cpu{core}", core), core))


def _is_second_thread(folder: Path, core: int) -> bool:
    try:
        siblings = (folder / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return False
    return int(siblings.replace("-", ",").split(",")[0]) < core


def _claimed(path: Path) -> int | None:
    """The lock on a core, or None if another process has it or there can be none."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _stay_on(core: int) -> None:
    """Pin every thread of this process; later ones go where the one goes that starts them."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), {core})
