"""How many entries of a row that ascends lie at or below a value, for many rows at once.

NumPy searches one row at a time. Thresholds of scores need a search in every cell, and the extreme
forecast index a hundred, which took a third of the time of the whole family of scores. In C it is a
half of that or less; NumPy's operations on whole arrays do it where it was not compiled.
"""

from __future__ import annotations

import math

import numpy as np

from scoring.loops import call, library

_SEARCHED = 2**14  # values that NumPy deals with at a time, so that they stay in cache


def count_not_above(ascending: np.ndarray, values: np.ndarray, entries: int) -> np.ndarray:
    """How many of the first entries of each row lie at or below each value.

    Parameters
    ----------
    ascending : numpy.ndarray
        (row, entry), float32 or float64, fewer than 2**31 entries.
    values : numpy.ndarray
        (row, ...), of the same type.
    entries : int
        How many of a row count.

    Returns
    -------
    numpy.ndarray
        The shape of `values`, int32; any number for NaN.

    Raises
    ------
    TypeError
        If the types differ, or are others.
    ValueError
        If there are not as many rows as rows of values, or fewer entries in them than count.
    """
    if not 0 < entries <= ascending.shape[1] or len(ascending) != len(values):
        raise ValueError(
            f"{entries} entries of rows {ascending.shape} cannot be searched for {values.shape}"
        )
    if ascending.dtype != values.dtype or ascending.dtype not in (np.float32, np.float64):
        raise TypeError(f"rows of {ascending.dtype} cannot be searched for {values.dtype}")
    wanted = np.ascontiguousarray(values).reshape(len(values), math.prod(values.shape[1:]))
    search = _searched_by_numpy if library() is None else _searched_by_library
    return search(np.ascontiguousarray(ascending), wanted, entries).reshape(values.shape)


def _searched_by_library(ascending: np.ndarray, values: np.ndarray, entries: int) -> np.ndarray:
    count = np.empty(values.shape, np.int32)
    call(
        f"count_{ascending.dtype}", ascending, ascending.shape[1], entries,
        values, values.shape[1], values.size, count,
    )  # fmt: skip
    return count


def _searched_by_numpy(ascending: np.ndarray, values: np.ndarray, entries: int) -> np.ndarray:
    count, width, flat = np.empty(values.shape, np.int32), ascending.shape[1], ascending.reshape(-1)
    rows = max(1, _SEARCHED // max(1, values.shape[1]))
    for first in range(0, len(values), rows):
        some = values[first : first + rows]
        start = np.arange(first, first + len(some))[:, None] * width
        place = _bisected(flat, entries, some, start)
        np.subtract(place, start, out=count[first : first + rows], casting="same_kind")
    return count


def _bisected(flat: np.ndarray, left: int, values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Where among the `left` entries from `start` on the first above each value is."""
    place = np.empty(values.shape, np.intp)
    place[...] = start
    entry, reached = np.empty(values.shape, flat.dtype), np.empty(values.shape, bool)
    while left > 0:
        half = (left + 1) // 2
        flat[half - 1 :].take(place, out=entry, mode="clip")
        np.less_equal(entry, values, out=reached)
        # Products of the narrowest type that holds them: an eighth of the memory of a place.
        place += reached.view(np.uint8) * np.min_scalar_type(half).type(half)
        left //= 2
    return place
