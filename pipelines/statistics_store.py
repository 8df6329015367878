"""The statistics of one init time on disk: written whole, sealed, and read by channel."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from data.channel import channel
from data.consolidated import consolidate
from data.errors import StoreError
from pipelines.labels import SOURCE, decode, encode
from pipelines.layout import Layout, coordinates
from pipelines.parts import Part, merged
from pipelines.shards import COMPRESSOR, checksum, writing
from scoring.kept import Kept, dependence
from scoring.sketch import Sketch, count_type

# Beside the chunks of an array, where readers of groups do not look.
SEAL = "completed/checksums.json"
_TEXTS = ("channel", "units", "threshold_channel")
CELLS = ("channel", "lead_time", "latitude", "longitude")
_CHUNK_BYTES = 2**20
SHARD_BYTES = 2**26
# Of a quantum, in which means are kept: far below their own error, and they compress.
_MEAN_PARTS = 2**16
_FIELDS = {
    "mean": ("float64", "mean of the members"),
    "variance": ("float32", "variance of the members, M - 1"),
    "minimum": ("float32", "smallest member"),
    "maximum": ("float32", "largest member"),
    "minimum_number": ("int32", "number of the smallest member"),
    "maximum_number": ("int32", "number of the largest member"),
}
_DEPENDENCE = "mean absolute difference of admissible pairs of members less that of all"


@dataclass(frozen=True)
class Statistics:
    """What is to be written of one init time.

    Attributes
    ----------
    layout : Layout
        Of the forecasts.
    init_time : numpy.datetime64
    bins : int
        Of the sketches.
    thresholds : tuple of tuple of float
        Of each channel, in its unit.
    fingerprint : str
        Digest of everything that decides the values.
    """

    layout: Layout
    init_time: np.datetime64
    bins: int
    thresholds: tuple[tuple[float, ...], ...]
    fingerprint: str

    def write(self, path: Path, parts: list[list[Part]], completed: np.ndarray, units: int) -> None:
        """Write the store of an init time; one that is there is replaced.

        Parameters
        ----------
        path : pathlib.Path
            Where to.
        parts : list of list of Part
            Of each checkpoint, all that there is.
        completed : numpy.ndarray
            (number,) bool: whose fields are in the parts.
        units : int
            How many units are in the parts.
        """
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        with writing(path):
            try:
                self._lay_out(draft, parts, completed, units)
                self._fill(zarr.open_group(draft, mode="r+"), parts)
                _seal(draft)
                _put(draft, path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    def _fill(self, group: zarr.Group, parts: list[list[Part]]) -> None:
        """Write all arrays, shard by shard."""
        arrays = dict(group.arrays())
        waiting: dict[str, list[np.ndarray]] = {}
        leads = len(self.layout.lead_times)
        for lead in range(leads):
            for name, values in self._lead(parts, lead):
                window = waiting.setdefault(name, [])
                window.append(values)
                if len(window) == arrays[name].shards[1] or lead == leads - 1:
                    arrays[name][:, lead + 1 - len(window) : lead + 1] = np.stack(window, axis=1)
                    window.clear()

    def _lay_out(
        self, draft: Path, parts: list[list[Part]], completed: np.ndarray, units: int
    ) -> None:
        layout = self.layout
        dataset = coordinates(layout).drop_vars(["completed", "valid_time", "init_time"])
        labels = [name for name, own in zip(layout.channels, self.thresholds, strict=True)
                  for _ in own]  # fmt: skip
        dataset = dataset.assign_coords(
            init_time=self.init_time.astype("datetime64[ns]"),
            completed=("number", completed),
            channel=list(layout.channels),
            units=("channel", [channel(name).units for name in layout.channels]),
            quantum=("channel", [channel(name).quantum for name in layout.channels]),
        )
        if labels:
            values = [level for own in self.thresholds for level in own]
            dataset = dataset.assign_coords(
                threshold=("exceedance", values), threshold_channel=("exceedance", labels)
            )
        dataset = dataset.assign_attrs(
            layout.attributes | {"fingerprint": self.fingerprint, "units_of_work": units},
            source=SOURCE,
        )
        encode(dataset).to_zarr(draft, zarr_format=3, consolidated=False)
        group = zarr.open_group(draft, mode="r+")
        consolidate(draft, (*dataset.coords, *self._create(group, parts, int(completed.sum()))))

    def _create(self, group: zarr.Group, parts: list[list[Part]], members: int) -> list[str]:
        """Empty arrays; their names."""
        cells = (len(self.layout.channels), len(self.layout.lead_times), *self.layout.grid.shape)
        wanted = dict(_FIELDS)
        if _dependence(parts, 0) is not None:
            wanted["dependence"] = "float32", _DEPENDENCE
        if any(part.contents.control for own in parts for part in own):
            wanted["control"] = "float32", "member 0"
        for name, (kind, text) in wanted.items():
            _create(group, name, cells, kind, CELLS, text)
        kind = count_type(members)
        text = "members in each bin of the sketch; see scoring.sketch"
        _create(group, "count", (*cells, self.bins), kind, (*CELLS, "bin"), text)
        levels = sum(map(len, self.thresholds))
        if levels:
            dims = "exceedance", *CELLS[1:]
            text = "members above the threshold"
            _create(group, "above", (levels, *cells[1:]), "int32", dims, text)
        return [*wanted, "count", *(["above"] if levels else [])]

    def _lead(self, parts: list[list[Part]], lead: int) -> Iterator[tuple[str, np.ndarray]]:
        """Arrays at one lead, (channel, latitude, longitude, ...)."""
        grid = self.layout.grid.shape
        whole = merged([part for own in parts for part in own], lead)
        quanta = [channel(name).quantum for name in self.layout.channels]
        fields: dict[str, list[np.ndarray]] = {name: [] for name in (*_FIELDS, "count")}
        for kept, quantum in zip(whole.kept, quanta, strict=True):
            for name, values in _physical(kept, quantum).items():
                fields[name].append(values)
        for name, values in fields.items():
            yield name, np.stack(values).reshape(len(quanta), *grid, *values[0].shape[1:])
        above = np.concatenate([kept.above for kept in whole.kept])
        if len(above):
            yield "above", above.reshape(len(above), *grid)
        scale = np.array(quanta)[:, None]
        if whole.control is not None:
            yield "control", (whole.control * scale).reshape(len(quanta), *grid)
        less = _dependence(parts, lead)
        if less is not None:
            yield "dependence", (less * scale).reshape(len(quanta), *grid)


def _physical(kept: Kept, quantum: float) -> dict[str, np.ndarray]:
    """What is written of one channel at one lead, (cell, ...)."""
    return {
        "mean": np.rint(kept.mean * _MEAN_PARTS) / _MEAN_PARTS * quantum,
        "variance": kept.variance * quantum**2,
        "minimum": kept.sketch.smallest * quantum,
        "maximum": kept.sketch.largest * quantum,
        "minimum_number": kept.smallest_number,
        "maximum_number": kept.largest_number,
        "count": kept.sketch.counts,
    }


def _dependence(parts: list[list[Part]], lead: int) -> np.ndarray | None:
    """See `kept.dependence`, (channel, cell); None for independent members."""
    present = [own for own in parts if any(part.contents.members for part in own)]
    pairs = [sum(part.contents.pairs for part in own) for own in present]
    if len(present) == 1 and not any(pairs):
        return None
    leads = [merged(own, lead).kept for own in present]
    found = [dependence(kept, pairs) for kept in zip(*leads, strict=True)]
    return None if any(one is None for one in found) else np.stack(found)


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    kind: np.dtype | str,
    dims: tuple[str, ...],
    text: str,
) -> None:
    """A shard is some leads of all channels and the globe; a chunk one channel and some rows."""
    row = np.dtype(kind).itemsize * int(np.prod(shape[3:]))
    pieces = max(1, -(-shape[2] * row // _CHUNK_BYTES))
    rows = -(-shape[2] // pieces)
    leads = max(1, min(shape[1], SHARD_BYTES // (shape[0] * shape[2] * row)))
    array = group.create_array(
        name,
        shape=shape,
        chunks=(1, 1, rows, *shape[3:]),
        shards=(shape[0], leads, -(-shape[2] // rows) * rows, *shape[3:]),
        dtype=kind,
        fill_value=0,
        compressors=COMPRESSOR,
        dimension_names=dims,
    )
    array.attrs["long_name"] = text


def _seal(draft: Path) -> None:
    """Keep the checksums of all files, and have all of them on the disk."""
    files = sorted(file for file in draft.rglob("*") if file.is_file())
    found = {file.relative_to(draft).as_posix(): checksum(file.read_bytes()) for file in files}
    (draft / SEAL).write_text(json.dumps(found))
    for file in (*files, draft / SEAL):
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())


def _put(draft: Path, path: Path) -> None:
    """Rename into place; what is there goes, if another worker has not just put the same there."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    with suppress(FileNotFoundError):
        os.replace(path, aside)
    try:
        os.replace(draft, path)
    except OSError:
        if not (path / SEAL).exists():
            raise
    shutil.rmtree(aside, ignore_errors=True)


