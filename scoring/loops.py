"""Loops in C, which NumPy would do in many passes; a page of it, compiled on installation.

Whoever calls one has NumPy's way beside it, for where the package was installed without a compiler,
and both give the same numbers. No loop holds Python's lock, so that threads run them at once.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loops; None where there are none."""
    for suffix in EXTENSION_SUFFIXES:
        with suppress(OSError):  # not there, or compiled for another machine
            return ctypes.CDLL(str(Path(__file__).with_name(f"_loops{suffix}")))
    return None


def call(name: str, *arguments: np.ndarray | int) -> None:
    """Run a loop on arrays, which must be contiguous, and 64-bit integers."""
    loop = getattr(library(), name)
    loop.restype = None
    loop(
        *(
            ctypes.c_void_p(argument.ctypes.data)
            if isinstance(argument, np.ndarray)
            else ctypes.c_int64(argument)
            for argument in arguments
        )
    )
