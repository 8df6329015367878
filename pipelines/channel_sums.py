"""One channel of a forecast, and of what it is compared with, as sums: block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data.climatology import Climatology
from pipelines.families import Additions
from pipelines.field_scores import FieldSums
from pipelines.members import ERRORS, Asked, Members, Values, area_means, of_single
from pipelines.tally import Tally
from pipelines.truths import Series
from pipelines.verification import Block, Verification
from scoring.crps import CRPS
from scoring.moments import (
    AnomalyProduct,
    EnsembleMean,
    ExpectedSquaredError,
    OfAreaMean,
    SquaredError,
    SquaredForecast,
    SquaredTruth,
    UnbiasedSquaredError,
    Variance,
)
from scoring.statistic import PROPAGATE, Statistic, evaluate_arrays

_OF_AREA_MEANS = tuple(
    OfAreaMean(statistic)
    for statistic in (ExpectedSquaredError(), SquaredError(), Variance(), UnbiasedSquaredError())
)


@dataclass(frozen=True)
class ChannelSums:
    """Adds one channel to a tally.

    Attributes
    ----------
    pair : Verification
        The forecast.
    truth : Series
        Of the channel.
    climatology : Climatology or None
        Equally probable values for each time.
    analysis : Series or None
        Analyses at the init times, for persistence; without it the control at lead 0 is held.
    weights : numpy.ndarray
        (region, *cells)
    members : Members
        How the ensemble is evaluated.
    additions : Additions
        What is scored beside what always is.
    asked : Asked
        How.
    tally : Tally
        Where sums go.
    """

    pair: Verification
    truth: Series
    climatology: Climatology | None
    analysis: Series | None
    weights: np.ndarray
    members: Members
    additions: Additions
    asked: Asked
    tally: Tally
    _areas: list[np.ndarray] = field(default_factory=list, init=False, repr=False)

    def add(self, block: Block) -> None:
        """Add what one block says of the ensemble and of every reference.

        Blocks of the same leads must follow each other from the first rows to the last.
        """
        valid = self.pair.valid_times()[block.init, block.leads]
        truth = self.truth.at(valid, block.rows)
        climate, mean = self._climate(valid, block)
        control = self._ensemble(block, truth, climate, mean)
        if control is not None:
            self._add("control", block, of_single(control[0], truth), truth, mean)
        persisted = self._persisted(block)
        if persisted is not None:
            held = np.broadcast_to(persisted, truth.shape)
            self._add("persistence", block, of_single(held, truth), truth, mean)
        if climate is not None:
            self._add_usual("climatology", block, self._evaluate(ERRORS, climate, truth, axis=1))

    def add_fields(self, block: Block) -> None:
        """Add what a block of whole fields says of them."""
        valid = self.pair.valid_times()[block.init, block.leads]
        truth, members = self.truth.at(valid, block.rows), self.pair.members(block)
        shares = self._here(block) / self._areas_of_regions
        for place, lead in enumerate(block.leads):
            single = replace(block, leads=np.array([lead]))
            for evaluate in self.additions.fields:
                found = evaluate(members[:, place], truth[place], shares)
                for statistic, parts in self._counted(found).items():
                    self.tally.add("ensemble", single, statistic, *parts)

    def _ensemble(
        self,
        block: Block,
        truth: np.ndarray,
        climate: np.ndarray | None,
        mean: np.ndarray | None,
    ) -> np.ndarray | None:
        """Add the ensemble; gives its control, or the only member."""
        if block.numbers.size == 1:
            return self.pair.members(block)
        shares = self._here(block) / self._areas_of_regions
        asked = replace(self.asked, references=self.additions.references(climate))
        found = self.members.evaluate(self.pair, block, truth, shares, asked)
        self._add("ensemble", block, found.values, truth, mean)
        for statistic, value in found.added.items():
            self._add_alike("ensemble", block, {statistic: value})
        if found.areas is not None:
            self._add_area_means(block, found.areas, area_means(truth[None], shares)[0])
        return found.control

    def _add(
        self,
        forecast: str,
        block: Block,
        values: Values,
        truth: np.ndarray,
        climate: np.ndarray | None,
    ) -> None:
        """Add one forecast, and its anomalies where there is a climate mean."""
        scored = {name: value for name, value in values.items() if name != EnsembleMean()}
        self._add_usual(forecast, block, scored)
        if climate is not None:
            anomalies = _anomalies(values[EnsembleMean()] - climate, truth - climate)
            self._add_alike(forecast, block, anomalies)

    def _add_usual(self, forecast: str, block: Block, values: Values) -> None:
        """Add what every run has: estimators of the CRPS count the same cells, and so does all the
        rest, which needs less than the stratified CRPS."""
        for several in (True, False):
            alike = {
                one: value for one, value in values.items() if isinstance(one, CRPS) == several
            }
            self._add_alike(forecast, block, alike)

    def _add_alike(self, forecast: str, block: Block, values: Values) -> None:
        """Add statistics that count the same cells: those where all of them have a value."""
        self.tally.add_cells(forecast, block, values, self._here(block), self._usable(values))

    def _add_area_means(self, block: Block, members: np.ndarray, truth: np.ndarray) -> None:
        """Keep area means, (number, region, lead_time) and less number, until all rows are in."""
        stacked = np.concatenate([members, truth[None]])
        if block.rows.start > 0:
            stacked += self._areas.pop()
        if block.rows.stop < self.weights.shape[1]:
            self._areas.append(stacked)
            return
        values = self._evaluate(_OF_AREA_MEANS, stacked[:-1], stacked[-1])
        found = {one: (value, np.ones(value.shape)) for one, value in values.items()}
        for statistic, parts in self._counted(found).items():
            self.tally.add("ensemble", block, statistic, *parts)

    def _evaluate(
        self,
        statistics: Sequence[Statistic],
        members: np.ndarray,
        truth: np.ndarray,
        axis: int = 0,
    ) -> Values:
        missing, threads = self.asked.missing, self.asked.threads
        return evaluate_arrays(statistics, members, truth, axis, missing=missing, threads=threads)

    def _counted(self, found: FieldSums) -> FieldSums:
        """Totals, (region, lead_time, *labels), and weights, (region, lead_time); where not all
        have to have a value, what one of them lacks counts in none: ratios are of the same."""
        if self.asked.missing == PROPAGATE:
            return found
        whole = np.logical_and.reduce(
            [
                np.isfinite(total).reshape(*weight.shape, -1).all(axis=-1)
                for total, weight in found.values()
            ]
        )
        return {
            one: (
                np.where(whole.reshape(*whole.shape, *[1] * len(one.labels)), total, 0.0),
                weight * whole,
            )
            for one, (total, weight) in found.items()
        }

    def _usable(self, values: Values) -> np.ndarray | None:
        """Samples, (lead_time, *cells), that have all values; None where all have to have them."""
        if self.asked.missing == PROPAGATE:
            return None
        labels = {one: tuple(range(-len(one.labels), 0)) for one in values}
        there = [np.isfinite(value).all(axis=labels[one]) for one, value in values.items()]
        return np.logical_and.reduce(there)

    def _here(self, block: Block) -> np.ndarray:
        """Weights of the block's cells, (region, *cells)."""
        return self.weights[:, block.rows]

    @property
    def _areas_of_regions(self) -> np.ndarray:
        cells = tuple(range(1, self.weights.ndim))
        return self.weights.sum(axis=cells, keepdims=True)

    def _climate(
        self, times: np.ndarray, block: Block
    ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Climatological members, (lead_time, number, *cells), and mean, (lead_time, *cells)."""
        if self.climatology is None:
            return None, None
        name = block.channel
        found = self.climatology.at(times, (name,))
        return found[name].values[:, :, block.rows], found[f"{name}_mean"].values[:, block.rows]

    def _persisted(self, block: Block) -> np.ndarray | None:
        """What is held over all leads, (*cells)."""
        forecast = self.pair.forecast
        if self.analysis is not None:
            time = forecast.init_time.values[[block.init]].astype("datetime64[s]")
            return self.analysis.at(time, block.rows)[0]
        start = np.flatnonzero(forecast.lead_time.values == np.timedelta64(0))
        if "statistics" in forecast.coords:  # members are nowhere
            return None
        number = forecast.number.values[block.numbers]
        place = [0] if number.size == 1 else np.flatnonzero(number == 0)
        if not start.size or not len(place):
            return None
        first = replace(block, numbers=block.numbers[place], leads=start)
        return self.pair.members(first)[0, 0]


def can_persist(pair: Verification) -> bool:
    """Whether the control at lead 0 is stored, to be held where there are no analyses."""
    forecast = pair.forecast
    controlled = forecast.sizes["number"] == 1 or 0 in forecast.number.values
    started = (forecast.lead_time.values == np.timedelta64(0)).any()
    return bool(controlled and started and "statistics" not in forecast.coords)


def _anomalies(forecast: np.ndarray, truth: np.ndarray) -> Values:
    """Products of anomalies, (lead_time, *cells)."""
    truth = truth.astype(np.float64)
    return {
        AnomalyProduct(): forecast * truth,
        SquaredForecast(): forecast**2,
        SquaredTruth(): truth**2,
    }
