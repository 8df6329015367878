"""Sums of statistics times weights, and of the weights.

Sums are all that has to be kept of an evaluation: they merge with `+` in any order, every score is
a function of their means, and they keep `init_time`, so that confidence intervals and paired tests
can come later, from the file. What statistics and labels do not say of how samples were made, such
as what missing members do, is kept beside them: sums of different settings do not mix.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from string import ascii_letters

import numpy as np
import pandas as pd
import xarray as xr

from data.errors import InputError, StoreError
from data.regular_grid import same_coordinates
from scoring.labels import SOURCE, apart, load, plain, save

_WEIGHT = "__weight"
_SOURCE = "source"


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
    settings : mapping of str to str
        What else tells these sums from others, by name: ``{"missing": "omit", "mask": "land"}``.
    """

    totals: Mapping[str, xr.DataArray]
    weights: Mapping[str, xr.DataArray]
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        values: xr.Dataset,
        weights: xr.DataArray,
        over: Sequence[str],
        settings: Mapping[str, str] | None = None,
    ) -> Sums:
        """Sum each variable of `values` times `weights` over the dimensions `over`.

        A sample of weight 0 has no say, even where its value is NaN or infinite; any other NaN
        makes the sum NaN. A mask is a weight, and a region is a weight with a `region` dimension.

        Parameters
        ----------
        values : xarray.Dataset
            One variable per statistic, as `evaluate` gives them; its attributes are settings.
        weights : xarray.DataArray
            Not negative, with dimensions of `values` and new ones, which label the sums. What
            `region_weights` says of each region is a setting.
        over : sequence of str
            Dimensions to sum over.
        settings : mapping of str to str, optional
            More of them, such as which mask the weights hold.

        Raises
        ------
        InputError
            If both have coordinates of a dimension that differ by more than 1 % of their spacing.
        """
        totals, sums = {}, {}
        for key, value in values.items():
            totals[str(key)], sums[str(key)] = _weighted(value, weights, tuple(over))
        known = _texts(values.attrs) | _regions(weights) | dict(settings or {})
        return cls(totals, sums, known)

    def __add__(self, other: Sums) -> Sums:
        """The sums over the samples of both, see `merge`."""
        return merge((self, other))

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the statistics summed, in alphabetical order."""
        return tuple(sorted(self.totals))

    def label(self, labels: Mapping[str, object]) -> Sums:
        """The same sums with more labels, each a new dimension of length 1."""
        totals = {key: _labelled(total, labels) for key, total in self.totals.items()}
        weights = {key: _labelled(weight, labels) for key, weight in self.weights.items()}
        return replace(self, totals=totals, weights=weights)

    def only(self, keys: Iterable[str]) -> Sums:
        """The sums of some statistics."""
        keys = tuple(keys)
        totals = {key: self.totals[key] for key in keys}
        return replace(self, totals=totals, weights={key: self.weights[key] for key in keys})

    def sel(self, labels: Mapping[str, object]) -> Sums:
        """The sums at these labels, of the statistics that have them; single labels are dropped.

        Raises
        ------
        InputError
            If no statistic has them.
        """
        totals, weights = {}, {}
        for key, total in self.totals.items():
            try:
                totals[key] = total.sel(labels, drop=True)
                weights[key] = self.weights[key].sel(labels, drop=True)
            except KeyError:
                continue
        if not totals:
            raise InputError(f"no sums have {dict(labels)}, found sums of {', '.join(self.keys)}")
        return replace(self, totals=totals, weights=weights)

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
        """One variable per statistic, and its weights with ``__weight`` after the key; settings are
        attributes.

        Statistics share an axis if one of them has all its labels, and are NaN at those that they
        have not; else an axis with other labels is called `name_2`, `name_3`, ...
        """
        weights = {f"{key}{_WEIGHT}": weight for key, weight in self.weights.items()}
        variables = apart({**self.totals, **weights}, _nested)
        merged = xr.merge([_padded(variables)], join="exact", compat="override")
        return merged.assign_attrs(self.settings)

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
        totals, weights = {}, {}
        for key in keys:
            weight = _own(plain(dataset[f"{key}{_WEIGHT}"])).rename(key)
            total = plain(dataset[key]).sel({dim: weight[dim] for dim in weight.indexes})
            totals[key], weights[key] = total.where(weight > 0, 0.0), weight
        return cls(totals, weights, _texts(dataset.attrs))

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        save(self.to_dataset().assign_attrs({_SOURCE: SOURCE}), path)

    @classmethod
    def load(cls, path: Path) -> Sums:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none, or it holds something else.
        """
        return cls.from_dataset(load(path, "sums are"))


