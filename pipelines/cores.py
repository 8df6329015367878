"""Cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> tuple[int, ...]:
    """Cores that this process may use; none where the system does not say, as on macOS."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def core_count() -> int:
    """Number of them; of all that there are where the system does not say which."""
    return len(usable_cores()) or os.cpu_count() or 1
