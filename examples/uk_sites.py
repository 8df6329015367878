"""Temperature and wind at five sites: fitted on the first issue times, judged on the later ones.

``python examples/uk_sites.py FOLDER`` with the folder `uk_sites` (docs/calibration.md). Needs
pyarrow; takes five minutes. No issue time is on both sides. Three kinds of recipes compete on the
first issue times alone, where each forecasts the later evenings from the earlier ones: conformal
shifts; quantile regression; and a pool of the forecast, those of the last hours, climatology and
persistence, calibrated conformally. Then mixtures of the best of each kind compete with these.
"Real time" uses only truths that were known when the first judged forecast started, both to choose
and to fit. "Own" is fitted on the judged issue times themselves, and "hindsight" is the one
recipe of all that does best on them: neither is a forecast, but they say how much could be had.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import xarray as xr

from data.errors import InputError
from data.key import Key
from scoring.calibration.aggregation import Aggregator, known_at
from scoring.calibration.aggregation_training import Training
from scoring.calibration.aggregation_weights import (
    Coarse,
    Convex,
    Global,
    Local,
    Locality,
    Unconstrained,
)
from scoring.calibration.conformal import ONE_SIDED, ConformalCalibration, Shrinkage
from scoring.calibration.features import Category
from scoring.calibration.persistence import climatology, damped_persistence
from scoring.calibration.quantile_forecast import (
    from_long,
    lagged,
    truth_at_valid_time,
    truth_from_table,
)
from scoring.calibration.quantile_regression import QuantileRegression, Terms
from scoring.dates import EQUAL, Recent, Weighting, date_weights
from scoring.quantiles import interval, quantile_score

CHANNELS = {"t2m": "temperature_at_screen_level", "wind10m": "wind_speed_at_10m"}
KEYS = ["init_time", "lead_time", "site"]
EVENING = 4  # issue times, an hour apart
FITTED = 3 * EVENING  # of five evenings
HOUR = np.timedelta64(1, "h")
HOURS = EVENING  # how many of the last issue times may be averaged
DECAY = 24 * HOUR  # of persistence

Forecast = Callable[[xr.DataArray], xr.DataArray]
Seen = Callable[[xr.DataArray, np.datetime64], xr.DataArray]  # of past truths, those that fit


class Recipe(Protocol):
    """Makes calibrated quantiles of (model, init_time, lead_time, site, quantile)."""

    def fit(self, models: xr.DataArray, truth: xr.DataArray) -> Forecast:
        """Fitted to issue times, of which the last is today."""
        ...


@dataclass(frozen=True)
class Shifts:
    """One-sided conformal calibration by site, drawn towards what all sites have in common."""

    weighting: Weighting
    labels: tuple[str, ...]
    cases: float

    def fit(self, models: xr.DataArray, truth: xr.DataArray) -> Forecast:
        """Of the forecast itself."""
        fitted = self.of(latest(models, 1), truth)
        return lambda new: fitted.apply(latest(new, 1))

    def of(self, quantiles: xr.DataArray, truth: xr.DataArray) -> ConformalCalibration:
        """Of any quantiles."""
        return ConformalCalibration.fit(
            quantiles,
            truth,
            ("init_time", "lead_time"),
            weights=today(self.weighting, truth),
            conformity=ONE_SIDED,
            labels=self.labels,
            shrinkage=Shrinkage(("site", *self.labels), self.cases),
        )


@dataclass(frozen=True)
class Regression:
    """Quantile regression on the mean of the forecasts of the last hours."""

    weighting: Weighting
    terms: Terms
    ridge: float
    hours: int

    def fit(self, models: xr.DataArray, truth: xr.DataArray) -> Forecast:
        """All cases together."""
        fitted = QuantileRegression.fit(
            latest(models, self.hours), truth, self.terms, self.ridge, today(self.weighting, truth)
        )
        return lambda new: fitted.apply(latest(new, self.hours))


@dataclass(frozen=True)
class Pool:
    """Several models aggregated, with coarse weights, and then shifted."""

    models: tuple[str, ...]
    locality: Locality
    constraint: type[Convex] | type[Unconstrained]
    shifts: Shifts

    def fit(self, models: xr.DataArray, truth: xr.DataArray) -> Forecast:
        """Models that have no case yet are left out."""
        models = models.sel(model=list(self.models))
        has = (models.notnull().all("quantile") & truth.notnull()).any(KEYS)
        names = models["model"].values[has.values]
        # There are too few evenings to say when to stop.
        training = Training(weight_decay=0.1, most_rounds=20, validation=0.0)
        constraint = self.constraint(float(truth.mean()))
        recipe = Aggregator(Coarse(), self.locality, constraint, training=training)
        fitted = recipe.fit(models.sel(model=names), truth, Key(1))

        def combined(new: xr.DataArray) -> xr.DataArray:
            return fitted.apply(new.sel(model=names))

        shifts = self.shifts.of(combined(models), truth)
        return lambda new: shifts.apply(combined(new))


@dataclass(frozen=True)
class Mixture:
    """Mean of the quantiles of several recipes."""

    recipes: tuple[Recipe, ...]

    def fit(self, models: xr.DataArray, truth: xr.DataArray) -> Forecast:
        """Each by itself."""
        fitted = [recipe.fit(models, truth) for recipe in self.recipes]
        return lambda new: sum(forecast(new) for forecast in fitted) / len(fitted)


ALL, SITE, PART = (), ("site",), ("part_of_day",)
WHERE = Category("site", ("03002", "03005", "03017", "03023", "03026"))
WHEN = Category("part_of_day", (0, 1, 2, 3))
HALF_LIVES = [Recent(hours * HOUR) for hours in (12, 24, 48)]
OFFSETS = (ALL, SITE, PART, SITE + PART)
TERMS = [
    Terms((ALL, SITE), (ALL,), (ALL,)),
    Terms(OFFSETS, (ALL,), (ALL,)),
    Terms(OFFSETS, (ALL, SITE), (ALL, SITE)),
]
LAGS = tuple(f"lag {hour} h" for hour in range(HOURS))
PAST = ("climatology", "persistence")
SHIFTS = [Shifts(*parts) for parts in product([EQUAL, *HALF_LIVES], [ALL, PART], [100.0, 500.0])]
RECIPES = [
    *SHIFTS,
    *(
        Regression(*parts)
        for parts in product([EQUAL, *HALF_LIVES[:2]], TERMS, [0.01, 0.03, 0.1, 0.3], [1, HOURS])
    ),
    *(
        Pool(*parts, Shifts(half_life, PART, 100.0))
        for *parts, half_life in product(
            [LAGS, LAGS[:1] + PAST, LAGS + PAST],
            [Global(), Local((WHERE, WHEN))],
            [Convex, Unconstrained],
            HALF_LIVES[:2],
        )
    ),
]


def today(weighting: Weighting, truth: xr.DataArray) -> xr.DataArray:
    """Weights of issue times, seen from the last one."""
    return date_weights(weighting, truth["init_time"], truth["init_time"].values[-1])


def latest(models: xr.DataArray, hours: int) -> xr.DataArray:
    """Mean of the forecast and those of the hours before it."""
    return models.isel(model=slice(0, hours)).mean("model")


def read(folder: Path, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Quantiles of the forecast, those of the three hours before, climatology and persistence,
    (model, init_time, lead_time, site, quantile), and truth, NaN where missing."""
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
    hourly = truth_from_table(observed, ["valid_time", "site"])
    truth = truth_at_valid_time(hourly, quantiles).where(quantiles.notnull().all("quantile"))
    past = [climatology(hourly, quantiles), damped_persistence(hourly, quantiles, DECAY)]
    names = xr.DataArray(["climatology", "persistence"], dims="model", name="model")
    references = xr.concat(past, names)
    lags = lagged(quantiles, [hour * HOUR for hour in range(HOURS)])
    models = xr.concat([lags, references], "model")
    # All forecasts start within 18 and 21 UTC: a lead is a time of the day, to a quarter of it.
    valid = quantiles["init_time"][0] + quantiles["lead_time"]
    parts = {"part_of_day": ("lead_time", (valid.dt.hour // 6).values)}
    return models.assign_coords(parts), truth.assign_coords(parts)


def judge(quantiles: xr.DataArray, truth: xr.DataArray) -> tuple[float, float, float]:
    """P(truth <= median), WIS, coverage of the 90 % interval."""
    known = truth.notnull()
    low, high = interval(quantiles, 0.9)
    below = (truth <= quantiles.sel(quantile=0.5)).where(known)
    covered = ((low <= truth) & (truth <= high)).where(known)
    score = quantile_score(quantiles, truth)
    return float(below.mean()), float(score.mean()), float(covered.mean())


def forecast_evenings(
    recipe: Recipe, models: xr.DataArray, truth: xr.DataArray, seen: Seen
) -> float:
    """WIS as a share of the raw forecast's, mean over evenings that are each forecast from those
    before; infinite where there are too few cases."""
    ratios = []
    for origin in range(EVENING, truth.sizes["init_time"], EVENING):
        past, new = {"init_time": slice(0, origin)}, {"init_time": slice(origin, origin + EVENING)}
        fitting = seen(truth.isel(past), truth["init_time"].values[origin])
        try:
            made = recipe.fit(models.isel(past), fitting)(models.isel(new))
        except InputError:
            return np.inf
        raw = judge(latest(models.isel(new), 1), truth.isel(new))[1]
        ratios.append(judge(made, truth.isel(new))[1] / raw)
    return float(np.mean(ratios))


def compete(models: xr.DataArray, truth: xr.DataArray, seen: Seen) -> dict[str, Recipe]:
    """The best recipe of each kind, and as `chosen` the best of all and of the mixtures."""
    scores = {}
    for recipe in RECIPES:
        scores[recipe] = forecast_evenings(recipe, models, truth, seen)
    best: dict[type, Recipe] = {}
    for recipe in sorted(RECIPES, key=scores.__getitem__):
        best.setdefault(type(recipe), recipe)
    kinds = [best[kind] for kind in (Shifts, Regression, Pool)]
    for size in (2, 3):
        for some in combinations(kinds, size):
            scores[Mixture(some)] = forecast_evenings(Mixture(some), models, truth, seen)
    chosen = min(scores, key=scores.__getitem__)
    named = {type(recipe).__name__.lower(): recipe for recipe in kinds}
    for name, recipe in (named | {"chosen": chosen}).items():
        print(f"    {name}, {scores[recipe] - 1:+.1%} on evenings that fit: {recipe}")
    return named | {"chosen": chosen}


def judge_all(models: xr.DataArray, truth: xr.DataArray) -> dict[str, tuple[float, float, float]]:
    """What `judge` says of the raw forecast, and on the judged issue times of every other."""
    past, new = {"init_time": slice(0, FITTED)}, {"init_time": slice(FITTED, None)}
    old, ahead = truth.isel(past), truth.isel(new)
    best = compete(models.isel(past), old, lambda truth, now: truth)
    print("  real time:")
    live = compete(models.isel(past), old, known_at)["chosen"]

    def judged(
        recipe: Recipe, where: dict[str, slice], seen: xr.DataArray
    ) -> tuple[float, float, float]:
        return judge(recipe.fit(models.isel(where), seen)(models.isel(new)), ahead)

    raw = latest(models, 1)
    scores = {"raw, all issue times": judge(raw, truth), "raw": judge(raw.isel(new), ahead)}
    scores |= {kind: judged(recipe, past, old) for kind, recipe in best.items()}
    known = known_at(old, ahead["init_time"].values[0])
    scores["chosen in real time"] = judged(live, past, known)
    scores |= {f"own, {kind}": judged(recipe, new, ahead) for kind, recipe in best.items()}
    tried = [judged(recipe, past, old) for recipe in RECIPES]
    return scores | {"hindsight": min(tried, key=lambda found: found[1])}


def main(folder: Path) -> None:
    """Print what was chosen, and a table."""
    rows = []
    for channel, name in CHANNELS.items():
        print(f"{channel}, truths of the issue times that fit:")
        scores = judge_all(*read(folder, name))
        for label, (below, score, covered) in scores.items():
            change = "" if "raw" in label else f"{score / scores['raw'][1] - 1:+.1%}"
            rows.append(
                f"| {channel} | {label} | {below:.3f} | {score:.3f} | {change} | {covered:.3f} |"
            )
    print("| channel | forecast | P(truth <= median) | WIS | change | 90 % interval holds |")
    print("|---|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
