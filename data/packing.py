"""Rounding values before they are stored, so that they compress."""

from __future__ import annotations

import numpy as np


def round_to_quantum(values: np.ndarray, quantum: float) -> np.ndarray:
    """Values rounded to the nearest multiple of a quantum, any shape, float32.

    The quantum is a power of two, so that the result is exact and rounding twice changes
    nothing; a value too large to hold the quantum in its 24 bits stays as it is. NaN and
    infinities stay. Minus zero becomes zero.

    Parameters
    ----------
    values : numpy.ndarray
        float32.
    quantum : float
        Positive power of two, in the unit of the values.

    Raises
    ------
    ValueError
        If the quantum is no positive power of two.
    """
    if not quantum > 0 or np.frexp(quantum)[0] != 0.5:
        raise ValueError(f"quantum {quantum} is no positive power of two")
    rounded = np.asarray(np.asarray(values, np.float32) / np.float32(quantum))
    # In place: memory that is fresh costs more than the arithmetic.
    np.rint(rounded, out=rounded)
    rounded *= np.float32(quantum)
    rounded += np.float32(0)
    return rounded
