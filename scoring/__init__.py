"""Scores, quantile aggregation, conformal calibration and significance; knows no models.

Named scores (`RMSE`, `BIAS`, `ACC`, ...) are in `scoring.score`. Import what is
slow to load from its own module: `scoring.spectra` and `scoring.device` need
torch, `scoring.gaussian` compiles.
"""

from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair, ExpectedCRPS, SubEnsemble
from scoring.decisions import relative_economic_value, roc_area, roc_curve
from scoring.decomposition import MemberIntervals, crps_potential, crps_reliability
from scoring.events import JointDistribution, joint_distribution
from scoring.extremes import DISCRETE, EXACT, ExtremeForecastIndex, ShiftOfTails
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
from scoring.moments import (
    AbsoluteError,
    EnsembleMean,
    ExpectedSquaredError,
    MeanError,
    OfAreaMean,
    SquaredError,
    UnbiasedSquaredError,
    Variance,
)
from scoring.multivariate import EnergyScore, VariogramScore
from scoring.probability import BrierScore, Exceedance, RankedProbabilityScore
from scoring.quantiles import LINEAR, WEIBULL, IntervalHits, Quantiles, ensemble_quantiles
from scoring.rank import Outlier, Rank, RankHistogram
from scoring.regions import REGIONS, Band, Box, Mask, region_weights, season_weights
from scoring.reliability import (
    consistency_band,
    corp_decomposition,
    murphy_decomposition,
    reliability_diagram,
)
from scoring.score import Score, mean_of
from scoring.significance import EqualWeightedCosine, StationaryBootstrap, false_discovery
from scoring.statistic import OMIT, PROPAGATE, Statistic, evaluate
from scoring.sums import Sums, merge
from scoring.thresholds import Constants, Reference
from scoring.tile import Structure
from scoring.weighted import Above, Below, Between, OutcomeWeightedCRPS, ThresholdWeightedCRPS

__all__ = [
    "CRPS",
    "DISCRETE",
    "EXACT",
    "FAIR",
    "LINEAR",
    "OMIT",
    "PROPAGATE",
    "REGIONS",
    "STANDARD",
    "STRATIFIED",
    "WEIBULL",
    "Above",
    "AbsoluteError",
    "AlmostFair",
    "Band",
    "Below",
    "BestMemberError",
    "Between",
    "Box",
    "BrierScore",
    "Constants",
    "EnergyScore",
    "EnsembleMean",
    "EqualWeightedCosine",
    "Exceedance",
    "ExpectedCRPS",
    "ExpectedOutlier",
    "ExpectedSquaredError",
    "ExtremeForecastIndex",
    "Gain",
    "IntervalHits",
    "IntervalScore",
    "JointDistribution",
    "Mask",
    "MeanError",
    "MemberIntervals",
    "OfAreaMean",
    "OutcomeWeightedCRPS",
    "Outlier",
    "QuantileScore",
    "Quantiles",
    "Rank",
    "RankHistogram",
    "RankedProbabilityScore",
    "Reference",
    "Score",
    "ShiftOfTails",
    "SquaredError",
    "StationaryBootstrap",
    "Statistic",
    "Structure",
    "SubEnsemble",
    "Sums",
    "ThresholdWeightedCRPS",
    "UnbiasedSquaredError",
    "Variance",
    "VariogramScore",
    "WeightedIntervalScore",
    "closest_member",
    "consistency_band",
    "corp_decomposition",
    "crps_potential",
    "crps_reliability",
    "ensemble_quantiles",
    "evaluate",
    "expected_reliability_index",
    "false_discovery",
    "histogram_flatness",
    "interval_scores",
    "joint_distribution",
    "mean_of",
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
