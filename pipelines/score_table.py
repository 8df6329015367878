"""Sums turned into scores: the dataset, the tidy table and the table for the terminal."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from data.channel import channel
from data.errors import InputError
from pipelines import against_table
from pipelines.against_table import Comparison
from pipelines.labels import SOURCE, replace_whole, write_labelled
from pipelines.members import ALL_MEMBERS, Members, is_stratified
from pipelines.verification import Verification
from scoring import score as known
from scoring.labels import apart, plain
from scoring.rank import RankHistogram
from scoring.sample import paired
from scoring.score import Score
from scoring.sums import Sums

FORECASTS = ("ensemble", "control", "climatology", "persistence")
_DETERMINISTIC = "deterministic"
_ENSEMBLE_CRPS = (known.CRPS_STRATIFIED, known.CRPS_FAIR)
_SCORES = (
    known.CRPS_FAIR, known.CRPS_STANDARD, known.CRPS_STRATIFIED, known.MAE, known.RMSE,
    known.BIAS, known.SPREAD, known.SPREAD_SKILL, known.SPREAD_SKILL_UNBIASED,
    known.SPREAD_SKILL_AREA_MEAN, known.SPREAD_SKILL_UNBIASED_AREA_MEAN, known.ACC,
    known.OUTLIER_RATE, known.COVERAGE, known.CRPS_BOUND,
)  # fmt: skip
_CASES = "cases"
_DIMENSIONS = ("forecast", "channel", "region", "lead_time")
# A score along one of these is a curve to be drawn: with them a table has several times the rows.
_CURVES = frozenset({"bin", "cost_loss_ratio", "degree", "probability"})


@dataclass(frozen=True)
class ScoreResult:
    """What `score` made.

    Attributes
    ----------
    scores : xarray.Dataset
        As in scores.zarr, with text labels, in memory.
    sums : Sums
        What they were made from.
    output : pathlib.Path
        The folder written.
    comparison : Comparison or None
        With another forecast.
    """

    scores: xr.Dataset
    sums: Sums
    output: Path
    comparison: Comparison | None = None

    @property
    def written(self) -> tuple[Path, ...]:
        """Everything that is in the folder."""
        own = tuple(self.output / name for name in ("scores.zarr", "sums.zarr", "scores.csv"))
        return own if self.comparison is None else own + self.comparison.written

    def write(self) -> None:
        """Write all of it in place of what is there; an older comparison is removed.

        Raises
        ------
        StoreError
            If that cannot be.
        """
        against_table.remove(self.output)
        write_labelled(self.scores, self.output / "scores.zarr")
        replace_whole(self.output / "sums.zarr", self.sums.save)
        replace_whole(self.output / "scores.csv", partial(write_table, self.scores))
        if self.comparison is not None:
            self.comparison.write()

    def table(self) -> str:
        """A compact table, channel by lead, of the first region, and the notes below it."""
        from pipelines.report.sections import Findings  # both need Matplotlib
        from pipelines.summary import summary_text

        return summary_text(Findings(self.scores.isel(region=0)))


def headline(sums: Sums) -> Score:
    """The CRPS that an ensemble is known by: stratified where members depend on each other and
    it can be had, else fair."""
    return next(score for score in _ENSEMBLE_CRPS if score.can_be_had(sums))


def scores_from(
    sums: Sums,
    pair: Verification,
    weights: xr.DataArray,
    members: Members = ALL_MEMBERS,
    added: Sequence[Score] = (),
) -> xr.Dataset:
    """All scores that the sums allow and those added, averaged over init times, with labels and
    notes.

    Parameters
    ----------
    sums : Sums
    pair : Verification
        What was scored.
    weights : xarray.DataArray
        The `pair`'s, (region, *cells).
    members : Members
        How members were taken.
    added : sequence of Score
        Beside those that are always there.

    Raises
    ------
    InputError
        If a channel has no score at any lead.
    """
    wanted = (*_wanted(sums), *added)
    scores = {score.name: score.of(sums) for score in wanted if score.can_be_had(sums)}
    for score in _ENSEMBLE_CRPS:
        if score.name in scores:
            scores[score.name].attrs["estimator"] += members.estimator
    variables = apart(scores, lambda dim, _: dim in _DIMENSIONS)
    dataset = xr.merge([variables], join="outer", compat="override")
    present = set(dataset.forecast.values.tolist())
    order = {
        "forecast": [name for name in FORECASTS if name in present],
        "channel": list(pair.channels),
        "region": weights.region.values.tolist(),
    }
    dataset = dataset.reindex(order)
    cases = _counted(known.BIAS, sums).any("region").sum("init_time")
    dataset[_CASES] = cases.reindex({key: order[key] for key in ("forecast", "channel")})
    own = {name: _own_crps(name, sums) for name in order["forecast"]}
    dataset = _with_skill(dataset.transpose(*_DIMENSIONS, ...), own, sums)
    dataset = dataset.assign(dict(_other_cases(dataset.cases, added, sums)))
    judged = order["forecast"][0]
    _check_scored(dataset[own[judged].name].sel(forecast=judged), pair)
    return dataset.assign_coords(
        units=("channel", [channel(name).units for name in pair.channels]),
        crps_estimator=("forecast", [_estimator(name, dataset[own[name].name]) for name in own]),
    ).assign_attrs(
        source=SOURCE,
        members=int(pair.forecast.sizes["number"]),
        weights=weights.attrs["weights"],
        notes=[*pair.notes, *weights.attrs["notes"], *_dependence(pair)],
    )


def _counted(score: Score, sums: Sums) -> xr.DataArray:
    """Where a score has a value, (forecast, channel, region, init_time, lead_time)."""
    dims = {*_DIMENSIONS, "init_time"}
    weights = [sums.weights[statistic.key] > 0 for statistic in score.statistics]
    return reduce(
        operator.and_,
        [weight.any([dim for dim in weight.dims if dim not in dims]) for weight in weights],
    )


def _other_cases(
    cases: xr.DataArray, scores: Sequence[Score], sums: Sums
) -> Iterator[tuple[str, xr.DataArray]]:
    """The init times of scores that count fewer in a region: a field with a gap has no score."""
    for score in scores:
        own = _counted(score, sums).sum("init_time")
        if ((own < cases) & (own > 0)).any():
            own = own.reindex_like(cases).fillna(0).astype(cases.dtype)
            yield f"{_CASES}_{score.name}", own.transpose(*_DIMENSIONS)


def _check_scored(crps: xr.DataArray, pair: Verification) -> None:
    """Refuse a channel that would be left out because a value is missing at every lead."""
    for name in pair.channels:
        if not np.isfinite(crps.sel(channel=name)).any():
            raise InputError(
                f"{pair.where}: {name} has missing values at every lead, so that no score can be "
                "had; missing members can be left out with `--missing omit`"
            )


def _own_crps(forecast: str, sums: Sums) -> Score:
    """The CRPS of a forecast."""
    return headline(sums) if forecast == "ensemble" else known.CRPS_STANDARD


def _estimator(forecast: str, crps: xr.DataArray) -> str:
    single = forecast in ("control", "persistence")
    return _DETERMINISTIC if single else str(crps.attrs["estimator"])


def _dependence(pair: Verification) -> Iterator[str]:
    """Says so where members depend on each other and no estimator can allow for it."""
    members = pair.structure(np.arange(pair.forecast.sizes["number"]))
    dependent = np.unique(members.groups).size > 1 or (members.pairs >= 0).any()
    if dependent and not is_stratified(pair):
        yield (
            "Members share checkpoints or come in pairs, but at some date a checkpoint has no two "
            "independent members: the fair CRPS takes all members as independent."
        )


def _wanted(sums: Sums) -> Iterator[Score]:
    """The scores that we know, rank histograms with the bins that were summed."""
    yield from _SCORES
    for bins in range(2, 1000):
        if RankHistogram(bins).key in sums.totals:
            yield known.rank_histogram(bins)
            yield known.reliability_index(bins)


def _with_skill(scores: xr.Dataset, own: Mapping[str, Score], sums: Sums) -> xr.Dataset:
    """Add `crps`, each forecast's own estimator, and skill against the references."""
    parts = [scores[own[name].name].sel(forecast=[name]) for name in own]
    crps = xr.concat(parts, "forecast", coords="minimal", compat="override", join="exact")
    crps = crps.rename("crps").transpose(*_DIMENSIONS)
    scores["crps"] = crps.drop_attrs().assign_attrs(estimator="see crps_estimator")
    for reference in (name for name in ("climatology", "persistence") if name in own):
        skills = [_skill((own[name], own[reference]), sums, (name, reference)) for name in own]
        skill = xr.concat(skills, "forecast").reindex_like(crps).transpose(*_DIMENSIONS)
        scores[f"skill_{reference}"] = skill.assign_attrs(
            estimator=f"1 - crps / crps of {reference}, on common init times"
        )
    return scores


