"""The compiled step of the network, for this processor."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

_BUILDS = ("avx512", "avx2")  # the faster first


@cache
def library(build: str | None = None) -> ctypes.CDLL | None:
    """The compiled step, of a build or the fastest for this processor; None if there is none.

    A build itself says whether the processor has the instructions that it is made of.
    """
    for name in _BUILDS if build is None else (build,):
        for suffix in EXTENSION_SUFFIXES:
            with suppress(OSError):  # not there, or compiled for another machine
                found = ctypes.CDLL(str(Path(__file__).with_name(f"_sfno_{name}{suffix}")))
                if found.sfno_runs_here():
                    return found
    return None
