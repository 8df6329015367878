"""The forecast store: laid out whole before any work, then filled region by region.

Each unit of work owns one block of members of one init time, in every channel and at every lead:
whole shards that no other unit touches, one for each channel and window of leads. A unit is
finished when its marker is there; markers lie under the coordinate they make true,
``completed/units/``, and carry the fingerprint of the run and the checksums of the unit's shards.
Init times can be added after the last one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from data.errors import StoreError
from pipelines.layout import LAYOUT, Layout, lay_out
from pipelines.shards import checksum, encoded, place, writing

_OWN = "checksum"  # of a marker, beside what it says


@dataclass(frozen=True)
class Marker:
    """What is known of a finished unit.

    Attributes
    ----------
    unit : str
        Its name.
    fingerprint : str
        Digest of everything that decides its values.
    diverged : tuple of int
        Positions along `number` of members of it that have a value that is not finite.
    shards : dict
        Checksum of each of its shards, by the file's path below the store.
    """

    unit: str
    fingerprint: str
    diverged: tuple[int, ...]
    shards: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Marker:
        """The marker in a file.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        try:
            content = json.loads(path.read_bytes())
            expected = content.pop(_OWN, None)
            marker = cls(**content | {"diverged": tuple(content["diverged"])})
            if expected not in (None, marker._own):  # those of older stores have none
                raise ValueError(f"its content has checksum {marker._own}, expected {expected}")
            return marker
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: is no marker ({type(error).__name__}: {error})") from None

    def to_bytes(self) -> bytes:
        """The marker as it is stored, with a checksum of its own."""
        return json.dumps(vars(self) | {_OWN: self._own}).encode()

    @property
    def _own(self) -> str:
        return checksum(json.dumps(vars(self), sort_keys=True).encode())


@dataclass(frozen=True)
class Standing:
    """What there is of an experiment's members.

    Attributes
    ----------
    completed : numpy.ndarray
        (init_time, number), bool: whose fields are there and finite.
    diverged : list of tuple
        Position of the init time, and number, of each that is not finite.
    """

    completed: np.ndarray
    diverged: list[tuple[int, int]]


