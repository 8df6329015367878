"""Scores, quantile aggregation, conformal calibration and significance; knows no models."""

from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair, SubEnsemble
from scoring.quantiles import ensemble_quantiles
from scoring.score import Score
from scoring.statistic import OMIT, PROPAGATE, Statistic, evaluate
from scoring.sums import Sums, merge

__all__ = [
    "CRPS",
    "FAIR",
    "OMIT",
    "PROPAGATE",
    "STANDARD",
    "STRATIFIED",
    "AlmostFair",
    "Score",
    "Statistic",
    "SubEnsemble",
    "Sums",
    "ensemble_quantiles",
    "evaluate",
    "merge",
]
