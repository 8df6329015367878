"""Checks the climate, the analyses and the predictability of a nature run; tables and figures.

    python docs/figures/nature.py DIRECTORY

prints the tables of docs/nature-run.md and writes the figures beside this file. DIRECTORY is that
of `myriad nature`. The last check integrates the core and so needs the extra ``physics``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr

from data.grid import Grid
from data.key import Key
from data.sphere import Sphere
from data.state import State
from forecast.forecaster import rollout
from forecast.held_suarez import OUTPUT_CHANNELS, OUTPUT_GRID, T42
from forecast.primitive_equations import PrimitiveEquations

FIGURES = Path(__file__).parent
KAPPA = 2 / 7
DAYS = 15
INITS_PER_SEGMENT = 2
LATITUDE = OUTPUT_GRID.latitude
COLORS = {"z500": "C0", "u250": "C1", "t850": "C2", "sp": "C3"}


@dataclass(frozen=True)
class NatureRun:
    """A finished nature run; its fields are read as they are asked for."""

    directory: Path

    def store(self, name: str) -> xr.Dataset:
        """One of the run's stores."""
        return xr.open_zarr(self.directory / name)

    @cached_property
    def training(self) -> xr.Dataset:
        """Truth of the training stretches."""
        truth = self.store("truth.zarr")
        return truth.isel(time=np.flatnonzero(truth.subset.values == 0))

    @cached_property
    def analysis(self) -> xr.Dataset:
        """Analyses."""
        return self.store("analysis.zarr").load()

    @cached_property
    def truth(self) -> xr.Dataset:
        """Truth at the times of the analyses."""
        return self.store("truth.zarr").sel(time=self.analysis.time).load()

    @cached_property
    def error(self) -> dict[str, np.ndarray]:
        """Analysis less truth, (time, 32, 64), of each channel."""
        return {
            name: self.analysis[name].values - self.truth[name].values for name in OUTPUT_CHANNELS
        }

    @cached_property
    def deviation(self) -> dict[str, np.ndarray]:
        """Temporal standard deviation of each channel over the training stretches, (32, 64)."""
        return {name: self.training[name].values.std(axis=0) for name in OUTPUT_CHANNELS}

    def scale(self, name: str) -> float:
        """Root of the area-mean temporal variance of a channel: the unit of its errors."""
        return float(np.sqrt(mean(self.deviation[name] ** 2)))

    @cached_property
    def native(self) -> dict[str, np.ndarray]:
        """Truth on sigma layers at 00Z: u, v, t as (time, layer, latitude, longitude), and sp."""
        store = self.store("native.zarr/truth")
        layers = range(1, T42.layers + 1)
        fields = {
            letter: np.stack([store[f"{letter}_sigma{k}"].values for k in layers], axis=1)
            for letter in "uvt"
        }
        return fields | {"sp": store["sp"].values}

    @property
    def sigma(self) -> np.ndarray:
        """Sigma of the layers' centres."""
        return (np.arange(T42.layers) + 0.5) / T42.layers


def mean(field: np.ndarray, grid: Grid = OUTPUT_GRID) -> np.ndarray:
    """Area mean over the last two axes."""
    return (field * grid.area_weights).sum((-2, -1))


def row(*cells: object) -> None:
    """Print one row of a table."""
    print("|", " | ".join(map(str, cells)), "|")


def head(*cells: str) -> None:
    """Print the head of a table."""
    print()
    row(*cells)
    row(*("---" for _ in cells))


def save(figure: plt.Figure, name: str) -> None:
    """Write a figure beside this file."""
    figure.tight_layout()
    figure.savefig(FIGURES / name, dpi=80)
    plt.close(figure)


# Climate


