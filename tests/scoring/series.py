"""Stationary series with mean 0, by process: moving-average and autoregressive coefficients."""

import numpy as np
import xarray as xr
from scipy.signal import lfilter

WHITE = ((1.0,), (1.0,))
PROCESSES = {
    "AR(1) 0.3": ((1.0,), (1.0, -0.3)),
    "AR(1) 0.5": ((1.0,), (1.0, -0.5)),
    "AR(1) -0.4": ((1.0,), (1.0, 0.4)),
    "AR(2) 1.0, -0.3": ((1.0,), (1.0, -1.0, 0.3)),
    "MA(1) 0.9": ((1.0, 0.9), (1.0,)),
    "MA(4), equal": ((1.0, 1.0, 1.0, 1.0, 1.0), (1.0,)),
}
PERSISTENT = {
    "AR(1) 0.7": ((1.0,), (1.0, -0.7)),
    "AR(1) 0.8": ((1.0,), (1.0, -0.8)),
    "AR(2) 0.4, 0.2": ((1.0,), (1.0, -0.4, -0.2)),
    "sums of 10 days": ((1.0,) * 10, (1.0,)),
}


def series(process, size: int, number: int, seed: int) -> np.ndarray:
    """Stationary series with mean 0, (time, series)."""
    moving, autoregressive = process
    shocks = np.random.default_rng(seed).standard_normal((size + 200, number))
    return lfilter(moving, autoregressive, shocks, axis=0)[200:]


def dated(values: np.ndarray, dims: tuple[str, ...] = ("cell",), step: int = 1) -> xr.DataArray:
    times = np.datetime64("2006-01-01", "ns") + np.arange(len(values)) * np.timedelta64(step, "D")
    return xr.DataArray(values, {"init_time": times}, ("init_time", *dims))
