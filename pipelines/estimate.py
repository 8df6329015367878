"""What a run will cost, said before it begins: files, bytes, memory and time."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import zarr
from zarr.storage import MemoryStore

from data.errors import StoreError
from data.key import Key
from pipelines.engine import target_of
from pipelines.layout import Layout
from pipelines.plan import Plan, Unit
from pipelines.shards import COMPRESSOR
from pipelines.store import statistics_folder

# Of a shard's index for each chunk, and of Blosc's header for each block of a chunk.
_INDEX_BYTES, _HEADER_BYTES = 16, 32
# What a shard needs while it is made: rounded values, the padded chunk, its compressed bytes.
_ENCODING = 3
_TIMED = 2.0
# Of statistics: bytes of a cell beside its counts; bits of a count by the logarithm of members;
# files if all are small; copies of the fields of a lead.
_PLAIN_BYTES, _BITS_OF_COUNT, _KEPT_FILES, _COPIES = 44, 0.4, 60, 4


@dataclass(frozen=True)
class Estimate:
    """What is still to be done, and what it takes.

    Attributes
    ----------
    path : pathlib.Path
        The store, or where statistics go if no member is stored.
    units, pending : int
        Units of the plan, and those that are not finished.
    member_steps : int
        Of the pending ones.
    files : int
        Shards and markers that they will write.
    most, likely : int
        Bytes that they will write: if nothing could be compressed, and as an analysis compresses.
    free, free_files : int
        Bytes and files that the disk has room for.
    memory : int
        Bytes that a worker needs beside those of its process, about.
    """

    path: Path
    units: int
    pending: int
    member_steps: int
    files: int
    most: int
    likely: int
    free: int
    free_files: int
    memory: int

    def check(self) -> None:
        """Refuse what cannot fit the disk.

        Raises
        ------
        StoreError
            If the likely bytes, or the files, are more than there is room for.
        """
        if self.likely > self.free:
            raise StoreError(
                f"{self.path}: needs about {_size(self.likely)} more, and the disk has "
                f"{_size(self.free)} left; nothing was changed"
            )
        if self.files > self.free_files:
            raise StoreError(
                f"{self.path}: needs {self.files} files more, and the disk has room for "
                f"{self.free_files}; nothing was changed"
            )

    def text(self, rate: float, workers: int, process: int) -> str:
        """All of it, a line each.

        Parameters
        ----------
        rate : float
            Member-steps a second on each worker.
        workers : int
        process : int
            Bytes of a worker's process; see `process_memory`.
        """
        left = _duration(self.member_steps / rate / workers)
        return "\n".join((
            f"store       {self.path}",
            f"units       {self.pending} of {self.units} to be done",
            f"files       {self.files}",
            f"bytes       about {_size(self.likely)}, at most {_size(self.most)}; "
            f"{_size(self.free)} free",
            f"memory      about {_size(process + self.memory)} for each of {workers} workers",
            f"time        {left} beside the workers' start, at {rate:.3g} member-steps/s on each "
            f"worker ({self.member_steps} member-steps)",
        ))  # fmt: skip


def estimate(plan: Plan) -> Estimate:
    """What a plan will cost, without writing anything."""
    todo = target_of(plan).pending()
    folder = next(parent for parent in plan.path.absolute().parents if parent.is_dir())
    disk = os.statvfs(folder)
    kept, stored = _kept(plan, todo), _stored(plan, todo)
    return Estimate(
        path=plan.path if plan.stored is not None else statistics_folder(plan.path),
        units=len(plan.units),
        pending=len(todo),
        member_steps=sum(len(unit.numbers) for unit in todo) * plan.steps,
        files=kept.files + stored.files,
        most=kept.most + stored.most,
        likely=kept.likely + stored.likely,
        free=disk.f_bavail * disk.f_frsize,
        free_files=disk.f_favail if disk.f_files else 2**62,
        memory=kept.memory + stored.memory,
    )


@dataclass(frozen=True)
class _Cost:
    """Files, bytes at most and likely, and bytes of memory beside the process itself."""

    files: int = 0
    most: int = 0
    likely: int = 0
    memory: int = 0


def _stored(plan: Plan, todo: list[Unit]) -> _Cost:
    """What storing members takes."""
    layout = plan.stored
    if layout is None:
        return _Cost()
    numbers = layout.members.number.values
    blocks, members = len(todo), sum(len(unit.numbers) for unit in todo)
    if plan.kept is not None:
        members = blocks = sum(int(np.isin(unit.numbers, numbers).sum()) for unit in todo)
    share = _compressed_share(plan) if todo else 1.0
    values = members * math.prod(layout.shape[2:]) * len(layout.channels)
    return _Cost(
        files=blocks * (len(layout.channels) * layout.windows + 1),
        most=blocks * len(layout.channels) * layout.windows * shard_bound(layout),
        likely=int(4 * values * share),
        memory=writing_memory(layout, _together(plan, layout)),
    )


def _kept(plan: Plan, todo: list[Unit]) -> _Cost:
    """What statistics take: those of each init time, and the parts of one that is under way."""
    if plan.kept is None or not todo:
        return _Cost()
    from pipelines.parts import FAN
    from pipelines.statistics_store import SHARD_BYTES
    from scoring.sketch import count_type  # with all of scoring, where statistics are kept

    layout, bins, members = plan.layout, plan.kept.bins, plan.layout.shape[1]
    inits = len({unit.init for unit in todo})
    values = len(layout.channels) * math.prod(layout.grid.shape)
    cells = values * layout.shape[2]
    # Of a count about as many bits as tell it from its neighbours are left (seen of Gaussian
    # members), of everything else in a cell about half its bytes.
    likely = cells * (_PLAIN_BYTES / 2 + _BITS_OF_COUNT / 8 * bins * math.log2(members + 1))
    most = cells * (_PLAIN_BYTES + bins * count_type(members).itemsize)
    parts = 1 + FAN
    block = max(len(unit.numbers) for unit in todo)
    return _Cost(
        files=inits * (_KEPT_FILES + int(most / SHARD_BYTES)),
        most=int((inits + parts) * most),
        likely=int((inits + parts) * likely),
        memory=values * (block * 4 * _COPIES + parts * (_PLAIN_BYTES + 4 * bins)),
    )


def shard_bound(layout: Layout) -> int:
    """Bytes of one shard of which nothing could be compressed: chunks, headers and index."""
    chunks = math.prod(n // c for n, c in zip(layout.shard, layout.chunk, strict=True))
    return chunks * (4 * math.prod(layout.chunk) + _HEADER_BYTES + _INDEX_BYTES) + 4


def writing_memory(layout: Layout, members: int) -> int:
    """Bytes that a worker needs for the fields of a unit that stores so many members."""
    window = 4 * members * len(layout.channels) * layout.leads_together
    shard = 4 * math.prod(layout.shard)
    # One is computed, one is written, and it may be that the last one of the unit before is.
    windows = min(3, 1 + layout.windows)
    return windows * window * math.prod(layout.grid.shape) + _ENCODING * shard


def _together(plan: Plan, layout: Layout) -> int:
    """Most members of a unit that are stored."""
    numbers = set(layout.members.number.values.tolist())
    return max(len(numbers.intersection(unit.numbers)) for unit in plan.units)


def _compressed_share(plan: Plan) -> float:
    """Share of their bytes that is left of the first analysis' fields, rounded and compressed."""
    fields = plan.ensemble.control(plan.layout.init_times[plan.units[0].init])
    tile = plan.layout.chunk[3:]
    files: dict = {}
    for index, name in enumerate(plan.layout.channels):
        array = zarr.create_array(
            MemoryStore(files), name=name, shape=fields.shape[2:], chunks=tile, dtype="float32",
            compressors=COMPRESSOR,
        )  # fmt: skip
        array[:] = plan.layout.rounded(name, fields[0, index])
    chunks = [len(content) for name, content in files.items() if "/c/" in name]
    return sum(chunks) / fields[0].nbytes


def measured_rate(plan: Plan) -> float:
    """Member-steps a second of one member on one thread, from about two seconds of forecasting."""
    import torch

    models = plan.models
    state = models.analysis(plan.layout.init_times[plan.units[0].init])
    forecaster, key = models.forecaster(0), Key(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            forecaster.step(state, key)  # the first one prepares tables
            started, steps = time.perf_counter(), 0
            while steps == 0 or time.perf_counter() - started < _TIMED:
                forecaster.step(state, key)
                steps += 1
        return steps / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)


def process_memory(plan: Plan) -> int:
    """Bytes of a process that forecasts: this one's, when it has taken a step."""
    models = plan.models
    models.forecaster(0).step(models.analysis(plan.layout.init_times[plan.units[0].init]), Key(0))
    return psutil.Process().memory_info().rss


def _duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _size(count: float) -> str:
    """Bytes in the unit that suits them."""
    power = 0
    while count >= 1000 and power < 5:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"