def damages_of(path: Path) -> list[str]:
    """Files of a store of statistics that are not as they were written."""
    try:
        checksums = json.loads((path / SEAL).read_bytes())
        found = []
        for name, expected in checksums.items():
            file = path / name
            if not file.is_file():
                found.append(f"{name}: is missing")
            elif checksum(file.read_bytes()) != expected:
                found.append(f"{name}: is not as written")
        return found
    except (OSError, ValueError, AttributeError) as error:
        return [f"{SEAL}: cannot be read ({type(error).__name__})"]


def attributes_of(path: Path) -> dict[str, object]:
    """Attributes of a store of statistics; none where there is no store.

    Raises
    ------
    StoreError
        If they cannot be read.
    """
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: is no store of statistics ({error})") from None


def open_statistics(path: Path) -> xr.Dataset:
    """Statistics of one init time, (channel, lead_time, latitude, longitude), lazy.

    Raises
    ------
    StoreError
        If there are none.
    """
    if not (path / SEAL).is_file():
        raise StoreError(f"{path}: no statistics are there")
    found = xr.open_zarr(path, consolidated=False, decode_timedelta=True, chunks=None)
    texts = [name for name in _TEXTS if name in found.coords]
    named = decode(found[texts])
    return found.assign_coords({name: named[name] for name in texts})


