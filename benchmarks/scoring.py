"""Ensemble CRPS side by side with peers, on one machine, in one run.

``OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -P benchmarks/scoring.py``
(``-P``: a script of this name would hide the package `scoring`.)

Every implementation gets the same float32 ensemble in the layout it likes best, on one thread, and
the shortest of a few runs counts. Peers that are not installed are named and left out. Memory is
the peak of what was allocated beyond the ensemble (tracemalloc sees numpy's arrays).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np

from scoring.crps import CRPS, FAIR, STANDARD
from scoring.moments import AbsoluteError, SquaredError, Variance
from scoring.quantiles import IntervalHits, Quantiles
from scoring.rank import Rank
from scoring.statistic import Statistic, evaluate_arrays

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
MOST_PAIRWISE = 100  # its memory goes with the square of the members
FAMILY = (
    CRPS(FAIR), CRPS(STANDARD), Variance(), SquaredError(), AbsoluteError(), Quantiles(), Rank(),
    IntervalHits(),
)  # fmt: skip
Contender = tuple[str, str, Callable[[], object]]


def ours(statistics: tuple[Statistic, ...], members: np.ndarray, truth: np.ndarray, threads: int):
    """A call of our kernel, members last."""
    return lambda: evaluate_arrays(statistics, members, truth, axis=-1, threads=threads)


def contenders(members: np.ndarray, truth: np.ndarray) -> Iterator[Contender]:
    """(name, estimator, call) of us and of every peer that is installed."""
    first = np.ascontiguousarray(np.moveaxis(members, -1, 0))
    yield "one read of the data", "-", lambda: members.sum(dtype=np.float32)
    yield "np.sort, out of place", "-", lambda: np.sort(members, axis=-1)
    yield "myriadcast", "fair", ours((CRPS(FAIR),), members, truth, 1)
    yield "myriadcast, members first", "fair", lambda: evaluate_arrays((CRPS(FAIR),), first, truth)
    yield "myriadcast, 2 threads", "fair", ours((CRPS(FAIR),), members, truth, 2)
    yield f"myriadcast, {len(FAMILY)} statistics", "-", ours(FAMILY, members, truth, 1)
    yield from _peers(members, first, truth)


def _peers(members: np.ndarray, first: np.ndarray, truth: np.ndarray) -> Iterator[Contender]:
    try:
        import properscoring

        yield "properscoring", "standard", lambda: properscoring.crps_ensemble(truth, members)
    except ImportError:
        print("properscoring is not installed")
    try:
        import scoringrules

        pairwise = {"estimator": "fair", "backend": "numpy"}
        if members.shape[-1] <= MOST_PAIRWISE:
            yield (
                "scoringrules, numpy, pairwise", "fair",
                lambda: scoringrules.crps_ensemble(truth, members, **pairwise),
            )  # fmt: skip
        compiled = {"estimator": "pwm", "backend": "numba"}
        yield (
            "scoringrules, numba", "fair (pwm)",
            lambda: scoringrules.crps_ensemble(truth, members, **compiled),
        )  # fmt: skip
    except ImportError:
        print("scoringrules is not installed")
    try:
        import xarray as xr
        import xskillscore

        observed = xr.DataArray(truth, dims=("y", "x"))
        forecast = xr.DataArray(first, dims=("member", "y", "x"))
        yield (
            "xskillscore", "standard",
            lambda: xskillscore.crps_ensemble(observed, forecast, dim=[]),
        )  # fmt: skip
    except ImportError:
        print("xskillscore is not installed")


def measure(call: Callable[[], object], budget: float) -> tuple[float, float]:
    """Shortest time in s of some runs within about `budget` s, and peak memory in bytes."""
    tracemalloc.start()
    call()  # compiles, warms
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    best, spent = np.inf, 0.0
    while spent < budget:
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best, memory


def table(size: int, rows: int, columns: int, budget: float) -> None:
    """Print one table."""
    rng = np.random.default_rng(0)
    members = rng.standard_normal((rows, columns, size), dtype=np.float32)
    members = np.float32(54_000) + np.float32(600) * members
    truth = (54_000 + 600 * rng.standard_normal((rows, columns))).astype(np.float32)
    print(f"\n{rows} x {columns}, M = {size}, float32, one thread unless stated")
    print("| implementation | estimator | s | ns/value | x one read | memory / ensemble |")
    print("|---|---|---|---|---|---|")
    floor = np.nan
    for name, estimator, call in contenders(members, truth):
        seconds, memory = measure(call, budget)
        floor = seconds if np.isnan(floor) else floor
        print(
            f"| {name} | {estimator} | {seconds:.4f} | {1e9 * seconds / members.size:.2f} | "
            f"{seconds / floor:.1f} | {memory / members.nbytes:.3f} |",
            flush=True,
        )


def main() -> None:
    """Read the arguments and print a table for each ensemble size."""
    if not all(os.environ.get(name) == "1" for name in ONE_THREAD):
        sys.exit(f"set {', '.join(ONE_THREAD)} to 1: this compares on one thread")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, nargs="+", default=[50, 1000])
    parser.add_argument("--rows", type=int, default=181)
    parser.add_argument("--columns", type=int, default=360)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each implementation")
    arguments = parser.parse_args()
    for size in arguments.members:
        table(size, arguments.rows, arguments.columns, arguments.seconds)


if __name__ == "__main__":
    main()
