"""Statistics kept in flight as a forecast to be scored: what the members say without the members.

Moments and extremes are exact. CRPS, quantiles and ranks come from the sketch of each cell
(`scoring.sketch`), within a bound that is summed beside them, `crps_bound`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import xarray as xr

from data.errors import InputError
from pipelines.members import Asked, Evaluated
from pipelines.statistics_store import open_statistics, sketch_of
from pipelines.verification import Block, Verification
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED
from scoring.moments import of_moments
from scoring.quantiles import IntervalHits
from scoring.rank import Outlier, RankHistogram
from scoring.sketch import CRPSBound, Sketch
from scoring.statistic import PROPAGATE, Statistic

_MOST_BINS = 20


@dataclass(frozen=True)
class Sketched:
    """Evaluates an ensemble of which statistics are kept.

    Parameters
    ----------
    bins : int
        Of the sketches.
    """

    bins: int
    memory: ClassVar[int] = 2**26

    @classmethod
    def of(cls, pair: Verification) -> Sketched:
        """For statistics opened as a forecast."""
        with open_statistics(Path(str(pair.forecast.statistics.values[0]))) as found:
            return cls(found.sizes["bin"])

    @property
    def present(self) -> int:
        """What a cell takes, in members."""
        return 8 * self.bins

    @property
    def estimator(self) -> str:
        """What it adds to the name of an estimator."""
        return f", from sketches of {self.bins} bins"

    def evaluate(
        self,
        pair: Verification,
        block: Block,
        truth: np.ndarray,
        shares: np.ndarray,
        asked: Asked,
    ) -> Evaluated:
        """As `Members.evaluate`; there are no area means of members.

        Raises
        ------
        InputError
            If statistics are asked for that need members, or missing values are to be omitted.
        """
        if asked.added or asked.missing != PROPAGATE:
            raise InputError(
                f"{pair.where}: statistics kept in flight have no members"
                + (f" for {asked.added[0].key}" if asked.added else " to leave out")
            )
        path = Path(str(pair.forecast.statistics.values[block.init]))
        with open_statistics(path) as opened:
            place = {"lead_time": block.leads, "latitude": block.rows}
            found = opened.sel(channel=block.channel).isel(place).load()
        values = _values(found, truth.ravel().astype(float), block.numbers.size)
        shaped = {
            statistic: value.reshape(*truth.shape, *value.shape[1:])
            for statistic, value in values.items()
        }
        control = found["control"].values[None] if "control" in found else None
        return Evaluated(shaped, {}, None, control)


def _values(found: xr.Dataset, truth: np.ndarray, members: int) -> Mapping[Statistic, np.ndarray]:
    """Statistics of one channel, (cell, *labels), cells and leads on one axis."""
    sketch, quantum = sketch_of(found)
    error = found["mean"].values.ravel() - truth
    variance = found["variance"].values.ravel().astype(float)
    scaled = np.nan_to_num(truth) / quantum
    absolute = sketch.absolute_error(scaled) * quantum
    gini = sketch.difference_sum * quantum
    fair = absolute - gini / (2 * members * (members - 1))
    values = {
        CRPS(FAIR): fair,
        CRPS(STANDARD): absolute - gini / (2 * members**2),
        CRPSBound(): sketch.crps_bound(scaled) * quantum,
        **of_moments(error, variance, truth, members),
        **_of_ranks(sketch, scaled, members),
    }
    if "dependence" in found:
        values[CRPS(STRATIFIED)] = fair - found["dependence"].values.ravel() / 2
    missing = np.isnan(truth)
    if missing.any():
        for value in values.values():
            value[missing] = np.nan
    return values


def _of_ranks(sketch: Sketch, truth: np.ndarray, members: int) -> dict[Statistic, np.ndarray]:
    """Where the truth lies among the members, as far as the sketch says."""
    histogram, hits = RankHistogram(min(members + 1, _MOST_BINS)), IntervalHits()
    below, not_above = sketch.below(truth)
    scale = histogram.bins / (members + 1)
    low, high = (below * scale)[:, None], ((not_above + 1) * scale)[:, None]
    edges = np.clip(np.arange(histogram.bins + 1), low, high)
    levels = np.array(hits.levels)
    ends = np.concatenate([(1 - levels) / 2, (1 + levels) / 2])
    lower, upper = np.split(sketch.quantiles(ends, hits.definition), 2, axis=1)
    held = (lower <= truth[:, None]) & (truth[:, None] <= upper)
    outside = (truth < sketch.smallest) | (truth > sketch.largest)
    return {
        histogram: np.diff(edges, axis=1) / (high - low),
        Outlier(): outside.astype(float),
        hits: held.astype(float),
    }