def _skill(scores: tuple[Score, Score], sums: Sums, forecasts: tuple[str, str]) -> xr.DataArray:
    """1 - score / score of the reference on the init times that both have."""
    both = paired(scores, [sums.sel({"forecast": name}) for name in forecasts])
    one, other = (score.of(part).drop_attrs() for score, part in zip(scores, both, strict=True))
    skill = 1 - one / other.where(other > 0)
    return skill.drop_vars("forecast", errors="ignore").expand_dims(forecast=[forecasts[0]])


def write_table(scores: xr.Dataset, path: Path) -> None:
    """Write the `tidy` scores as CSV, with as many digits as tell."""
    tidy(scores).to_csv(path, index=False, float_format="%.8g")


def tidy(scores: xr.Dataset) -> pd.DataFrame:
    """One row per value: score, estimator, forecast, channel, region, lead_hours, value, cases.

    Curves are left out: histograms, spectra, reliability diagrams and economic values.
    """
    hours = scores.lead_time.values / np.timedelta64(1, "h")
    frames = []
    for name, array in scores.data_vars.items():
        own = plain(array.reset_coords(drop=True))
        if str(name).startswith(_CASES) or _CURVES.intersection(own.dims):
            continue
        frame = _values(str(name), own)
        if frame.empty:
            continue
        frame.insert(1, "estimator", str(array.attrs.get("estimator", "")))
        cases = scores.get(f"{_CASES}_{name}", scores[_CASES]).reset_coords(drop=True)
        frames.append(frame.join(cases.rename(_CASES).to_series(), on=list(cases.dims)))
    table = pd.concat(frames, ignore_index=True)
    named = table.score == "crps"
    own = dict(zip(scores.forecast.values, scores.crps_estimator.values, strict=True))
    table.loc[named, "estimator"] = table.loc[named, "forecast"].map(own)
    table["lead_hours"] = table.lead_time.map(
        dict(zip(scores.lead_time.values, hours, strict=True))
    )
    columns = [
        "score",
        "estimator",
        "forecast",
        "channel",
        "region",
        "lead_hours",
        "value",
        "cases",
    ]
    return table[columns]


def _values(name: str, array: xr.DataArray) -> pd.DataFrame:
    """The values there are, one in a row; labels of its own go into the name of the score."""
    own = [dim for dim in array.dims if dim not in _DIMENSIONS]
    series = array.transpose(*own, *_DIMENSIONS).rename("value").to_series().dropna()
    frame = series.reset_index()
    labels = zip(*(frame.pop(dim) for dim in own), strict=True) if own else [()] * len(frame)
    words = ["".join(map("_{:.4g}".format, label)) for label in labels]
    frame.insert(0, "score", [name + word for word in words])
    return frame