def zonal_means(run: NatureRun) -> None:
    """Jets, static stability, contrast and eddies, from the native fields."""
    fields = run.native
    u, t = (fields[name].mean((0, 3)) for name in "ut")
    pressure = run.sigma[:, None, None] * fields["sp"][:, None]
    theta = (fields["t"] * (1e5 / pressure) ** KAPPA).mean((0, 3))
    eddy = {name: fields[name] - fields[name].mean(3, keepdims=True) for name in "uvt"}
    heat = (eddy["v"] * eddy["t"]).mean((0, 3))
    panels = {
        "eastward wind, m/s": (u, np.arange(-24, 40, 4)),
        "temperature, K": (t, np.arange(190, 311, 10)),
        "potential temperature, K": (theta, np.arange(260, 480, 15)),
        "temperature variance of eddies, K$^2$": ((eddy["t"] ** 2).mean((0, 3)), 10),
        "eastward kinetic energy of eddies, m$^2$/s$^2$": ((eddy["u"] ** 2).mean((0, 3)) / 2, 10),
        "northward heat flux of eddies, K m/s": (heat, np.arange(-24, 25, 4)),
    }
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), sharex=True, sharey=True)
    for axis, (title, (values, levels)) in zip(axes.flat, panels.items(), strict=True):
        filled = axis.contourf(T42.grid.latitude, run.sigma, values, levels, extend="both")
        axis.contour(filled, colors="k", linewidths=0.4)
        figure.colorbar(filled, ax=axis)
        axis.set(title=title, xlabel="latitude", ylabel="sigma")
    axes[0, 0].invert_yaxis()
    save(figure, "nature-zonal-means.png")
    report_zonal_means(run, u, t, theta, heat)


def report_zonal_means(
    run: NatureRun, u: np.ndarray, t: np.ndarray, theta: np.ndarray, heat: np.ndarray
) -> None:
    """The table of the zonal means, each (layer, latitude)."""
    latitude = T42.grid.latitude
    head("zonal mean", "north", "south")
    row("strongest westerlies, m/s", *greatest(run, u, u))
    row("strongest poleward heat flux of eddies, K m/s", *greatest(run, heat, -heat))
    tropics, poles = np.abs(latitude) < 20, np.abs(latitude) > 80
    row("strongest easterlies of the lowest layer, m/s", f"{u[-1][tropics].min():.1f}", "")
    ends = t[-1][np.abs(latitude) < 5].mean(), t[-1][poles].mean()
    row("lowest layer, equator and poles, K", f"{ends[0]:.1f}", f"{ends[1]:.1f}")
    row("coldest, K", f"{t.min():.1f}", "")
    step = -np.diff(theta, axis=0).min(axis=1)
    cells = ", ".join(f"{value:.1f}" for value in step)
    row("least increase of potential temperature, layer by layer from the top, K", cells, "")


def greatest(run: NatureRun, north: np.ndarray, south: np.ndarray) -> Iterator[str]:
    """The greatest value in each hemisphere, and where it is."""
    latitude = T42.grid.latitude
    for values, half in ((north, latitude > 0), (south, latitude < 0)):
        part = values[:, half]
        layer, index = np.unravel_index(part.argmax(), part.shape)
        place = f"latitude {latitude[half][index]:.0f}, sigma {run.sigma[layer]:.2f}"
        yield f"{part.max():.1f} at {place}"


def deviations(run: NatureRun) -> None:
    """Mean, temporal standard deviation (also by segment) and 6 h tendency of each channel."""
    head("channel", "mean", "temporal std", "of each segment", "std of 6 h tendency")
    consecutive = np.diff(run.training.time.values) == np.timedelta64(6, "h")
    segment = run.training.segment.values
    for name in OUTPUT_CHANNELS:
        values = run.training[name].values
        parts = (values[segment == index] for index in sorted(set(segment)))
        each = ", ".join(f"{np.sqrt(mean(part.var(axis=0))):.3g}" for part in parts)
        tendency = np.sqrt(mean((np.diff(values, axis=0)[consecutive] ** 2).mean(0)))
        average = mean(values.mean(0))
        row(name, f"{average:.4g}", f"{run.scale(name):.4g}", each, f"{tendency:.4g}")


def maps(run: NatureRun) -> None:
    """A snapshot and the storm tracks."""
    last = run.training.isel(time=-1)
    shown = {
        "u250 at one time, m/s": last["u250"].values,
        "t850 at one time, K": last["t850"].values,
        "temporal mean of u250, m/s": run.training["u250"].values.mean(0),
        "temporal std of z500, m$^2$/s$^2$": run.deviation["z500"],
    }
    figure, axes = plt.subplots(2, 2, figsize=(13, 6.5), sharex=True, sharey=True)
    ground = last["surface_geopotential"].values / 9.80616
    for axis, (title, values) in zip(axes.flat, shown.items(), strict=True):
        globe(figure, axis, values, title)
        lines(axis, ground, [500, 1500, 2500])
    save(figure, "nature-maps.png")


