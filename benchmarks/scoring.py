"""Ensemble scores side by side with peers, on one machine, in one run.

``python benchmarks/scoring.py`` prints tables for 50, 1,000 and 7,424 members on 181 x 360 cells,
in float32 and on one thread; its last line is one line of JSON. With ``--store`` it also measures
what memory scoring a store of 3 GB takes (`benchmarks/scoring_memory.py`; minutes).

Every implementation gets the ensemble in the layout it likes best. Runs go round by round, so that
a busy moment hits all alike, and the shortest counts: CPU time on one thread, wall time on two.
Peers that need many times the ensemble in memory get fewer cells of it. Memory is the peak of what
was allocated beyond the ensemble, as tracemalloc sees it (numpy's arrays; not those within compiled
code), results included. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

# Threads are counted here, before any library starts its own.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
# This script has the name of the package that it measures, and its folder comes first.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]

import numpy as np  # noqa: E402
import xarray as xr  # noqa: E402

from scoring.crps import CRPS, FAIR  # noqa: E402
from scoring.extremes import DISCRETE, ExtremeForecastIndex  # noqa: E402
from scoring.loops import library  # noqa: E402
from scoring.moments import Variance  # noqa: E402
from scoring.probability import BrierScore  # noqa: E402
from scoring.quantiles import Quantiles  # noqa: E402
from scoring.rank import Rank  # noqa: E402
from scoring.statistic import Statistic, evaluate_arrays  # noqa: E402
from scoring.thresholds import Constants, Reference  # noqa: E402
from scoring.weighted import Above, ThresholdWeightedCRPS  # noqa: E402

MOST_PAIRWISE = 100  # the memory of pairwise peers goes with the square of the members
PEER_VALUES = 70_000_000
THRESHOLDS = Constants((53_100.0, 53_700.0, 54_000.0, 54_300.0, 54_900.0))
CLIMATE = Reference("climate", tuple(np.linspace(0, 1, 101)))
FAIR_CRPS = (CRPS(FAIR),)
FAMILY = (
    *FAIR_CRPS, ThresholdWeightedCRPS(Above(THRESHOLDS)), Quantiles(), Rank(),
    BrierScore(THRESHOLDS), Variance(), ExtremeForecastIndex(CLIMATE, DISCRETE),
)  # fmt: skip
OURS, FIRST, ALL = "myriadcast", "myriadcast, members first", "myriadcast, whole family"
ONE, TWO = "myriadcast, wall time", "myriadcast, 2 threads, wall time"


@dataclass(frozen=True)
class Case:
    """An ensemble to score.

    Attributes
    ----------
    members : numpy.ndarray
        (y, x, member)
    truth : numpy.ndarray
        (y, x)
    climate : numpy.ndarray
        (y, x, level)
    """

    members: np.ndarray
    truth: np.ndarray
    climate: np.ndarray

    @classmethod
    def drawn(cls, size: int, rows: int, columns: int) -> Case:
        """Geopotential-like values: 54,000 +- 600."""
        rng = np.random.default_rng(0)
        members = rng.standard_normal((rows, columns, size), dtype=np.float32)
        members *= np.float32(600)
        members += np.float32(54_000)
        truth = (54_000 + 600 * rng.standard_normal((rows, columns))).astype(np.float32)
        climate = 54_000 + 700 * rng.standard_normal((rows, columns, 101), dtype=np.float32)
        return cls(members, truth, np.sort(climate, axis=-1))

    def cut(self, values: int) -> Case:
        """Its first rows, of about so many values."""
        rows = max(1, min(len(self.truth), values // self.members[0].size))
        return Case(self.members[:rows], self.truth[:rows], self.climate[:rows])

    def call(self, statistics: tuple[Statistic, ...], threads: int = 1) -> Callable[[], object]:
        """Our evaluation, members last."""
        references = {CLIMATE: self.climate}
        return lambda: evaluate_arrays(
            statistics, self.members, self.truth, -1, threads=threads, references=references
        )


@dataclass
class Line:
    """An implementation and how it did.

    Attributes
    ----------
    name, estimator : str
        What it is.
    call : callable
        One run.
    values : int
        Members times cells of a run.
    clock : callable
        CPU or wall time.
    peer : bool
        Whether it is another package.
    seconds : float
        The shortest run.
    memory : float
        Peak beyond the ensemble, as a share of it.
    """

    name: str
    estimator: str
    call: Callable[[], object]
    values: int
    clock: Callable[[], float] = time.process_time
    peer: bool = False
    seconds: float = np.inf
    memory: float = np.nan

    @property
    def nanoseconds(self) -> float:
        """For each value."""
        return 1e9 * self.seconds / self.values

    def warm(self) -> None:
        """Run once: compiles, and shows what is allocated."""
        tracemalloc.start()
        self.call()
        self.memory = tracemalloc.get_traced_memory()[1] / (4 * self.values)
        tracemalloc.stop()

    def run(self) -> None:
        """Run, and keep the time if it is the shortest."""
        start = self.clock()
        self.call()
        self.seconds = min(self.seconds, self.clock() - start)


def ours(case: Case) -> Iterator[Line]:
    """What a read, a sort and our kernel take."""
    members, values = case.members, case.members.size
    yield Line("one read of the data", "-", lambda: members.sum(dtype=np.float32), values)
    yield Line("numpy.sort, out of place", "-", lambda: np.sort(members, axis=-1), values)
    yield Line(OURS, "fair", case.call(FAIR_CRPS), values)
    yield Line(ONE, "fair", case.call(FAIR_CRPS), values, time.perf_counter)
    yield Line(TWO, "fair", case.call(FAIR_CRPS, 2), values, time.perf_counter)
    yield Line(ALL, "fair", case.call(FAMILY), values)
    few = case.cut(PEER_VALUES)
    first = np.ascontiguousarray(np.moveaxis(few.members, -1, 0))
    yield Line(
        FIRST, "fair", lambda: evaluate_arrays(FAIR_CRPS, first, few.truth), few.members.size
    )


def peers(case: Case) -> Iterator[Line]:
    """Every peer that is installed."""
    members, truth, values = case.members, case.truth, case.members.size
    if properscoring := installed("properscoring"):
        call = properscoring.crps_ensemble
        yield Line("properscoring", "standard", lambda: call(truth, members), values)
    if scoringrules := installed("scoringrules"):
        for backend in ("numba", "numpy") if installed("numba") else ("numpy",):
            for name in ("qd", "pwm", "fair"):
                if name == "fair" and members.shape[-1] > MOST_PAIRWISE:
                    continue
                options = {"estimator": name, "backend": backend}
                yield Line(
                    f"scoringrules, {backend}, {name}", "standard" if name == "qd" else "fair",
                    lambda options=options: scoringrules.crps_ensemble(truth, members, **options),
                    values,
                )  # fmt: skip
    observed = xr.DataArray(truth, dims=("y", "x"))
    labelled = xr.DataArray(members, dims=("y", "x", "member"))
    if xskillscore := installed("xskillscore"):
        crps = xskillscore.crps_ensemble
        yield Line("xskillscore", "standard", lambda: crps(observed, labelled, dim=[]), values)
    if scores := installed("scores.probability"):
        for method, estimator in (("ecdf", "standard"), ("fair", "fair")):
            options = {"method": method, "preserve_dims": "all"}
            yield Line(
                f"scores, {method}", estimator,
                lambda options=options: scores.crps_for_ensemble(
                    labelled, observed, "member", **options
                ),
                values,
            )  # fmt: skip


def installed(name: str) -> ModuleType | None:
    """The module, or None where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def measured(case: Case, rounds: int) -> list[Line]:
    """All lines of a table."""
    others = [replace(line, peer=True) for line in peers(case.cut(PEER_VALUES))]
    lines = [*ours(case), *others]
    for line in lines:
        line.warm()
    for _ in range(rounds):
        for line in lines:
            line.run()
    return lines


