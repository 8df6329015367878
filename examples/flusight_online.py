"""Influenza admissions: the equal-weight mean of 14 models, calibrated online over a season.

``python examples/flusight_online.py FOLDER`` with the folder `flusight` (docs/calibration.md).
Needs pyarrow. Starts from season 2023-24, goes through 2024-25 as if in real time: before each
forecast it learns from weeks that ended before its reference date, and from nothing else.

States rise and fall together. How far the months of a perfect forecaster would be from nominal, if
its states had as much in common within a week and its weeks nothing, is drawn beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

from data.key import Key
from scoring.calibration.adaptive import AdaptiveConformal
from scoring.calibration.online import Method, OnlineCalibration, calibrate_online
from scoring.calibration.quantile_forecast import from_wide, truth_at_valid_time, truth_from_table
from scoring.calibration.tracking import QuantileTracking
from scoring.dates import Blend, Recent, SameSeason
from scoring.quantiles import CENTRAL_INTERVALS, interval, quantile_score

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


def farthest(hits: list[xr.DataArray]) -> float:
    """The most that the coverage of a month differs from nominal, over all intervals."""
    months = [hit.groupby("init_time.month").mean(...) for hit in hits]
    pairs = zip(months, CENTRAL_INTERVALS, strict=True)
    return max(float(np.abs(month - level).max()) for month, level in pairs)


def scores_of(quantiles: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Where the truth lies in its forecast, as a normal deviate: standard normal if perfect."""
    levels = quantiles["quantile"].values
    below = ((quantiles < truth).sum("quantile") + (quantiles <= truth).sum("quantile")) / 2
    bins = np.concatenate([[0.0], levels, [1.0]])
    place = np.interp(below, np.arange(levels.size + 1), (bins[:-1] + bins[1:]) / 2)
    known = truth.notnull() & quantiles.notnull().all("quantile")
    return truth.copy(data=norm.ppf(place)).where(known)


def perfect_months(scores: xr.DataArray, draws: int, key: Key) -> np.ndarray:
    """Farthest months of a perfect forecaster whose states are as alike as these, (draw,).

    A score is a part that all states of a week and lead share and a part of its own; shared parts
    of the leads are correlated as found, those of different weeks are not.
    """
    shared, own = scores.mean("location"), scores.var("location").mean("init_time")
    noise = own / scores.notnull().sum("location").mean("init_time")
    share = np.maximum(shared.var("init_time") - noise, 0) / scores.var()
    known = np.ma.masked_invalid(shared.transpose("init_time", "lead_time").values)
    leads = np.linalg.cholesky(np.ma.corrcoef(known, rowvar=False).filled(0) + 1e-6 * np.eye(5))
    generator, found = key.generator(), []
    for _ in range(draws):
        common = shared.copy(data=generator.standard_normal(known.shape) @ leads.T)
        alone = scores.copy(data=generator.standard_normal(scores.shape))
        drawn = (share**0.5 * common + (1 - share) ** 0.5 * alone).where(scores.notnull())
        ends = [norm.ppf((1 + level) / 2) for level in CENTRAL_INTERVALS]
        inside = [(np.abs(drawn) <= end).astype(float) for end in ends]
        found.append(farthest([hit.where(drawn.notnull()) for hit in inside]))
    return np.array(found)


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
        by_month[name] = [hit.groupby("init_time.month").mean(...) for hit in hits]
        shares = " | ".join(f"{float(hit.mean()):.3f}" for hit in hits)
        print(f"| {name} | {score:.1f} | {shares} | {farthest(hits):.2f} |")
    scores = scores_of(forecasts[METHODS[0].name], observed)
    drawn = perfect_months(scores, 400, Key(2026) / "perfect forecaster")
    print(
        f"\na perfect forecaster: farthest month {np.median(drawn):.2f} (median), within 0.05 in "
        f"{(drawn <= 0.05).mean():.1%} of seasons"
    )
    for name in list(forecasts)[:2]:
        print(f"\n| month: {name} | 50 % | 80 % | 90 % | 95 % |\n|---|---|---|---|---|")
        for month in (11, 12, 1, 2, 3, 4, 5):
            shares = " | ".join(f"{float(hits.sel(month=month)):.2f}" for hits in by_month[name])
            print(f"| {month} | {shares} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