def weighted_sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of values times weights over cells.

    A cell of weight 0 has no say, even where its value is NaN or infinite; any other NaN makes the
    sum NaN.

    Parameters
    ----------
    values : numpy.ndarray
        (sample, cell, label), float64.
    weights : numpy.ndarray
        (region, cell), not negative.

    Returns
    -------
    numpy.ndarray
        (region, sample, label), float64.
    """
    if values.shape[-1] == 1:
        return _of_finite(values, lambda some: (some[..., 0] @ weights.T).T[..., None])
    return _of_finite(values, lambda some: np.moveaxis(weights @ some, 1, 0))


def merge(parts: Sequence[Sums]) -> Sums:
    """The sums over the samples of all parts; labels and settings that only some have are kept, and
    labels come out sorted where they differ.

    Raises
    ------
    InputError
        If parts have different settings, or the same statistic with different dimensions.
    """
    settings = common_settings(parts)
    keys = sorted({key for part in parts for key in part.totals})
    totals, weights = {}, {}
    for key in keys:
        having = [part for part in parts if key in part.totals]
        totals[key] = _added([part.totals[key] for part in having])
        weights[key] = _added([part.weights[key] for part in having])
    return Sums(totals, weights, settings)


def common_settings(parts: Sequence[Sums]) -> dict[str, str]:
    """The settings of all parts together.

    Raises
    ------
    InputError
        If two of them state one differently.
    """
    known: dict[str, str] = {}
    for name, value in (item for part in parts for item in part.settings.items()):
        if known.setdefault(name, value) != value:
            raise InputError(
                f"sums of different settings cannot be merged or compared: {name} is "
                f"{known[name]!r} and {value!r}"
            )
    return known


def _texts(attributes: Mapping[Hashable, object]) -> dict[str, str]:
    """Attributes of a dataset as settings."""
    return {str(name): str(value) for name, value in attributes.items() if name != _SOURCE}


def _regions(weights: xr.DataArray) -> dict[str, str]:
    """What each region is, where the weights say it."""
    if "definition" not in weights.coords:
        return {}
    names, found = weights["region"].values, weights["definition"].values
    pairs = zip(np.atleast_1d(names), np.atleast_1d(found), strict=True)
    return {f"region {name}": str(definition) for name, definition in pairs}


def _labelled(array: xr.DataArray, labels: Mapping[str, object]) -> xr.DataArray:
    """The array with a dimension of length 1 in front for each label."""
    shape = (1,) * len(labels) + array.shape
    coordinates = {name: [value] for name, value in labels.items()} | _indexes(array)
    return xr.DataArray(array.values.reshape(shape), coordinates, (*labels, *array.dims))


def _indexes(*arrays: xr.DataArray) -> dict[str, pd.Index]:
    """Coordinates of the dimensions of some arrays, without attributes, which are slow to copy."""
    return {
        str(dim): array.indexes[dim]
        for array in arrays
        for dim in array.dims
        if dim in array.indexes
    }


def _weighted(
    value: xr.DataArray, weights: xr.DataArray, over: tuple[str, ...]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Sum of value times weight and sum of weight over `over`, with the same dimensions."""
    for dim in value.indexes.keys() & weights.indexes.keys():
        if not _near(value.indexes[dim], weights.indexes[dim]):
            raise InputError(f"values and weights have different coordinates along {dim}")
    own = [dim for dim in value.dims if dim not in over]
    new = [dim for dim in weights.dims if dim not in over and dim not in own]
    dims = tuple(sorted((*own, *new), key=lambda dim: (dim not in weights.dims, dim in new)))
    letters = dict(zip(dict.fromkeys((*value.dims, *weights.dims)), ascii_letters, strict=False))

    def contracted(samples: np.ndarray) -> np.ndarray:
        words = ["".join(letters[dim] for dim in some) for some in (value.dims, weights.dims, dims)]
        pattern = f"{words[0]},{words[1]}->{words[2]}"
        return np.einsum(pattern, samples, weights.values, optimize=True)

    total = _of_finite(value.values, contracted)
    repeated = np.prod([value.sizes[dim] for dim in over if dim not in weights.dims])
    kept = weights.sum([dim for dim in over if dim in weights.dims]) * repeated
    kept = kept.transpose(*(dim for dim in dims if dim in kept.dims))
    kept_shape = [kept.sizes.get(dim, 1) for dim in dims]
    weight = np.broadcast_to(kept.values.reshape(kept_shape), np.shape(total))
    known = _indexes(value, weights)
    coordinates = {dim: known[dim] for dim in dims if dim in known}
    return xr.DataArray(total, coordinates, dims), xr.DataArray(weight, coordinates, dims)


