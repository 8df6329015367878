"""`myriad calibrate judge`: quantiles that hold the truth as often as they promise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from data.channel import channel
from data.errors import InputError
from pipelines.calibration.aggregated import Aggregated
from pipelines.calibration.by_model import checkpoints_of, model_scores
from pipelines.calibration.cases import quantile_values
from pipelines.calibration.judged import ByRule, Calibrated, Written
from pipelines.calibration.store import chunk_leads, lay_out_quantiles
from pipelines.labels import SOURCE, check_replaceable, replace_whole, write_labelled
from pipelines.truths import Paths, Series
from pipelines.verification import (
    Block,
    Verification,
    VerificationSettings,
    open_verification,
)
from scoring.calibration.conformal import (
    EACH_CASE,
    SYMMETRIC,
    Conformity,
    Counting,
)
from scoring.dates import Rule, choose_rule
from scoring.quantiles import (
    CENTRAL_INTERVALS,
    STANDARD_LEVELS,
    interval_statistics,
)
from scoring.sums import Sums, merge

# Of each stage: the statistic and the prefix of the variable.
_BY_LEAD = {"covered": "", "width": "width_", "quantile_score": "score_"}
_STAGES = ("before", "after")
_MEANINGS = {
    "": "share of truths inside the central interval",
    "width_": "width of the central interval",
    "score_": "weighted interval score, 2 x mean pinball loss",
    "region_": "share of truths inside the central interval, by region",
    "below_": "share of truths that are not above the quantile",
    "date_": "share of truths inside the central interval, all leads of an init time together",
}
_IN_UNITS = ("width_", "score_")
_TABLE = (*(f"{prefix}{stage}" for prefix in _BY_LEAD.values() for stage in _STAGES), "dates")


@dataclass(frozen=True)
class CalibrationSettings(VerificationSettings):
    """How to calibrate.

    Attributes
    ----------
    levels : tuple of float
        Quantile levels, in pairs p and 1 - p.
    intervals : tuple of float
        Nominal coverage of the intervals that are judged; their ends are among `levels`.
    rule : Rule or None
        Which dates fit and which are judged; by default as `choose_rule` says.
    conformity : Conformity
        `SYMMETRIC` (default) or `ONE_SIDED`.
    counting : Counting
        `EACH_CASE` (default) or `EACH_DATE`.
    calibrated : sequence of pathlib.Path
        Stores that `calibrate apply` wrote: what is judged on their dates, instead of what `rule`,
        `conformity` and `counting` make of the forecast.
    models : Aggregated or None
        The models that are judged one beside the other and combined; by default the checkpoints,
        if there are several and the dates suffice.
    """

    levels: tuple[float, ...] = STANDARD_LEVELS
    intervals: tuple[float, ...] = CENTRAL_INTERVALS
    rule: Rule | None = None
    conformity: Conformity = SYMMETRIC
    counting: Counting = EACH_CASE
    calibrated: Sequence[Path] = ()
    models: Aggregated | None = None


@dataclass(frozen=True)
class CalibrationResult:
    """What `calibrate` made.

    Attributes
    ----------
    coverage : xarray.Dataset
        `before` and `after`, `width_before`, `width_after`, (channel, lead_time, level);
        `score_before`, `score_after`, `dates`, (channel, lead_time). Of both stages also
        `region_...`, (channel, lead_time, level, region), `date_...`, (channel, init_time, level),
        coverage in parts of the globe and in time; `below_...`, (channel, lead_time, quantile), how
        many truths were not above each quantile. Where there are several models, `model_score`,
        (channel, lead_time, combination), as `pipelines.calibration.by_model` says.
    output : pathlib.Path
        The folder written.
    """

    coverage: xr.Dataset
    output: Path

    @property
    def written(self) -> tuple[Path, ...]:
        """Everything that was written."""
        own = () if "stores" in self.coverage.attrs else ("calibrated.zarr",)
        return tuple(self.output / name for name in (*own, "coverage.zarr", "coverage.csv"))

    def table(self, days: tuple[float, ...] = (1, 3, 5, 7, 10), level: float = 0.9) -> str:
        """A compact table: coverage and width of one interval before and after."""
        lead_days = self.coverage.lead_time.values / np.timedelta64(1, "D")
        wanted = np.flatnonzero(np.isin(lead_days, days))
        chosen = self.coverage.sel(level=level, method="nearest")
        lines = [f"{level:.0%} interval: channel, lead h, coverage before -> after, width"]
        for name in chosen.channel.values:
            for index in wanted if wanted.size else range(lead_days.size):
                at = chosen.sel(channel=name).isel(lead_time=index)
                lines.append(
                    f"{name:>8} {24 * lead_days[index]:6g}  {float(at.before):.3f} -> "
                    f"{float(at.after):.3f}  {float(at.width_before):.4g} -> "
                    f"{float(at.width_after):.4g}"
                )
        return "\n".join([*lines, *self.coverage.attrs["notes"]])


def calibrate(
    forecast: Paths, truth: Paths, output: Path, settings: CalibrationSettings | None = None
) -> CalibrationResult:
    """Calibrate the quantiles of an ensemble, by channel and lead.

    Writes `calibrated.zarr`, (init_time, quantile, lead_time, *cells), of the judged dates, unless
    stores of them are given, and `coverage.zarr` and `coverage.csv`, before and after on the same
    judged dates.

    Parameters
    ----------
    forecast : path or sequence of paths
        A forecast store, or files of an ensemble on any grid.
    truth : path or sequence of paths
        Files that hold the truth at the valid times.
    output : pathlib.Path
        Folder to write into; what is there is replaced.
    settings : CalibrationSettings, optional
        How to calibrate.

    Raises
    ------
    InputError, StoreError
        If something does not fit, or a level needs more cases than there are.
    """
    settings = settings or CalibrationSettings()
    pair = open_verification(forecast, truth, settings.channels or None).with_members(2)
    weights = pair.weights()
    if settings.calibrated:
        pair, settings, calibrated = _written(pair, settings)
    else:
        calibrated = _by_rule(pair, settings, weights)
    run = _Run(pair, settings, weights, calibrated)
    own = () if settings.calibrated else ("calibrated.zarr",)
    for name in (*own, "coverage.zarr"):
        check_replaceable(output / name)
    parts: list[Sums] = []
    if settings.calibrated:
        parts.extend(sums for _, _, sums in run.judge())
    else:
        replace_whole(output / "calibrated.zarr", lambda draft: parts.extend(run.fill(draft)))
    coverage = run.coverage(merge(parts))
    if (models := settings.models or checkpoints_of(pair)) is not None:
        scores = model_scores(forecast, truth, models, settings)
        meaning = "weighted interval score of models and of combinations of them, last dates"
        coverage["model_score"] = scores.assign_attrs(_about(meaning, in_units=True))
    write_labelled(coverage, output / "coverage.zarr")
    table = coverage[list(_TABLE)].to_dataframe().reset_index()
    replace_whole(output / "coverage.csv", lambda draft: table.to_csv(draft, index=False))
    return CalibrationResult(coverage, output)


def _by_rule(pair: Verification, settings: CalibrationSettings, weights: xr.DataArray) -> ByRule:
    """Conformal quantiles, by the rule that settings name or that suits the dates."""
    inits, leads = pair.forecast.init_time.values, pair.forecast.lead_time.values
    rule = settings.rule or choose_rule(inits, leads)
    area = weights.isel(region=0, drop=True)
    return ByRule(rule.judged(inits), rule, area, settings.conformity, settings.counting)


def _written(
    pair: Verification, settings: CalibrationSettings
) -> tuple[Verification, CalibrationSettings, Written]:
    """What stores hold, the forecast of their dates and channels only, and the settings with these
    and their levels.

    Raises
    ------
    InputError
        If no interval has its ends among the levels.
    """
    chosen = Written.open(settings.calibrated, pair)
    pair = replace(pair.at_init_times(chosen.judged), channels=chosen.channels)
    settings = replace(settings, channels=chosen.channels)
    chosen = replace(chosen, judged=np.arange(chosen.judged.size))
    if chosen.levels is None:
        return pair, settings, chosen
    levels = np.array(chosen.levels)
    ends = {level: ((1 - level) / 2, (1 + level) / 2) for level in settings.intervals}
    intervals = tuple(
        level
        for level, own in ends.items()
        if all(np.isclose(levels, end, rtol=0, atol=1e-9).any() for end in own)
    )
    if not intervals:
        raise InputError(
            f"{', '.join(chosen.names)}: no interval of {settings.intervals} has both its ends "
            f"among the levels {chosen.levels}"
        )
    return pair, replace(settings, levels=chosen.levels, intervals=intervals), chosen


@dataclass(frozen=True)
class _Run:
    """One calibration."""

    pair: Verification
    settings: CalibrationSettings
    weights: xr.DataArray
    calibrated: Calibrated

    def fill(self, path: Path) -> Iterator[Sums]:
        """Write the calibrated store; gives the statistics before and after."""
        group = lay_out_quantiles(
            path,
            self.pair.forecast.isel(init_time=self.calibrated.judged),
            self.pair.channels,
            self.settings.levels,
            self._attributes(),
        )
        for leads, calibrated, sums in self.judge():
            group[calibrated.name][:, :, leads[0] : leads[-1] + 1] = calibrated.values
            yield sums

    def judge(self) -> Iterator[tuple[np.ndarray, xr.DataArray, Sums]]:
        """Of each channel and window of leads their positions, the calibrated quantiles, and the
        statistics before and after."""
        leads = self.pair.forecast.sizes["lead_time"]
        for name in self.pair.channels:
            truths = self.pair.truths(name, self.settings.memory)
            for start in range(0, leads, self._window):
                window = np.arange(start, min(start + self._window, leads))
                raw, truth = self._read(name, window, truths)
                calibrated = self.calibrated.quantiles(raw, truth)
                sums = self._statistics(raw, truth, calibrated).label({"channel": name})
                yield window, calibrated, sums

    @property
    def _area(self) -> xr.DataArray:
        """Weights of the first region, which is the largest."""
        return self.weights.isel(region=0, drop=True)

    @property
    def _window(self) -> int:
        """Leads at a time: whole chunks, all dates of them in memory."""
        sizes, cells = self.pair.forecast.sizes, self._area.size
        levels = len(self.settings.levels)
        each = 4 * cells * max(sizes["number"], 4 * sizes["init_time"] * levels)
        chunk = chunk_leads(sizes["lead_time"], levels, cells)
        return max(1, self.settings.memory // (each * chunk)) * chunk

    def _read(
        self, name: str, leads: np.ndarray, truths: Series
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """Quantiles, (init_time, quantile, lead_time, *cells), and truth, NaN where missing."""
        forecast, levels = self.pair.forecast, self.settings.levels
        cells, dates = self._area.shape, forecast.sizes["init_time"]
        quantiles = np.empty((dates, len(levels), leads.size, *cells), np.float32)
        truth = np.full((dates, leads.size, *cells), np.nan, np.float32)
        for init, completed in enumerate(forecast.completed.values):
            block = Block(name, init, np.flatnonzero(completed), leads, slice(0, cells[0]))
            members = self.pair.members(block)
            quantiles[init] = quantile_values(members, levels)
            scored = self.pair.scored[name][init, leads]
            if scored.any():
                truth[init, scored] = truths.at(self.pair.valid_times()[init, leads[scored]])
        labels = {"init_time": forecast.init_time.values, "quantile": np.array(levels)}
        labels["lead_time"] = forecast.lead_time.values[leads]
        dims = ("init_time", "quantile", "lead_time", *self.pair.cell_dims)
        joined = xr.DataArray(quantiles, labels, dims, name)
        del labels["quantile"]
        return joined, xr.DataArray(truth, labels, (dims[0], *dims[2:]))

    def _statistics(
        self, quantiles: xr.DataArray, truth: xr.DataArray, calibrated: xr.DataArray
    ) -> Sums:
        """Statistics before and after where there is truth and a calibrated value."""
        judged = truth.isel(init_time=self.calibrated.judged)
        usable = judged.notnull() & calibrated.isel(quantile=0, drop=True).notnull()
        raw = quantiles.isel(init_time=self.calibrated.judged)
        stages = dict(zip(_STAGES, (raw, calibrated), strict=True))
        parts = []
        for stage, forecast in stages.items():
            values = interval_statistics(forecast, judged, self.settings.intervals)
            values["below"] = (judged <= forecast).astype(np.float32)
            parts.append(self._summed(values, usable).label({"stage": stage}))
        return merge(parts)

    def _summed(self, values: xr.Dataset, usable: xr.DataArray) -> Sums:
        """Sums over the cells of each region; values that are not usable have no say."""
        cells, regions = self.pair.cell_dims, self.weights.indexes["region"]
        kept = usable.transpose("init_time", "lead_time", *cells).values
        weights = self.weights.values.reshape(regions.size, -1).T
        weight = np.where(kept, 1.0, 0.0).reshape(*kept.shape[:2], -1) @ weights
        totals, sums = {}, {}
        for name, value in values.items():
            value = value.transpose(..., "init_time", "lead_time", *cells)
            samples = np.where(kept, value.values, 0.0)
            total = samples.reshape(*samples.shape[: -len(cells)], -1) @ weights
            dims = (*value.dims[: -len(cells)], "region")
            labels = {dim: value.indexes[dim] for dim in dims[:-1]} | {"region": regions}
            totals[str(name)] = xr.DataArray(total, labels, dims)
            sums[str(name)] = xr.DataArray(np.broadcast_to(weight, total.shape), labels, dims)
        return Sums(totals, sums)

    def coverage(self, sums: Sums) -> xr.Dataset:
        """What the judged dates say, before and after."""
        largest, variables = str(self.weights.region.values[0]), {}
        for stage in _STAGES:
            found = {name: sums.mean(name).sel(stage=stage, drop=True) for name in sums.totals}
            for name, prefix in _BY_LEAD.items():
                variables[f"{prefix}{stage}"] = found[name].sel(region=largest, drop=True)
            variables[f"region_{stage}"] = found["covered"]
            variables[f"below_{stage}"] = found["below"].sel(region=largest, drop=True)
            variables[f"date_{stage}"] = self._in_time(sums, stage, largest)
        weight = sums.weights["quantile_score"].isel(stage=0, drop=True)
        variables["dates"] = (weight.sel(region=largest, drop=True) > 0).sum("init_time")
        channels = list(self.pair.channels)
        dataset = xr.Dataset(variables).reindex(channel=channels)
        dataset = dataset.transpose("channel", "lead_time", "init_time", "level", ...)
        units = ("channel", [channel(name).units for name in channels])
        return _described(dataset.assign_coords(units=units)).assign_attrs(self._attributes())

    def _in_time(self, sums: Sums, stage: str, region: str) -> xr.DataArray:
        """Coverage at each init time, all leads together, (channel, init_time, level)."""
        total, weight = (
            part["covered"].sel(stage=stage, region=region, drop=True).sum("lead_time")
            for part in (sums.totals, sums.weights)
        )
        return total / weight.where(weight > 0)

    def _attributes(self) -> dict[str, object]:
        stamps = np.datetime_as_string(
            self.pair.forecast.init_time.values[self.calibrated.judged].astype("datetime64[s]"), "h"
        )
        about = dict(self.calibrated.about)
        notes = [about.pop("note"), *self.pair.notes]
        return {"source": SOURCE, **about, "judged": stamps.tolist(), "notes": notes}


def _described(coverage: xr.Dataset) -> xr.Dataset:
    """With attributes that say what each variable is."""
    about = {
        f"{prefix}{stage}": _about(f"{meaning}, {stage} calibration", prefix in _IN_UNITS)
        for prefix, meaning in _MEANINGS.items()
        for stage in _STAGES
    } | {
        "dates": _about("init times that were judged", in_units=False),
        "level": _about("nominal coverage of the central interval", in_units=False),
        "quantile": _about("probability of the quantile", in_units=False),
        "lead_time": {"standard_name": "forecast_period"},
        "init_time": {"standard_name": "forecast_reference_time"},
        "units": {"long_name": "units of the channel"},
    }
    for name, attributes in about.items():
        coverage[name].attrs.update(attributes)
    return coverage


def _about(meaning: str, in_units: bool) -> dict[str, str]:
    """Attributes of a share or a count; of a quantity, whose units the coordinate `units` says."""
    said = {"long_name": f"{meaning}, in the units of the channel"}
    return said if in_units else {"long_name": meaning, "units": "1"}
