"""How the cells of labelled arrays are laid out: those that share something, and those apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from data.errors import InputError


@dataclass(frozen=True)
class Layout:
    """How cells are arranged.

    Attributes
    ----------
    groups, pooled : dict of str to int
        Sizes of the dimensions of cells that have shifts of their own, and that share one.
    coords : dict of str to numpy.ndarray
        `lead_time`, `quantile`, and those of the groups that have one.
    """

    groups: dict[str, int]
    pooled: dict[str, int]
    coords: dict[str, np.ndarray]

    @property
    def levels(self) -> np.ndarray:
        """(quantile,)"""
        return self.coords["quantile"]

    def values(self, array: xr.DataArray) -> np.ndarray:
        """(init_time, lead_time, group, case, quantile), less those that the array does not have.

        Raises
        ------
        InputError
            If dimensions or leads are not those of the layout.
        """
        cells = (*self.groups, *self.pooled)
        order = [dim for dim in ("init_time", "lead_time", *cells, "quantile") if dim in array.dims]
        sizes = self.groups | self.pooled
        wrong = set(array.dims) ^ set(order) or {dim for dim in cells if dim not in array.dims}
        if wrong or any(array.sizes[dim] != sizes[dim] for dim in cells):
            raise InputError(f"expected cells {sizes}, found {dict(array.sizes)}")
        if not np.array_equal(array["lead_time"].values, self.coords["lead_time"]):
            raise InputError("lead times are not those that the calibration was started with")
        moved = array.transpose(*order)
        first = [array.sizes[dim] for dim in ("init_time", "lead_time") if dim in array.dims]
        last = [array.sizes["quantile"]] if "quantile" in array.dims else []
        return moved.values.astype(float).reshape(*first, *self.shape, *last)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of groups, and of cases of each."""
        return int(np.prod([*self.groups.values()])), int(np.prod([*self.pooled.values()]))

    def labelled(self, values: np.ndarray, dims: tuple[str, ...]) -> xr.DataArray:
        """With `group` and `case` as the dimensions they stand for."""
        names: list[str] = []
        shape: list[int] = []
        parts = {"group": self.groups, "case": self.pooled}
        for dim, size in zip(dims, values.shape, strict=True):
            for name, length in parts.get(dim, {dim: size}).items():
                names.append(name)
                shape.append(length)
        at = {name: self.coords[name] for name in names if name in self.coords}
        return xr.DataArray(values.reshape(shape), at, names)
