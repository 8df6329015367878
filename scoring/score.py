"""Scores: functions of the means of statistics.

A score holds the statistics that it needs and what to do with their means, nothing else; sums
give the means over any dates, leads and regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from scoring import crps as estimators
from scoring import flatness
from scoring.crps import CRPS
from scoring.moments import (
    AbsoluteError,
    AnomalyProduct,
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
from scoring.sketch import CRPSBound
from scoring.sums import Sums


class Summed(Protocol):
    """What is summed under a name: a `Statistic`, or a score of whole fields."""

    @property
    def key(self) -> str:
        """Name among the sums."""
        ...

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Names and coordinates of its own axes."""
        ...


@dataclass(frozen=True)
class Score:
    """A function of the means of statistics.

    Attributes
    ----------
    name : str
        Variable name in a store of scores.
    estimator : str
        What exactly is estimated, for people; goes with every output.
    statistics : tuple of Summed
        Whose means it needs.
    from_means : callable
        Takes the means in the order of `statistics`, xarray.DataArray.
    """

    name: str
    estimator: str
    statistics: tuple[Summed, ...]
    from_means: Callable[..., xr.DataArray]

    def of(self, sums: Sums, over: Sequence[str] = ("init_time",)) -> xr.DataArray:
        """The score from sums, averaged over the dimensions `over`."""
        means = [sums.mean(statistic.key, over) for statistic in self.statistics]
        return self.from_means(*means).rename(self.name).assign_attrs(estimator=self.estimator)

    def can_be_had(self, sums: Sums) -> bool:
        """Whether all its statistics were summed."""
        return all(statistic.key in sums.totals for statistic in self.statistics)


def _same(mean: xr.DataArray) -> xr.DataArray:
    return mean


def _ratio_of_roots(numerator: xr.DataArray, denominator: xr.DataArray) -> xr.DataArray:
    """Square root of the ratio of means; NaN where the denominator is not positive."""
    return np.sqrt(numerator / denominator.where(denominator > 0))


def _correlation(product: xr.DataArray, left: xr.DataArray, right: xr.DataArray) -> xr.DataArray:
    squares = left * right
    return product / np.sqrt(squares.where(squares > 0))


def mean_of(name: str, estimator: str, statistic: Summed) -> Score:
    """The mean of one statistic."""
    return Score(name, estimator, (statistic,), _same)


def crps(estimator: estimators.Estimator) -> Score:
    """Mean CRPS with one estimator."""
    return Score(f"crps_{estimator.name}", estimator.name, (CRPS(estimator),), _same)


CRPS_FAIR = crps(estimators.FAIR)
CRPS_STANDARD = crps(estimators.STANDARD)
CRPS_STRATIFIED = crps(estimators.STRATIFIED)
MAE = Score("mae", "of the ensemble mean", (AbsoluteError(),), _same)
CRPS_BOUND = mean_of(
    "crps_bound", "how far a sketch's fair CRPS can be from the members'", CRPSBound()
)
RMSE = Score("rmse", "of the ensemble mean", (SquaredError(),), np.sqrt)
BIAS = Score("bias", "ensemble mean minus truth", (MeanError(),), _same)
SPREAD = Score("spread", "square root of the mean variance, M - 1", (Variance(),), np.sqrt)
SPREAD_SKILL = Score(
    "spread_skill",
    "sqrt((M+1)/M mean variance) / RMSE of the mean",
    (ExpectedSquaredError(), SquaredError()),
    _ratio_of_roots,
)
SPREAD_SKILL_UNBIASED = Score(
    "spread_skill_unbiased",
    "sqrt(mean variance / mean[(mean - truth)^2 - variance/M])",
    (Variance(), UnbiasedSquaredError()),
    _ratio_of_roots,
)
SPREAD_SKILL_AREA_MEAN = Score(
    "spread_skill_area_mean",
    "sqrt((M+1)/M mean variance) / RMSE of the mean, of area means",
    (OfAreaMean(ExpectedSquaredError()), OfAreaMean(SquaredError())),
    _ratio_of_roots,
)
SPREAD_SKILL_UNBIASED_AREA_MEAN = Score(
    "spread_skill_unbiased_area_mean",
    "sqrt(mean variance / mean[(mean - truth)^2 - variance/M]), of area means",
    (OfAreaMean(Variance()), OfAreaMean(UnbiasedSquaredError())),
    _ratio_of_roots,
)
ACC = Score(
    "acc",
    "uncentred, of the ensemble mean, products pooled over dates",
    (AnomalyProduct(), SquaredForecast(), SquaredTruth()),
    _correlation,
)
OUTLIER_RATE = Score("outlier_rate", "truth outside all members", (Outlier(),), _same)
COVERAGE = Score(
    "coverage", "central intervals between Weibull (type 6) quantiles", (IntervalHits(),), _same
)


def rank_histogram(bins: int) -> Score:
    """Mean rank histogram with this many bins."""
    note = "ties shared, ranks spread over equal bins"
    return Score("rank_histogram", note, (RankHistogram(bins),), _same)


def reliability_index(bins: int) -> Score:
    """Sum over bins of the departure from a flat rank histogram; 0 is perfect. What chance alone
    makes of it: `scoring.flatness.expected_reliability_index`."""
    note = "sum over bins of |share - 1/bins|"
    return Score("reliability_index", note, (RankHistogram(bins),), flatness.reliability_index)
