"""Scores that `myriad score --family NAME` adds to those that every run has.

A family is the scores that it adds: the statistics that they need say what has to be evaluated, in
the same pass over the members as everything else, or of whole fields. Thresholds are quantiles of
the climatology, since channels have different units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import xarray as xr

from data.climatology import Climatology
from data.errors import InputError
from data.grid import Grid
from pipelines.field_scores import FieldPass, energy_of_regions, spectra_of_globe
from pipelines.verification import Verification
from scoring.crps import FAIR
from scoring.decisions import relative_economic_value_score, roc_area_score
from scoring.decomposition import crps_potential, crps_reliability
from scoring.events import JointDistribution
from scoring.extremes import DISCRETE, ExtremeForecastIndex, ShiftOfTails
from scoring.intervals import IntervalScore, QuantileScore, WeightedIntervalScore
from scoring.members import BestMemberError, ExpectedOutlier, Gain, expected_gain
from scoring.multivariate import EnergyScore
from scoring.probability import BrierScore
from scoring.reliability import (
    discrimination,
    miscalibration,
    reliability_diagram,
    uncertainty,
)
from scoring.score import Score, mean_of
from scoring.statistic import Statistic
from scoring.thresholds import Reference
from scoring.weighted import Above, Below, ThresholdWeightedCRPS

EVENT_LEVELS = (0.1, 0.5, 0.9)
_PROBABILITIES = 20
_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
_NO_CLIMATE = "none"
_PERCENTILES = tuple(round(0.01 * percent, 2) for percent in range(101))


@dataclass(frozen=True)
class Ensemble:
    """What families need to know of an ensemble.

    Attributes
    ----------
    members : int
        Fewest at any init time.
    most : int
        Most at any init time.
    climate : str
        Name of the climatology, made of all its values.
    grid : Grid or None
        None where it is not global.
    masked : bool
        Whether its cells count by more than their area.
    """

    members: int
    most: int
    climate: str
    grid: Grid | None
    masked: bool = False

    @classmethod
    def of(
        cls, pair: Verification, climatology: Climatology | None, mask: xr.DataArray | None
    ) -> Ensemble:
        """That of a forecast."""
        counts = pair.forecast.completed.values.sum(axis=1)
        counts = counts[counts > 0]
        name = _NO_CLIMATE if climatology is None else f"climatology_{climatology.digest}"
        return cls(int(counts.min()), int(counts.max()), name, pair.grid(), mask is not None)


@dataclass(frozen=True)
class Family:
    """Scores that go together.

    Attributes
    ----------
    about : str
        What it has, in a line.
    scores : callable
        The scores, of an `Ensemble`.
    fields : callable or None
        What evaluates them where they are of whole fields.
    """

    about: str
    scores: Callable[[Ensemble], tuple[Score, ...]]
    fields: Callable[[Ensemble], FieldPass] | None = None


@dataclass(frozen=True)
class Additions:
    """The scores of some families, and what they need.

    Attributes
    ----------
    scores : tuple of Score
    statistics : tuple of Statistic
        Of the members of each cell.
    fields : tuple of FieldPass
        What evaluates whole fields.
    """

    scores: tuple[Score, ...] = ()
    statistics: tuple[Statistic, ...] = ()
    fields: tuple[FieldPass, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str], ensemble: Ensemble) -> Additions:
        """Those of some families.

        Raises
        ------
        InputError
            If there is no such family, or it needs a climatology, a global grid, more members or
            that there be no mask.
        """
        scores: list[Score] = []
        statistics: list[Statistic] = []
        fields: list[FieldPass] = []
        for name in names:
            if name not in FAMILIES:
                raise InputError(f"there is no family {name!r}, expected {', '.join(FAMILIES)}")
            family = FAMILIES[name]
            found = family.scores(ensemble)
            scores += found
            if family.fields is not None:
                fields.append(family.fields(ensemble))
            else:
                own = [one for score in found for one in score.statistics]
                _check(name, own, ensemble)
                statistics += own
        return cls(tuple(scores), tuple(dict.fromkeys(statistics)), tuple(fields))

    @property
    def values(self) -> int:
        """Numbers held for each cell, about."""
        labels = [one.labels.values() for one in self.statistics]
        references = {known for one in self.statistics for known in one.references}
        return sum(prod(axis.size for axis in axes) for axes in labels) + sum(
            len(known.levels) for known in references
        )

    def references(self, climate: np.ndarray | None) -> dict[Reference, np.ndarray]:
        """The quantiles that statistics compare with, (lead_time, *cells, level).

        Parameters
        ----------
        climate : numpy.ndarray or None
            (lead_time, number, *cells): values at probabilities (i - 1/2) / m, Hazen's.
        """
        needed = {reference for one in self.statistics for reference in one.references}
        if not needed:
            return {}
        # Without seasons every lead has the same climate: once is enough.
        distinct = climate[:1] if climate.strides[0] == 0 else climate
        ascending = np.sort(distinct, axis=1)
        found = {reference: _quantiles(ascending, reference.levels) for reference in needed}
        return {
            reference: np.broadcast_to(values, (len(climate), *values.shape[1:]))
            for reference, values in found.items()
        }


def _check(family: str, statistics: Sequence[Statistic], ensemble: Ensemble) -> None:
    for statistic in statistics:
        if statistic.references and ensemble.climate == _NO_CLIMATE:
            raise InputError(
                f"family {family!r} needs a climatology, and none was given (--climatology)"
            )
        if statistic.minimum_members > ensemble.members:
            raise InputError(
                f"{statistic.key} needs {statistic.minimum_members} members, found "
                f"{ensemble.members} at some init time"
            )


def _quantiles(ascending: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Hazen's quantiles, (lead_time, *cells, level), of equally probable values in their order;
    numpy.quantile gives the same and takes ten times as long."""
    number = ascending.shape[1]
    # Rounded, so that a quantile that is one of the values is that value to the last digit.
    position = np.clip(np.round(np.array(levels) * number - 0.5, 9), 0, number - 1)
    below = position.astype(int)
    share = (position - below).astype(ascending.dtype).reshape(-1, *[1] * (ascending.ndim - 2))
    low = ascending.take(below, axis=1)
    found = low + share * (ascending.take(below + 1, axis=1, mode="clip") - low)
    missing = np.isnan(ascending[:, -1:])  # they come last in order
    return np.moveaxis(np.where(missing, np.nan, found), 1, -1)


