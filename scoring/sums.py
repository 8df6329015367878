"""Sums of statistics times weights, and of the weights.

Sums are all that has to be kept of an evaluation: they merge with `+` in any order, every score is
a function of their means, and they keep `init_time`, so that confidence intervals and paired tests
can come later, from the file.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import xarray as xr

from data.errors import InputError, StoreError
from scoring.labels import decode, encode

_WEIGHT = "__weight"


@dataclass(frozen=True)
class Sums:
    """Sums over samples, by statistic.

    Attributes
    ----------
    totals : mapping of str to xarray.DataArray
        Of each statistic's key: sum of values times weights; dimensions that label weights
        (`init_time`, `lead_time`, `region`, ...) and those that label the statistic.
    weights : mapping of str to xarray.DataArray
        Sum of weights; the dimensions that label weights.
    """

    totals: Mapping[str, xr.DataArray]
    weights: Mapping[str, xr.DataArray]

    @classmethod
    def of(cls, values: xr.Dataset, weights: xr.DataArray, over: Sequence[str]) -> Sums:
        """Sum each variable of `values` times `weights` over the dimensions `over`.

        A sample of weight 0 has no say, even where its value is NaN; any other NaN makes the sum
        NaN. A mask is a weight, and a region is a weight with a `region` dimension.

        Parameters
        ----------
        values : xarray.Dataset
            One variable per statistic, as `evaluate` gives them.
        weights : xarray.DataArray
            Not negative, with dimensions of `values` and new ones, which label the sums.
        over : sequence of str
            Dimensions to sum over.
        """
        totals, sums = {}, {}
        for key, value in values.items():
            totals[str(key)], sums[str(key)] = _weighted(value, weights, over)
        return cls(totals, sums)

    def __add__(self, other: Sums) -> Sums:
        """The sums over the samples of both; labels that only one has are kept."""
        return Sums(_merge(self.totals, other.totals), _merge(self.weights, other.weights))

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the statistics summed, in alphabetical order."""
        return tuple(sorted(self.totals))

    def label(self, **labels: object) -> Sums:
        """The same sums with more labels, each a new dimension of length 1."""
        coordinates = {name: [value] for name, value in labels.items()}
        return Sums(
            {key: total.expand_dims(coordinates) for key, total in self.totals.items()},
            {key: weight.expand_dims(coordinates) for key, weight in self.weights.items()},
        )

    def mean(self, key: str, over: Sequence[str] = ("init_time",)) -> xr.DataArray:
        """Weighted mean of a statistic, summed over the dimensions `over` first.

        NaN where there is no weight.

        Raises
        ------
        InputError
            If the statistic was not summed.
        """
        if key not in self.totals:
            raise InputError(f"statistic {key!r} was not summed, found {', '.join(self.keys)}")
        total, weight = self.totals[key], self.weights[key]
        dims = [dim for dim in over if dim in weight.dims]
        total, weight = total.sum(dims, skipna=False), weight.sum(dims)
        return total / weight.where(weight > 0)

    def to_dataset(self) -> xr.Dataset:
        """One variable per statistic, and its weights with ``__weight`` after the key."""
        weights = {f"{key}{_WEIGHT}": weight for key, weight in self.weights.items()}
        return xr.merge([{**self.totals, **weights}], join="outer", compat="override")

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Sums:
        """The inverse of `to_dataset`.

        Raises
        ------
        StoreError
            If a variable has no weights.
        """
        keys = [str(name) for name in dataset.data_vars if not str(name).endswith(_WEIGHT)]
        bare = [key for key in keys if f"{key}{_WEIGHT}" not in dataset]
        if bare or not keys:
            raise StoreError(f"these are no sums: no weights for {', '.join(bare) or 'anything'}")
        weights = {key: dataset[f"{key}{_WEIGHT}"].fillna(0.0).rename(key) for key in keys}
        totals = {key: dataset[key].where(weights[key] > 0, 0.0) for key in keys}
        return cls(totals, weights)

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        encode(self.to_dataset()).to_zarr(path, zarr_format=3, consolidated=False, mode="w-")

    @classmethod
    def load(cls, path: Path) -> Sums:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none, or it holds something else.
        """
        try:
            with xr.open_zarr(path, consolidated=False, decode_timedelta=True) as dataset:
                return cls.from_dataset(decode(dataset.load()))
        except FileNotFoundError as error:
            raise StoreError(f"{path}: no sums are there: {error}") from error


def merge(parts: Sequence[Sums]) -> Sums:
    """The sums over the samples of all parts."""
    return reduce(Sums.__add__, parts)


def _weighted(
    value: xr.DataArray, weights: xr.DataArray, over: Sequence[str]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Sum of value times weight and sum of weight over `over`, with the same dimensions."""
    missing = value.isnull()
    with xr.set_options(arithmetic_join="exact"):
        total = xr.dot(value.fillna(0.0), weights, dim=over)
        if missing.any():
            total = total.where(xr.dot(missing.astype(float), weights, dim=over) == 0)
    spread = [dim for dim in over if dim not in weights.dims]
    repeated = float(np.prod([value.sizes[dim] for dim in spread]))
    weight = weights.sum([dim for dim in over if dim in weights.dims]) * repeated
    return total, weight.broadcast_like(total).transpose(*total.dims)


def _merge(
    left: Mapping[str, xr.DataArray], right: Mapping[str, xr.DataArray]
) -> dict[str, xr.DataArray]:
    merged = {**left, **right}
    for key in left.keys() & right.keys():
        merged[key] = _add(left[key], right[key])
    return merged


def _add(left: xr.DataArray, right: xr.DataArray) -> xr.DataArray:
    """Sum by label; a label that only one has adds nothing to the other."""
    if set(left.dims) != set(right.dims):
        raise InputError(f"sums over {left.dims} cannot be added to sums over {right.dims}")
    indexes: dict[Hashable, object] = {
        dim: left.indexes[dim].union(right.indexes[dim], sort=None) for dim in left.dims
    }
    first = left.reindex(indexes, fill_value=0.0)
    return first + right.reindex(indexes, fill_value=0.0).transpose(*first.dims)
