"""Reading a store to prove it whole, and having what is damaged computed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
import zarr

from data.errors import StoreError
from pipelines.engine import alone, run
from pipelines.layout import DIMENSIONS, LAYOUT
from pipelines.plan import Plan
from pipelines.shards import checksum
from pipelines.statistics_store import damages_of, open_statistics
from pipelines.store import (
    Marker,
    Store,
    completed_by,
    markers_of,
    open_store,
    place_of,
    unit_name,
)

if TYPE_CHECKING:
    from pipelines.clusters import Cluster

# Of an init time, in the names of its statistics.
_STAMP = "[0-9]*-[0-9][0-9]-[0-9][0-9]T[0-9][0-9][0-9][0-9][0-9][0-9]"


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes
    ----------
    unit : str
        Name of the unit that it belongs to; empty for metadata and coordinates.
    what : str
        File or array, and what was found and expected.
    """

    unit: str
    what: str


@dataclass(frozen=True)
class Validation:
    """What a store was found to be.

    Attributes
    ----------
    path : pathlib.Path
        The store.
    units, finished : int
        Units of its layout, and those that are marked.
    files, size : int
        Shards of the finished units that are as they were written, and their bytes.
    missing : dict
        Share of the values of finished units that are not finite, by channel.
    diverged : int
        Members, counted for each init time, that are marked as not finite.
    damages : tuple of Damage
        What is wrong; empty if the store is whole.
    """

    path: Path
    units: int
    finished: int
    files: int
    size: int
    missing: dict[str, float]
    diverged: int
    damages: tuple[Damage, ...]

    def text(self) -> str:
        """All of it, a line each."""
        most = max(self.missing, key=self.missing.__getitem__, default="")
        share = f"; not finite at most {self.missing[most]:.2%} ({most})" if most else ""
        lines = [f"{damage.unit or 'layout'}: {damage.what}" for damage in self.damages]
        found = "whole" if not lines else f"{len(lines)} damages"
        lines.append(
            f"{self.path}: {found}; {self.finished} of {self.units} units finished, "
            f"{self.files} shards, {self.size / 1e9:.3f} GB{share}; {self.diverged} members "
            "marked as not finite"
        )
        return "\n".join(lines)

    def check(self) -> None:
        """Refuse a damaged store.

        Raises
        ------
        StoreError
            If anything is damaged.
        """
        if self.damages:
            units = {damage.unit for damage in self.damages if damage.unit}
            raise StoreError(
                f"{self.path}: {len(self.damages)} damages in {len(units)} units, the first is "
                f"{self.damages[0].what}; --repair computes the damaged units again"
            )


def validate(path: Path) -> Validation:
    """Read a whole store and compare it with what its markers promise; changes nothing.

    Of a folder of statistics kept in flight, each init time's store against its checksums.

    Raises
    ------
    StoreError
        If there is no store, or its metadata cannot be read at all.
    """
    if path.is_dir() and statistics_inits(path):
        return _validated_statistics(path)
    try:
        with open_store(path) as dataset:
            group = zarr.open_group(path, mode="r")
            damages = [*_layout_damages(path), *_coordinate_damages(dataset)]
            arrays = {name: group[name] for name in map(str, dataset.data_vars)}
            damages += _completed_damages(path, group, next(iter(arrays.values())).shards[1])
            return _validated(path, dataset.sizes, arrays, damages)
    except StoreError:
        raise
    except Exception as error:  # what damaged metadata make readers raise is of any kind
        raise StoreError(
            f"{path}: metadata are damaged ({type(error).__name__}: {error})"
        ) from None


