"""A calibration on disk: one file that says what it is, and the state it names.

The state is a folder of what the method keeps of each channel, named by the checksum of its
content. `calibration.json` names it and is replaced in one step, so a reader finds the calibration
as it was or as it is, whatever happens meanwhile. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data.errors import ConfigurationError, InputError, StoreError
from pipelines.calibration.methods import Method, State, method_from
from pipelines.labels import SOURCE
from pipelines.shards import place

_FILE = "calibration.json"
_KIND = "myriadcast calibration 1"


@dataclass(frozen=True)
class Calibration:
    """What was fitted, to what, and on what.

    Attributes
    ----------
    method : Method
        How.
    channels : tuple of str
    lead_times : numpy.ndarray
        (lead_time,), timedelta64[ns].
    cells : dict of str to list
        Coordinates of the horizontal dimensions.
    init_times : numpy.ndarray
        Dates that were used, (init_time,), datetime64[s].
    cases : dict of str to list of int
        Dates with truth at each lead, by channel.
    states : dict of str to State
        What the method keeps, by channel.
    hash : str
        Digest of method and state; empty before it is saved.
    """

    method: Method
    channels: tuple[str, ...]
    lead_times: np.ndarray
    cells: dict[str, list[Any]]
    init_times: np.ndarray
    cases: dict[str, list[int]]
    states: dict[str, State] = field(repr=False)
    hash: str = ""

    def save(self, folder: Path) -> Calibration:
        """Write it, or put it in the place of an older one, in one step; with its hash.

        Raises
        ------
        StoreError
            If something else is there, or nothing can be written.
        """
        check_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            draft = folder / f".{os.getpid()}.partial"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            for name, state in self.states.items():
                self.method.write(state, draft / name)
            digest = _digest(draft)
            target = folder / f"state-{digest}"
            if target.exists() and _digest(target) == digest:
                shutil.rmtree(draft)
            else:
                shutil.rmtree(target, ignore_errors=True)
                _synchronise(draft)
                draft.rename(target)
            description = self._description() | {"state": digest}
            place(json.dumps(description, indent=1).encode(), folder / _FILE, folder)
            for old in folder.glob("state-*"):
                if old != target:
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written: {error}") from error
        return Calibration.open(folder)

    def _description(self) -> dict[str, Any]:
        return {
            "kind": _KIND,
            "source": SOURCE,
            "method": self.method.model_dump(mode="json"),
            "channels": list(self.channels),
            "lead_hours": (self.lead_times / np.timedelta64(1, "h")).tolist(),
            "cells": self.cells,
            "init_times": np.datetime_as_string(self.init_times, "s").tolist(),
            "cases": self.cases,
        }

    @classmethod
    def open(cls, folder: Path) -> Calibration:
        """The calibration in a folder, whole.

        Raises
        ------
        StoreError
            If there is none, or it is damaged.
        """
        description = _described(folder)
        try:
            digest = description["state"]
            state = folder / f"state-{digest}"
            if not state.is_dir() or _digest(state) != digest:
                raise StoreError(
                    f"{state}: the calibration's state is missing or not as it was written; fit "
                    "it again"
                )
            hours = np.array(description["lead_hours"])
            method = method_from(description["method"], str(folder / _FILE))
            channels = tuple(description["channels"])
            return cls(
                method,
                channels,
                np.round(hours * 3600).astype("timedelta64[s]").astype("timedelta64[ns]"),
                description["cells"],
                np.array(description["init_times"], "datetime64[s]"),
                description["cases"],
                {name: method.read(state / name) for name in channels},
                _hash(description),
            )
        except (KeyError, TypeError, ValueError, ConfigurationError) as error:
            raise StoreError(
                f"{folder / _FILE}: is damaged ({type(error).__name__}: {error}); fit it again"
            ) from None

    def check_fits(self, forecast: xr.Dataset, where: str) -> None:
        """Refuse a forecast that lacks a channel, or has other leads or cells.

        Raises
        ------
        InputError
            Naming what was fitted and what was found.
        """
        for name in self.channels:
            if name not in forecast:
                raise InputError(
                    f"{where}: channel {name!r} is missing, which the calibration was fitted for"
                )
        leads = forecast.lead_time.values.astype("timedelta64[ns]")
        if not np.array_equal(leads, self.lead_times):
            hours = [lead / np.timedelta64(1, "h") for lead in (leads[[0, -1]])]
            ours = [lead / np.timedelta64(1, "h") for lead in self.lead_times[[0, -1]]]
            raise InputError(
                f"{where}: has {leads.size} lead times, {hours[0]:g} to {hours[1]:g} h; the "
                f"calibration was fitted for {self.lead_times.size}, {ours[0]:g} to {ours[1]:g} h"
            )
        for dim, values in self.cells.items():
            found = coordinates_of(forecast[self.channels[0]], dim)
            if not _same(found, values):
                raise InputError(
                    f"{where}: lies on another grid: {dim} has {len(found)} values, the "
                    f"calibration was fitted for {len(values)} of them, {values[0]} to {values[-1]}"
                )


def coordinates_of(array: xr.DataArray, dim: str) -> list[Any]:
    """Values along a horizontal dimension; positions where it has no coordinate."""
    return array[dim].values.tolist() if dim in array.dims else []


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else.

    Raises
    ------
    StoreError
        If so.
    """
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / _FILE).exists():
        raise StoreError(
            f"{folder}: holds something that is no calibration, nothing was changed; choose "
            "another place"
        )


def _described(folder: Path) -> dict[str, Any]:
    file = folder / _FILE
    if not file.exists():
        raise StoreError(f"{folder}: no calibration is there; `myriad calibrate fit` makes one")
    try:
        description = json.loads(file.read_bytes())
        kind = description["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{file}: is damaged ({type(error).__name__}: {error}); fit it again"
        ) from None
    if kind != _KIND:
        raise StoreError(f"{file}: is {kind!r}, expected {_KIND!r}")
    return description


def _digest(folder: Path) -> str:
    """Of the names and contents of all files."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.stat().st_size.to_bytes(8, "little"))
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _hash(description: dict[str, Any]) -> str:
    """Of method and state: what decides the calibrated values."""
    known = json.dumps([description["method"], description["state"]], sort_keys=True)
    return hashlib.blake2b(known.encode(), digest_size=12).hexdigest()


def _synchronise(folder: Path) -> None:
    """See that all files are on the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as content:
                os.fsync(content.fileno())


def _same(found: list[Any], expected: list[Any]) -> bool:
    if len(found) != len(expected):
        return False
    if found and isinstance(found[0], float):
        return bool(np.allclose(found, expected, rtol=0, atol=1e-4))
    return found == expected
