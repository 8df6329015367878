from operator import gt

import numpy as np
import pytest
import scoringrules
import xarray as xr
import xskillscore
from scores.probability import brier_score_for_ensemble

from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED
from scoring.probability import BrierScore, Exceedance, RankedProbabilityScore
from scoring.statistic import OMIT, evaluate_arrays
from scoring.thresholds import Constants, Reference
from scoring.tile import Structure
from scoring.weighted import Above, OutcomeWeightedCRPS

EDGES = (-1.0, 0.0, 0.5, 2.0, 40.0)
EVENTS = Constants(EDGES)


def sample(members: int, kind: str = "continuous", cells: int = 60):
    """Members, (member, cell), and truth, (cell,), float64."""
    rng = np.random.default_rng(members)
    forecast, truth = rng.normal(0.5, 2.0, (members, cells)), rng.normal(0.0, 2.0, cells)
    if kind == "tied":
        return np.round(2 * forecast) / 2, np.round(2 * truth) / 2
    if kind == "zero_inflated":
        return np.maximum(forecast, 0), np.maximum(truth, 0)
    return forecast, truth


def value(statistic, forecast, truth, **options):
    return evaluate_arrays((statistic,), forecast, truth, **options)[statistic]


each_kind = pytest.mark.parametrize("kind", ["continuous", "tied", "zero_inflated"])


@each_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exceedance_counts_members_strictly_above(kind, dtype):
    forecast, truth = (array.astype(dtype) for array in sample(90, kind))
    expected = (forecast[..., None] > np.array(EDGES, dtype)).mean(axis=0)
    np.testing.assert_allclose(value(Exceedance(EVENTS), forecast, truth), expected, atol=1e-15)


@each_kind
@pytest.mark.parametrize("members", [1, 2, 9, 130])
def test_brier_scores_are_those_of_scores(kind, members):
    forecast, truth = sample(members, kind)
    labelled, observed = xr.DataArray(forecast, dims=("m", "x")), xr.DataArray(truth, dims="x")
    for estimator in (STANDARD, FAIR):
        if members < estimator.minimum_members:
            continue
        expected = brier_score_for_ensemble(
            labelled, observed, "m", list(EDGES), preserve_dims="all",
            fair_correction=estimator is FAIR, event_threshold_operator=gt,
        )  # fmt: skip
        found = value(BrierScore(EVENTS, estimator), forecast, truth)
        np.testing.assert_allclose(
            found, expected.transpose("x", "threshold"), rtol=1e-10, atol=1e-14
        )


def test_standard_brier_score_is_that_of_scoringrules():
    forecast, truth = sample(30)
    found = value(BrierScore(EVENTS, STANDARD), forecast, truth)
    for place, edge in enumerate(EDGES):
        probability = (forecast > edge).mean(axis=0)
        expected = scoringrules.brier_score((truth > edge).astype(float), probability)
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-10, atol=1e-14)


def test_ranked_probability_scores_are_those_of_xskillscore():
    forecast, truth = sample(15)
    labelled, observed = xr.DataArray(forecast, dims=("member", "x")), xr.DataArray(truth, dims="x")
    for estimator in (STANDARD, FAIR):
        expected = xskillscore.rps(
            observed, labelled, np.array(EDGES), dim=[], fair=estimator is FAIR
        )
        found = value(RankedProbabilityScore(EVENTS, estimator), forecast, truth)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


def test_brier_score_integrated_over_thresholds_is_the_crps():
    forecast, truth = sample(12, cells=5)
    edges = np.linspace(-12, 12, 24_001)
    middles = (edges[1:] + edges[:-1]) / 2
    for estimator in (STANDARD, FAIR):
        scores = value(BrierScore(Constants(tuple(middles)), estimator), forecast, truth)
        integral = scores.sum(axis=1) * 0.001
        np.testing.assert_allclose(integral, value(CRPS(estimator), forecast, truth), atol=2e-3)


