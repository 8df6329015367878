"""Members of many cells sorted in place, with the sums of blocks of them."""

from __future__ import annotations

import numpy as np

from scoring.cut import block_sums

LONGEST = 128  # members summed in their own precision
# Values sorted at a time: few enough that their sums are taken while they are in cache, so many
# that threads seldom wait for each other.
_SORTED = 2**18
_SLAB = 64  # members moved at a time where members are not contiguous


def block_length(size: int) -> int:
    """Members in a block: a power of two near the square root of their number, 16 to 128."""
    balanced = 1 << (size.bit_length() + 1) // 2
    return min(max(16, min(balanced, LONGEST)), 1 << (size - 1).bit_length())


def padded_size(size: int) -> int:
    """Members in whole blocks."""
    length = block_length(size)
    return -(-size // length) * length


def sort_blocks(padded: np.ndarray, size: int) -> np.ndarray:
    """Sort the first `size` entries of each row in place, repeat the last one, and sum blocks.

    Rows with an entry that is missing or infinite get NaN everywhere.

    Parameters
    ----------
    padded : numpy.ndarray
        (cell, block * length), contiguous.
    size : int
        Number of members.

    Returns
    -------
    numpy.ndarray
        (cell, block, 2): of each block the sums of its values, and of 0, 1, ... times them.
    """
    cells, width = padded.shape
    length = block_length(size)
    sums = np.empty((cells, width // length, 2), padded.dtype)
    step = max(1, _SORTED // width)
    with np.errstate(invalid="ignore"):
        for first in range(0, cells, step):
            some = slice(first, first + step)
            part = padded[some]
            part[:, :size].sort(axis=-1)
            part[:, size:] = part[:, size - 1, None]
            block_sums(part.reshape(-1, length), sums[some].reshape(-1, 2))
    finite = np.isfinite(padded[:, 0]) & np.isfinite(padded[:, -1])
    if not finite.all():
        padded[~finite], sums[~finite] = np.nan, np.nan
    return sums


def subtract(source: np.ndarray, target: np.ndarray, out: np.ndarray) -> None:
    """`source` minus `target`, members along the last axis; only members may be infinite.

    In the wider of their precisions: a truth in float64 is not rounded before.
    """
    dtype = np.result_type(source, target, out)
    if source.strides[-1] == source.itemsize:
        np.subtract(source, target, out=out, dtype=dtype, casting="same_kind")
        return
    # Members far from each other in memory: turn a few at a time, in cache.
    for first in range(0, source.shape[-1], _SLAB):
        some = slice(first, first + _SLAB)
        out[..., some] = np.subtract(source[..., some], target, dtype=dtype)