def repair(plan: Plan, found: Validation, cluster: Cluster, quiet: bool = False) -> Validation:
    """Compute the damaged units again, write damaged metadata again, and validate once more.

    Raises
    ------
    StoreError
        If a damaged unit is not one of the plan's, or nothing can be written.
    RunError
        If a unit fails.
    """
    damaged = {damage.unit for damage in found.damages}
    if found.path != plan.path:
        with alone(plan.path):
            for name in damaged:
                shutil.rmtree(found.path / name)
        run(plan, cluster, quiet)
        return validate(found.path)
    store = Store(plan.path, plan.stored)
    foreign = sorted(damaged - {unit.name for unit in plan.units} - {""})
    if foreign:
        raise StoreError(
            f"{plan.path}: unit {foreign[0]} is damaged and none of this experiment's: name its "
            "init time in the experiment; nothing was changed"
        )
    with alone(plan.path):
        store.create()
        for unit in damaged - {""}:
            store.unmark(unit)
        if "" in damaged:
            store.lay_out_again()
        else:
            store.complete()  # readers, too, are not to trust what is damaged meanwhile
    run(plan, cluster, quiet)
    return validate(plan.path)


def _validated_statistics(folder: Path) -> Validation:
    """Init times take the place of units."""
    damages, files, size, diverged = [], 0, 0, 0
    inits = statistics_inits(folder)
    stores = [folder / f"{init}.zarr" for init in inits if (folder / f"{init}.zarr").is_dir()]
    for store in stores:
        found = damages_of(store)
        damages += [Damage(store.name, f"{store.name}/{what}") for what in found]
        files += sum(1 for file in store.rglob("*") if file.is_file()) - len(found)
        size += sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
        if not found:
            with open_statistics(store) as dataset:
                diverged += int((~dataset.completed.values).sum())
    return Validation(folder, len(inits), len(stores), files, size, {}, diverged, tuple(damages))


def statistics_inits(folder: Path) -> list[str]:
    """Init times of which statistics, or parts of them, are in a folder."""
    stores, parts = folder.glob(f"{_STAMP}.zarr"), folder.glob(f"{_STAMP}.*.parts")
    return sorted({path.name.split(".")[0] for path in (*stores, *parts)})


