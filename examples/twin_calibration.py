"""The twin experiment, calibrated: each stretch of dates judged by what was fitted on the others.

``python examples/twin_calibration.py FORECAST TRUTH FOLDER [CHANNEL ...]`` with a forecast store
of several stretches of consecutive init times (docs/calibration.md). The leads of whole days go to
a store of their own. Members are calibrated degree by degree, quantiles by one-sided CQR; both are
written to FOLDER as stores. Prints, by day and pooled over channels, coverage of the quantiles and
of the members, the ratios of CRPS and of spread to skill, and how far spectra and correlations
between channels have moved.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from data.grid import Grid
from data.sphere import Sphere
from pipelines.calibration.methods import method_from
from pipelines.calibration.steps import FitSettings, apply, fit
from pipelines.calibration.store import fill_members, layout_alike
from pipelines.forecasts import open_forecast
from pipelines.labels import replace_whole
from pipelines.truths import Truths
from scoring.crps import CRPS, STRATIFIED
from scoring.quantiles import CENTRAL_INTERVALS, interval
from scoring.statistic import evaluate

GAP = np.timedelta64(20, "D")
METHODS = ("degree_by_degree", "conformal")
RESOLVED = 1e-5  # of the truth's whole power: degrees with less are not judged
LIKE = 4  # every so many members stand for all in spectra and correlations


@dataclass
class Judged:
    """Sums over dates, each (stage, channel, lead_time, ...): stage 0 raw, stage 1 calibrated."""

    sums: dict[str, np.ndarray] = field(default_factory=dict)
    dates: int = 0

    def add(self, name: str, value: np.ndarray) -> None:
        """Add what one date says."""
        self.sums[name] = self.sums.get(name, 0.0) + value

    def mean(self, name: str) -> np.ndarray:
        """Over all dates."""
        return self.sums[name] / self.dates


def stretches(init_times: np.ndarray) -> list[np.ndarray]:
    """Init times, cut at gaps."""
    return np.split(init_times, np.flatnonzero(np.diff(init_times) > GAP) + 1)


def whole_days(forecast: Path, target: Path, channels: tuple[str, ...]) -> Path:
    """A store of the leads of whole days, and of these channels or all."""
    store = open_forecast([forecast])
    days = store.lead_time.values % np.timedelta64(1, "D") == np.timedelta64(0)
    days &= store.lead_time.values > np.timedelta64(0)
    thinned = store.isel(lead_time=np.flatnonzero(days))
    channels = channels or tuple(map(str, store.data_vars))
    layout = layout_alike(thinned, channels, "whole days of another store")
    fields = (
        np.stack([store[name][init].values[:, days] for name in channels], axis=1)
        for init in range(store.sizes["init_time"])
    )
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(
            target, lambda draft: fill_members(draft, layout, store.completed.values, fields)
        )
    return target


def calibrate(forecast: Path, truth: Path, folder: Path) -> None:
    """Fit on all stretches but one, apply to that one; for each of them and both methods."""
    parts = stretches(xr.open_zarr(forecast).init_time.values)
    for number, judged in enumerate(parts):
        others = tuple((part[0], part[-1]) for k, part in enumerate(parts) if k != number)
        for method in METHODS:
            target = folder / f"{method}-{number}"
            settings = FitSettings(dates=others)
            done = fit(forecast, truth, target, method_from({"method": method}), settings)
            apply(done, forecast, target.with_suffix(".zarr"), judged)
            print(f"fitted on {done.init_times.size} dates, applied: {target}.zarr", flush=True)


def dates(forecast: Path, folder: Path) -> Iterator[tuple[xr.Dataset, xr.Dataset, xr.Dataset]]:
    """Raw members, calibrated members and calibrated quantiles of each date."""
    raw = xr.open_zarr(forecast, chunks=None)
    for number, part in enumerate(stretches(raw.init_time.values)):
        members, quantiles = (
            xr.open_zarr(folder / f"{method}-{number}.zarr", chunks=None, consolidated=listed)
            for method, listed in zip(METHODS, (True, False), strict=True)
        )
        for time in part:
            yield tuple(one.sel(init_time=time).load() for one in (raw, members, quantiles))


def judge(forecast: Path, truth: Path, folder: Path) -> Judged:
    """Everything that is judged, summed over all dates."""
    truths, found = Truths.open(truth), Judged()
    for raw, calibrated, quantiles in dates(forecast, folder):
        grid = Grid.from_coordinates(raw.latitude, raw.longitude, str(forecast))
        sphere, weights = Sphere(grid), grid.area_weights / np.sum(grid.area_weights)
        valid = (raw.init_time + raw.lead_time).values.astype("datetime64[s]")
        channels = map(str, raw.data_vars)
        observed = {name: truths.read(name, valid).values for name in channels}
        for name, value in _of_quantiles(quantiles, observed, weights).items():
            found.add(name, value)
        stages = [_of_members(one, observed, weights, sphere) for one in (raw, calibrated)]
        for name in stages[0]:
            found.add(name, np.stack([stage[name] for stage in stages]))
        found.dates += 1
    return found


def _of_quantiles(
    quantiles: xr.Dataset, observed: dict[str, np.ndarray], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Coverage of one date, (level, channel, lead_time)."""
    covered = []
    for level in CENTRAL_INTERVALS:
        row = []
        for name, truth in observed.items():
            low, high = (end.values for end in interval(quantiles[name], level))
            row.append((((low <= truth) & (truth <= high)) * weights).sum(axis=(1, 2)))
        covered.append(row)
    return {"quantiles": np.array(covered)}


