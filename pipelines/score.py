"""`myriad score`: an ensemble against its truth, beside control, climatology and persistence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from data.climatology import Climatology
from data.errors import InputError, StoreError
from pipelines.labels import replace_whole, write_labelled
from pipelines.score_table import ScoreResult, scores_from, tidy
from pipelines.verification import Block, Paths, Truths, Verification, open_verification
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED
from scoring.moments import (
    AbsoluteError,
    AnomalyProduct,
    EnsembleMean,
    ExpectedSquaredError,
    MeanError,
    OfAreaMean,
    SquaredError,
    SquaredForecast,
    SquaredTruth,
    UnbiasedSquaredError,
    Variance,
)
from scoring.quantiles import IntervalHits
from scoring.rank import Outlier, RankHistogram
from scoring.regions import REGIONS, Region, equal_weights, region_weights
from scoring.statistic import PROPAGATE, Missing, Statistic, evaluate
from scoring.sums import Sums, merge

_MOST_BINS = 20
_ERRORS = (CRPS(STANDARD), MeanError(), AbsoluteError(), SquaredError())
_SPREADS = (Variance(), ExpectedSquaredError(), UnbiasedSquaredError())
_ANOMALIES = (AnomalyProduct(), SquaredForecast(), SquaredTruth())
_OF_AREA_MEANS = (OfAreaMean(ExpectedSquaredError()), OfAreaMean(SquaredError()))


@dataclass(frozen=True)
class ScoreSettings:
    """How to score.

    Attributes
    ----------
    channels : tuple of str
        What to score; everything in the forecast if empty.
    regions : mapping of str to Region
        Of a global grid; the first one heads every table.
    missing : Missing
        `PROPAGATE` (default) or `OMIT`.
    mask : xarray.DataArray or None
        Weights of cells beside the area's, for example 1 over land.
    memory : int
        Bytes of forecast in memory at a time, about.
    threads : int
        Tiles worked on at a time.
    """

    channels: tuple[str, ...] = ()
    regions: Mapping[str, Region] = field(default_factory=lambda: dict(REGIONS))
    missing: Missing = PROPAGATE
    mask: xr.DataArray | None = None
    memory: int = 2**27
    threads: int = 1


@dataclass(frozen=True)
class References:
    """What an ensemble is compared with.

    Attributes
    ----------
    climatology : Climatology or None
        Equally probable values for each time.
    analysis : Truths or None
        Analyses at the init times, for persistence.
    """

    climatology: Climatology | None
    analysis: Truths | None


def score(
    forecast: Paths,
    truth: Paths,
    output: Path,
    climatology: Path | None = None,
    analysis: Paths | None = None,
    settings: ScoreSettings | None = None,
) -> ScoreResult:
    """Score a forecast and write `scores.zarr`, `sums.zarr` and `scores.csv` into a folder.

    Parameters
    ----------
    forecast : path or sequence of paths
        A forecast store, or files of an ensemble on any grid.
    truth : path or sequence of paths
        Files that hold the truth at the valid times.
    output : pathlib.Path
        Folder to write into; scores that are there are replaced.
    climatology : pathlib.Path, optional
        A climatology store; adds climatology and ACC.
    analysis : path or sequence of paths, optional
        Analyses at the init times; adds persistence. Without it the control at lead 0 is taken,
        if the store holds it.
    settings : ScoreSettings, optional
        How to score.

    Raises
    ------
    InputError, StoreError
        If something does not fit, before any field is read and with the output untouched.
    """
    settings = settings or ScoreSettings()
    pair = open_verification(forecast, truth, settings.channels or None)
    references = _references(pair, climatology, analysis)
    weights = _weights(pair, settings)
    _check_writable(output)
    sums = merge(list(_parts(pair, references, weights, settings)))
    scores = scores_from(sums, pair, tuple(weights.region.values.tolist()))
    result = ScoreResult(scores, sums, output)
    table = tidy(scores)
    write_labelled(scores, output / "scores.zarr")
    replace_whole(output / "sums.zarr", sums.save)
    replace_whole(output / "scores.csv", lambda draft: table.to_csv(draft, index=False))
    return result


def _references(pair: Verification, climatology: Path | None, analysis: Paths | None) -> References:
    """Open what was given and check that it holds every channel on the forecast's grid."""
    found = None if climatology is None else Climatology(climatology)
    if found is not None:
        missing = [name for name in pair.channels if name not in found.channels]
        if missing:
            raise InputError(f"{climatology}: channel {missing[0]!r} is missing")
        if found.grid != pair.grid():
            raise InputError(
                f"{climatology}: lies on the grid {found.grid}, {pair.where} on {pair.grid()}"
            )
    if analysis is None:
        return References(found, None)
    analyses = Truths.open(analysis)
    analyses.check(pair.forecast, pair.channels, pair.where)
    return References(found, analyses)


