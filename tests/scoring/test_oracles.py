"""Every score that another package has, in every kind of ensemble, against that package.

In float64 to 1e-10 and in float32 to 1e-5 of what the package makes of the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from operator import gt

import numpy as np
import properscoring
import pytest
import scoringrules
import xarray as xr
import xskillscore
from earthkit.meteo.score.array import crps_from_ensemble
from scores.probability import (
    brier_score_for_ensemble,
    crps_for_ensemble,
    tail_tw_crps_for_ensemble,
)

from scoring.crps import CRPS, FAIR, STANDARD
from scoring.gaussian import GaussianCRPS
from scoring.intervals import IntervalScore, QuantileScore, WeightedIntervalScore
from scoring.moments import AbsoluteError, MeanError, SquaredError
from scoring.multivariate import EnergyScore, VariogramScore
from scoring.probability import BrierScore, RankedProbabilityScore
from scoring.statistic import OMIT, PROPAGATE, Statistic, evaluate_arrays
from scoring.thresholds import Constants
from scoring.weighted import Above, Below, OutcomeWeightedCRPS, ThresholdWeightedCRPS

CELLS = 12
LEVELS, COVERAGE = (0.1, 0.25, 0.5, 0.75, 0.9), (0.5, 0.8)
MOST_IN_PAIRS = 1000  # packages that hold all pairs of members are asked up to here
WITHOUT_NUMBA = find_spec("numba") is None  # properscoring, which xskillscore calls, then does


@dataclass(frozen=True)
class Case:
    """Members, (member, cell), truth, (cell,), and thresholds."""

    forecast: np.ndarray
    truth: np.ndarray
    edges: tuple[float, ...] = (-1.0, 0.0, 0.5, 2.0)

    def rounded(self, dtype: type) -> "Case":
        """In another precision, thresholds too."""
        edges = tuple(float(edge) for edge in np.array(self.edges, dtype))
        return Case(self.forecast.astype(dtype), self.truth.astype(dtype), edges)


def case(kind: str) -> Case:
    sizes = {"single": 1, "two": 2, "geopotential": 7424}
    rng = np.random.default_rng(len(kind))
    forecast = rng.normal(0.5, 2.0, (sizes.get(kind, 9), CELLS))
    truth = rng.normal(0.0, 2.0, CELLS)
    if kind == "tied":
        return Case(np.round(2 * forecast) / 2, np.round(2 * truth) / 2)
    if kind == "zero_inflated":
        return Case(np.maximum(forecast, 0), np.maximum(truth, 0))
    if kind == "constant":
        return Case(np.broadcast_to(forecast[0], forecast.shape).copy(), truth)
    if kind == "geopotential":
        return Case(54_000 + 30 * forecast, 54_000 + 30 * truth, (53_950.0, 54_000.5, 54_030.0))
    if kind == "missing":
        forecast[2, :4] = forecast[5:7, 3] = forecast[1:, 5] = forecast[:, 7] = np.nan
        truth[9] = np.nan
    return Case(forecast, truth)


KINDS = (
    "continuous", "tied", "zero_inflated", "constant", "single", "two", "missing", "geopotential",
)  # fmt: skip
Oracle = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Expected:
    """A statistic and what a package says of truth, (cell,), and members, (cell, member)."""

    package: str
    statistic: Statistic
    of: Oracle
    in_pairs: bool = False


def labelled(truth: np.ndarray, members: np.ndarray) -> tuple[xr.DataArray, xr.DataArray]:
    return xr.DataArray(truth, dims="x"), xr.DataArray(members, dims=("x", "member"))


def each(edges: tuple[float, ...], of: Callable[..., np.ndarray]) -> Oracle:
    """Of each threshold, (cell, threshold)."""
    return lambda y, x: np.stack([np.asarray(of(y, x, edge)) for edge in edges], axis=-1)


def crps_oracles() -> list[Expected]:
    rules = {"backend": "numpy"}
    return [
        Expected("properscoring", CRPS(STANDARD), properscoring.crps_ensemble, WITHOUT_NUMBA),
        Expected("scoringrules", CRPS(STANDARD),
                 lambda y, x: scoringrules.crps_ensemble(y, x, estimator="qd", **rules)),
        Expected("xskillscore", CRPS(STANDARD),
                 lambda y, x: xskillscore.crps_ensemble(*labelled(y, x), dim=[]), WITHOUT_NUMBA),
        Expected("earthkit", CRPS(STANDARD), lambda y, x: crps_from_ensemble(x.T, y)),
        Expected("scores", CRPS(STANDARD), lambda y, x: of_scores(y, x, "ecdf"), True),
        Expected("scores", CRPS(FAIR), lambda y, x: of_scores(y, x, "fair"), True),
        Expected("scoringrules", CRPS(FAIR),
                 lambda y, x: scoringrules.crps_ensemble(y, x, estimator="pwm", **rules)),
        Expected("properscoring", GaussianCRPS(),
                 lambda y, x: properscoring.crps_gaussian(y, *normal(x))),
        Expected("scoringrules", GaussianCRPS(),
                 lambda y, x: scoringrules.crps_normal(y, *normal(x), **rules)),
    ]  # fmt: skip


def of_scores(truth: np.ndarray, members: np.ndarray, method: str) -> xr.DataArray:
    observed, forecast = labelled(truth, members)
    return crps_for_ensemble(forecast, observed, "member", method=method, preserve_dims="all")


def normal(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return members.mean(axis=1), members.std(axis=1, ddof=1)


def weighted_oracles(edges: tuple[float, ...]) -> list[Expected]:
    events = Constants(edges)
    made = []
    for estimator, rule, method in ((STANDARD, "qd", "ecdf"), (FAIR, "pwm", "fair")):
        above = ThresholdWeightedCRPS(Above(events), estimator)
        below = ThresholdWeightedCRPS(Below(events), estimator)

        def tail(y, x, edge, rule=rule, end="a"):
            options = {end: edge, "estimator": rule, "backend": "numpy"}
            return scoringrules.twcrps_ensemble(y, x, **options)

        def of_tail(y, x, edge, method=method):
            observed, forecast = labelled(y, x)
            return tail_tw_crps_for_ensemble(
                forecast, observed, "member", edge, tail="upper", method=method,
                preserve_dims="all",
            )  # fmt: skip

        def lower(y, x, edge, tail=tail):
            return tail(y, x, edge, end="b")

        made += [
            Expected("scoringrules", above, each(edges, tail)),
            Expected("scoringrules", below, each(edges, lower)),
            Expected("scores", above, each(edges, of_tail), True),
        ]
    return [*made, Expected("scoringrules", OutcomeWeightedCRPS(Above(events), STANDARD),
                            each(edges, outcome_weighted), True)]  # fmt: skip


def outcome_weighted(truth: np.ndarray, members: np.ndarray, edge: float) -> np.ndarray:
    """NaN where no member is where the truth is."""
    some = (members > edge).any(axis=1)
    found = np.where(truth > edge, np.nan, 0.0)
    found[some] = scoringrules.owcrps_ensemble(
        truth[some], members[some], w_func=lambda x: (x > edge).astype(float), backend="numpy"
    )
    return found


def event_oracles(edges: tuple[float, ...]) -> list[Expected]:
    events, array = Constants(edges), np.array(edges)

    def of_package(y, x, fair):
        observed, forecast = labelled(y, x)
        return brier_score_for_ensemble(
            forecast, observed, "member", list(edges), preserve_dims="all", fair_correction=fair,
            event_threshold_operator=gt,
        ).transpose("x", "threshold")  # fmt: skip

    def happened(y, x, edge):
        return xskillscore.brier_score(*labelled(y > edge, x > edge), fair=True, dim=[])

    def share(y, x, edge):
        return scoringrules.brier_score((y > edge).astype(float), (x > edge).mean(axis=1))

    def ranked(fair):
        # Its events are to reach an edge, ours to exceed one.
        next_ = np.nextafter(array, np.inf)
        return lambda y, x: xskillscore.rps(*labelled(y, x), next_, dim=[], fair=fair)

    return [
        Expected("properscoring", BrierScore(events, STANDARD),
                 lambda y, x: properscoring.threshold_brier_score(y, x, array)),
        Expected("scoringrules", BrierScore(events, STANDARD), each(edges, share)),
        Expected("scores", BrierScore(events, STANDARD), lambda y, x: of_package(y, x, False)),
        Expected("scores", BrierScore(events, FAIR), lambda y, x: of_package(y, x, True)),
        Expected("xskillscore", BrierScore(events, FAIR), each(edges, happened)),
        Expected("xskillscore", RankedProbabilityScore(events, STANDARD), ranked(False)),
        Expected("xskillscore", RankedProbabilityScore(events, FAIR), ranked(True)),
    ]  # fmt: skip


def quantiles(members: np.ndarray, *levels: float) -> np.ndarray:
    return np.quantile(members, levels, axis=1, method="weibull")


def quantile_oracles() -> list[Expected]:
    rules = {"backend": "numpy"}

    def pinball(y, x, level):
        return 2 * scoringrules.quantile_score(y, quantiles(x, level)[0], level, **rules)

    def interval(y, x, coverage):
        ends = quantiles(x, (1 - coverage) / 2, (1 + coverage) / 2)
        return np.reshape(scoringrules.interval_score(y, *ends, 1 - coverage, **rules), y.shape)

    def wis(y, x):
        # Its numpy back-end adds what it takes for the median in place of the median's error.
        error = np.abs(quantiles(x, 0.5)[0] - y)
        low, high = quantiles(x, 0.25, 0.1).T, quantiles(x, 0.75, 0.9).T
        found = scoringrules.weighted_interval_score(
            y, error, low, high, 1 - np.array(COVERAGE), **rules
        )
        return np.reshape(found, y.shape)

    return [
        Expected("scoringrules", QuantileScore(LEVELS), each(LEVELS, pinball)),
        Expected("scoringrules", IntervalScore(COVERAGE), each(COVERAGE, interval)),
        Expected("scoringrules", WeightedIntervalScore(COVERAGE), wis),
    ]


def mean_oracles() -> list[Expected]:
    named = ((MeanError(), "me"), (AbsoluteError(), "mae"), (SquaredError(), "mse"))

    def of_mean(name):
        def found(y, x):
            observed, forecast = labelled(y, x)
            return getattr(xskillscore, name)(forecast.mean("member"), observed, dim=[])

        return found

    return [Expected("xskillscore", statistic, of_mean(name)) for statistic, name in named]


def oracles(edges: tuple[float, ...]) -> list[Expected]:
    return [
        *crps_oracles(), *weighted_oracles(edges), *event_oracles(edges), *quantile_oracles(),
        *mean_oracles(),
    ]  # fmt: skip


def by_cell(expected: Expected, given: Case, omit: bool) -> np.ndarray:
    """What the package says of each cell by itself, of the members there are; NaN of too few."""
    found: list[np.ndarray | None] = []
    for members, truth in zip(given.forecast.T, given.truth, strict=True):
        there = members[np.isfinite(members)]
        usable = there.size >= expected.statistic.minimum_members and np.isfinite(truth)
        if not there.size or not usable or (there.size < members.size and not omit):
            found.append(None)
            continue
        found.append(
            np.asarray(expected.of(truth[None].astype(float), there[None].astype(float)))[0]
        )
    like = next(one for one in found if one is not None)
    return np.stack([np.full_like(like, np.nan) if one is None else one for one in found])


@pytest.mark.parametrize(("dtype", "digits"), [(np.float64, 1e-10), (np.float32, 1e-5)])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_other_packages(kind, dtype, digits):
    given = case(kind).rounded(dtype)
    size, scale = len(given.forecast), np.nanstd(given.forecast) + np.nanstd(given.truth)
    wide = given.truth.astype(float), given.forecast.T.astype(float)
    checked = []
    for expected in oracles(given.edges):
        statistic = expected.statistic
        if size < statistic.minimum_members or (expected.in_pairs and size > MOST_IN_PAIRS):
            continue
        if kind == "constant" and isinstance(statistic, GaussianCRPS):
            continue  # the packages divide by a spread of 0
        for missing in (PROPAGATE, OMIT):
            found = evaluate_arrays((statistic,), given.forecast, given.truth, missing=missing)
            true = (
                by_cell(expected, given, missing == OMIT)
                if kind == "missing"
                else np.asarray(expected.of(*wide))
            )
            np.testing.assert_allclose(
                found[statistic], true, rtol=digits, atol=digits * scale,
                err_msg=f"{expected.package}, {statistic.key}",
            )  # fmt: skip
        checked.append(expected.package)
    assert {"properscoring", "scoringrules", "xskillscore", "earthkit"} <= set(checked)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("missing", "geopotential")]
)
@pytest.mark.parametrize("score", [EnergyScore, VariogramScore])
def test_scores_of_several_variables_are_those_of_scoringrules(kind, score):
    given = case(kind)
    shape = (-1, CELLS // 3, 3)
    forecast = xr.DataArray(given.forecast.reshape(shape), dims=("number", "x", "variable"))
    truth = xr.DataArray(given.truth.reshape(shape[1:]), dims=("x", "variable"))
    package = {EnergyScore: scoringrules.es_ensemble, VariogramScore: scoringrules.vs_ensemble}
    for estimator, rule in ((STANDARD, "nrg"), (FAIR, "fair")):
        if forecast.sizes["number"] < estimator.minimum_members:
            continue
        found = score(("variable",), estimator=estimator)(forecast, truth)
        members = forecast.transpose("x", "number", "variable").values
        expected = package[score](truth.values, members, estimator=rule, backend="numpy")
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
