"""Isotonic projection of many quantile forecasts, on one core.

``python benchmarks/isotonic.py``: CPU time, best of five, for 65,160 forecasts of 99 levels of
which a small share, or nearly all, cross; beside it a loop over scipy's compiled function for
2,000 of them, scaled up, and numpy's sort.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]

import numpy as np  # noqa: E402
from scipy import optimize  # noqa: E402

from data.key import Key  # noqa: E402
from scoring.calibration.isotonic import isotonic_regression  # noqa: E402

CELLS, LEVELS, LOOPED, ROUNDS = 65_160, 99, 2_000, 5
NOISE = {"in order": 0.0, "few crossings": 1e-5, "nearly all cross": 3e-3}


def seconds(work: Callable[[], object]) -> float:
    """CPU time, the shortest of some rounds."""
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Print the table."""
    draw = Key(0).generator()
    ordered = np.sort(draw.normal(size=(CELLS, LEVELS)), axis=1)
    disorder, weights = draw.normal(size=ordered.shape), np.ones(LEVELS)
    print("| case | cross | isotonic, s | loop over scipy, s | sort, s |\n|---|---|---|---|---|")
    for name, size in NOISE.items():
        values = ordered + size * disorder
        out = np.zeros_like(values)
        crossed = (np.diff(values, axis=1) < 0).any(axis=1).mean()
        ours = seconds(lambda values=values, out=out: isotonic_regression(values, weights, out))
        some = values[:LOOPED]
        loop = seconds(lambda some=some: [optimize.isotonic_regression(row) for row in some])
        sort = seconds(lambda values=values: np.sort(values, axis=1))
        looped = loop * CELLS / LOOPED
        print(f"| {name} | {crossed:.3f} | {ours:.3f} | {looped:.3f} | {sort:.3f} |", flush=True)


if __name__ == "__main__":
    main()