def _weights(pair: Verification, settings: ScoreSettings) -> xr.DataArray:
    """(region, *cells)"""
    grid = pair.grid()
    cells = pair.cells()
    if grid is not None:
        weights = region_weights(grid, settings.regions)
        weights = weights.assign_coords({dim: cells[dim] for dim in pair.cell_dims})
    else:
        bare = xr.DataArray(np.zeros(cells.shape), dims=cells.dims)
        weights = equal_weights(bare.assign_coords({d: cells[d] for d in cells.dims}))
    return weights if settings.mask is None else weights * settings.mask


def _check_writable(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"{output}: cannot be written: {error.strerror or error}") from error


def _parts(
    pair: Verification, references: References, weights: xr.DataArray, settings: ScoreSettings
) -> Iterator[Sums]:
    """Sums of every block of the forecast and of what it is compared with."""
    structured = bool({"checkpoint", "pair"} & set(pair.forecast.coords))
    for block in pair.blocks(settings.memory):
        members, truth = pair.read(block)
        summed = _Summing(weights, settings, pair.forecast.init_time.values[block.init], block)
        climate = _climate(references.climatology, pair, block)
        means = None if climate is None else climate["mean"]
        if members.sizes["number"] > 1:
            statistics = _of_ensemble(pair.forecast.sizes["number"], members, structured)
            yield from summed.of("ensemble", statistics, members, truth, means)
            yield summed.of_area_means(members, truth)
        control = _control(members)
        if control is not None:
            yield from summed.of("control", _ERRORS, control, truth, means)
        persisted = _persisted(pair, references, block, control)
        if persisted is not None:
            yield from summed.of("persistence", _ERRORS, persisted, truth, means)
        if climate is not None:
            yield from summed.of("climatology", _ERRORS, climate["members"], truth, None)


def _control(members: xr.DataArray) -> xr.DataArray | None:
    """Number 0, or the only member; None where it is not finished."""
    if members.sizes["number"] == 1:
        return members
    return members.sel(number=[0]) if 0 in members.number.values else None


def _of_ensemble(members: int, present: xr.DataArray, structured: bool) -> tuple[Statistic, ...]:
    """Statistics of an ensemble; `members` fixes the bins whatever is missing at one date."""
    stratified = (CRPS(STRATIFIED),) if structured and _stratifiable(present) else ()
    bins = RankHistogram(min(members + 1, _MOST_BINS))
    return (
        CRPS(FAIR), *stratified, *_ERRORS, *_SPREADS, bins, Outlier(), IntervalHits(),
    )  # fmt: skip


def _stratifiable(members: xr.DataArray) -> bool:
    """Whether every checkpoint has two members that are no partners."""
    coordinates = members.coords
    if "checkpoint" not in coordinates:
        return False
    groups = coordinates["checkpoint"].values
    pairs = coordinates["pair"].values if "pair" in coordinates else np.full(groups.shape, -1)
    for group in np.unique(groups):
        own = pairs[groups == group]
        partners = sum(np.count_nonzero(own == pair) == 2 for pair in np.unique(own[own >= 0]))
        if own.size * (own.size - 1) == 2 * partners:
            return False
    return True


