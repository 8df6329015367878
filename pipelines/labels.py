"""Stores with text labels on disk: open them with text, write them whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import xarray as xr

from data.errors import StoreError
from scoring.labels import PROGRAM, SOURCE, decode, encode, save

__all__ = [
    "SOURCE",
    "check_replaceable",
    "decode",
    "encode",
    "open_labelled",
    "replace_whole",
    "write_labelled",
]


def open_labelled(path: Path | str) -> xr.Dataset:
    """The store at `path` with its text coordinates as text, lazily.

    Raises
    ------
    StoreError
        If there is none.
    """
    try:
        dataset = xr.open_zarr(path, consolidated=False, decode_timedelta=True, chunks=None)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no store is there: {error}") from error
    return decode(dataset)


def write_labelled(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset to zarr v3, to be opened as it is; an older store is replaced.

    Its attribute `source` should be `SOURCE`, or it cannot be replaced later.

    Raises
    ------
    StoreError
        If the target cannot be written, or this program did not write it; what was there stays.
    """
    replace_whole(path, partial(save, dataset))


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder beside `path`, then put it in its place.

    A folder is replaced only if it is a zarr store whose `source` is this program, and a file only
    by a file with the same first line (the columns of a table).

    Raises
    ------
    StoreError
        If the target cannot be written, or this program did not write it; what was there stays.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from error
    try:
        check_replaceable(path)
        write(draft)
        _exchange(draft, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from error
    finally:
        _remove(draft)


def check_replaceable(path: Path) -> None:
    """Refuse to replace a folder that this program did not write.

    Raises
    ------
    StoreError
        If such a folder is there.
    """
    if path.is_symlink() or (path.is_dir() and not _source(path).startswith(PROGRAM)):
        raise StoreError(
            f"{path}: was not written by {PROGRAM}, nothing was changed; remove it or choose "
            "another place"
        )


def _source(path: Path) -> str:
    """What a zarr store says it was written by."""
    try:
        return str(json.loads((path / "zarr.json").read_text())["attributes"]["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _exchange(draft: Path, path: Path) -> None:
    """Put the draft in the target's place; if that fails, what was there comes back."""
    if not path.is_dir():
        if path.exists() and (draft.is_dir() or _first_line(draft) != _first_line(path)):
            raise StoreError(f"{path}: is another file than {PROGRAM} writes, nothing was changed")
        draft.rename(path)
        return
    if not draft.is_dir():
        raise StoreError(f"{path}: is a folder, expected a file to replace; nothing was changed")
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(aside)
    try:
        draft.rename(path)
    except OSError:
        aside.rename(path)
        raise
    _remove(aside)


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