def _of_members(
    members: xr.Dataset, observed: dict[str, np.ndarray], weights: np.ndarray, sphere: Sphere
) -> dict[str, np.ndarray]:
    """CRPS, squared error, variance, coverage, power and products of channels of one date."""
    found: dict[str, list[np.ndarray]] = {
        name: [] for name in ("crps", "error", "variance", "members", "power", "truth")
    }
    crps, few = CRPS(STRATIFIED), []
    for name, truth in observed.items():
        own = members[name]
        like = own.isel(number=0, drop=True).copy(data=truth)
        at = evaluate((crps,), own, like)[crps.key].values
        ordered = np.sort(own.values, axis=0)
        count = len(ordered)
        mean = own.values.mean(axis=0)
        found["crps"].append((at * weights).sum(axis=(1, 2)))
        found["error"].append((((mean - truth) ** 2) * weights).sum(axis=(1, 2)))
        found["variance"].append((ordered.var(axis=0, ddof=1) * weights).sum(axis=(1, 2)))
        covered = []
        for level in CENTRAL_INTERVALS:
            low, high = (_weibull(ordered, p) for p in ((1 - level) / 2, (1 + level) / 2))
            covered.append((((low <= truth) & (truth <= high)) * weights).sum(axis=(1, 2)))
        found["members"].append(covered)
        apart = own.values[::LIKE] - truth.mean()
        few.append(apart)
        found["power"].append(_power(apart, sphere))
        found["truth"].append(_power((truth - truth.mean())[None], sphere))
        found.setdefault("count", []).append(np.full(mean.shape[0], (count + 1) / count))
    return {name: np.array(value) for name, value in found.items()} | _products(few, weights)


def _weibull(ordered: np.ndarray, level: float) -> np.ndarray:
    """The quantile of type 6 of members in order, (number, ...)."""
    place = np.clip(level * (len(ordered) + 1) - 1, 0, len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _power(fields: np.ndarray, sphere: Sphere) -> np.ndarray:
    """(lead_time, degree)"""
    with torch.no_grad():
        return sphere.power(sphere.analyse(torch.from_numpy(fields))).numpy().mean(axis=0)


def _products(fields: list[np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Area means of channels and of their products, for correlations, (channel, ...)."""
    stacked = np.stack(fields).astype(np.float64)
    rows = weights.sum(axis=1)
    # About the zonal mean: what is left is weather, not the contrast of pole and equator.
    stacked -= stacked.mean(axis=-1, keepdims=True)
    products = np.einsum("ckhij,dkhij,i->cdh", stacked, stacked, rows / stacked.shape[-1])
    return {"products": products / stacked.shape[1]}


def table(found: Judged, days: np.ndarray) -> Iterator[str]:
    """A line for each day, pooled over channels; the worst channel in brackets."""
    yield (
        "| day | quantiles: 50 / 80 / 90 / 95 % | members: 50 / 80 / 90 % | CRPS / raw (worst) | "
        "spread / skill raw -> calibrated | power by degree / raw | correlation changes at most |"
    )
    yield "|" + " --- |" * 7
    covered = 100 * found.mean("quantiles").mean(axis=1)
    members = 100 * found.mean("members")[1].mean(axis=0)
    crps = found.mean("crps")
    relative = crps[1] / crps[0]
    ratio = np.sqrt(found.mean("count") * found.mean("variance") / found.mean("error"))
    power = found.mean("power")
    observed = found.mean("truth")[0]
    resolved = observed > RESOLVED * observed.sum(axis=-1, keepdims=True)
    share = np.where(resolved, power[1] / power[0], np.nan)[..., 1:]
    products = found.mean("products")
    size = np.sqrt(np.einsum("sccl->scl", products))
    correlation = products / (size[:, :, None] * size[:, None])
    moved = np.abs(correlation[1] - correlation[0]).max(axis=(0, 1))
    for lead, day in enumerate(days):
        yield (
            f"| {day:g} | {' / '.join(f'{value:.1f}' for value in covered[:, lead])} | "
            f"{' / '.join(f'{value:.1f}' for value in members[:3, lead])} | "
            f"{relative[:, lead].mean():.3f} ({relative[:, lead].max():.3f}) | "
            f"{ratio[0, :, lead].mean():.2f} -> {ratio[1, :, lead].mean():.2f} "
            f"({ratio[1, :, lead].min():.2f} to {ratio[1, :, lead].max():.2f}) | "
            f"{np.nanmin(share[:, lead]):.3f} to {np.nanmax(share[:, lead]):.3f} | "
            f"{moved[lead]:.3f} |"
        )


def main(forecast: Path, truth: Path, folder: Path, channels: tuple[str, ...]) -> None:
    """Calibrate, judge and print a table."""
    daily = whole_days(forecast, folder / "daily.zarr", channels)
    calibrate(daily, truth, folder)
    found = judge(daily, truth, folder)
    days = xr.open_zarr(daily).lead_time.values / np.timedelta64(1, "D")
    print("\n".join(table(found, days)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), tuple(sys.argv[4:]))
