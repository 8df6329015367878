"""`myriad score --against`: do two forecasts differ by more than chance?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from data.channel import channel
from data.errors import InputError
from pipelines.against_table import VARIABLES, Comparison
from pipelines.labels import SOURCE, open_labelled
from pipelines.score_table import ScoreResult
from scoring import score as known
from scoring.moments import SquaredTruth
from scoring.sample import INIT_TIME, of_difference, of_skill, paired
from scoring.score import Score
from scoring.significance import EqualWeightedCosine, Test, false_discovery
from scoring.sums import Sums

RATE = 0.10
"""Share of false discoveries in a table of tests at 5 %: twice, since its cells are correlated
(Wilks 2016, doi:10.1175/BAMS-D-15-00267.1)."""

_CRPS = (known.CRPS_STRATIFIED, known.CRPS_FAIR, known.CRPS_STANDARD)
_LABELS = ("channel", "region", "lead_time")
_TOO_FEW = 3  # independent dates of which the difference is hardly told
_WIDE = 3  # standard errors either way, that of 3 degrees of freedom


@dataclass(frozen=True)
class Scored:
    """A forecast that has been scored.

    Attributes
    ----------
    sums : Sums
        With a label `forecast`.
    units : dict of str to str
        Of each channel.
    where : str
        For messages.
    """

    sums: Sums
    units: dict[str, str]
    where: str

    @classmethod
    def of(cls, result: ScoreResult) -> Scored:
        """What was just scored."""
        return cls(result.sums, _units(result.scores), str(result.output))

    @classmethod
    def load(cls, folder: Path) -> Scored:
        """The folder that `myriad score` wrote.

        Raises
        ------
        StoreError
            If sums or scores are not there or damaged.
        """
        with open_labelled(folder / "scores.zarr") as scores:
            return cls(Sums.load(folder / "sums.zarr"), _units(scores), str(folder))

    @property
    def forecast(self) -> Sums:
        """Sums of the ensemble; of the control where there is none."""
        labels = {
            str(name)
            for weight in self.sums.weights.values()
            for name in np.atleast_1d(weight.forecast.values)
        }
        chosen = self.sums.sel({"forecast": "ensemble" if "ensemble" in labels else "control"})
        return chosen.only(key for key, weight in chosen.weights.items() if (weight > 0).any())


def find_scored(
    other: Path, score_alike: Callable[[Path, Path], ScoreResult], output: Path
) -> Scored:
    """What to compare with: scores where they are, else a forecast that is scored now.

    Parameters
    ----------
    other : pathlib.Path
        A folder that `myriad score` wrote, the folder of a run, or a forecast.
    score_alike : callable
        Scores a forecast, its first argument, into a folder, its second.
    output : pathlib.Path
        Where scores of a forecast go, into the subfolder ``against``.

    Raises
    ------
    InputError, StoreError
        If it is none of these, or cannot be scored.
    """
    if not other.exists():
        raise InputError(f"{other}: is not there; expected scores, a run or a forecast")
    for folder in (other, other / "scores"):
        if (folder / "sums.zarr").is_dir():
            return Scored.load(folder)
    run = other / "forecast.zarr"
    return Scored.of(score_alike(run if run.is_dir() else other, output / "against"))


def compare(
    result: ScoreResult, other: Scored, test: Test | None = None, level: float = 0.95
) -> Comparison:
    """Paired differences of CRPS and RMSE on the init times that both have; nothing is written.

    Parameters
    ----------
    result : ScoreResult
        What was just scored.
    other : Scored
        What it is compared with.
    test : Test, optional
        `EqualWeightedCosine` by default.
    level : float
        Of the confidence intervals.

    Raises
    ------
    InputError
        If they have no channel, region, lead or init time in common, differ in units or in how
        cells are weighted, or have too few init times in common.
    """
    this = Scored.of(result)
    names = _common_channels(this, other)
    sums = [one.forecast.sel({"channel": names}) for one in (this, other)]
    try:
        differences = _differences(*sums, test or EqualWeightedCosine(), level)
    except InputError as error:
        raise InputError(f"{this.where} against {other.where}: {error}") from error
    regions = [name for name in result.scores.region.values if name in differences.region]
    differences = differences.sel(channel=names, region=regions).assign_coords(
        units=("channel", [this.units[name] for name in names])
    )
    unlike = differences.attrs.pop("unlike")
    notes = [
        *_reading(differences, this, other),
        *_left_out(this, other, unlike),
        *_caution(differences),
    ]
    source = {"source": SOURCE, "this": this.where, "other": other.where}
    return Comparison(differences.assign_attrs(source, notes=notes), result.output)


def _units(scores: xr.Dataset) -> dict[str, str]:
    names = scores.channel.values.tolist()
    if "units" not in scores.coords:
        return {name: channel(name).units for name in names}
    return dict(zip(names, scores.units.values.tolist(), strict=True))


def _common_channels(this: Scored, other: Scored) -> list[str]:
    names = [name for name in this.units if name in other.units]
    if not names:
        raise InputError(
            f"{other.where}: has no channel of {this.where}, found {', '.join(other.units)}, "
            f"expected some of {', '.join(this.units)}"
        )
    for name in names:
        if this.units[name] != other.units[name]:
            raise InputError(
                f"{other.where}: {name} has units {other.units[name]!r}, {this.where} has "
                f"{this.units[name]!r}"
            )
    return names


def _crps(sums: Sums) -> Score:
    """The CRPS that a forecast is known by."""
    return next(score for score in _CRPS if score.can_be_had(sums))


def _differences(this: Sums, other: Sums, test: Test, level: float) -> xr.Dataset:
    """All variables of against.zarr, (score, channel, region, lead_time)."""
    pairs = {"crps": (_crps(this), _crps(other)), "rmse": (known.RMSE, known.RMSE)}
    parts = [_difference(pair, (this, other), test, level) for pair in pairs.values()]
    names = [f"{one.estimator} against {two.estimator}" for one, two in pairs.values()]
    joined = xr.concat(parts, "score", combine_attrs="override", join="exact")
    return joined.assign_coords(score=list(pairs), estimator=("score", names))


def _difference(
    scores: tuple[Score, Score], sums: tuple[Sums, Sums], test: Test, level: float
) -> xr.Dataset:
    """One score of both on their common dates, the difference, and the skill."""
    pair = paired(scores, sums)
    weights = [next(iter(one.weights.values())) for one in pair]
    _check_weights(*weights)
    alike = _alike(*weights)
    pair = tuple(_where(one, alike) for one in pair)
    found = test.of(of_difference(scores[0], *pair, scores[1]), level)
    skill = test.of(of_skill(scores[0], *pair, scores[1]), level)
    values = {
        "this": scores[0].of(pair[0]),
        "other": scores[1].of(pair[1]),
        "skill": skill.estimate,
        "skill_lower": skill.lower,
        "skill_upper": skill.upper,
        "significant": false_discovery(found.p_value, RATE, ["channel", "lead_time"]),
    }
    bare = {name: array.drop_attrs() for name, array in values.items()}
    found = found.rename(estimate="difference").assign(bare).transpose(*_LABELS)
    unlike = int((~alike).any([dim for dim in alike.dims if dim != INIT_TIME]).sum())
    return found[list(VARIABLES)].assign_attrs(false_discovery_rate=RATE, unlike=unlike)


def _alike(this: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Where both have the same weight, and so, with missing values left out, the same cells."""
    return abs(this - other) <= 1e-6 * this