def _of_finite(values: np.ndarray, contracted: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What `contracted` makes of values, their sums with weights; one that is not finite has a say
    only where it has weight."""
    with np.errstate(invalid="ignore"):  # 0 times infinite, which is done again
        total = contracted(values)
    if np.isfinite(total).all():
        return total
    total = contracted(np.where(np.isfinite(values), values, 0.0))
    with np.errstate(invalid="ignore"):  # both infinities together are NaN
        for kind, there in (
            (np.nan, np.isnan(values)), (np.inf, values == np.inf), (-np.inf, values == -np.inf)
        ):  # fmt: skip
            if there.any():
                total = total + np.where(contracted(there.astype(float)) > 0, kind, 0.0)
    return total


def _near(one: pd.Index, two: pd.Index) -> bool:
    """Whether coordinates are the same, but for rounding where they are numbers."""
    numbers = all(pd.api.types.is_float_dtype(index.dtype) for index in (one, two))
    return one.equals(two) or (numbers and same_coordinates(one.values, two.values))


def _added(arrays: Sequence[xr.DataArray]) -> xr.DataArray:
    """Sum by label; a label that an array has not adds nothing."""
    first = arrays[0]
    for array in arrays[1:]:
        if set(array.dims) != set(first.dims):
            raise InputError(f"sums over {first.dims} cannot be added to sums over {array.dims}")
    indexes = {dim: _union([array.indexes[dim] for array in arrays]) for dim in first.dims}
    values = np.zeros([len(index) for index in indexes.values()])
    for array in arrays:
        places = [index.get_indexer(array.indexes[dim]) for dim, index in indexes.items()]
        values[np.ix_(*places)] += array.transpose(*first.dims).values
    return xr.DataArray(values, indexes, first.dims)


def _nested(_: str, indexes: Sequence[pd.Index]) -> bool:
    """Whether one of the axes has the labels of every other, in its order."""
    longest = max(indexes, key=len)
    return all(longest[longest.isin(index)].equals(index) for index in indexes)


def _padded(arrays: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """The arrays at all labels of the longest of the axes that share a name, NaN where new."""
    longest: dict[str, pd.Index] = {}
    for dim, index in (item for array in arrays.values() for item in array.indexes.items()):
        if len(index) > len(longest.get(str(dim), ())):
            longest[str(dim)] = index
    return {
        name: array.reindex(
            {dim: longest[dim] for dim, size in array.sizes.items() if size < len(longest[dim])}
        )
        for name, array in arrays.items()
    }


def _own(weight: xr.DataArray) -> xr.DataArray:
    """The weights at the labels of a statistic; at those of others they are NaN."""
    there = weight.notnull().values
    for dim in weight.indexes:
        others = tuple(axis for axis, name in enumerate(weight.dims) if name != dim)
        weight = weight.isel({dim: np.flatnonzero(there.any(axis=others))})
    return weight.fillna(0.0)


def _union(indexes: Sequence[pd.Index]) -> pd.Index:
    if all(index.equals(indexes[0]) for index in indexes):
        return indexes[0]
    return reduce(pd.Index.append, indexes).unique().sort_values()
