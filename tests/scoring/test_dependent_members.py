"""Members that share checkpoints or come as +- pairs, against the CRPS of an infinite ensemble."""

import numpy as np
import pytest
from scipy.stats import norm

from scoring.crps import CRPS, FAIR, STRATIFIED
from scoring.statistic import evaluate_arrays
from scoring.tile import Structure

CELLS = 20_000
NONE = -np.ones(16, int)
CHECKPOINTS = np.repeat([0, 1, 2, 3], 4)
PAIRS = np.arange(16) // 2


def expected_distance(mean, variance):
    """E|X| for X normal: A of Grimit et al. (2006, doi:10.1256/qj.05.235)."""
    std = np.sqrt(variance)
    return 2 * std * norm.pdf(mean / std) + mean * (2 * norm.cdf(mean / std) - 1)


def crps_of_mixture(centres: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Exact CRPS of equally likely normals of variance 1 with these (component, cell) centres."""
    apart = centres[:, None] - centres[None, :]
    return (
        expected_distance(truth - centres, 1.0).mean(axis=0)
        - expected_distance(apart, 2.0).mean(axis=(0, 1)) / 2
    )


def simulated(groups: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, ...]:
    """Members, (16, cell), truth, and what an infinite ensemble of the same kind would score."""
    rng = np.random.default_rng(6)
    offsets = rng.normal(0.0, 1.0, (groups.max() + 1, CELLS))
    draws = rng.normal(size=(16, CELLS))
    if (pairs >= 0).all():
        draws[1::2] = -draws[::2]
    truth = rng.normal(0.0, 1.5, CELLS)
    return offsets[groups] + draws, truth, crps_of_mixture(offsets, truth)


@pytest.mark.parametrize(
    ("groups", "pairs"),
    [(CHECKPOINTS, NONE), (np.zeros(16, int), PAIRS), (CHECKPOINTS, PAIRS)],
    ids=["checkpoints", "pairs", "both"],
)
def test_stratified_recovers_the_infinite_ensemble_where_fair_does_not(groups, pairs):
    members, truth, exact = simulated(groups, pairs)
    scores = CRPS(STRATIFIED), CRPS(FAIR)
    found = evaluate_arrays(scores, members, truth, structure=Structure(groups, pairs))
    off = {score: found[score] - exact for score in scores}
    error = {score: off[score].std() / np.sqrt(CELLS) for score in scores}
    assert abs(off[CRPS(STRATIFIED)].mean()) < 3 * error[CRPS(STRATIFIED)]
    assert off[CRPS(FAIR)].mean() < -8 * error[CRPS(FAIR)]  # too good


def test_without_structure_all_three_agree():
    members, truth, exact = simulated(np.zeros(16, int), NONE)
    scores = CRPS(STRATIFIED), CRPS(FAIR)
    found = evaluate_arrays(scores, members, truth, structure=Structure.independent(16))
    np.testing.assert_allclose(found[scores[0]], found[scores[1]], rtol=1e-10, atol=1e-12)
    off = found[scores[0]] - exact
    assert abs(off.mean()) < 3 * off.std() / np.sqrt(CELLS)


def test_numbers_of_pairs_hold_within_a_group():
    members, truth, _ = simulated(CHECKPOINTS, PAIRS)
    score = CRPS(STRATIFIED)
    through, anew, across, none = (
        evaluate_arrays((score,), members, truth, structure=Structure(CHECKPOINTS, pairs))[score]
        for pairs in (PAIRS, PAIRS % 2, np.arange(16) % 8, NONE)
    )
    np.testing.assert_array_equal(anew, through)
    np.testing.assert_array_equal(across, none)


def test_partners_in_two_groups_of_one_model_make_the_score_too_good():
    rng = np.random.default_rng(7)
    half, truth = rng.normal(size=(8, CELLS)), rng.normal(0.0, 1.5, CELLS)
    score = CRPS(STRATIFIED)
    structure = Structure(np.repeat([0, 1], 8), np.arange(16) % 8)
    found = evaluate_arrays((score,), np.concatenate([half, -half]), truth, structure=structure)
    off = found[score] - crps_of_mixture(np.zeros((1, CELLS)), truth)
    expected = -(expected_distance(0.0, 4.0) - expected_distance(0.0, 2.0)) / 32
    assert abs(off.mean() - expected) < 3 * off.std() / np.sqrt(CELLS)
    assert expected < -8 * off.std() / np.sqrt(CELLS)
