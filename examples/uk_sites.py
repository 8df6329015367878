"""Temperature and wind at five sites: fitted on the first issue times, judged on the later ones.

``python examples/uk_sites.py FOLDER`` with the folder `uk_sites` (docs/calibration.md). Needs
pyarrow. No issue time is on both sides. How fast the past is forgotten, whether parts of the day
are calibrated apart and how much sites share is chosen on the first issue times alone: each recipe
forecasts their later evenings from their earlier ones. "Known" uses in addition only truths that
were known when the first judged forecast started. "Own" is fitted on the judged issue times
themselves: no forecast, but the most that such shifts could do for them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from scoring.calibration.conformal import ONE_SIDED, ConformalCalibration, Shrinkage
from scoring.calibration.quantile_forecast import from_long, truth_at_valid_time, truth_from_table
from scoring.dates import EQUAL, Recent, Weighting, date_weights
from scoring.quantiles import interval, quantile_score

CHANNELS = {"t2m": "temperature_at_screen_level", "wind10m": "wind_speed_at_10m"}
KEYS = ["init_time", "lead_time", "site"]
EVENING = 4  # issue times, an hour apart
FITTED = 3 * EVENING  # of five evenings


@dataclass(frozen=True)
class Recipe:
    """One-sided conformal calibration by site, drawn towards what all sites have in common."""

    weighting: Weighting
    labels: tuple[str, ...]
    cases: float

    def fit(self, quantiles: xr.DataArray, truth: xr.DataArray) -> ConformalCalibration:
        """Fitted to issue times, (init_time, lead_time, site); the last one is today."""
        today = quantiles["init_time"].values[-1]
        return ConformalCalibration.fit(
            quantiles,
            truth,
            ("init_time", "lead_time"),
            weights=date_weights(self.weighting, truth["init_time"], today),
            conformity=ONE_SIDED,
            labels=self.labels,
            shrinkage=Shrinkage(("site", *self.labels), self.cases),
        )


HALF_LIVES = [np.timedelta64(hours, "h") for hours in (12, 24, 48)]
RECIPES = [
    Recipe(*parts)
    for parts in product([EQUAL, *map(Recent, HALF_LIVES)], [(), ("part_of_day",)], [100.0, 500.0])
]


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
    # All forecasts start within 18 and 21 UTC: a lead is a time of the day, to a quarter of it.
    valid = quantiles["init_time"][0] + quantiles["lead_time"]
    parts = {"part_of_day": ("lead_time", (valid.dt.hour // 6).values)}
    known = quantiles.notnull().all("quantile")
    return quantiles.assign_coords(parts), truth.where(known).assign_coords(parts)


def judge(quantiles: xr.DataArray, truth: xr.DataArray) -> tuple[float, float, float]:
    """P(truth <= median), WIS, coverage of the 90 % interval."""
    known = truth.notnull()
    low, high = interval(quantiles, 0.9)
    below = (truth <= quantiles.sel(quantile=0.5)).where(known)
    covered = ((low <= truth) & (truth <= high)).where(known)
    score = quantile_score(quantiles, truth)
    return float(below.mean()), float(score.mean()), float(covered.mean())


def choose(quantiles: xr.DataArray, truth: xr.DataArray) -> Recipe:
    """The recipe that forecasts each evening best from those before it."""
    origins = range(EVENING, truth.sizes["init_time"], EVENING)

    def score(recipe: Recipe) -> float:
        total = 0.0
        for origin in origins:
            past = {"init_time": slice(0, origin)}
            new = {"init_time": slice(origin, origin + EVENING)}
            fitted = recipe.fit(quantiles.isel(past), truth.isel(past))
            raw = judge(quantiles.isel(new), truth.isel(new))[1]
            total += judge(fitted.apply(quantiles.isel(new)), truth.isel(new))[1] / raw
        return total

    return min(RECIPES, key=score)


def main(folder: Path) -> None:
    """Print a table."""
    print("| channel | forecast | P(truth <= median) | WIS | change | 90 % interval holds |")
    print("|---|---|---|---|---|---|")
    for channel, name in CHANNELS.items():
        quantiles, truth = read(folder, name)
        past, new = {"init_time": slice(0, FITTED)}, {"init_time": slice(FITTED, None)}
        start = quantiles["init_time"].values[FITTED]
        known = truth.where(truth["init_time"] + truth["lead_time"] <= start)
        recipe = choose(quantiles.isel(past), truth.isel(past))
        plain = Recipe(EQUAL, (), 500.0)
        fitted = {
            "all past alike, by site": plain.fit(quantiles.isel(past), truth.isel(past)),
            "chosen": recipe.fit(quantiles.isel(past), truth.isel(past)),
            "chosen, known": recipe.fit(quantiles.isel(past), known.isel(past)),
            "own": Recipe(EQUAL, recipe.labels, 0.0).fit(quantiles.isel(new), truth.isel(new)),
        }
        scores = {
            "raw, all issue times": judge(quantiles, truth),
            "raw": judge(quantiles.isel(new), truth.isel(new)),
        }
        for label, calibration in fitted.items():
            scores[label] = judge(calibration.apply(quantiles.isel(new)), truth.isel(new))
        for label, (below, score, covered) in scores.items():
            change = "" if "raw" in label else f"{score / scores['raw'][1] - 1:+.1%}"
            print(f"| {channel} | {label} | {below:.3f} | {score:.4f} | {change} | {covered:.3f} |")
        print(
            f"{channel}, chosen: {recipe.weighting.name}; {recipe.labels}; {recipe.cases:g} cases"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