def _events(ensemble: Ensemble) -> tuple[Score, ...]:
    events = Reference(ensemble.climate, EVENT_LEVELS)
    joint = JointDistribution(events, _PROBABILITIES)
    note = "of k/M, rounded to steps of 1/20"
    curves = [
        Score(f"reliability_{part}", note, (joint,), _curve(part))
        for part in ("frequency", "observed", "calibrated")
    ]
    return (
        mean_of("brier", FAIR.name, BrierScore(events)),
        *(part(joint) for part in (miscalibration, discrimination, uncertainty)),
        *curves,
        roc_area_score(joint),
        relative_economic_value_score(joint, _RATIOS),
    )


def _curve(part: str) -> Callable[[xr.DataArray], xr.DataArray]:
    return lambda joint: reliability_diagram(joint)[part]


def _extremes(ensemble: Ensemble) -> tuple[Score, ...]:
    percentiles = Reference(ensemble.climate, _PERCENTILES)
    tail = Reference(ensemble.climate, (0.9, 0.99))
    upper, lower = (Reference(ensemble.climate, (level,)) for level in (0.9, 0.1))
    return (
        mean_of("crps_above_90", FAIR.name, ThresholdWeightedCRPS(Above(upper))),
        mean_of("crps_below_10", FAIR.name, ThresholdWeightedCRPS(Below(lower))),
        mean_of("efi", "exact", ExtremeForecastIndex(percentiles)),
        mean_of("efi_ecmwf", "101 percentiles", ExtremeForecastIndex(percentiles, DISCRETE)),
        mean_of("shift_of_tails", "0.9 and 0.99", ShiftOfTails(tail)),
    )


def _intervals(ensemble: Ensemble) -> tuple[Score, ...]:
    note = "Weibull (type 6) quantiles"
    return (
        mean_of("quantile_score", note, QuantileScore()),
        mean_of("interval_score", note, IntervalScore()),
        mean_of("wis", note, WeightedIntervalScore()),
    )


def _members(ensemble: Ensemble) -> tuple[Score, ...]:
    most = ensemble.members
    sizes = tuple(2**power for power in range(1, most.bit_length()) if 2**power <= most)
    null = f"null value {expected_gain(most):.3g} for {most} Gaussian members"
    return (
        mean_of("expected_outlier", "null value 2/(size + 1)", ExpectedOutlier(sizes)),
        mean_of("best_member_error", "of so many members drawn", BestMemberError(sizes)),
        mean_of("gain", null, Gain()),
    )


def _decomposition(ensemble: Ensemble) -> tuple[Score, ...]:
    if ensemble.members != ensemble.most:
        raise InputError(
            "family 'decomposition' needs as many members at every init time, found "
            f"{ensemble.members} to {ensemble.most}"
        )
    return crps_reliability(ensemble.members), crps_potential(ensemble.members)


def _gaussian(ensemble: Ensemble) -> tuple[Score, ...]:
    from scoring.gaussian import GaussianCRPS  # compiles

    note = "of the Gaussian with the ensemble's mean and variance"
    return (mean_of("crps_gaussian", note, GaussianCRPS()),)


def _energy(ensemble: Ensemble) -> tuple[Score, ...]:
    return (mean_of("energy_score", FAIR.name, EnergyScore(("cell",))),)


def _spectra(ensemble: Ensemble) -> tuple[Score, ...]:
    from scoring.spectra import Spectrum, power_ratio, spectral_spread_skill  # needs torch

    last = _truncation(ensemble)
    powers = [
        mean_of(f"power_{part}", f"angular power of the {part}", Spectrum(part, last))
        for part in ("members", "mean", "truth")
    ]
    ratios = power_ratio("members", last), power_ratio("mean", last), spectral_spread_skill(last)
    return (*powers, *ratios)


def _truncation(ensemble: Ensemble) -> int:
    from data.sphere import largest_truncation  # needs torch

    if ensemble.grid is None:
        raise InputError("family 'spectra' needs a global grid")
    if ensemble.masked:
        raise InputError("family 'spectra' is of the whole globe: score it without the mask")
    return largest_truncation(ensemble.grid)


FAMILIES: Mapping[str, Family] = {
    "decomposition": Family("Hersbach's reliability and potential CRPS", _decomposition),
    "energy": Family(
        "energy score of the field of each region", _energy, lambda _: energy_of_regions
    ),
    "events": Family("Brier score, CORP, ROC, economic value at climate quantiles", _events),
    "extremes": Family("threshold-weighted CRPS, EFI, shift of tails", _extremes),
    "gaussian": Family("CRPS of the Gaussian with the same mean and variance", _gaussian),
    "intervals": Family("quantile, interval and weighted interval score", _intervals),
    "members": Family("outliers and best member by ensemble size, gain", _members),
    "spectra": Family(
        "angular power of members, mean and truth by degree",
        _spectra,
        lambda ensemble: spectra_of_globe(ensemble.grid, _truncation(ensemble)),
    ),
}
