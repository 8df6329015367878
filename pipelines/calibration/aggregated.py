"""One quantile forecast from several, with weights trained on past cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field, field_validator, model_validator
from tqdm import tqdm

from data.errors import InputError
from data.key import Key
from pipelines.calibration.by_lead import Forecasts
from pipelines.calibration.cases import Cases
from pipelines.calibration.models import (
    by_coordinate,
    by_lag,
    check_model_levels,
    model_quantiles,
    models_of,
    open_models,
)
from pipelines.calibration.quantiles import OfQuantiles
from pipelines.calibration.tables import is_table, open_model_tables
from pipelines.calibration.trained import AllDates, Cross, Trained, Trainer
from pipelines.forecasts import open_forecast
from pipelines.truths import listed
from scoring.calibration.aggregation import Aggregator, known_at
from scoring.calibration.aggregation_training import Training
from scoring.calibration.aggregation_weights import (
    CONVEX,
    Coarse,
    Fine,
    Global,
    Local,
    Medium,
    Resolution,
    Unconstrained,
)
from scoring.calibration.conformity import ONE_SIDED, SYMMETRIC, pairs
from scoring.calibration.cross_aggregation import (
    DISTRIBUTIONS,
    QUANTILES,
    Average,
    CrossAggregator,
)
from scoring.calibration.features import (
    Centre,
    Coordinate,
    Feature,
    Latitude,
    Season,
    Spread,
)
from scoring.calibration.monotone import ISOTONIC, SORT, Crossing
from scoring.calibration.pools import BestModel
from scoring.calibration.quantile_forecast import known_models
from scoring.comparison import baselines, compare
from scoring.significance import FEW_DATES

_CASES = 50_000  # more of them say nothing new of a few weights
FEWEST_DATES = 10
JUDGED = 0.25  # share of the init times, the last ones
_RESOLUTIONS: dict[str, Resolution] = {"coarse": Coarse(), "medium": Medium(), "fine": Fine()}
_AVERAGES: dict[str, Average] = {"quantiles": QUANTILES, "distributions": DISTRIBUTIONS}


@dataclass(frozen=True)
class Weights:
    """What an aggregation keeps of one channel.

    Attributes
    ----------
    aggregation : Trained
        On all dates.
    table : pandas.DataFrame
        How the recipe and what it is printed beside scored on the last dates, as `compare` says;
        the weights judged there were trained on what was known before.
    """

    aggregation: Trained
    table: pd.DataFrame


class Aggregated(OfQuantiles):
    """Weights for several models (Fakoor et al., 2023; see `scoring.calibration.aggregation`), one
    set for each channel, all leads together.

    Models are forecasts with names, or the parts of one forecast: those that the coordinate
    `models` of its members tells apart or, with `lags_hours`, its earlier init times. `features`
    make weights local: `season`, `latitude`, `centre` and `spread` of the models (relative to
    `unit`), or any coordinate, such as `lead_time`.

    With `conformal: cross` the dates that train the weights calibrate the result as well (CV+, see
    `scoring.calibration.cross_aggregation`), each lead by itself: weights are trained once without
    each of `folds` blocks of dates, whose errors then move the quantiles, each by itself
    (`sides: one`) or in pairs.
    """

    method: Literal["aggregation"] = "aggregation"
    output: ClassVar[str] = "quantile"
    models: str = "checkpoint"
    lags_hours: tuple[float, ...] = ()
    weights: Literal["coarse", "medium", "fine"] = "coarse"
    features: tuple[str, ...] = ()
    unit: float = Field(1.0, gt=0)
    constraint: Literal["convex", "unconstrained"] = "convex"
    origin: float = 0.0
    average: Literal["quantiles", "distributions"] = "quantiles"
    order: Literal["isotonic", "sort"] = "isotonic"
    crossing: float = Field(0.0, ge=0)
    conformal: Literal["none", "cross"] = "none"
    folds: int = Field(5, ge=2)
    sides: Literal["one", "both"] = "one"
    learning_rate: float = Field(0.02, gt=0)
    weight_decay: float = Field(2.0, ge=0)
    batch: int = Field(1024, ge=1)
    most_rounds: int = Field(30, ge=1)
    patience: int = Field(5, ge=1)
    validation: float = Field(0.25, ge=0, lt=1)
    seed: int = 0

    @field_validator("lags_hours")
    @classmethod
    def _lags(cls, lags: tuple[float, ...]) -> tuple[float, ...]:
        if lags and (lags[0] != 0 or len(lags) < 2 or list(lags) != sorted(set(lags))):
            raise ValueError(f"lags begin with 0 and increase, found {list(lags)}")
        return lags

    @model_validator(mode="after")
    def _distributions(self) -> Aggregated:
        plain = self.weights == "coarse" and self.constraint == "convex" and not self.features
        if self.average == "distributions" and not plain:
            raise ValueError("average: distributions takes coarse convex weights without features")
        return self

    @model_validator(mode="after")
    def _pairs(self) -> Aggregated:
        if self.conformal == "cross" and self.sides == "both":
            try:
                pairs(np.array(self.levels))
            except InputError as error:
                raise ValueError(f"sides: both: {error}") from None
        return self

    @property
    def trainer(self) -> Trainer:
        """How it is trained."""
        average = _AVERAGES[self.average]
        if self.conformal == "none":
            return AllDates(self.recipe, average)
        conformity = ONE_SIDED if self.sides == "one" else SYMMETRIC
        return Cross(CrossAggregator(self.recipe, self.folds, conformity, average))

    @property
    def recipe(self) -> Aggregator:
        """What is trained."""
        convex = self.constraint == "convex"
        features = tuple(self._feature(name) for name in self.features)
        return Aggregator(
            _RESOLUTIONS[self.weights],
            Local(features) if features else Global(),
            CONVEX if convex else Unconstrained(self.origin),
            Crossing(self.crossing) if self.crossing else None,
            after=ISOTONIC if self.order == "isotonic" else SORT,
            training=Training(
                self.learning_rate,
                self.weight_decay,
                self.batch,
                self.most_rounds,
                self.patience,
                self.validation,
            ),
        )

    def open(self, forecast: Forecasts, channels: tuple[str, ...] | None) -> xr.Dataset:
        """See `Method.open`."""
        dataset = self._opened(forecast, channels)
        check_model_levels(dataset, self.levels)
        if len(models_of(dataset)) < 2:
            raise InputError(f"one model, {models_of(dataset)[0]}: there is nothing to combine")
        return dataset

    def check(self, channel: str, dates: np.ndarray, cells: dict[str, int]) -> None:
        """See `Method.check`."""
        if dates.max() < FEWEST_DATES:
            raise InputError(
                f"training weights for {channel} needs at least {FEWEST_DATES} init times with "
                f"truth, found {int(dates.max())}: add dates"
            )
        if "latitude" in self.features and "latitude" not in cells:
            raise InputError(f"features: 'latitude' is none of {', '.join(cells)}")
        used = min(_cells_used(int(dates.max()), dates.size), int(np.prod(list(cells.values()))))
        self.trainer.check(self.levels, dates, used, channel)

    def fit(self, cases: Cases) -> Weights:
        """See `Method.fit`."""
        quantiles, truth = self.sampled(cases)
        key = Key(self.seed) / "aggregation" / cases.channel
        total = 2 * self.trainer.trainings
        with tqdm(total=total, unit=" trainings", desc=cases.channel) as bar:
            table = compare(*self.judged(quantiles, truth, key, bar.update), "mean")
            return Weights(self.trainer.fit(quantiles, truth, key, bar.update), table)

    def sampled(self, cases: Cases) -> tuple[xr.DataArray, xr.DataArray]:
        """Quantiles, (model, init_time, quantile, lead_time, cell), and truth of some cells, of the
        init times that have any truth."""
        models = models_of(cases.pair.forecast)
        count = _cells_used(cases.inits.size, cases.leads.size)
        parts = []
        for some in cases.windows():
            dates = [
                (model_quantiles(members, self.levels, models), truth)
                for members, truth in some.dates_of_some(count)
            ]
            joined = (xr.concat(one, "init_time", **_ALIKE) for one in zip(*dates, strict=True))
            parts.append(tuple(joined))
        both = (xr.concat(one, "lead_time", **_ALIKE) for one in zip(*parts, strict=True))
        dated = np.flatnonzero(cases.known.any(axis=1))
        quantiles, truth = (
            one.drop_vars("season", errors="ignore").isel(init_time=dated) for one in both
        )
        return quantiles.transpose("model", "init_time", ...), truth.transpose("init_time", ...)

    def judged(
        self,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        key: Key,
        done: Callable[[], object] = lambda: None,
    ) -> tuple[dict[str, xr.DataArray], xr.DataArray]:
        """Forecasts of the last quarter of the dates by what was known before, and their truth:
        the trained one, and those that it is always printed beside. `done` is called after each
        training.

        Raises
        ------
        InputError
            If too little was known before.
        """
        size = quantiles.sizes["init_time"]
        first = size - int(np.ceil(JUDGED * size))
        early, late = slice(None, first), slice(first, None)
        now = quantiles["init_time"].values[late][0]
        past, known = quantiles.isel(init_time=early), known_at(truth, now).isel(init_time=early)
        models, trainer = known_models(past, known), self.trainer
        first = f"{np.datetime_as_string(now, 'h')}, the first init time that judges the weights"
        if not models.any():
            raise InputError(f"nothing was known at {first}: add dates")
        past, current = (quantiles.isel(init_time=some, model=models) for some in (early, late))
        try:
            fitted = trainer.fit(past, known, key, done)
        except InputError as error:
            raise InputError(f"by what was known at {first}: {error}") from error
        forecasts = {"aggregation": trainer.combined(fitted, current)}
        forecasts |= trainer.beside(past, known, key, current)
        forecasts |= baselines(current, BestModel.fit(past, known))
        return forecasts, truth.isel(init_time=late)

    def at_leads(self, state: Weights, leads: np.ndarray) -> Weights:
        """See `Method.at_leads`."""
        return state

    def apply(self, state: Weights, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        fitted = state.aggregation.models.tolist()
        if unknown := set(members["model"].values.tolist()) - set(fitted):
            raise InputError(
                f"model {sorted(unknown)[0]} is not among those fitted: {', '.join(fitted)}"
            )
        quantiles = model_quantiles(members, self.levels, fitted)
        combined = self.trainer.combined(state.aggregation, quantiles)
        return combined.transpose("quantile", "lead_time", ...)

    def summary(self, state: Weights) -> str:
        """See `Method.summary`."""
        shown = state.table.round({"score": 4, "relative": 3, "p_value": 2})
        levels = {name: float(name.split()[1]) for name in shown if name.startswith("coverage")}
        columns = {name: f"{100 * level:g} %" for name, level in levels.items()}
        shown[list(columns)] = (100 * shown[list(columns)]).round(1)
        printed = shown.rename(columns=columns).rename_axis(None).to_string()
        return f"{printed}\n{self._caution(state.table)}"

    @staticmethod
    def _caution(table: pd.DataFrame) -> str:
        """What p-values of so many dates can show."""
        dates = int(table["dates"].max())
        said = f"p_value: of no difference from the mean, by {dates} init times, of each row alone."
        if dates >= FEW_DATES:
            return said
        return (
            f"{said} With fewer than {FEW_DATES} only large differences stand out: a large p_value "
            "does not say that two are alike, and a higher row need not be better."
        )

    def write(self, state: Weights, path: Path) -> None:
        """See `Method.write`: what is trained, and ``.json``."""
        self.trainer.write(state.aggregation, path)
        table = state.table.astype(object).where(state.table.notna(), None)
        path.with_name(f"{path.name}.json").write_text(json.dumps(table.to_dict(orient="split")))

    def read(self, path: Path) -> Weights:
        """See `Method.read`."""
        kept = json.loads(path.with_name(f"{path.name}.json").read_text())
        table = pd.DataFrame(**kept).astype(float).astype({"cases": int, "dates": int})
        return Weights(self.trainer.read(path), table.rename_axis("forecast"))

    def _opened(self, forecast: Forecasts, channels: tuple[str, ...] | None) -> xr.Dataset:
        named = isinstance(forecast, Mapping)
        by_model = {n: listed(p) for n, p in forecast.items()} if named else {"": listed(forecast)}
        tables = [is_table(path) for paths in by_model.values() for path in paths]
        if named and self.lags_hours:
            raise InputError("lags_hours is of one forecast, found several models")
        if all(tables):
            return open_model_tables(by_model, self.cells, channels)
        if any(tables):
            raise InputError("models are tables or stores, found both")
        if named:
            return open_models(forecast, channels)
        where = ", ".join(map(str, by_model[""]))
        opened = open_forecast(by_model[""])
        if self.lags_hours:
            lags = [np.timedelta64(round(3600 * hours), "s") for hours in self.lags_hours]
            return by_lag(opened, [lag.astype("timedelta64[ns]") for lag in lags])
        return by_coordinate(opened, self.models, where)

    def _feature(self, name: str) -> Feature:
        known: dict[str, Feature] = {
            "season": Season(),
            "latitude": Latitude(),
            "centre": Centre(self.unit),
            "spread": Spread(self.unit),
        }
        return known.get(name, Coordinate(name))


def _cells_used(dates: int, leads: int) -> int:
    """Of each date and lead, at most."""
    return max(1, _CASES // (dates * leads))


_ALIKE = {"coords": "minimal", "compat": "override", "join": "override"}
