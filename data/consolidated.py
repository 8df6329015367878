"""The list of a store's arrays that lets ``xarray.open_zarr(path)`` open it without options."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import zarr
from zarr.errors import ZarrUserWarning


def consolidate(path: Path, names: Iterable[object]) -> None:
    """List all arrays of a zarr v3 group in its own metadata.

    To be called once, when no metadata will change any more: what is listed is what readers see,
    whatever an array's own file says.

    Parameters
    ----------
    path : pathlib.Path
        The group.
    names : iterable
        Every array, in the order in which readers will show them; by itself it is the disk's.

    Raises
    ------
    KeyError
        If one of them is not there.
    """
    with warnings.catch_warnings():
        # Not yet in the zarr v3 specification, but what lets xarray open a store without options.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(path)
    file = path / "zarr.json"
    content = json.loads(file.read_text())
    arrays = content["consolidated_metadata"]["metadata"]
    content["consolidated_metadata"]["metadata"] = {str(name): arrays[str(name)] for name in names}
    file.write_text(json.dumps(content, indent=1))
