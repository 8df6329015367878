"""Influenza admissions: the equal-weight mean of 14 models, calibrated online over a season.

``python examples/flusight_online.py FOLDER`` with the folder `flusight` (docs/calibration.md).
Needs pyarrow. Starts from season 2023-24, goes through 2024-25 as if in real time: before each
forecast it learns from weeks that ended before its reference date, and from nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from scoring.adaptive import AdaptiveConformal
from scoring.dates import Blend, Recent, SameSeason
from scoring.online import Method, OnlineCalibration, calibrate_online
from scoring.quantile_forecast import from_wide, truth_at_valid_time, truth_from_table
from scoring.quantiles import CENTRAL_INTERVALS, interval, quantile_score
from scoring.tracking import QuantileTracking

WEEK = np.timedelta64(7 * 24, "h").astype("timedelta64[ns]")
LATENCY = np.timedelta64(24, "h").astype("timedelta64[ns]")
SEASON = np.datetime64("2024-08-01", "ns")
ALIKE = Blend(((Recent(4 * WEEK), 3.0), (SameSeason(2 * WEEK), 1.0)))
METHODS: tuple[Method, ...] = (
    AdaptiveConformal(0.02, ALIKE, reach=1.0),
    AdaptiveConformal(0.05, ALIKE, reach=1.0),
    AdaptiveConformal(0.05, reach=1.0),
    QuantileTracking(0.4),
    QuantileTracking(0.1, integral=0.3),
)


def read(folder: Path) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean of the models, (init_time, lead_time, location, quantile), and truth."""
    table = pd.read_parquet(folder / "quantiles_2023_2025.parquet")
    table = table[~table.model.astype(str).str.startswith("FluSight-")]
    names = {column: float(column[1:]) for column in table.columns if column.startswith("q0")}
    mean = table.groupby(["reference_date", "horizon", "location"], observed=True)[list(names)]
    mean = mean.mean().astype(float).reset_index()
    mean["init_time"] = mean.reference_date.astype("datetime64[ns]")
    mean["lead_time"] = pd.to_timedelta(mean.horizon.astype(int) * 7, unit="D").astype(
        "timedelta64[ns]"
    )
    mean["location"] = mean.location.astype(str)
    quantiles = from_wide(mean, ["init_time", "lead_time", "location"], names)
    observed = pd.read_csv(folder / "target_hospital_admissions.csv", dtype={"location": str})
    observed["valid_time"] = pd.to_datetime(observed.date).astype("datetime64[ns]")
    truth = truth_from_table(observed, ["valid_time", "location"])
    return quantiles, truth_at_valid_time(truth, quantiles)


def online(method: Method, quantiles: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Quantiles of the season as issued.

    Errors are taken of log(1 + count), in units of the forecast's own interquartile range, so that
    states large and small, and weeks sure and unsure, are alike.
    """
    logs, observed = np.log1p(quantiles), np.log1p(truth)
    low, high = interval(logs, 0.5)
    centre, width = logs.sel(quantile=0.5, drop=True), np.maximum(high - low, 0.1)
    past = quantiles["init_time"].values < SEASON
    scaled, target = (logs - centre) / width, (observed - centre) / width
    start = OnlineCalibration.start(method, scaled[past], target[past], pooled=("location",))
    issued, _ = calibrate_online(start, scaled[~past], target[~past], LATENCY)
    return np.maximum(np.expm1(issued * width + centre), 0.0).transpose(*quantiles.dims)


def coverage(quantiles: xr.DataArray, truth: xr.DataArray) -> list[xr.DataArray]:
    """Whether each interval holds the truth; NaN where one of them is missing."""
    found = []
    for level in CENTRAL_INTERVALS:
        low, high = interval(quantiles, level)
        known = truth.notnull() & low.notnull()
        found.append(((low <= truth) & (truth <= high)).astype(float).where(known))
    return found


def main(folder: Path) -> None:
    """Print coverage over the season and by month of issue."""
    quantiles, truth = read(folder)
    new = quantiles["init_time"].values >= SEASON
    judged, observed = quantiles[new], truth[new]
    forecasts = {"raw": judged}
    forecasts |= {method.name: online(method, quantiles, truth) for method in METHODS}
    print("| forecast | WIS | 50 % | 80 % | 90 % | 95 % | farthest month, all intervals |")
    print("|---|---|---|---|---|---|---|")
    by_month = {}
    for name, forecast in forecasts.items():
        hits = coverage(forecast, observed)
        score = float(quantile_score(forecast, observed).mean())
        months = [hit.groupby("init_time.month").mean(...) for hit in hits]
        by_month[name] = months
        farthest = max(
            float(np.abs(month - level).max())
            for month, level in zip(months, CENTRAL_INTERVALS, strict=True)
        )
        shares = " | ".join(f"{float(hit.mean()):.3f}" for hit in hits)
        print(f"| {name} | {score:.1f} | {shares} | {farthest:.2f} |")
    for name in list(forecasts)[:2]:
        print(f"\n| month: {name} | 50 % | 80 % | 90 % | 95 % |\n|---|---|---|---|---|")
        for month in (11, 12, 1, 2, 3, 4, 5):
            shares = " | ".join(f"{float(hits.sel(month=month)):.2f}" for hits in by_month[name])
            print(f"| {month} | {shares} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
