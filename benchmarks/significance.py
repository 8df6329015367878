"""How often tests find a difference that is not there, by dates and autocorrelation.

``OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/significance.py``

Series of mean 0 are tested at the 5 % level; a good test rejects 5 % of them whatever their
autocorrelation. Beside our tests: Student's t-test, which takes dates as independent, cosines
without regard to autocorrelation, and the usual percentiles of the stationary bootstrap. Then a
mean is added that the test with the true variance of the mean would find in 80 %: how many do
ours find? The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

# This folder has a script with the name of a package: the repository comes before it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import xarray as xr
from scipy.signal import lfilter
from scipy.special import ndtri

from data.key import Key
from scoring.bootstrap import automatic_block_length, stationary_positions
from scoring.cosines import most
from scoring.sample import Sample, of_mean
from scoring.significance import EqualWeightedCosine, StationaryBootstrap, Test

DATES = (20, 40, 60, 100, 200, 400)
PROCESSES = {  # name: moving-average and autoregressive coefficients
    "white": ([1], [1]),
    "AR(1) 0.3": ([1], [1, -0.3]),
    "AR(1) 0.5": ([1], [1, -0.5]),
    "AR(1) 0.7": ([1], [1, -0.7]),
    "AR(1) 0.8": ([1], [1, -0.8]),
    "AR(1) 0.9": ([1], [1, -0.9]),
    "AR(1) 0.95": ([1], [1, -0.95]),
    "AR(1) -0.4": ([1], [1, 0.4]),
    "AR(2) 1.0, -0.3": ([1], [1, -1, 0.3]),
    "AR(2) 0.4, 0.2": ([1], [1, -0.4, -0.2]),
    "MA(1) 0.9": ([1, 0.9], [1]),
    "MA(4), equal": ([1] * 5, [1]),
    "sums of 10 days": ([1] * 10, [1]),
    "ARMA(1,1) 0.9, -0.6": ([1, -0.6], [1, -0.9]),
}
METHODS = (
    "Student", "percentiles", "0.4 T^(2/3)", "EWC", "bootstrap-t",
    "power of 0.4 T^(2/3)", "power of EWC",
)  # fmt: skip
Method = Callable[[Sample], np.ndarray]


def series(process: tuple[list[float], list[float]], dates: int, number: int, key: Key) -> Sample:
    """Independent stationary series with mean 0."""
    shocks = key.generator().standard_normal((dates + 200, number))
    values = lfilter(*process, shocks, axis=0)[200:]
    times = np.datetime64("2006-01-01", "ns") + np.arange(dates) * np.timedelta64(1, "D")
    return of_mean(xr.DataArray(values, {"init_time": times}, ("init_time", "series")))


def rejected(test: Test) -> Method:
    """Which means a test takes for different from 0."""
    return lambda sample: test.of(sample).p_value.values <= 0.05


def outside_percentiles(key: Key, draws: int) -> Method:
    """Which means the middle 95 % of the stationary bootstrap's draws leave out 0 of."""

    def method(sample: Sample) -> np.ndarray:
        lengths = np.ceil(automatic_block_length(sample.values))
        found = np.empty(lengths.size, bool)
        for length in np.unique(lengths):
            cells = np.flatnonzero(lengths == length)
            generator = (key / f"{length:g}").generator()
            positions = stationary_positions(len(sample.values), length, draws, generator)
            counts = np.stack([np.bincount(row, minlength=len(sample.values)) for row in positions])
            low, high = np.quantile(sample.resampled(counts, cells), [0.025, 0.975], axis=0)
            found[cells] = (low > 0) | (high < 0)
        return found

    return method


def standard_deviation_of_mean(process: tuple[list[float], list[float]], dates: int) -> float:
    """From the response to one shock."""
    response = lfilter(*process, np.eye(1, 1000)[0])
    return float(np.sqrt((np.convolve(response, np.ones(dates)) ** 2).sum()) / dates)


def rates(name: str, dates: int, given: argparse.Namespace) -> dict[str, float]:
    """Percent that are found, by method, of series of one kind."""
    process = PROCESSES[name]
    key = Key(2018) / list(PROCESSES).index(name) / dates
    many = series(process, dates, given.series, key)
    few = series(process, dates, given.bootstrap_series, key / 1)
    found = standard_deviation_of_mean(process, dates) * (ndtri(0.975) + ndtri(0.8))
    times = many.init_time
    shifted = xr.DataArray(many.values + found, {"init_time": times}, ("init_time", "series"))
    published = rejected(EqualWeightedCosine(most(dates)))
    ours, bootstrap = (
        rejected(EqualWeightedCosine()),
        rejected(StationaryBootstrap(key, given.draws)),
    )
    which = {
        "Student": rejected(EqualWeightedCosine(dates - 1))(many),
        "percentiles": outside_percentiles(key, given.draws)(few),
        "0.4 T^(2/3)": published(many),
        "EWC": ours(many),
        "bootstrap-t": bootstrap(few),
        "power of 0.4 T^(2/3)": published(of_mean(shifted)),
        "power of EWC": ours(of_mean(shifted)),
    }
    return {method: round(100 * float(each.mean()), 1) for method, each in which.items()}


def seconds_of_maps(dates: int = 60) -> dict[str, float]:
    """Processor time to test every point of a 181 x 360 field, by test."""
    field = series(PROCESSES["AR(1) 0.5"], dates, 181 * 360, Key(1))
    tests = {"EWC": EqualWeightedCosine(), "bootstrap-t": StationaryBootstrap(Key(1))}
    seconds = {}
    for name, test in tests.items():
        start = time.process_time()
        test.of(field)
        seconds[name] = round(time.process_time() - start, 2)
    return seconds


def main() -> None:
    """Print rates in percent: a line for each process, with a rate for each number of dates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=40_000)
    parser.add_argument("--bootstrap-series", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=399)
    given = parser.parse_args()
    table = {}
    for name in PROCESSES:
        table[name] = {d: rates(name, d, given) for d in DATES}
        cells = [" ".join(f"{table[name][d][method]:.1f}" for d in DATES) for method in METHODS]
        if len(table) == 1:
            print("| series |", " | ".join(METHODS), "|\n|---|" + "---|" * len(METHODS))
        print(f"| {name} |", " | ".join(cells), "|", flush=True)
    seconds = seconds_of_maps()
    print(f"a field of 181 x 360 and 60 dates: {seconds} s of one processor")
    print(json.dumps({"level": 5.0, "rates": table, "seconds_of_a_field": seconds}))


if __name__ == "__main__":
    main()
