"""How a forecast store is laid out: its shape, chunks, coordinates and attributes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from data.channel import channel
from data.consolidated import consolidate
from data.grid import Grid
from data.packing import round_to_quantum
from perturb.member import Member
from pipelines.shards import COMPRESSOR, checksum

CHUNK_BYTES = 2**19
DIMENSIONS = ("init_time", "number", "lead_time", "latitude", "longitude")
# Chunks along init_time keep their length when init times are added.
_INIT_CHUNK = 256
_SECONDS = {"units": "seconds since 1970-01-01", "dtype": "int64"}
LAYOUT = "completed/layout.json"


@dataclass(frozen=True)
class Layout:
    """Everything that fixes the shape and the identity of a store.

    Attributes
    ----------
    channels : tuple of str
        One array each.
    grid : Grid
        Grid of the fields.
    init_times : tuple of numpy.datetime64
        Ascending.
    lead_times : numpy.ndarray
        (lead_time,), timedelta64, from 0.
    members : xarray.Dataset
        Coordinates along `number`, with their attributes.
    block : int
        Members in a shard.
    lossless : bool
        Whether values are kept as they are instead of rounded to each channel's quantum.
    attributes : dict
        Group attributes; `fingerprint` among them tells one experiment from another.
    window : int or None
        Leads in a shard, if not all: a worker holds no more of them at a time. Rounded to whole
        chunks.
    """

    channels: tuple[str, ...]
    grid: Grid
    init_times: tuple[np.datetime64, ...]
    lead_times: np.ndarray
    members: xr.Dataset
    block: int
    lossless: bool
    attributes: dict[str, Any]
    window: int | None = None

    def within(self, gigabytes: float, members: int) -> Layout:
        """This layout with the longest window of which so many members fill no more than that."""
        lead = 4 * members * len(self.channels) * math.prod(self.grid.shape)
        return replace(self, window=int(gigabytes * 1e9 / lead))

    def rounded(self, name: str, values: np.ndarray) -> np.ndarray:
        """One channel's values as the store keeps them."""
        if self.lossless:
            return values
        with np.errstate(over="ignore"):  # a member that has diverged is stored all the same
            return round_to_quantum(values, channel(name).quantum)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Shape of each channel's array."""
        counts = len(self.init_times), self.members.sizes["number"], len(self.lead_times)
        return (*counts, *self.grid.shape)

    @property
    def shard(self) -> tuple[int, int, int, int, int]:
        """Shape of one unit's part: its members, a window of leads, the globe."""
        chunk, leads = self.chunk, self.leads_together
        rows, columns = (-(-n // c) * c for n, c in zip(self.grid.shape, chunk[3:], strict=True))
        return 1, self.block, -(-leads // chunk[2]) * chunk[2], rows, columns

    @property
    def leads_together(self) -> int:
        """Leads in a shard: every lead, or whole chunks of a window."""
        leads, chunk = self.shape[2], self.chunk[2]
        return leads if self._window == leads else self._window // chunk * chunk

    @property
    def _window(self) -> int:
        """Leads in a shard, not rounded."""
        leads = self.shape[2]
        return leads if self.window is None else min(leads, max(1, self.window))

    @property
    def windows(self) -> int:
        """Shards that a unit has of each channel."""
        return -(-self.shape[2] // self.leads_together)

    @property
    def chunk(self) -> tuple[int, int, int, int, int]:
        """Shape of one chunk: all members of the unit, a tile of the globe, a few leads.

        One chunk of about half a MiB serves both a map of all members at one lead and all leads
        of all members at one place.
        """
        budget = CHUNK_BYTES // (4 * self.block)
        rows, columns = self.grid.shape
        while rows * columns > budget and max(rows, columns) > 8:
            rows, columns = -(-rows // 2), -(-columns // 2)
        leads = min(self._window, max(1, budget // (rows * columns)))
        return 1, self.block, leads, rows, columns


def member_coordinates(members: tuple[Member, ...], checkpoints: tuple[str, ...]) -> xr.Dataset:
    """Who each member is, along `number`; names are flags, as CF has no other portable way."""
    perturbations = sorted({member.perturbation for member in members})
    columns = {
        "number": ([m.number for m in members], {"standard_name": "realization"}),
        "checkpoint": ([m.checkpoint for m in members], _flags(checkpoints)),
        "perturbation": (
            [perturbations.index(m.perturbation) for m in members],
            _flags(tuple(perturbations)),
        ),
        "pair": ([m.pair for m in members], {"long_name": "+- pair, -1 where there is none"}),
        "sign": ([m.sign for m in members], {"long_name": "sign within the pair, 0 for control"}),
        "seed": ([m.seed for m in members], {"long_name": "address of the member's draws"}),
    }
    return xr.Dataset(coords={
        name: ("number", np.array(values, dtype=np.int32), attributes)
        for name, (values, attributes) in columns.items()
    })  # fmt: skip


def _flags(names: tuple[str, ...]) -> dict[str, Any]:
    return {"flag_values": list(range(len(names))), "flag_meanings": " ".join(names)}


def lay_out(path: Path, layout: Layout, completed: np.ndarray) -> None:
    """Write coordinates, attributes, empty arrays, and the checksums of all that."""
    dataset = coordinates(layout).assign_attrs(layout.attributes)
    dataset.completed.values[:] = completed
    leads, members = layout.shape[2], layout.shape[1]
    encoding = {
        "init_time": {"chunks": (_INIT_CHUNK,), **_SECONDS},
        "valid_time": {"chunks": (_INIT_CHUNK, leads), **_SECONDS},
        "completed": {"chunks": (_INIT_CHUNK, members)},
    }
    dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    group = zarr.open_group(path, mode="r+")
    for name in layout.channels:
        group.create_array(
            name,
            shape=layout.shape,
            chunks=layout.chunk,
            shards=layout.shard,
            dtype="float32",
            fill_value=np.nan,
            compressors=COMPRESSOR,
            dimension_names=DIMENSIONS,
            attributes=variable_attributes(name, layout.lossless),
        )
    consolidate(path, (*dataset.coords, *layout.channels))
    _seal(path)
    (path / "completed" / "units").mkdir()


def _seal(path: Path) -> None:
    """Keep the checksums of everything that no unit changes: metadata and coordinates."""
    changing = path / "completed" / "c"
    files = sorted(file for file in path.rglob("*") if file.is_file())
    checksums = {
        file.relative_to(path).as_posix(): checksum(file.read_bytes())
        for file in files
        if changing not in file.parents
    }
    (path / LAYOUT).write_text(json.dumps(checksums))


def variable_attributes(name: str, lossless: bool) -> dict[str, Any]:
    """CF attributes of a channel's array, and the quantum that its values are rounded to."""
    kind = channel(name)
    return kind.attributes if lossless else kind.attributes | {"quantum": kind.quantum}


def coordinates(layout: Layout) -> xr.Dataset:
    """The coordinates of a store, nothing completed yet."""
    init_times = np.array(layout.init_times, dtype="datetime64[ns]")
    lead_times = layout.lead_times.astype("timedelta64[ns]")
    valid_times = init_times[:, None] + lead_times[None, :]
    completed = np.zeros(layout.shape[:2], dtype=bool)
    return layout.members.assign_coords(
        init_time=("init_time", init_times, {"standard_name": "forecast_reference_time"}),
        lead_time=("lead_time", lead_times, {"standard_name": "forecast_period"}),
        valid_time=(("init_time", "lead_time"), valid_times, {"standard_name": "time"}),
        latitude=("latitude", layout.grid.latitude,
                  {"standard_name": "latitude", "units": "degrees_north"}),
        longitude=("longitude", layout.grid.longitude,
                   {"standard_name": "longitude", "units": "degrees_east"}),
        completed=(("init_time", "number"), completed,
                   {"long_name": "whether this member of this init time is finished"}),
    )  # fmt: skip