def table(lines: list[Line], case: Case) -> None:
    """Print one table."""
    rows, columns, size = case.members.shape
    print(f"\n{rows} x {columns}, M = {size}, float32, one thread unless stated")
    print("| implementation | estimator | cells | s | ns/value | x one read | memory / ensemble |")
    print("|---|---|---|---|---|---|---|")
    for line in lines:
        ratio = line.nanoseconds / lines[0].nanoseconds
        print(
            f"| {line.name} | {line.estimator} | {line.values // size} | {line.seconds:.4f} | "
            f"{line.nanoseconds:.2f} | {ratio:.1f} | {line.memory:.3f} |"
        )


def summary(lines: list[Line]) -> dict[str, float | str]:
    """What the table comes to."""
    named = {line.name: line for line in lines}
    others = [line for line in lines if line.peer]
    own = named[OURS].nanoseconds
    result: dict[str, float | str] = {
        "crps_ns_per_value": own,
        "crps_over_one_read": own / lines[0].nanoseconds,
        "memory_share": named[OURS].memory,
        "family_over_crps": named[ALL].nanoseconds / own,
        "two_threads_speedup": named[ONE].seconds / named[TWO].seconds,
    }
    for kind, some in (
        ("exact", others),
        ("fair", [line for line in others if line.estimator == "fair"]),
    ):
        if some:
            best = min(some, key=lambda line: line.nanoseconds)
            result |= {f"fastest_{kind}_peer": best.name, f"over_{kind}": best.nanoseconds / own}
    return result


def main() -> None:
    """Read the arguments, print a table for each ensemble size and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, nargs="+", default=[50, 1000, 7424])
    parser.add_argument("--rows", type=int, default=181)
    parser.add_argument("--columns", type=int, default=360)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", type=int, nargs="?", const=7424, metavar="MEMBERS")
    arguments = parser.parse_args()
    compiled = library() is not None
    print(f"loops: {'compiled' if compiled else 'NumPy, as not compiled here'}")
    results: dict[int | str, dict[str, float | str] | bool] = {"compiled": compiled}
    for size in arguments.members:
        case = Case.drawn(size, arguments.rows, arguments.columns)
        lines = measured(case, arguments.rounds)
        table(lines, case)
        results[size] = summary(lines)
    if arguments.store:
        script = Path(__file__).with_name("scoring_memory.py")
        command = [sys.executable, "-P", str(script), "--members", str(arguments.store)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        *lines, last = done.stdout.splitlines()
        print("\n".join(lines))
        results["store"] = json.loads(last)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
