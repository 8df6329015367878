"""Aggregation of real quantile forecasts: one season of FluSight fits, the next one judges.

``python benchmarks/aggregation.py FOLDER`` with ``quantiles_2023_2025.parquet`` and
``target_hospital_admissions.csv``. Models whose name begins with ``FluSight-`` are combinations
themselves: they are left out of the inputs and judged beside them. Horizons 0 to 3 weeks.

A truth counts as known two weeks after the end of its week: a number is published in the middle
of the next week and often revised. `fitted once` has seen what was known at the first forecast of
2024-25; `refitted` what was known at the first of each four forecasts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
import xarray as xr  # noqa: E402

from data.key import Key  # noqa: E402
from pipelines.quantile_table import quantiles_of_table, read_table, truth_of_table  # noqa: E402
from scoring.calibration.aggregation import Aggregation, Aggregator, known_at  # noqa: E402
from scoring.calibration.aggregation_training import Training  # noqa: E402
from scoring.calibration.aggregation_weights import (  # noqa: E402
    UNCONSTRAINED,
    Coarse,
    Fine,
    Global,
    Local,
    Medium,
)
from scoring.calibration.features import Centre, Coordinate, Season, Spread  # noqa: E402
from scoring.calibration.pools import BestModel, LinearPool  # noqa: E402
from scoring.calibration.quantile_forecast import truth_at_valid_time  # noqa: E402
from scoring.comparison import baselines, compare  # noqa: E402

KEY = Key(1)
DELAY = np.timedelta64(14, "D")
REFIT = 4  # forecasts
SPLIT = np.datetime64("2024-08-01", "ns")
LOCAL = Local((Coordinate("lead_time"), Season(), Centre(10.0), Spread(10.0)))
TRAINING = Training(learning_rate=0.02, batch=1024, most_rounds=30, patience=5)
SHRUNK = Training(learning_rate=0.02, batch=1024, most_rounds=30, patience=5, weight_decay=2.0)
SLOW = Training(learning_rate=0.003, batch=1024, most_rounds=30, patience=5)
RECOMMENDED = Aggregator(Coarse(), training=SHRUNK)
RECIPES = {
    f"{name}, {place}": Aggregator(resolution, locality, training=training)
    for name, resolution in {"coarse": Coarse(), "medium": Medium(), "fine": Fine()}.items()
    for place, locality, training in (
        ("global", Global(), TRAINING),
        ("global, shrunk", Global(), SHRUNK),
        ("local", LOCAL, SLOW),
    )
}
UNCONVEX = {
    f"{name}, global, unconstrained": Aggregator(
        resolution, constraint=UNCONSTRAINED, training=SLOW
    )
    for name, resolution in {"coarse": Coarse(), "medium": Medium(), "fine": Fine()}.items()
}
Combine = Callable[[Aggregation, xr.DataArray], xr.DataArray]


def averaged(aggregation: Aggregation, quantiles: xr.DataArray) -> xr.DataArray:
    """Quantiles averaged with the weights."""
    return aggregation.apply(quantiles)


def pooled(aggregation: Aggregation, quantiles: xr.DataArray) -> xr.DataArray:
    """Distributions averaged with the weights."""
    return LinearPool.weighted(aggregation.weights(quantiles)).of(quantiles)


@dataclass(frozen=True)
class Hub:
    """Forecasts of the hub, (model, init_time, lead_time, location, quantile), and truth."""

    inputs: xr.DataArray
    combined: dict[str, xr.DataArray]
    truth: xr.DataArray

    @classmethod
    def read(cls, folder: Path) -> Hub:
        """From the folder."""
        table = read_table(folder / "quantiles_2023_2025.parquet")
        table = table[table["horizon"] >= 0].rename(columns={"reference_date": "init_time"})
        table["lead_time"] = 7 * 24 * table["horizon"].astype(int)
        quantiles = quantiles_of_table(table, ["model", "init_time", "lead_time", "location"])
        target = read_table(folder / "target_hospital_admissions.csv", ["location"])
        observed = truth_of_table(
            target.rename(columns={"date": "valid_time"}), ["valid_time", "location"]
        )
        combined = quantiles["model"].str.startswith("FluSight-").values
        hub = quantiles.isel(model=combined)
        others = {str(name): hub.sel(model=name, drop=True) for name in hub["model"].values}
        truth = truth_at_valid_time(observed, quantiles)
        return cls(quantiles.isel(model=~combined), others, truth)

    def fit(self, recipe: Aggregator, date: np.datetime64) -> tuple[Aggregation, np.ndarray]:
        """Trained on what was known at a date, and the models it knows."""
        past = self.inputs["init_time"].values < date
        truth = known_at(self.truth, date, DELAY).isel(init_time=past)
        inputs = self.inputs.isel(init_time=past)
        cases = inputs.isel(quantile=0, drop=True).notnull() & truth.notnull()
        models = cases.any(["init_time", "lead_time", "location"]).values
        return recipe.fit(inputs.isel(model=models), truth, KEY), models

    def forecast(
        self, recipe: Aggregator, dates: np.ndarray, every: int, combine: Combine = averaged
    ) -> xr.DataArray:
        """Forecasts of these dates, refitted at the first of each `every`."""
        parts = []
        for some in (dates[start : start + every] for start in range(0, dates.size, every)):
            aggregation, models = self.fit(recipe, some[0])
            parts.append(combine(aggregation, self.inputs.sel(init_time=some).isel(model=models)))
        return xr.concat(parts, "init_time")


def tables(hub: Hub) -> Iterator[tuple[str, pd.DataFrame]]:
    """Of 2023-24, walked through from the eighth forecast on, and of 2024-25."""
    dates = hub.inputs["init_time"].values
    early, late = dates[dates < SPLIT][8:], dates[dates >= SPLIT]
    globally = {name: recipe for name, recipe in RECIPES.items() if "local" not in name}
    shrunk = {name: recipe for name, recipe in RECIPES.items() if "shrunk" in name}
    ways = {"refitted": (REFIT, globally)}
    yield "2023-24 from the ninth forecast on", judged(hub, early, ways)
    ways = {"fitted once": (late.size, RECIPES | UNCONVEX), "refitted": (REFIT, shrunk)}
    yield "2024-25", judged(hub, late, ways)


def judged(
    hub: Hub, dates: np.ndarray, ways: dict[str, tuple[int, dict[str, Aggregator]]]
) -> pd.DataFrame:
    """All forecasts of these dates on the cases of the hub's ensemble."""
    inputs = hub.inputs.sel(init_time=dates)
    past = hub.inputs["init_time"].values < dates[0]
    known = known_at(hub.truth, dates[0], DELAY).isel(init_time=past)
    forecasts = baselines(inputs, BestModel.fit(hub.inputs.isel(init_time=past), known))
    forecasts |= {name: one.sel(init_time=dates) for name, one in hub.combined.items()}
    for way, (every, recipes) in ways.items():
        for name, recipe in recipes.items():
            start = time.process_time()
            forecasts[f"{name}, {way}"] = hub.forecast(recipe, dates, every)
            print(f"  {name}, {way}: {time.process_time() - start:.1f} s CPU", flush=True)
        recommended = hub.forecast(RECOMMENDED, dates, every, pooled)
        forecasts[f"**linear pool, coarse shrunk weights, {way}**"] = recommended
    truth = hub.truth.sel(init_time=dates)
    truth = truth.where(hub.combined["FluSight-ensemble"].notnull().all("quantile"))
    some = {n: f for n, f in forecasts.items() if bool(f.notnull().any())}
    return compare(some, truth, "mean")


def print_training(hub: Hub) -> None:
    """How long the largest weights take to train on all that was known of the first season."""
    dates = hub.inputs["init_time"].values
    for name in ("fine, global", "fine, local"):
        wall, start = time.perf_counter(), time.process_time()
        fitted, _ = hub.fit(RECIPES[name], dates[dates >= SPLIT][0])
        wall, used = time.perf_counter() - wall, time.process_time() - start
        print(f"{name}: {fitted.rounds} rounds, {used:.1f} s CPU, {wall:.1f} s", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training", action="store_true", help="only how long training takes")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    hub = Hub.read(arguments.folder)
    print_training(hub)
    if arguments.training:
        return
    for title, table in tables(hub):
        print(f"\n{title}\n")
        print(markdown(table))


def markdown(table: pd.DataFrame) -> str:
    """The table, as it stands in the documentation."""
    shown = table.dropna(subset="score").reset_index()
    digits = {"score": "{:.2f}", "relative": "{:.3f}", "p_value": "{:.2f}"}
    digits |= {name: "{:.3f}" for name in shown.columns if name.startswith("coverage")}
    columns = {n: [digits.get(n, "{}").format(v) for v in shown[n]] for n in shown.columns}
    rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    main()
