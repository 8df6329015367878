"""What readers pay for the chunks of a store: one point through time, one map of all members.

``python benchmarks/layout.py [--members 128] [--leads 40] [--latitudes 64]``: one channel of smooth
random fields, written with some chunkings, then read with zarr. Bytes are those of the chunks that
a reader has to fetch, requests their number and one more for the index of each shard, and seconds
the processor time of zarr with the files in memory.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# This folder has a script with the name of a package: the repository comes before it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import xarray as xr
import zarr

from data.grid import Grid
from data.key import Key
from data.noise import GaussianCorrelation, IsotropicNoise
from data.packing import round_to_quantum
from pipelines.layout import Layout
from pipelines.shards import COMPRESSOR

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Chunking:
    """Shape of a chunk and of a shard, (number, lead_time, latitude, longitude)."""

    name: str
    chunk: Shape
    shard: Shape | None


@dataclass(frozen=True)
class Reading:
    """Something that readers ask for, as an index of (number, lead_time, latitude, longitude)."""

    name: str
    index: tuple


def fields(members: int, leads: int, grid: Grid) -> np.ndarray:
    """(number, lead_time, latitude, longitude), float32, K: about a map's noise, as stored."""
    noise = IsotropicNoise(grid, GaussianCorrelation(800.0))
    values = np.empty((members, leads, *grid.shape), dtype=np.float32)
    for lead in range(leads):
        draw = noise.draw(Key(1) / lead, members)
        values[:, lead] = 270.0 + 8.0 * torch.as_tensor(draw).reshape(members, *grid.shape).numpy()
    return round_to_quantum(values, 1 / 64)


def chunkings(shape: Shape, grid: Grid, block: int) -> list[Chunking]:
    """Ours, and what others do or could."""
    members, leads, rows, columns = shape
    layout = Layout(
        channels=("t850",), grid=grid, init_times=(np.datetime64("2006-01-01"),),
        lead_times=np.arange(leads) * np.timedelta64(6, "h"), block=block, lossless=False,
        members=xr.Dataset(coords={"number": np.arange(members)}), attributes={},
    )  # fmt: skip
    return [
        Chunking("ours", layout.chunk[1:], layout.shard[1:]),
        Chunking("map of a member (Earth2Studio)", (1, 1, rows, columns), None),
        Chunking("map of a unit's members", (block, 1, rows, columns), None),
        Chunking("all leads of a member", (1, leads, rows, columns), None),
        Chunking("all leads of a small tile", (block, leads, 8, 8), (block, leads, rows, columns)),
        Chunking("all leads and members of a tile", (members, leads, 8, 8), None),
    ]


def readings(shape: Shape) -> list[Reading]:
    """A point through time, a map of all members, a member's forecast, a time series of one."""
    every = slice(None)
    rows, columns = shape[2] // 2, shape[3] // 3
    return [
        Reading("point, all leads, all members", (every, every, rows, columns)),
        Reading("map, one lead, all members", (every, shape[1] // 2, every, every)),
        Reading("one member, all of it", (shape[0] // 2, every, every, every)),
        Reading("point, all leads, one member", (shape[0] // 2, every, rows, columns)),
    ]


def write(path: Path, values: np.ndarray, chunking: Chunking, block: int) -> zarr.Array:
    """Write as units do, a block of members after the other."""
    array = zarr.create_array(
        path, shape=values.shape, chunks=chunking.chunk, shards=chunking.shard, dtype="float32",
        fill_value=np.nan, compressors=COMPRESSOR,
    )  # fmt: skip
    step = max(block, chunking.chunk[0])
    for first in range(0, len(values), step):
        array[first : first + step] = values[first : first + step]
    return array


def touched(reading: Reading, chunking: Chunking, shape: Shape) -> tuple[int, int]:
    """Chunks, and whole files or shards, that a reading needs."""

    def count(size: Shape) -> int:
        return math.prod(
            1 if isinstance(index, int) else -(-n // part)
            for index, n, part in zip(reading.index, shape, size, strict=True)
        )

    chunks = count(chunking.chunk)
    return chunks, 0 if chunking.shard is None else count(chunking.shard)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Least processor time of some work, all threads."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    """Read the arguments and print a table, the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=128)
    parser.add_argument("--leads", type=int, default=40)
    parser.add_argument("--latitudes", type=int, default=64)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    grid = Grid("legendre-gauss", chosen.latitudes, 2 * chosen.latitudes)
    values = fields(chosen.members, chosen.leads, grid)
    shape, table = values.shape, {}
    for chunking in chunkings(shape, grid, chosen.block):
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            array = write(Path(folder) / "array.zarr", values, chunking, chosen.block)
            row = {"write": time.process_time() - started}
            files = [file for file in Path(folder).rglob("c/**/*") if file.is_file()]
            size = sum(file.stat().st_size for file in files)
            row |= {"files": len(files), "bytes": size}
            whole = math.prod(-(-n // c) for n, c in zip(shape, chunking.chunk, strict=True))
            print(f"{chunking.name}: chunk {chunking.chunk}, {len(files)} files, "
                  f"{size / 1e6:.1f} MB, {whole} chunks of {size / whole / 1e3:.0f} kB, "
                  f"written in {row['write']:.2f} s", flush=True)  # fmt: skip
            for reading in readings(shape):
                chunks, shards = touched(reading, chunking, shape)
                spent = seconds(partial(array.__getitem__, reading.index), chosen.repeats)
                fetched = chunks * size / whole
                row[reading.name] = (chunks + shards, fetched, spent)
                print(f"    {reading.name:32s} {chunks + shards:6d} requests "
                      f"{fetched / 1e6:8.2f} MB {spent:8.3f} s", flush=True)  # fmt: skip
        table[chunking.name] = row
    print(json.dumps(table))


if __name__ == "__main__":
    main()
