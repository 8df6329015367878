"""Quantile forecasts and truth from tables in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import xarray as xr

from data.errors import InputError, MissingExtraError
from scoring.calibration.quantile_forecast import from_long, from_wide, truth_from_table


def read_table(path: Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """A table from a Parquet or CSV file.

    Parameters
    ----------
    path : pathlib.Path
        Ends in ``.parquet``, ``.csv`` or ``.csv.gz``.
    text : sequence of str
        Columns that hold text even where they look like numbers (``01``).

    Raises
    ------
    InputError
        If the file cannot be read.
    MissingExtraError
        If Parquet needs pyarrow, which is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if ".csv" in path.suffixes:
            return pd.read_csv(path, dtype=dict.fromkeys(text, str))
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: Parquet needs `pip install 'myriadcast[tables]'`"
        ) from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a table: {error}") from error
    raise InputError(f"{path}: tables are .parquet or .csv files")


def quantiles_of_table(table: pd.DataFrame, keys: Sequence[str]) -> xr.DataArray:
    """A quantile forecast, (*keys, quantile), from a long table if it has the columns `quantile`
    and `value`, else from a wide one.

    Columns `init_time` and `valid_time` may hold text, `lead_time` a number of hours.

    Raises
    ------
    InputError
        If a column is missing, a key comes twice, or levels are not within (0, 1).
    """
    table = with_times(table)
    if {"quantile", "value"} <= set(table.columns):
        return from_long(table, keys)
    return from_wide(table, keys)


def truth_of_table(table: pd.DataFrame, keys: Sequence[str]) -> xr.DataArray:
    """Truth, (*keys), from the column `value`; times as in `quantiles_of_table`."""
    return truth_from_table(with_times(table), keys)


def with_times(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `init_time` and `valid_time` as times, of text in ISO 8601, and `lead_time`
    as durations, of numbers in hours.

    Raises
    ------
    InputError
        If one of them cannot be read.
    """
    changed = {}
    try:
        for name in ("init_time", "valid_time"):
            if name in table.columns:
                changed[name] = pd.to_datetime(table[name], format="ISO8601")
        if "lead_time" in table.columns:
            lead = table["lead_time"]
            hours = pd.api.types.is_numeric_dtype(lead.dtype)
            changed["lead_time"] = pd.to_timedelta(lead, unit="h" if hours else None)
    except (ValueError, TypeError) as error:
        reason = str(error).partition(". You might")[0]
        raise InputError(f"times of the table cannot be read: {reason}") from error
    return table.assign(**changed)