def _where(sums: Sums, alike: xr.DataArray) -> Sums:
    """The sums without what is not alike."""
    totals, weights = (
        {key: array.where(alike, 0.0) for key, array in arrays.items()}
        for arrays in (sums.totals, sums.weights)
    )
    return replace(sums, totals=totals, weights=weights)


def _check_weights(this: xr.DataArray, other: xr.DataArray) -> None:
    """Raise InputError where regions of the same name are not the same cells."""
    ours, theirs = (
        weight.max([d for d in weight.dims if d != "region"]) for weight in (this, other)
    )
    for name in ours.region.values:
        one, two = float(ours.sel(region=name)), float(theirs.sel(region=name))
        if not np.isclose(one, two, rtol=1e-6):
            raise InputError(
                f"region {str(name)!r} has the weights {one:.6g} and {two:.6g}: the truths lie on "
                "different grids, or cells are masked differently"
            )


def _reading(differences: xr.Dataset, this: Scored, other: Scored) -> Iterator[str]:
    """How to read the table."""
    dates = differences.dates.values
    number = f"{dates.min()} to {dates.max()}" if dates.min() < dates.max() else f"{dates.max()}"
    yield (
        f"{this.where} minus {other.where} on {number} common init times; negative: the first is "
        "better."
    )
    yield (
        f"[ ]: {differences.attrs['level']:.0%} confidence interval, {differences.attrs['test']}. "
        f"*: stands out among all channels and leads, false-discovery rate {RATE:.0%}."
    )
    if "spacing" in differences.attrs:
        yield f"The {differences.attrs['spacing']}."


