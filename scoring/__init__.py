"""Scores, quantile aggregation, conformal calibration and significance; knows no models.

Import what is slow to load from its own module: `scoring.spectra` needs torch, `scoring.gaussian`
compiles.
"""

from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair, SubEnsemble
from scoring.decisions import relative_economic_value, roc_area, roc_curve
from scoring.events import JointDistribution, joint_distribution
from scoring.flatness import expected_reliability_index, histogram_flatness
from scoring.intervals import (
    IntervalScore,
    QuantileScore,
    WeightedIntervalScore,
    interval_scores,
    quantile_scores,
    weighted_interval_score,
)
from scoring.members import BestMemberError, ExpectedOutlier, Gain, closest_member
from scoring.multivariate import EnergyScore, VariogramScore
from scoring.quantiles import ensemble_quantiles
from scoring.regions import REGIONS, Band, Box, Mask, region_weights, season_weights
from scoring.reliability import (
    consistency_band,
    corp_decomposition,
    murphy_decomposition,
    reliability_diagram,
)
from scoring.score import Score
from scoring.significance import EqualWeightedCosine, StationaryBootstrap, false_discovery
from scoring.statistic import OMIT, PROPAGATE, Statistic, evaluate
from scoring.sums import Sums, merge

__all__ = [
    "CRPS",
    "FAIR",
    "OMIT",
    "PROPAGATE",
    "REGIONS",
    "STANDARD",
    "STRATIFIED",
    "AlmostFair",
    "Band",
    "BestMemberError",
    "Box",
    "EnergyScore",
    "EqualWeightedCosine",
    "ExpectedOutlier",
    "Gain",
    "IntervalScore",
    "JointDistribution",
    "Mask",
    "QuantileScore",
    "Score",
    "StationaryBootstrap",
    "Statistic",
    "SubEnsemble",
    "Sums",
    "VariogramScore",
    "WeightedIntervalScore",
    "closest_member",
    "consistency_band",
    "corp_decomposition",
    "ensemble_quantiles",
    "evaluate",
    "expected_reliability_index",
    "false_discovery",
    "histogram_flatness",
    "interval_scores",
    "joint_distribution",
    "merge",
    "murphy_decomposition",
    "quantile_scores",
    "region_weights",
    "relative_economic_value",
    "reliability_diagram",
    "roc_area",
    "roc_curve",
    "season_weights",
    "weighted_interval_score",
]