def test_fair_brier_score_does_not_depend_on_ensemble_size_on_average():
    rng = np.random.default_rng(4)
    for members in (2, 6, 30):
        forecast, truth = rng.standard_normal((members, 100_000)), rng.standard_normal(100_000)
        score = value(BrierScore(Constants((0.5,))), forecast, truth).mean()
        assert score == pytest.approx(0.3085 * 0.6915, abs=3e-3)


def test_stratified_brier_score_is_that_of_indicators():
    forecast, truth = sample(12)
    structure = Structure(np.repeat([0, 1, 2], 4), np.array([0, 0, -1, -1] * 3))
    found = value(BrierScore(EVENTS, STRATIFIED), forecast, truth, structure=structure)
    for place, edge in enumerate(EDGES):
        events = (forecast > edge).astype(float), (truth > edge).astype(float)
        expected = value(CRPS(STRATIFIED), *events, structure=structure)
        np.testing.assert_allclose(found[:, place], expected, atol=1e-12)


def test_thresholds_may_differ_between_cells():
    forecast, truth = sample(30)
    fields = np.sort(np.random.default_rng(1).normal(size=(60, 3)), axis=1)
    climate = Reference("climate", (0.33, 0.67, 0.9))
    references = {climate: fields}
    probability = (forecast[..., None] > fields).mean(axis=0)
    expected = (probability - (truth[:, None] > fields)) ** 2
    found = value(BrierScore(climate, STANDARD), forecast, truth, references=references)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    ranked = value(
        RankedProbabilityScore(climate, STANDARD), forecast, truth, references=references
    )
    np.testing.assert_allclose(ranked, expected.sum(axis=1), atol=1e-14)


def test_true_counts_are_used_where_members_are_missing():
    forecast, truth = sample(30)
    gaps = forecast.copy()
    gaps[np.random.default_rng(5).random(gaps.shape) < 0.3] = np.nan
    gaps[:, 4] = np.nan
    for statistic in (Exceedance(EVENTS), BrierScore(EVENTS), RankedProbabilityScore(EVENTS)):
        found = value(statistic, gaps, truth, missing=OMIT)
        assert np.isnan(found[4]).all()
        for cell in (0, 10, 59):
            column = gaps[~np.isnan(gaps[:, cell]), cell][:, None]
            expected = value(statistic, column, truth[cell, None])[0]
            np.testing.assert_allclose(found[cell], expected, atol=1e-13)


def test_a_truth_in_double_precision_that_equals_a_threshold_is_no_event():
    """Also where single precision rounds the threshold down, as that of 0.7, or up."""
    tenths = np.arange(1, 301) / 10
    truth, above = (xr.DataArray(values, dims="x") for values in (tenths, tenths * (1 + 1e-6)))
    members = xr.DataArray(np.array([tenths, tenths - 0.2, tenths + 0.2]), dims=("number", "x"))
    thresholds = Reference("tenths", (0.5,))
    fields = {"tenths": truth.expand_dims(quantile=[0.5])}
    for observed in (truth, above):
        scores = [
            BrierScore(thresholds, STANDARD)(forecast, observed, references=fields)
            for forecast in (members, members.astype(np.float32))
        ]
        np.testing.assert_allclose(*scores, atol=1e-15)
        expected = np.square(1 / 3 - float(observed is above))
        np.testing.assert_allclose(scores[0].squeeze(), expected, atol=1e-15)
    constant = BrierScore(Constants((0.7,)), STANDARD)
    single = xr.DataArray(np.array([0.7, 0.5, 0.9], np.float32), dims="number")
    assert float(constant(single, xr.DataArray(0.7)).squeeze()) == pytest.approx(1 / 9)
    weighted = OutcomeWeightedCRPS(Above(Constants((0.7,))), STANDARD)
    assert float(weighted(single, xr.DataArray(0.7)).squeeze()) == 0


@pytest.mark.parametrize("value", [0.1, 0.7])
def test_a_truth_that_was_in_single_precision_equals_what_a_member_equals(value):
    event, single = BrierScore(Constants((value,)), STANDARD), np.full(1, value, np.float32)
    truth = xr.DataArray(single, dims="x")
    for observed in (truth, truth.astype(float)):
        assert float(event(truth.expand_dims("number"), observed).squeeze()) == 0