def _left_out(this: Scored, other: Scored, unlike: int) -> Iterator[str]:
    """What only one of them has, or what is not the same of both."""
    for label in ("channel", "region", "lead_time"):
        ours, theirs = (_labels(one.sums, label) for one in (this, other))
        single = ours.symmetric_difference(theirs)
        if single.size:
            words = ", ".join(_word(value) for value in single)
            yield f"Not compared, since only one has this {label.replace('_', ' ')}: {words}."
    ours, theirs = (_crps(one.forecast) for one in (this, other))
    if ours != theirs:
        yield f"The CRPS is {ours.estimator} of the first and {theirs.estimator} of the other."
    if unlike:
        yield (
            f"{unlike} common init times are left out where the two have values in different cells."
        )
    if not _same_truth(this.sums, other.sums):
        yield "Anomalies of the truth differ: another truth, or another climatology."


def _caution(differences: xr.Dataset) -> Iterator[str]:
    """What few dates, or dates that are much alike, leave to be told."""
    worth = differences.effective_dates
    if (worth < _TOO_FEW).any():
        strongest = float(differences.autocorrelation.where(worth < _TOO_FEW).max())
        yield (
            f"Neighbouring dates are so alike (correlation up to {strongest:.2f}) that all of them "
            f"are worth as few as {float(worth.min()):.1f} independent ones, where less than "
            f"{_TOO_FEW} tell next to nothing: take more init times, or some further apart."
        )
    told = differences.difference.notnull()
    same = (differences.difference == 0) & (differences.standard_error == 0)
    if told.any() and same.where(told, True).all():
        yield (
            "Every score is the same on every date: this is one forecast twice, or one compared "
            "with itself."
        )
    error = differences.standard_error.where(differences.standard_error > 0)
    narrowest = float(((differences.upper - differences.lower) / (2 * error)).min())
    if narrowest > _WIDE:
        yield (
            f"With so few init times an interval reaches at least {narrowest:.1f} standard errors "
            "either way (2 with many): only large differences can stand out."
        )


def _same_truth(this: Sums, other: Sums) -> bool:
    """Whether the truth has the same anomalies, where that is known."""
    key = SquaredTruth().key
    if not (key in this.totals and key in other.totals):
        return True
    one, two = xr.align(this.mean(key, ()), other.mean(key, ()), join="inner")
    return not (abs(one - two) > 1e-8 + 1e-3 * abs(two)).any()  # of NaN nothing is known


def _labels(sums: Sums, name: str) -> pd.Index:
    """All labels of a dimension."""
    indexes = [weight.indexes[name] for weight in sums.weights.values()]
    return reduce(lambda one, two: one.union(two, sort=False), indexes)


def _word(label: object) -> str:
    return (
        f"{label / np.timedelta64(1, 'h'):g} h" if isinstance(label, pd.Timedelta) else f"{label}"
    )
