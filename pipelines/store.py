"""The forecast store: laid out whole before any work, then filled region by region.

Each unit of work owns one block of members of one init time, in every channel and at every lead:
whole shards that no other unit touches. A unit is finished when its marker is there; markers lie
under the coordinate they make true, ``completed/units/``, and carry the fingerprint of the run.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

from data.channel import channel
from data.errors import StoreError
from data.grid import Grid
from data.packing import round_to_quantum
from perturb.member import Member

CHUNK_BYTES = 2**19
_DIMENSIONS = ("init_time", "number", "lead_time", "latitude", "longitude")
_COMPRESSOR = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")


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
    """

    channels: tuple[str, ...]
    grid: Grid
    init_times: tuple[np.datetime64, ...]
    lead_times: np.ndarray
    members: xr.Dataset
    block: int
    lossless: bool
    attributes: dict[str, Any]

    def rounded(self, name: str, values: np.ndarray) -> np.ndarray:
        """One channel's values as the store keeps them."""
        return values if self.lossless else round_to_quantum(values, channel(name).quantum)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Shape of each channel's array."""
        counts = len(self.init_times), self.members.sizes["number"], len(self.lead_times)
        return (*counts, *self.grid.shape)

    @property
    def shard(self) -> tuple[int, int, int, int, int]:
        """Shape of one unit's part: its members, every lead, the globe."""
        chunk, leads = self.chunk, self.shape[2]
        rows, columns = (-(-n // c) * c for n, c in zip(self.grid.shape, chunk[3:], strict=True))
        return 1, self.block, -(-leads // chunk[2]) * chunk[2], rows, columns

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
        leads = min(self.shape[2], max(1, budget // (rows * columns)))
        return 1, self.block, leads, rows, columns


@dataclass(frozen=True)
class Store:
    """A forecast store on a local disk, for writing."""

    path: Path
    layout: Layout

    @property
    def _units(self) -> Path:
        return self.path / "completed" / "units"

    def create(self) -> None:
        """Lay the store out, or take up the one that is there if it is of the same experiment.

        Raises
        ------
        StoreError
            If the target holds something else, or cannot be written.
        """
        expected = self.layout.attributes["fingerprint"]
        found = fingerprint(self.path)
        if found is not None and found != expected:
            raise StoreError(
                f"{self.path}: is the store of another experiment (fingerprint {found}, expected "
                f"{expected}); nothing was changed: choose another name or remove that store"
            )
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        try:
            if found is None:
                draft.parent.mkdir(parents=True, exist_ok=True)
                _lay_out(draft, self.layout)
                os.replace(draft, self.path)
            self._units.mkdir(exist_ok=True)
            _sweep(self.path)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise StoreError(f"{self.path}: cannot be written: {error}") from None

    def marked(self) -> dict[str, str]:
        """Fingerprint of each finished unit, by the unit's name."""
        return {
            marker.stem: json.loads(marker.read_text())["fingerprint"]
            for marker in self._units.glob("*.json")
        }

    def write(self, init: int, block: int, fields: np.ndarray) -> None:
        """Write one unit's fields, (number, channel, lead_time, latitude, longitude), float32.

        Whatever an earlier, unfinished attempt left in this unit's shards goes first: a damaged
        shard could not be overwritten.
        """
        first = block * self.layout.block
        group = zarr.open_group(self.path, mode="r+")
        for index, name in enumerate(self.layout.channels):
            shutil.rmtree(self.path / name / "c" / str(init) / str(block), ignore_errors=True)
            values = self.layout.rounded(name, fields[:, index])
            group[name][init, first : first + len(values)] = values

    def mark(self, unit: str, digest: str) -> None:
        """Mark a unit as finished: durable, and there either whole or not at all."""
        draft = self._units / f"{unit}.{os.getpid()}.partial"
        with draft.open("w") as file:
            json.dump({"unit": unit, "fingerprint": digest}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._units / f"{unit}.json")

    def complete(self, completed: np.ndarray) -> None:
        """Write which (init_time, number) are finished, bool, for readers to see."""
        zarr.open_group(self.path, mode="r+")["completed"][:] = completed


def fingerprint(path: Path) -> str | None:
    """Fingerprint of the experiment whose store this is; None where nothing is.

    Raises
    ------
    StoreError
        If something else than a forecast store is there.
    """
    if not path.exists():
        return None
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: is no forecast store of this program ({type(error).__name__}: {error}); "
            "nothing was changed"
        ) from None


def _sweep(path: Path) -> None:
    """Remove the litter of killed writers."""
    for litter in path.rglob("*.partial"):
        litter.unlink(missing_ok=True)
    for litter in path.parent.glob(f"{path.name}.*.partial"):
        shutil.rmtree(litter, ignore_errors=True)


def open_store(path: Path) -> xr.Dataset:
    """The store as a lazy dataset.

    Raises
    ------
    StoreError
        If there is none.
    """
    if not (path / "zarr.json").exists():
        raise StoreError(f"{path}: no store is there; has the experiment been run?")
    return xr.open_zarr(path)


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


def _lay_out(path: Path, layout: Layout) -> None:
    """Write coordinates, attributes and empty arrays."""
    dataset = coordinates(layout).assign_attrs(layout.attributes)
    dataset.to_zarr(path, zarr_format=3, consolidated=False)
    group = zarr.open_group(path, mode="r+")
    for name in layout.channels:
        array = group.create_array(
            name,
            shape=layout.shape,
            chunks=layout.chunk,
            shards=layout.shard,
            dtype="float32",
            fill_value=np.nan,
            compressors=_COMPRESSOR,
            dimension_names=_DIMENSIONS,
        )
        array.attrs.update(variable_attributes(name, layout.lossless))
    with warnings.catch_warnings():
        # Not yet in the zarr v3 specification, but what lets xarray open a store without options;
        # sound here, because no metadata ever changes after this.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(path)
    _put_in_order(path / "zarr.json", (*dataset.coords, *layout.channels))


def _put_in_order(metadata: Path, names: tuple[str, ...]) -> None:
    """List the arrays in this order, in which readers show them; by itself it is the disk's."""
    content = json.loads(metadata.read_text())
    arrays = content["consolidated_metadata"]["metadata"]
    content["consolidated_metadata"]["metadata"] = {name: arrays[name] for name in names}
    metadata.write_text(json.dumps(content, indent=1))


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