@dataclass(frozen=True)
class _Summing:
    """Turns forecasts of one block into labelled sums."""

    weights: xr.DataArray
    settings: ScoreSettings
    init_time: np.datetime64
    block: Block

    def of(
        self,
        forecast: str,
        statistics: Sequence[Statistic],
        members: xr.DataArray,
        truth: xr.DataArray,
        climate: xr.DataArray | None,
    ) -> Iterator[Sums]:
        """Sums of one forecast system, and of its anomalies where there is a climate mean."""
        wanted = (*statistics, EnsembleMean()) if climate is not None else tuple(statistics)
        values = self._evaluate(wanted, members, truth)
        if climate is not None:
            mean = values[EnsembleMean().key]
            values = values.drop_vars(EnsembleMean().key)
            departures = self._evaluate(_ANOMALIES, mean - climate, truth - climate)
            yield self._summed(departures, forecast)
        yield self._summed(values, forecast)

    def of_area_means(self, members: xr.DataArray, truth: xr.DataArray) -> Sums:
        """Sums for the spread-skill ratio of area means."""
        cells = [dim for dim in self.weights.dims if dim != "region"]
        share = self.weights / self.weights.sum(cells)
        means = xr.dot(members.astype(float), share, dim=cells)
        values = self._evaluate(
            _OF_AREA_MEANS, means, xr.dot(truth.astype(float), share, dim=cells)
        )
        weights = xr.ones_like(self.weights.isel(dict.fromkeys(cells, 0), drop=True))
        return self._labelled(Sums.of(values, weights, ()), "ensemble")

    def _evaluate(
        self, statistics: Sequence[Statistic], members: xr.DataArray, truth: xr.DataArray
    ) -> xr.Dataset:
        policy, threads = self.settings.missing, self.settings.threads
        return evaluate(statistics, members, truth, missing=policy, threads=threads)

    def _summed(self, values: xr.Dataset, forecast: str) -> Sums:
        cells = [dim for dim in self.weights.dims if dim != "region"]
        weights = self.weights
        if self.settings.missing != PROPAGATE:
            first = next(iter(values.data_vars.values()))
            weights = weights * first.notnull()
        return self._labelled(Sums.of(values, weights, cells), forecast)

    def _labelled(self, sums: Sums, forecast: str) -> Sums:
        labels = {"forecast": forecast, "channel": self.block.channel, "init_time": self.init_time}
        return sums.label(labels)


def _climate(
    climatology: Climatology | None, pair: Verification, block: Block
) -> xr.Dataset | None:
    """`members` and `mean` at the block's valid times, (lead_time, [number,] *cells)."""
    if climatology is None:
        return None
    times = pair.valid_times()[block.init, block.leads]
    found = climatology.at(times, (block.channel,))
    found = found.rename({block.channel: "members", f"{block.channel}_mean": "mean"})
    found = found[["members", "mean"]].rename(time="lead_time").reset_coords(drop=True)
    cells = pair.cells()
    coordinates = {dim: cells[dim] for dim in pair.cell_dims}
    coordinates["lead_time"] = pair.forecast.lead_time[block.leads]
    return found.assign_coords(coordinates)


def _persisted(
    pair: Verification, references: References, block: Block, control: xr.DataArray | None
) -> xr.DataArray | None:
    """The analysis at the init time, held over the block's leads, (lead_time, *cells)."""
    leads = pair.forecast.lead_time.values
    if references.analysis is not None:
        time = pair.forecast.init_time.values[[block.init]].astype("datetime64[s]")
        start = references.analysis.read(block.channel, time).isel(time=0, drop=True)
    elif control is not None and (leads == np.timedelta64(0)).any():
        where = {"init_time": block.init, "lead_time": int(np.argmax(leads == np.timedelta64(0)))}
        first = pair.forecast[block.channel].isel(where)
        start = first.sel(number=control.number.values[0], drop=True).load()
    else:
        return None
    cells = pair.cells()
    held = start.reset_coords(drop=True).assign_coords({d: cells[d] for d in pair.cell_dims})
    return held.expand_dims(lead_time=leads[block.leads])
