"""Cutting an ensemble that may not fit into memory into pieces with all members of some cells."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import xarray as xr

PIECE_BYTES = 2**28


def pieces(
    forecast: xr.DataArray, member_dim: str, most: int = PIECE_BYTES
) -> Iterator[dict[str, slice]]:
    """Slices along every dimension but that of members; together they are the whole.

    Outer dimensions are cut first, and one of them at multiples of its chunks where these fit.

    Parameters
    ----------
    forecast : xarray.DataArray
        Any dimensions; no value is read.
    member_dim : str
        The dimension that stays whole.
    most : int
        Bytes of a piece; a single cell with all its members may be more.
    """
    sizes = {str(dim): size for dim, size in forecast.sizes.items() if dim != member_dim}
    inner = forecast.dtype.itemsize * forecast.sizes[member_dim] * int(np.prod([*sizes.values()]))
    cuts: list[list[tuple[str, slice]]] = []
    for dim, size in sizes.items():
        inner //= max(size, 1)
        chunk = max(1, *forecast.variable.chunksizes.get(dim, (1,)))
        affordable = max(1, most // max(inner, 1))
        width = min(size, affordable // chunk * chunk or affordable)
        starts = range(0, max(size, 1), max(width, 1))
        cuts.append([(dim, slice(start, start + width)) for start in starts])
    yield from (dict(place) for place in product(*cuts))