@dataclass(frozen=True)
class Store:
    """A forecast store on a disk, for writing."""

    path: Path
    layout: Layout

    @property
    def _units(self) -> Path:
        return self.path / "completed" / "units"

    def create(self) -> None:
        """Lay the store out, or take up the one that is there, with more init times if need be.

        Raises
        ------
        StoreError
            If the target holds something else, or cannot be written.
        """
        there = self.check()
        try:
            self.sweep()
            if not there:
                self._lay_out_anew()
            elif self._is_extended():
                self.lay_out_again()
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error}") from None

    def check(self) -> bool:
        """Whether a store is there, which then is this experiment's.

        Raises
        ------
        StoreError
            If it is another's, or something else; it says in what they differ.
        """
        expected = self.layout.attributes["fingerprint"]
        found = fingerprint(self.path)
        if found not in (None, expected):
            raise StoreError(
                f"{self.path}: is the store of another experiment ({self._difference()}); nothing "
                "was changed: choose another name or remove that store"
            )
        return found is not None

    def _difference(self) -> str:
        """In what the store's experiment is another one."""
        own = self.layout.attributes
        there = json.loads((self.path / "zarr.json").read_text())["attributes"]
        if "identity" not in there:
            return f"fingerprint {there['fingerprint']}, expected {own['fingerprint']}"
        old, new = (_flat(json.loads(one.get("identity", "{}"))) for one in (there, own))
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return "; ".join(
            f"{name} is {old.get(name)} there, {new.get(name)} here" for name in names[:3]
        )

    def _is_extended(self) -> bool:
        """Whether the layout has init times that the store has not."""
        stored = stored_init_times(self.path)
        if stored != self.layout.init_times[: len(stored)]:
            raise StoreError(f"{self.path}: another run has added init times meanwhile; run again")
        return len(self.layout.init_times) > len(stored)

    def _lay_out_anew(self) -> None:
        with self._draft() as draft:
            lay_out(draft, self.layout, np.zeros(self.layout.shape[:2], dtype=bool))
            os.replace(draft, self.path)

    def lay_out_again(self) -> None:
        """Write metadata and coordinates once more; no shard and no marker is touched.

        What readers go by comes last and in one piece: until then they see the store as it was.
        A run that is killed in between does it again.
        """
        with self._draft() as draft:
            lay_out(draft, self.layout, self.completed(self.markers()))
            last = [Path(LAYOUT), Path("zarr.json")]
            files = {file.relative_to(draft) for file in draft.rglob("*") if file.is_file()}
            for name in [*sorted(files - set(last)), *last]:
                place((draft / name).read_bytes(), self.path / name, self._units)

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """A folder beside the store that does not outlive its use."""
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def sweep(self) -> None:
        """Remove the litter of killed writers."""
        for litter in (self.path / "completed").rglob("*.partial"):
            litter.unlink(missing_ok=True)
        for litter in self.path.parent.glob(f"{self.path.name}.*.partial"):
            shutil.rmtree(litter, ignore_errors=True)

    def markers(self) -> dict[str, Marker]:
        """What is known of each finished unit, by its name; a damaged marker is none."""
        return markers_of(self.path)

    def marker(self, unit: str) -> Marker | None:
        """What is known of a unit if it is finished."""
        with suppress(StoreError):
            return Marker.read(self._units / f"{unit}.json")
        return None

    def write(self, init: int, block: int, fields: np.ndarray) -> dict[str, str]:
        """Write one unit's fields, (number, channel, lead_time, latitude, longitude), float32.

        Every shard replaces whatever an earlier attempt left, and what is left beside is removed.
        Returns and raises as `write_window`.
        """
        checksums = self.write_window(init, block, 0, fields)
        self.keep(init, block, checksums)
        return checksums

    def write_window(self, init: int, block: int, lead: int, fields: np.ndarray) -> dict[str, str]:
        """Write whole shards of a unit, whose first lead is at the position `lead`.

        Returns
        -------
        dict
            Checksum of each shard, by its path below the store.

        Raises
        ------
        StoreError
            If there is no room, or nothing may be written.
        """
        layout, checksums = self.layout, {}
        where = init, block * layout.block, lead
        for index, name in enumerate(layout.channels):
            values = layout.rounded(name, fields[:, index])
            shards = encoded(values, where, layout.chunk, layout.shard)
            with writing(self.path):
                for key, content in shards.items():
                    place(content, self.path / name / key, self._units)
            checksums |= {f"{name}/{key}": checksum(content) for key, content in shards.items()}
        return checksums

    def keep(self, init: int, block: int, shards: Collection[str]) -> None:
        """Remove what lies where a unit's shards do, but these.

        Not before the unit is written: another worker may be at it as well, or have been.
        """
        for stray in self.shards(init, block).difference(shards):
            (self.path / stray).unlink(missing_ok=True)

    def shards(self, init: int, block: int) -> set[str]:
        """Paths below the store of the files that lie where one unit's shards do."""
        folders = (self.path / name / "c" / f"{init}/{block}" for name in self.layout.channels)
        files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
        return {file.relative_to(self.path).as_posix() for file in files}

    def mark(self, marker: Marker) -> None:
        """Mark a unit as finished: durable, and there either whole or not at all."""
        with writing(self.path):
            place(marker.to_bytes(), self._units / f"{marker.unit}.json", self._units)

    def unmark(self, unit: str) -> None:
        """Forget that a unit is finished."""
        (self._units / f"{unit}.json").unlink(missing_ok=True)

    def completed(self, markers: Mapping[str, Marker]) -> np.ndarray:
        """(init_time, number), bool: whether a member is finished and finite, by these markers."""
        return completed_by(markers, self.layout.shape[:2], self.layout.block)

    def complete(self) -> dict[str, Marker]:
        """Write which (init_time, number) are finished, for readers; gives the markers back."""
        markers = self.markers()
        with writing(self.path):
            zarr.open_group(self.path, mode="r+")["completed"][:] = self.completed(markers)
        return markers


def markers_of(path: Path) -> dict[str, Marker]:
    """What is known of each finished unit of a store, by its name; a damaged marker is none."""
    found = {}
    for file in sorted((path / "completed" / "units").glob("*.json")):
        with suppress(StoreError):
            found[file.stem] = Marker.read(file)
    return found


def completed_by(markers: Mapping[str, Marker], shape: tuple[int, int], block: int) -> np.ndarray:
    """Of this shape, (init_time, number), bool: whether a member is finished and finite."""
    completed = np.zeros(shape, dtype=bool)
    for name, marker in markers.items():
        init, first = place_of(name, block)
        if init < len(completed):
            completed[init, first : first + block] = True
            completed[init, list(marker.diverged)] = False
    return completed


def _flat(content: Any, name: str = "") -> dict[str, str]:
    """Plain content as one level, its names joined by dots."""
    if not isinstance(content, dict):
        return {name: json.dumps(content)}
    parts = (_flat(value, f"{name}.{key}" if name else key) for key, value in content.items())
    return {key: value for part in parts for key, value in part.items()}


def unit_name(init: int, block: int) -> str:
    """Names the unit of one block of members of one init time."""
    return f"{init:05d}-{block:05d}"


def place_of(unit: str, block: int) -> tuple[int, int]:
    """Position of a unit's init time, and its first member, in blocks of this size."""
    init, position = map(int, unit.split("-"))
    return init, position * block


def stored_init_times(path: Path) -> tuple[np.datetime64, ...]:
    """Init times of a store, ascending."""
    with open_store(path) as dataset:
        return tuple(dataset.init_time.values.astype("datetime64[s]"))


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


def statistics_folder(forecast: Path) -> Path:
    """Where the statistics beside a forecast store are."""
    return forecast.with_name("statistics")


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
