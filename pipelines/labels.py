"""Stores with text labels on disk: open them with text, write them whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from data.errors import StoreError
from scoring.labels import decode, encode

__all__ = ["decode", "encode", "open_labelled", "replace_whole", "write_labelled"]


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
    """Write a dataset to zarr v3, text coordinates as CF flags; an older store is replaced.

    Raises
    ------
    StoreError
        If the target cannot be written; what was there stays.
    """
    coded = encode(dataset)
    replace_whole(path, lambda draft: coded.to_zarr(draft, zarr_format=3, consolidated=False))


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder beside `path`, then put it in its place.

    Raises
    ------
    StoreError
        If the target cannot be written; what was there stays.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(draft)
        if path.is_dir():
            path.rename(aside)
        draft.rename(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from error
    finally:
        if aside.exists() and not path.exists():
            aside.rename(path)
        _remove(draft)
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