def globe(figure: plt.Figure, axis: plt.Axes, values: np.ndarray, title: str) -> None:
    """One map."""
    mesh = axis.pcolormesh(OUTPUT_GRID.longitude, LATITUDE, values, shading="nearest")
    figure.colorbar(mesh, ax=axis)
    axis.set(title=title, xlabel="longitude", ylabel="latitude")


def lines(axis: plt.Axes, values: np.ndarray, levels: list[float]) -> None:
    """White contours on a map."""
    axis.contour(OUTPUT_GRID.longitude, LATITUDE, values, levels, colors="w", linewidths=0.6)


def spectra(run: NatureRun) -> None:
    """Mean power by degree of the truth's departures from its mean, and of the analysis error."""
    sphere = Sphere(OUTPUT_GRID, 21)
    figure, axis = plt.subplots(figsize=(6.5, 4.5))
    degrees = np.arange(1, 22)
    for name in ("u250", "t850", "z500"):
        truth = run.training[name].values[::20]
        for values, style in ((truth - truth.mean(0), "-"), (run.error[name], ":")):
            power = sphere.power(sphere.analyse(torch.from_numpy(values))).mean(0).numpy()
            label = name if style == "-" else None
            share = power[1:] / run.scale(name) ** 2
            axis.loglog(degrees, share, style, color=COLORS[name], label=label)
    axis.loglog(degrees[7:], 40.0 * degrees[7:] ** -3.0, "k--", linewidth=0.7, label="$l^{-3}$")
    axis.set(xlabel="degree l", ylabel="power / temporal variance", title="dotted: analysis error")
    axis.legend()
    save(figure, "nature-spectra.png")


# Analyses


def analyses(run: NatureRun) -> None:
    """Size of the analysis error, and how it varies."""
    head(
        "channel", "RMSE", "% of temporal std", "daily means, %",
        "20N-70N, %", "20S-20N, %", "70S-20S, %",
    )  # fmt: skip
    for name in OUTPUT_CHANNELS:
        square = run.error[name] ** 2
        daily = 100 * np.sqrt(mean(square).reshape(-1, 4).mean(1)) / run.scale(name)
        rmse = np.sqrt(mean(square.mean(0)))
        bands = [band_share(run, name, *band) for band in ((20, 70), (-20, 20), (-70, -20))]
        row(
            name, f"{rmse:.3g}", f"{100 * rmse / run.scale(name):.1f}",
            f"{daily.min():.1f}-{daily.max():.1f}", *(f"{100 * share:.1f}" for share in bands),
        )  # fmt: skip
    flow_dependence(run)
    analysis_figure(run)


def band_share(run: NatureRun, name: str, south: float, north: float) -> float:
    """RMSE over temporal standard deviation within these latitudes."""
    rows = (south < LATITUDE) & (north > LATITUDE)
    weights = OUTPUT_GRID.area_weights[rows]
    square = (run.error[name] ** 2).mean(0)[rows]
    return float(
        np.sqrt((square * weights).sum() / (run.deviation[name][rows] ** 2 * weights).sum())
    )


def flow_dependence(run: NatureRun) -> None:
    """Whether the error follows the flow of the day, by correlations over middle latitudes."""
    rows = np.abs(np.abs(LATITUDE) - 45) < 25
    error = run.error["z500"][:, rows]
    wind = np.hypot(run.truth["u500"].values, run.truth["v500"].values)[:, rows]
    temperature = run.truth["t850"].values
    east = np.gradient(temperature, axis=2) / np.cos(np.deg2rad(LATITUDE))[:, None]
    slope = np.hypot(np.gradient(temperature, axis=1), east)[:, rows]
    square = np.log(smooth(error**2) + 1.0)
    head("z500 error, 20 to 70 degrees", "correlation")
    for title, field in (("wind at 500 hPa", wind), ("slope of t850", slope)):
        value = correlation(departure(square), departure(smooth(field)))
        row(f"logarithm of its square with {title}, there and then", f"{value:.2f}")
    own = error.reshape(-1, 4 * analysed_days(run), *error.shape[1:])
    for lag in (1, 2, 4, 8):
        value = correlation(own[:, :-lag], own[:, lag:])
        row(f"with itself {6 * lag} h later, at the same place", f"{value:.2f}")


def smooth(field: np.ndarray) -> np.ndarray:
    """Running mean over 5 longitudes (28 degrees), cyclic."""
    return sum(np.roll(field, shift, axis=-1) for shift in range(-2, 3)) / 5


