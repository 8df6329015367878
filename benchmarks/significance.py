"""How often tests find a difference that is not there, by dates and autocorrelation.

``OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -P benchmarks/significance.py``

Series of mean 0 are tested at the 5 % level; a good test rejects 5 % of them whatever their
autocorrelation. Beside our tests: Student's t-test, which takes dates as independent, and the usual
percentiles of the stationary bootstrap, with the same block lengths. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy.signal import lfilter

from data.key import Key
from scoring.bootstrap import automatic_block_length, stationary_positions
from scoring.sample import Sample, of_mean
from scoring.significance import EqualWeightedCosine, StationaryBootstrap, Test

DATES = (30, 50, 100, 200)
PROCESSES = {  # name: moving-average and autoregressive coefficients
    "white": ([1], [1]),
    "AR(1) 0.3": ([1], [1, -0.3]),
    "AR(1) 0.5": ([1], [1, -0.5]),
    "AR(1) 0.7": ([1], [1, -0.7]),
    "AR(1) 0.8": ([1], [1, -0.8]),
    "AR(1) 0.9": ([1], [1, -0.9]),
    "AR(1) -0.4": ([1], [1, 0.4]),
    "AR(2) 1.0, -0.3": ([1], [1, -1, 0.3]),
    "AR(2) 0.4, 0.2": ([1], [1, -0.4, -0.2]),
    "MA(1) 0.9": ([1, 0.9], [1]),
    "MA(4), equal": ([1] * 5, [1]),
    "MA(9), equal": ([1] * 10, [1]),
}
Method = Callable[[Sample], np.ndarray]


def series(process: tuple[list[float], list[float]], dates: int, number: int, key: Key) -> Sample:
    """Independent stationary series with mean 0."""
    shocks = key.generator().standard_normal((dates + 300, number))
    values = lfilter(*process, shocks, axis=0)[300:]
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


def methods(dates: int, draws: int, key: Key) -> dict[str, Method]:
    """By name."""
    recommended = EqualWeightedCosine()
    half = EqualWeightedCosine(max(2, recommended.degrees(dates) // 2))
    return {
        "Student": rejected(EqualWeightedCosine(dates - 1)),
        "percentiles": outside_percentiles(key, draws),
        "EWC": rejected(recommended),
        "EWC, half": rejected(half),
        "bootstrap-t": rejected(StationaryBootstrap(key, draws)),
    }


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
    """Print rates in percent: one line for each process, a group of columns for each length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=4000)
    parser.add_argument("--draws", type=int, default=999)
    given = parser.parse_args()
    rates = []
    for number, (name, process) in enumerate(PROCESSES.items()):
        for dates in DATES:
            key = Key(2018) / number / dates
            sample = series(process, dates, given.series, key)
            row = {
                method: round(100 * float(reject(sample).mean()), 1)
                for method, reject in methods(dates, given.draws, key).items()
            }
            if not rates:
                print("| series | dates |", " | ".join(row), "|")
                print("|---|---|" + "---|" * len(row))
            print(f"| {name} | {dates} |", " | ".join(map(str, row.values())), "|", flush=True)
            rates.append({"series": name, "dates": dates} | row)
    seconds = seconds_of_maps()
    print(f"a field of 181 x 360 and 60 dates: {seconds} s of one processor")
    print(json.dumps({"level": 5.0, "rates": rates, "seconds_of_a_field": seconds}))


if __name__ == "__main__":
    main()