def sketch_of(found: xr.Dataset) -> tuple[Sketch, float]:
    """The sketch of one channel, at any leads and cells flattened to one axis, and its quantum."""
    quantum = float(found.quantum)
    smallest, largest = (
        np.rint(found[name].values.ravel() / quantum).astype(np.int32)
        for name in ("minimum", "maximum")
    )
    counts = found["count"].values.reshape(smallest.size, -1)
    return Sketch(int(found.completed.sum()), counts, smallest, largest), quantum


def statistics_paths(folder: Path) -> list[Path]:
    """Stores of statistics in a folder, by init time; none if it is something else."""
    return sorted(path for path in folder.glob("*.zarr") if (path / SEAL).is_file())


def open_as_forecast(folder: Path) -> xr.Dataset:
    """What is known of the forecasts but their fields, which are nowhere and read as NaN.

    Returns
    -------
    xarray.Dataset
        (init_time, number, lead_time, latitude, longitude) for each channel, with `completed`,
        and the path of each init time's statistics as `statistics`.

    Raises
    ------
    StoreError
        If init times have different members, channels, leads or grids.
    """
    paths = statistics_paths(folder)
    opened = [open_statistics(path) for path in paths]
    first = opened[0]
    for path, other in zip(paths, opened, strict=True):
        for name in ("channel", "number", "lead_time", "latitude", "longitude"):
            if not np.array_equal(first[name].values, other[name].values):
                raise StoreError(f"{path}: has another {name} than {paths[0]}")
    dims = ("init_time", "number", "lead_time", "latitude", "longitude")
    times = [one.init_time.values for one in opened]
    sizes = [len(times), *(first.sizes[dim] for dim in dims[1:])]
    nowhere = np.broadcast_to(np.float32(np.nan), sizes)
    own = ("number", "lead_time", "latitude", "longitude", "checkpoint", "perturbation", "pair",
           "sign", "seed")  # fmt: skip
    coordinates = {name: first[name].variable for name in own}
    dataset = xr.Dataset(
        {name: (dims, nowhere, channel(name).attributes) for name in first.channel.values},
        coordinates | {"init_time": np.array(times, dtype="datetime64[ns]")},
        first.attrs,
    )
    return dataset.assign_coords(
        completed=(dims[:2], np.stack([one.completed.values for one in opened])),
        statistics=("init_time", [str(path) for path in paths]),
    )