def _units_of(shape: tuple[int, int], block: int) -> set[str]:
    """Names of the units of a store of so many init times and members."""
    blocks = -(-shape[1] // block)
    return {unit_name(init, k) for init in range(shape[0]) for k in range(blocks)}


def _validated(
    path: Path, sizes: Mapping[str, int], arrays: dict[str, zarr.Array], damages: list[Damage]
) -> Validation:
    block = next(iter(arrays.values())).shards[1]
    names = _units_of((sizes["init_time"], sizes["number"]), block)
    checks = []
    for marker in sorted((path / "completed" / "units").glob("*.json")):
        if marker.stem in names:
            checks.append(_checked(path, marker, arrays, block))
        else:
            damages.append(Damage("", f"{marker.name}: is the marker of no unit of this store"))
    values = sum(check.values for check in checks)
    return Validation(
        path=path,
        units=len(names),
        finished=len(checks),
        files=sum(check.files for check in checks),
        size=sum(check.size for check in checks),
        missing={
            name: sum(check.missing.get(name, 0) for check in checks) / max(1, values)
            for name in arrays
        },
        diverged=sum(check.diverged for check in checks),
        damages=(*damages, *(damage for check in checks for damage in check.damages)),
    )


@dataclass(frozen=True)
class _UnitCheck:
    """Of one unit: its sound files and their bytes, values of each channel, those not finite."""

    damages: list[Damage]
    files: int = 0
    size: int = 0
    values: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    diverged: int = 0


def _checked(path: Path, file: Path, arrays: dict[str, zarr.Array], block: int) -> _UnitCheck:
    """Read one marked unit."""
    unit = file.stem
    try:
        marker = Marker.read(file)
    except StoreError as error:
        return _UnitCheck([Damage(unit, str(error))])
    sizes, damages = [], []
    for name, expected in marker.shards.items():
        content = (path / name).read_bytes() if (path / name).is_file() else None
        if content is None:
            damages.append(Damage(unit, f"{name}: is missing"))
        elif checksum(content) != expected:
            damages.append(Damage(unit, f"{name}: its {len(content)} bytes are not as written"))
        else:
            sizes.append(len(content))
    damages += _strays(path, marker, list(arrays), block)
    if damages:
        return _UnitCheck(damages, len(sizes), sum(sizes))
    init, first = place_of(unit, block)
    missing, values = {}, 0
    for name, array in arrays.items():
        infinite = ~np.isfinite(array[init, first : first + block])
        missing[name], values = int(infinite.sum()), infinite.size
        found = {first + int(k) for k in np.flatnonzero(infinite.any(axis=(1, 2, 3)))}
        for number in sorted(found - set(marker.diverged)):
            what = f"{name}: member {number} has values that are not finite and is not marked so"
            damages.append(Damage(unit, what))
    return _UnitCheck(damages, len(sizes), sum(sizes), values, missing, len(marker.diverged))


def _strays(path: Path, marker: Marker, channels: list[str], block: int) -> Iterator[Damage]:
    init, first = place_of(marker.unit, block)
    for name in channels:
        for file in (path / name / "c" / str(init) / str(first // block)).rglob("*"):
            stray = file.relative_to(path).as_posix()
            if file.is_file() and stray not in marker.shards:
                yield Damage(marker.unit, f"{stray}: is there and was not written")


def _layout_damages(path: Path) -> Iterator[Damage]:
    """Metadata and coordinates that are not as they were laid out."""
    try:
        checksums = json.loads((path / LAYOUT).read_bytes())
        for name, expected in checksums.items():
            file = path / name
            if not file.is_file() or checksum(file.read_bytes()) != expected:
                yield Damage("", f"{name}: is missing or not as written")
    except (OSError, ValueError, AttributeError) as error:
        yield Damage("", f"{LAYOUT}: cannot be read ({type(error).__name__})")


def _completed_damages(path: Path, group: zarr.Group, block: int) -> Iterator[Damage]:
    """Members that readers are told are completed, or are not, against the markers.

    A run that was killed has told nobody yet what it had finished; once all units are marked, that
    is a damage.
    """
    try:
        said = group["completed"][:]
    except Exception as error:  # what a damaged chunk makes its codec raise is of any kind
        yield Damage("", f"completed: cannot be read ({type(error).__name__}: {error})")
        return
    names = _units_of(said.shape, block)
    markers = {name: one for name, one in markers_of(path).items() if name in names}
    wrong = said != completed_by(markers, said.shape, block)
    if len(markers) < len(names):
        wrong &= said
    for file in (path / "completed" / "units").glob("*.json"):
        if file.stem in names and file.stem not in markers:  # a damage by itself
            init, first = place_of(file.stem, block)
            wrong[init, first : first + block] = False
    if wrong.any():
        init, place = np.argwhere(wrong)[0]
        which = f"position {place} along number, {init} along init_time"
        yield Damage("", f"completed: is {said[init, place]} at {which}, and no marker says so")


def _coordinate_damages(dataset: xr.Dataset) -> Iterator[Damage]:
    """Coordinates that are not what a forecast store's are."""
    expected = {
        "init_time": (np.diff(dataset.init_time.values) > np.timedelta64(0)).all(),
        "lead_time": (np.diff(dataset.lead_time.values) > np.timedelta64(0)).all(),
        "number": (np.diff(dataset.number.values) > 0).all(),
        "valid_time": ((dataset.init_time + dataset.lead_time) == dataset.valid_time).all(),
        "latitude": (np.diff(dataset.latitude.values) < 0).all(),
        "longitude": (np.diff(dataset.longitude.values) > 0).all(),
    }
    for name, sound in expected.items():
        if not bool(sound):
            yield Damage("", f"{name}: its values are not those of a forecast store")
    for name, array in dataset.data_vars.items():
        if array.dims != DIMENSIONS:
            yield Damage("", f"{name}: has dimensions {array.dims}, expected {DIMENSIONS}")