def departure(field: np.ndarray) -> np.ndarray:
    """Less the mean over time and longitude."""
    return field - field.mean((0, 2), keepdims=True)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of all values."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def analysed_days(run: NatureRun) -> int:
    """Days with analyses in each segment."""
    return run.analysis.sizes["time"] // 4 // len(set(run.analysis.segment.values))


def analysis_figure(run: NatureRun) -> None:
    """Analysis error in time, on the map, and at two times."""
    figure, axes = plt.subplots(2, 2, figsize=(13, 6.5))
    for name in ("z500", "u250", "t850"):
        share = 100 * np.sqrt(mean(run.error[name] ** 2)) / run.scale(name)
        for segment, part in enumerate(share.reshape(-1, 4 * analysed_days(run))):
            days = (np.arange(len(part)) + segment * len(part)) / 4
            axes[0, 0].plot(days, part, color=COLORS[name], label=None if segment else name)
    axes[0, 0].set(title="analysis RMSE, % of temporal std", xlabel="analysed day, all segments")
    axes[0, 0].legend()
    ratio = 100 * np.sqrt((run.error["z500"] ** 2).mean(0)) / run.deviation["z500"]
    globe(figure, axes[0, 1], ratio, "z500 RMSE, % of local temporal std")
    for axis, index in zip(axes[1], (60, 100), strict=True):
        title = f"z500 analysis error, day {index // 4}, m$^2$/s$^2$"
        globe(figure, axis, run.error["z500"][index], title)
        lines(axis, run.truth["z500"].values[index], list(range(46_000, 60_000, 1_000)))
    save(figure, "nature-analysis.png")


# Predictability


def divergence(run: NatureRun) -> None:
    """Error growth of the perfect model started from analyses."""
    forecaster, native = PrimitiveEquations(), run.store("native.zarr/analysis")
    days = analysed_days(run)
    offsets = np.linspace(0, days - DAYS - 1, INITS_PER_SEGMENT).astype(int)
    squares = []
    for first in range(0, native.sizes["time"], days):
        for offset in offsets:
            start = native.isel(time=first + offset)
            stacked = np.stack([start[name].values for name in forecaster.channels])
            fields = stacked[None]
            time = start.time.values.astype("datetime64[s]")
            state = State(torch.from_numpy(fields), forecaster.channels, forecaster.grid, time)
            squares.append(squared_errors(forecaster, state, run.truth))
    scales = [run.scale(name) for name in OUTPUT_CHANNELS]
    report_divergence(np.sqrt(np.mean(squares, axis=0)) / scales)


def squared_errors(forecaster: PrimitiveEquations, state: State, truth: xr.Dataset) -> np.ndarray:
    """Area-mean squared error of a forecast, (lead, channel), 6-hourly."""
    errors = []
    for later in rollout(forecaster, state, 4 * DAYS, Key(0)):
        levels = forecaster.pressure_levels(later).fields[0].numpy()
        then = truth.sel(time=later.valid_time)
        expected = np.stack([then[name].values for name in OUTPUT_CHANNELS])
        errors.append(mean((levels - expected) ** 2))
    return np.array(errors)


def report_divergence(shares: np.ndarray) -> None:
    """Table and figure of error over temporal standard deviation, (lead, channel)."""
    shown = (0, 1, 2, 3, 5, 7, 10, 15)
    head("channel", *(f"day {day}" for day in shown), "doubling, days 2-7")
    figure, axis = plt.subplots(figsize=(6.5, 4.5))
    for name, share in zip(OUTPUT_CHANNELS, shares.T, strict=True):
        doubling = 5 / np.log2(share[28] / share[8])
        row(name, *(f"{share[4 * day]:.2f}" for day in shown), f"{doubling:.1f} days")
        if name in COLORS:
            axis.semilogy(np.arange(len(share)) / 4, share, color=COLORS[name], label=name)
    axis.axhline(np.sqrt(2), color="k", linewidth=0.7, linestyle="--")
    axis.set(xlabel="days", ylabel="RMSE / temporal std", title="the perfect model from analyses")
    axis.legend()
    save(figure, "nature-divergence.png")


def main(directory: str) -> None:
    """All checks."""
    matplotlib.use("Agg")
    run = NatureRun(Path(directory))
    for check in (zonal_means, deviations, maps, spectra, analyses, divergence):
        check(run)


if __name__ == "__main__":
    main(sys.argv[1])
