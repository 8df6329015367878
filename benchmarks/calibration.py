"""Split CQR of every cell of a globe, beside loops over peers, on one machine, in one run.

``OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/calibration.py``

Every cell has shifts of its own from its own dates. Peers calibrate one series at a time, so they
are looped over some cells and the time is scaled up to all; those that are not installed are named
and left out. Times are of the processor, so another job on the machine changes them little. The
last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

# This folder has a script with the name of a package: the repository comes before it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import xarray as xr

from scoring.calibration.conformal import ConformalCalibration

LEVELS = (0.05, 0.95)


def seconds(call: Callable[[], object], runs: int = 3) -> float:
    """Shortest processor time of some runs."""
    best = np.inf
    for _ in range(runs):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def mapie(low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> Callable[[], object]:
    """A call of MAPIE's CQR on one cell, with models that give the quantiles."""
    from mapie.regression import ConformalizedQuantileRegressor
    from sklearn.base import BaseEstimator, RegressorMixin

    class Given(RegressorMixin, BaseEstimator):
        """Gives back one column of its input."""

        def __init__(self, column: int = 0) -> None:
            self.column = column
            self.is_fitted_ = True

        def fit(self, features: np.ndarray, target: np.ndarray) -> Given:
            return self

        def predict(self, features: np.ndarray) -> np.ndarray:
            return features[:, self.column]

    features = np.stack([low, high, (low + high) / 2], axis=1)

    def call() -> object:
        models = [Given(0), Given(1), Given(2)]
        regressor = ConformalizedQuantileRegressor(models, confidence_level=0.9, prefit=True)
        return regressor.conformalize(features, truth).predict_interval(features[-1:])

    return call


def crepes(low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> Callable[[], object]:
    """A call of crepes on one cell: a conformal regressor on the residuals of the middle, which
    is the nearest that it has to CQR."""
    from crepes import ConformalRegressor

    middle = (low + high) / 2

    def call() -> object:
        regressor = ConformalRegressor().fit(residuals=truth - middle, sigmas=(high - low) / 2)
        return regressor.predict_int(middle[-1:], sigmas=(high - low)[-1:] / 2, confidence=0.9)

    return call


def peers() -> Iterator[tuple[str, Callable[..., Callable[[], object]]]]:
    """Name and maker of a call, of those installed."""
    for name, maker in (("mapie", mapie), ("crepes", crepes)):
        try:
            __import__(name)
        except ImportError:
            print(f"{name} is not installed")
            continue
        yield name, maker


def main() -> None:
    """Print times, and all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=65_160)
    parser.add_argument("--dates", type=int, default=92)
    parser.add_argument("--looped", type=int, default=100, help="cells that peers are looped over")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (arguments.dates, arguments.cells)
    truth = rng.standard_normal(shape, dtype=np.float32)
    centre = np.float32(0.5) * rng.standard_normal(shape, dtype=np.float32)
    ends = np.stack([centre - 1, centre + 1], axis=1)
    quantiles = xr.DataArray(ends, {"quantile": list(LEVELS)}, ("init_time", "quantile", "cell"))
    observed = xr.DataArray(truth, dims=("init_time", "cell"))

    def ours() -> object:
        fitted = ConformalCalibration.fit(quantiles, observed, ("init_time",))
        return fitted.apply(quantiles.isel(init_time=[-1]))

    result = {"cells": arguments.cells, "dates": arguments.dates, "myriadcast_s": seconds(ours)}
    print(f"myriadcast, fit and apply: {result['myriadcast_s']:.3f} s")
    for name, maker in peers():
        calls = [maker(*ends[:, :, cell].T, truth[:, cell]) for cell in range(arguments.looped)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            took = seconds(lambda calls=calls: [call() for call in calls])
        result[f"{name}_s"] = took * arguments.cells / arguments.looped
        result[f"{name}_ratio"] = result[f"{name}_s"] / result["myriadcast_s"]
        print(
            f"{name}, looped over {arguments.looped} cells in {took:.3f} s, scaled up: "
            f"{result[f'{name}_s']:.1f} s, {result[f'{name}_ratio']:.0f} times as long"
        )
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
