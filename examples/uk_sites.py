"""Temperature and wind at five sites: fitted on the first issue times, judged on the later ones.

``python examples/uk_sites.py FOLDER`` with the folder `uk_sites` (docs/calibration.md). Needs
pyarrow. No issue time is on both sides; "known" uses in addition only truths that were known when
the first judged forecast started.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from scoring.conformal import ONE_SIDED, ConformalCalibration, Shrinkage
from scoring.quantile_forecast import from_long, truth_at_valid_time, truth_from_table
from scoring.quantiles import interval, quantile_score

CHANNELS = {"t2m": "temperature_at_screen_level", "wind10m": "wind_speed_at_10m"}
KEYS = ["init_time", "lead_time", "site"]
FITTED = 12  # issue times: three evenings of five


def read(folder: Path, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Quantiles, (init_time, lead_time, site, quantile), and truth, NaN where missing."""
    forecast = pd.read_parquet(folder / f"forecast_table_{name}.parquet")
    forecast = pd.DataFrame({
        "init_time": forecast.forecast_reference_time.dt.tz_localize(None),
        "lead_time": forecast.forecast_period,
        "site": forecast.wmo_id.astype(str),
        "quantile": (forecast.percentile.astype(float) / 100).round(4),
        "value": forecast.forecast.astype(float),
    })  # fmt: skip
    # Some keys come twice, from two blends: the row that comes last counts.
    quantiles = from_long(forecast.drop_duplicates([*KEYS, "quantile"], keep="last"), KEYS)
    observed = pd.read_parquet(folder / f"truth_table_{name}.parquet")
    observed = pd.DataFrame({
        "valid_time": observed.time.dt.tz_localize(None),
        "site": observed.wmo_id.astype(str),
        "value": observed.ob_value.astype(float),
    })  # fmt: skip
    truth = truth_at_valid_time(truth_from_table(observed, ["valid_time", "site"]), quantiles)
    return quantiles, truth.where(quantiles.notnull().all("quantile"))


def judge(quantiles: xr.DataArray, truth: xr.DataArray) -> tuple[float, float, float]:
    """P(truth <= median), WIS, coverage of the 90 % interval."""
    known = truth.notnull()
    low, high = interval(quantiles, 0.9)
    below = (truth <= quantiles.sel(quantile=0.5)).where(known)
    covered = ((low <= truth) & (truth <= high)).where(known)
    score = quantile_score(quantiles, truth)
    return float(below.mean()), float(score.mean()), float(covered.mean())


def main(folder: Path) -> None:
    """Print a table."""
    print("| channel | forecast | P(truth <= median) | WIS | change | 90 % interval holds |")
    print("|---|---|---|---|---|---|")
    for channel, name in CHANNELS.items():
        quantiles, truth = read(folder, name)
        past, new = {"init_time": slice(0, FITTED)}, {"init_time": slice(FITTED, None)}
        start = quantiles["init_time"].values[FITTED]
        known = truth["init_time"] + truth["lead_time"] <= start
        judged = {"raw, all issue times": (quantiles, truth)}
        judged["raw"] = quantiles.isel(new), truth.isel(new)
        for label, fitting in (("calibrated", truth), ("calibrated, known", truth.where(known))):
            fitted = ConformalCalibration.fit(
                quantiles.isel(past),
                fitting.isel(past),
                ("init_time", "lead_time"),
                conformity=ONE_SIDED,
                shrinkage=Shrinkage(("site",), 500.0),
            )
            judged[label] = fitted.apply(quantiles.isel(new)), truth.isel(new)
        scores = {label: judge(*pair) for label, pair in judged.items()}
        for label, (below, score, covered) in scores.items():
            change = "" if "raw" in label else f"{score / scores['raw'][1] - 1:+.1%}"
            print(f"| {channel} | {label} | {below:.3f} | {score:.4f} | {change} | {covered:.3f} |")
        assert not np.isin(
            quantiles.isel(new)["init_time"], quantiles.isel(past)["init_time"]
        ).any()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
