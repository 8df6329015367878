"""Tables of a report: the scores of each channel at a few leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    heading, note : str
        What it holds, and of which forecast.
    curve : callable
        From a channel's name to values, (lead_time,), or None where there are none.
    decimals : int or None
        Digits after the point; None takes what the channel's first column asks for, or
        more where its own values are smaller.
    estimator : str
        Behind the note, where there is room.
    """

    heading: str
    note: str
    curve: Callable[[str], np.ndarray | None]
    decimals: int | None = None
    estimator: str = ""


@dataclass(frozen=True)
class Cell:
    """A number as printed, and in full."""

    text: str
    value: float


@dataclass(frozen=True)
class Row:
    """The cells of one lead; `best` where it is worth a mark."""

    lead: str
    cells: tuple[Cell, ...]
    best: bool


@dataclass(frozen=True)
class Group:
    """The rows of one channel."""

    channel: str
    long_name: str
    units: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """Columns, and the rows of every channel."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]


def cell_of(curve: np.ndarray | None, decimals: int, lead: int) -> Cell:
    """The value at one lead with so many digits after the point; a dash where there is none."""
    value = np.nan if curve is None else float(curve[lead])
    return Cell(f"{value:,.{decimals}f}" if np.isfinite(value) else "–", value)


def fitting_decimals(curve: np.ndarray, leads: np.ndarray) -> int:
    """Digits after the point that show the largest value with three digits."""
    values = np.abs(curve[leads])
    values = values[np.isfinite(values) & (values > 0)]
    return 2 if len(values) == 0 else int(np.clip(2 - np.floor(np.log10(values.max())), 0, 9))
