"""Quantile forecasts as labelled arrays: dimension `quantile` (levels), and `model` for several.

They come from ensembles (`ensemble_quantiles` of a whole one, `quantiles_by` for one model per
checkpoint or perturbation, `lagged` for one model per earlier init time) or from tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from data.errors import InputError
from scoring.quantiles import STANDARD_LEVELS, check_levels, ensemble_quantiles


def check_quantile_forecast(quantiles: xr.DataArray, needed: Sequence[str] = ()) -> None:
    """Refuse what is no quantile forecast.

    Raises
    ------
    InputError
        If `quantile` or a needed dimension is missing, levels are not increasing within (0, 1),
        or two models have one name.
    """
    for dim in ("quantile", *needed):
        if dim not in quantiles.dims or dim not in quantiles.coords:
            raise InputError(
                f"a quantile forecast needs a dimension {dim} with a coordinate, "
                f"found {quantiles.dims}"
            )
    check_levels(quantiles["quantile"].values)
    if "model" in quantiles.dims and not quantiles.indexes["model"].is_unique:
        names = quantiles.indexes["model"]
        raise InputError(f"two models have one name: {names[names.duplicated()].tolist()}")


def check_alike(quantiles: xr.DataArray, truth: xr.DataArray) -> None:
    """Refuse truth of other cases than those of a quantile forecast.

    Raises
    ------
    InputError
        If one of the dimensions that both have has other labels, or another size.
    """
    try:
        xr.align(quantiles, truth, join="exact", copy=False)
    except ValueError as error:
        raise InputError(f"forecasts and truth have different coordinates: {error}") from error


def known_models(quantiles: xr.DataArray, truth: xr.DataArray) -> np.ndarray:
    """Which models have a case with truth, (model,).

    Parameters
    ----------
    quantiles : xarray.DataArray
        Any dimensions with `model` and `quantile`; NaN where a model has no forecast.
    truth : xarray.DataArray
        The same less these two; NaN where it is missing.
    """
    cases = quantiles.notnull().all("quantile") & truth.notnull()
    return cases.any([dim for dim in cases.dims if dim != "model"]).values


def quantiles_by(
    forecast: xr.DataArray,
    coordinate: str,
    levels: Sequence[float] = STANDARD_LEVELS,
    member_dim: str = "number",
) -> xr.DataArray:
    """Quantiles of the parts of an ensemble, as separate models.

    Parameters
    ----------
    forecast : xarray.DataArray
        Any dimensions with `member_dim`.
    coordinate : str
        Along `member_dim`: `checkpoint` or `perturbation`, say. Each of its labels is a model.
    levels : sequence of float
        Increasing, within (0, 1).
    member_dim : str
        Name of the dimension of members.

    Returns
    -------
    xarray.DataArray
        `model`, then the dimensions of `forecast` less `member_dim`, then `quantile`.

    Raises
    ------
    InputError
        If there is no such coordinate.
    """
    if coordinate not in forecast.coords or forecast[coordinate].dims != (member_dim,):
        raise InputError(f"{coordinate} is not a coordinate along {member_dim} alone")
    labels = forecast[coordinate].values
    names = pd.unique(labels)
    bare = forecast.drop_vars(coordinate)
    parts = [
        ensemble_quantiles(bare.isel({member_dim: labels == name}), levels, member_dim)
        for name in names
    ]
    return xr.concat(parts, xr.DataArray([str(name) for name in names], dims="model", name="model"))


def lagged(quantiles: xr.DataArray, lags: Sequence[np.timedelta64]) -> xr.DataArray:
    """Forecasts of earlier init times for the same valid times, as separate models.

    Parameters
    ----------
    quantiles : xarray.DataArray
        With `init_time` and `lead_time`, without `model`.
    lags : sequence of numpy.timedelta64
        0 for the forecast itself.

    Returns
    -------
    xarray.DataArray
        `model` (``lag 24 h``), then the dimensions of `quantiles`; NaN where there was no
        earlier forecast that reached so far.

    Raises
    ------
    InputError
        If a dimension is missing, or a lag is negative.
    """
    check_quantile_forecast(quantiles, ("init_time", "lead_time"))
    parts, names = [], []
    for lag in lags:
        if lag < np.timedelta64(0, "s"):
            raise InputError(f"lags must not be negative, found {lag}")
        init, lead = quantiles["init_time"].values - lag, quantiles["lead_time"].values + lag
        earlier = quantiles.reset_coords(drop=True).reindex(init_time=init, lead_time=lead)
        own = {dim: quantiles[dim].reset_coords(drop=True) for dim in ("init_time", "lead_time")}
        parts.append(earlier.assign_coords(own))
        names.append(f"lag {lag / np.timedelta64(1, 'h'):g} h")
    return xr.concat(parts, xr.DataArray(names, dims="model", name="model"))


def from_long(
    table: pd.DataFrame, keys: Sequence[str], level: str = "quantile", value: str = "value"
) -> xr.DataArray:
    """A quantile forecast from a table with one row per case and level.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `keys`, `level` and `value`.
    keys : sequence of str
        Columns that become dimensions.
    level, value : str
        Columns of the level and of the quantile.

    Returns
    -------
    xarray.DataArray
        (*keys, quantile), NaN where the table has no row.

    Raises
    ------
    InputError
        If a column is missing or holds no numbers, a key is missing or comes twice, or a level is
        not within (0, 1).
    """
    _check_columns(table, [*keys, level, value])
    _check_numbers(table, [level, value])
    renamed = table.rename(columns={level: "quantile"})
    check_levels(np.sort(renamed["quantile"].unique()))
    return _unstacked(renamed, [*keys, "quantile"], value)


def from_wide(
    table: pd.DataFrame, keys: Sequence[str], columns: dict[str, float] | None = None
) -> xr.DataArray:
    """A quantile forecast from a table with one row per case and one column per level.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `keys` and those of the levels.
    keys : sequence of str
        Columns that become dimensions.
    columns : dict of str to float, optional
        Level of each column; by default those whose name is a number, with or without a ``q``
        before it: ``q0.025``, ``0.5``.

    Returns
    -------
    xarray.DataArray
        (*keys, quantile), NaN where the table has no row.

    Raises
    ------
    InputError
        If a column is missing or holds no numbers, a key is missing or comes twice, or levels do
        not increase within (0, 1).
    """
    levels = columns if columns is not None else _named_levels(table)
    _check_columns(table, [*keys, *levels])
    _check_numbers(table, list(levels))
    check_levels(tuple(levels.values()))
    index = _index(table, keys)
    places = [index.get_level_values(key) for key in keys]
    labels = [place.unique().sort_values() for place in places]
    sizes = [label.size for label in labels]
    values = np.full(
        (*sizes, len(levels)), np.nan, np.result_type(np.float32, *_types(table, levels))
    )
    rows = tuple(label.get_indexer(place) for label, place in zip(labels, places, strict=True))
    values[rows] = table[list(levels)].to_numpy()
    coordinates = dict(zip(keys, labels, strict=True)) | {
        "quantile": np.array(list(levels.values()))
    }
    return xr.DataArray(values, coordinates, (*keys, "quantile"))


def truth_from_table(
    table: pd.DataFrame, keys: Sequence[str], value: str = "value"
) -> xr.DataArray:
    """Truth from a table with one row per case: (*keys), NaN where the table has no row.

    Raises
    ------
    InputError
        If a column is missing or holds no finite numbers, or a key is missing or comes twice.
    """
    _check_columns(table, [*keys, value])
    _check_numbers(table, [value])
    if infinite := int(np.isinf(table[value].to_numpy(float)).sum()):
        raise InputError(
            f"column {value!r} is infinite in {infinite} rows, expected a truth or none"
        )
    return _unstacked(table, keys, value)


def truth_at_valid_time(truth: xr.DataArray, forecast: xr.DataArray) -> xr.DataArray:
    """Truth by valid time, set out by init time and lead time.

    Parameters
    ----------
    truth : xarray.DataArray
        `valid_time` and dimensions of `forecast`.
    forecast : xarray.DataArray
        With `init_time` and `lead_time`.

    Returns
    -------
    xarray.DataArray
        (init_time, lead_time, ...); NaN where truth is missing.
    """
    valid = forecast["init_time"].reset_coords(drop=True) + forecast["lead_time"].reset_coords(
        drop=True
    )
    times = np.unique(valid.values)
    others = {
        dim: forecast[dim].values
        for dim in truth.dims
        if dim != "valid_time" and dim in forecast.dims
    }
    found = truth.reindex(valid_time=times, **others)
    return (
        found.sel(valid_time=valid).drop_vars("valid_time").transpose("init_time", "lead_time", ...)
    )


def _unstacked(table: pd.DataFrame, keys: Sequence[str], value: str) -> xr.DataArray:
    series = pd.Series(table[value].to_numpy(), _index(table, keys))
    return series.to_xarray() if len(keys) > 1 else xr.DataArray.from_series(series)


def _index(table: pd.DataFrame, keys: Sequence[str]) -> pd.MultiIndex:
    """The keys of the rows, each of which must come once."""
    if table.empty:
        raise InputError("the table has no row")
    for key in keys:
        if missing := int(table[key].isna().sum()):
            raise InputError(f"column {key!r} is empty in {missing} rows")
    plain = [
        column.astype(column.cat.categories.dtype)
        if isinstance(column.dtype, pd.CategoricalDtype)
        else column
        for column in (table[key] for key in keys)
    ]
    index = pd.MultiIndex.from_arrays(plain, names=list(keys))
    if not index.is_unique:
        twice = index[index.duplicated()]
        raise InputError(
            f"{len(twice)} rows repeat a key of {', '.join(keys)}; the first is "
            f"{', '.join(map(_said, twice[0]))}"
        )
    return index


def _said(label: object) -> str:
    """A label as a message has it; leads in hours."""
    if isinstance(label, pd.Timedelta):
        return f"{label / pd.Timedelta(1, 'h'):g} h"
    return label.isoformat() if isinstance(label, pd.Timestamp) else str(label)


def _check_numbers(table: pd.DataFrame, columns: Sequence[str]) -> None:
    for column in columns:
        if not pd.api.types.is_numeric_dtype(table[column].dtype):
            found = pd.to_numeric(table[column], errors="coerce")
            wrong = table[column][found.isna() & table[column].notna()]
            if not wrong.empty:
                raise InputError(f"column {column!r} holds {wrong.iloc[0]!r}, expected numbers")


def _types(table: pd.DataFrame, columns: Sequence[str]) -> list[np.dtype]:
    return [table[column].dtype for column in columns]


def _named_levels(table: pd.DataFrame) -> dict[str, float]:
    """Columns that are named by a level, as they stand."""
    levels = {}
    for column in table.columns:
        try:
            levels[column] = float(str(column).removeprefix("q"))
        except ValueError:
            continue
    if not levels:
        raise InputError(f"no column is named by a level, found {list(table.columns)}")
    return levels


def _check_columns(table: pd.DataFrame, needed: Sequence[str]) -> None:
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise InputError(f"the table has no columns {missing}, found {list(table.columns)}")
