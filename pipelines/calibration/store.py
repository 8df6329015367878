"""Stores that calibration writes: quantiles, or members laid out as in the raw store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from data.channel import channel
from data.consolidated import consolidate
from data.errors import InputError, StoreError
from data.grid import Grid
from pipelines.labels import SOURCE, check_replaceable, encode
from pipelines.layout import DIMENSIONS, Layout
from pipelines.shards import COMPRESSOR
from pipelines.store import Marker, Store, unit_name
from pipelines.truths import cell_dims

_CHUNK_BYTES = 2**20
_BLOCK = 8
PROVENANCE = "calibration"


def chunk_leads(leads: int, levels: int, cells: int) -> int:
    """Leads in a chunk of quantiles."""
    return max(1, min(leads, _CHUNK_BYTES // (4 * cells * levels)))


def lay_out_quantiles(
    path: Path,
    forecast: xr.Dataset,
    channels: Sequence[str],
    levels: Sequence[float],
    attributes: dict[str, Any],
) -> zarr.Group:
    """An empty store, (init_time, quantile, lead_time, *cells), of the dates of a forecast."""
    inits, leads = forecast.init_time.values, forecast.lead_time.values
    first = forecast[channels[0]]
    cells = {dim: first.sizes[dim] for dim in cell_dims(first)}
    coordinates = {
        "init_time": ("init_time", inits, {"standard_name": "forecast_reference_time"}),
        "quantile": ("quantile", np.array(levels), {"long_name": "probability of the quantile"}),
        "lead_time": ("lead_time", leads, {"standard_name": "forecast_period"}),
        "valid_time": (
            ("init_time", "lead_time"),
            inits[:, None] + leads[None, :],
            {"standard_name": "time"},
        ),
        **{dim: forecast[dim].reset_coords(drop=True) for dim in cells if dim in forecast.coords},
    }
    dataset = xr.Dataset(coords=coordinates, attrs={"source": SOURCE} | attributes)
    encode(dataset).drop_encoding().to_zarr(path, zarr_format=3, consolidated=False)
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    shape = (inits.size, len(levels), leads.size, *cells.values())
    together = chunk_leads(leads.size, len(levels), int(np.prod(shape[3:])))
    for name in channels:
        array = group.create_array(
            name,
            shape=shape,
            chunks=(1, shape[1], together, *shape[3:]),
            dtype="float32",
            fill_value=np.nan,
            compressors=COMPRESSOR,
            dimension_names=("init_time", "quantile", "lead_time", *cells),
        )
        array.attrs.update(attributes_of(forecast[name]))
    consolidate(path, (*dataset.coords, *channels))
    return group


def attributes_of(array: xr.DataArray) -> dict[str, Any]:
    """Those of a channel; of a quantity of a table, which is none, its own."""
    try:
        return channel(str(array.name)).attributes
    except InputError:
        return dict(array.attrs)


def layout_alike(forecast: xr.Dataset, channels: Sequence[str], provenance: str) -> Layout:
    """The layout of a store of calibrated members: that of the raw one, and its provenance.

    Raises
    ------
    InputError
        If the forecast is not a store of this program.
    """
    first = forecast[channels[0]]
    if first.dims != DIMENSIONS or "fingerprint" not in forecast.attrs:
        raise InputError(
            "calibrated members are written as a forecast store, which needs one to begin with, "
            f"found dimensions {', '.join(map(str, first.dims))} and attributes "
            f"{sorted(forecast.attrs)}; a quantile method (conformal) takes any forecast"
        )
    own = {
        name: at.variable.load() for name, at in forecast.coords.items() if at.dims == ("number",)
    }
    shards = first.encoding.get("shards")
    attributes = dict(forecast.attrs) | {PROVENANCE: provenance}
    attributes["fingerprint"] = _digest(forecast.attrs["fingerprint"], provenance)
    return Layout(
        channels=tuple(channels),
        grid=Grid.from_coordinates(forecast.latitude, forecast.longitude, "the forecast"),
        init_times=tuple(forecast.init_time.values.astype("datetime64[s]")),
        lead_times=forecast.lead_time.values,
        members=xr.Dataset(coords=own).drop_encoding(),
        block=int(shards[1]) if shards else min(_BLOCK, forecast.sizes["number"]),
        lossless="quantum" not in first.attrs,
        attributes=attributes,
    )


def fill_members(
    path: Path, layout: Layout, completed: np.ndarray, fields: Iterator[np.ndarray]
) -> None:
    """Write a store of members.

    Parameters
    ----------
    path : pathlib.Path
        Where nothing is.
    layout : Layout
        How it is laid out.
    completed : numpy.ndarray
        Which members are finished, (init_time, number).
    fields : iterator of numpy.ndarray
        Of each date, (number, channel, lead_time, latitude, longitude).
    """
    store = Store(path, layout)
    store.create()
    for init, values in enumerate(fields):
        for first in range(0, layout.shape[1], layout.block):
            block = first // layout.block
            part = values[first : first + layout.block]
            shards = store.write(init, block, part)
            lost = first + np.flatnonzero(~completed[init, first : first + layout.block])
            stamp = str(layout.init_times[init])
            mark = _digest(layout.attributes["fingerprint"], stamp)
            store.mark(Marker(unit_name(init, block), mark, tuple(lost.tolist()), shards))
    store.complete()


def check_output(output: Path, forecast: Sequence[Path | str]) -> None:
    """Refuse to write over what no calibration wrote: the raw forecast, above all.

    Raises
    ------
    StoreError
        If that is there.
    """
    own = output.absolute()
    if any(own == Path(path).absolute() for path in forecast):
        raise StoreError(f"{output}: is the forecast itself, choose another place")
    check_replaceable(output)
    if output.is_dir():
        try:
            attributes = json.loads((output / "zarr.json").read_text())["attributes"]
        except (OSError, ValueError, KeyError):
            attributes = {}
        if PROVENANCE not in attributes:
            raise StoreError(
                f"{output}: was not written by a calibration, nothing was changed; remove it or "
                "choose another place"
            )


def _digest(*parts: str) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()
