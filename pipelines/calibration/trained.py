"""How the weights of an aggregation are trained, put to work and kept: on all dates at once, or
once without each block of them, so that the same dates calibrate what is combined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import xarray as xr

from data.errors import InputError
from data.key import Key
from scoring.calibration.aggregation import Aggregation, Aggregator
from scoring.calibration.conformity import SYMMETRIC, check_reachable
from scoring.calibration.cross_aggregation import Average, CrossAggregation, CrossAggregator

Trained = Aggregation | CrossAggregation


class Trainer(Protocol):
    """A way to train; what it makes, only the same way puts to work."""

    @property
    def trainings(self) -> int:
        """How many a fit takes."""
        ...

    def check(self, levels: tuple[float, ...], dates: np.ndarray, cells: int, where: str) -> None:
        """Refuse too few cases, before anything is read.

        Parameters
        ----------
        levels : tuple of float
            Of the result.
        dates : numpy.ndarray
            Number of dates with truth at each lead, (lead_time,).
        cells : int
            That are used of each.
        where : str
            Which channel it is, for messages.

        Raises
        ------
        InputError
            Naming how many are needed.
        """
        ...

    def fit(
        self, quantiles: xr.DataArray, truth: xr.DataArray, key: Key, done: Callable[[], object]
    ) -> Trained:
        """Trained on past forecasts, (model, init_time, quantile, ...), and their truth; `done` is
        called after each training."""
        ...

    def combined(self, trained: Trained, quantiles: xr.DataArray) -> xr.DataArray:
        """One forecast from several, the dimensions of `quantiles` less `model`."""
        ...

    def beside(
        self, quantiles: xr.DataArray, truth: xr.DataArray, key: Key, current: xr.DataArray
    ) -> dict[str, xr.DataArray]:
        """Further forecasts, by name, from the same past, that show what this way does."""
        ...

    def write(self, trained: Trained, path: Path) -> None:
        """Write it to files whose names begin with that of `path`."""
        ...

    def read(self, path: Path) -> Trained:
        """Read what `write` wrote."""
        ...


@dataclass(frozen=True)
class AllDates:
    """On all dates at once; coverage is what it is.

    Parameters
    ----------
    aggregator : Aggregator
        What is trained.
    average : Average
        What is averaged.
    """

    aggregator: Aggregator
    average: Average
    trainings: ClassVar[int] = 1

    def check(self, levels: tuple[float, ...], dates: np.ndarray, cells: int, where: str) -> None:
        """See `Trainer.check`: any number will do."""

    def fit(
        self, quantiles: xr.DataArray, truth: xr.DataArray, key: Key, done: Callable[[], object]
    ) -> Aggregation:
        """See `Trainer.fit`."""
        trained = self.aggregator.fit(quantiles, truth, key)
        done()
        return trained

    def combined(self, trained: Aggregation, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Trainer.combined`."""
        return self.average.of(trained, quantiles)

    def beside(
        self, quantiles: xr.DataArray, truth: xr.DataArray, key: Key, current: xr.DataArray
    ) -> dict[str, xr.DataArray]:
        """See `Trainer.beside`: none."""
        return {}

    def write(self, trained: Aggregation, path: Path) -> None:
        """See `Trainer.write`: one file, ``.safetensors``."""
        trained.save(path.with_name(f"{path.name}.safetensors"))

    def read(self, path: Path) -> Aggregation:
        """See `Trainer.read`."""
        return Aggregation.load(path.with_name(f"{path.name}.safetensors"), self.aggregator)


@dataclass(frozen=True)
class Cross:
    """Once without each block of dates: CV+ makes the quantiles hold what they promise.

    Parameters
    ----------
    aggregator : CrossAggregator
        What is trained, and on how many blocks.
    """

    aggregator: CrossAggregator

    @property
    def trainings(self) -> int:
        """See `Trainer.trainings`."""
        return self.aggregator.folds

    def check(self, levels: tuple[float, ...], dates: np.ndarray, cells: int, where: str) -> None:
        """See `Trainer.check`."""
        if dates.max() < self.aggregator.folds:
            raise InputError(
                f"{self.aggregator.folds} folds need as many init times with truth, found "
                f"{int(dates.max())} for {where}"
            )
        sides = 2 if self.aggregator.conformity == SYMMETRIC else 1
        alpha = round(sides * min(min(level, 1 - level) for level in levels), 10)
        check_reachable(alpha, int(dates.min()) * cells, f" for {where}")

    def fit(
        self, quantiles: xr.DataArray, truth: xr.DataArray, key: Key, done: Callable[[], object]
    ) -> CrossAggregation:
        """See `Trainer.fit`."""
        return self.aggregator.fit(quantiles, truth, key, done)

    def combined(self, trained: CrossAggregation, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Trainer.combined`."""
        return trained.apply(quantiles)

    def beside(
        self, quantiles: xr.DataArray, truth: xr.DataArray, key: Key, current: xr.DataArray
    ) -> dict[str, xr.DataArray]:
        """See `Trainer.beside`: the same weights without CV+."""
        trained = self.aggregator.aggregator.fit(quantiles, truth, key)
        return {"aggregation, as trained": self.aggregator.average.of(trained, current)}

    def write(self, trained: CrossAggregation, path: Path) -> None:
        """See `Trainer.write`: a folder, ``.cross``."""
        trained.save(path.with_name(f"{path.name}.cross"))

    def read(self, path: Path) -> CrossAggregation:
        """See `Trainer.read`."""
        return CrossAggregation.load(path.with_name(f"{path.name}.cross"), self.aggregator)
