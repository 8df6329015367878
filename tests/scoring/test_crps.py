from itertools import combinations

import numpy as np
import properscoring
import pytest
import scoringrules
import xarray as xr
import xskillscore
from scipy.stats import norm

from data.errors import InputError
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair, SubEnsemble
from scoring.statistic import OMIT, evaluate_arrays
from scoring.tile import Structure

SIZES = (1, 2, 3, 12, 49, 500)


def sample(members: int, cells: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Members, (member, cell), and truth, (cell,), float64; some tie with each other."""
    rng = np.random.default_rng(seed)
    forecast, truth = rng.normal(1.0, 2.0, (members, cells)), rng.normal(0.0, 2.0, cells)
    forecast[: members // 2, : cells // 3] = np.round(forecast[: members // 2, : cells // 3])
    truth[: cells // 3] = np.round(truth[: cells // 3])
    return forecast, truth


def crps(forecast, truth, estimator, **options):
    statistic = CRPS(estimator)
    return evaluate_arrays((statistic,), forecast, truth, **options)[statistic]


def brute_force(forecast: np.ndarray, truth: np.ndarray, admissible: np.ndarray) -> np.ndarray:
    """Mean |x - y| less half the weighted mean difference, straight from the definition."""
    difference = np.abs(forecast[:, None] - forecast[None, :])
    spread = np.einsum("ij,ijc->c", admissible, difference)
    return np.abs(forecast - truth).mean(axis=0) - spread / 2


@pytest.mark.parametrize("members", SIZES)
def test_standard_crps_is_that_of_properscoring(members):
    forecast, truth = sample(members)
    expected = properscoring.crps_ensemble(truth, forecast.T)
    np.testing.assert_allclose(crps(forecast, truth, STANDARD), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("members", SIZES[1:])
def test_fair_crps_is_that_of_scoringrules(members):
    forecast, truth = sample(members)
    expected = scoringrules.crps_ensemble(truth, forecast.T, estimator="fair", backend="numpy")
    np.testing.assert_allclose(crps(forecast, truth, FAIR), expected, rtol=1e-10, atol=1e-12)


def test_standard_crps_is_that_of_xskillscore():
    forecast, truth = sample(20)
    labelled = xr.DataArray(forecast, dims=("member", "x"))
    expected = xskillscore.crps_ensemble(xr.DataArray(truth, dims="x"), labelled, dim=[])
    np.testing.assert_allclose(crps(forecast, truth, STANDARD), expected, rtol=1e-10)


@pytest.mark.parametrize("members", [2, 50, 7424])
def test_float32_geopotential_keeps_five_digits(members):
    rng = np.random.default_rng(3)
    forecast = (54_000 + 60 * rng.standard_normal((members, 12))).astype(np.float32)
    truth = (54_000 + 60 * rng.standard_normal(12)).astype(np.float32)
    wide, error = forecast.astype(float), np.abs(forecast.astype(float) - truth).mean(axis=0)
    apart = sum(np.abs(wide - member).mean(axis=0) for member in wide) / members
    np.testing.assert_allclose(crps(forecast, truth, STANDARD), error - apart / 2, rtol=1e-5)


def test_large_gaussian_ensemble_has_the_gaussian_crps():
    probability = (np.arange(4000) + 0.5) / 4000
    truth = np.array([-2.0, 0.0, 0.7])
    forecast = np.repeat(norm.ppf(probability)[:, None], 3, axis=1)
    closed = truth * (2 * norm.cdf(truth) - 1) + 2 * norm.pdf(truth) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(crps(forecast, truth, STANDARD), closed, atol=3e-4)


def test_fair_crps_does_not_depend_on_ensemble_size_on_average():
    rng = np.random.default_rng(5)
    exact = 1 / np.sqrt(np.pi)  # members and truth from the same normal distribution
    for members in (2, 5, 40):
        forecast, truth = rng.standard_normal((members, 100_000)), rng.standard_normal(100_000)
        assert crps(forecast, truth, FAIR).mean() == pytest.approx(exact, abs=5e-3)
        inflated = crps(forecast, truth, STANDARD).mean()
        assert inflated == pytest.approx(exact * (1 + 1 / members), abs=6e-3)


def test_sub_ensemble_score_is_the_mean_over_all_sub_ensembles():
    forecast, truth = sample(6, cells=9)
    parts = [crps(forecast[list(c)], truth, STANDARD) for c in combinations(range(6), 3)]
    expected = np.mean(parts, axis=0)
    np.testing.assert_allclose(crps(forecast, truth, SubEnsemble(3)), expected, rtol=1e-10)


def test_almost_fair_runs_from_standard_to_fair():
    forecast, truth = sample(7)
    standard, fair = crps(forecast, truth, STANDARD), crps(forecast, truth, FAIR)
    np.testing.assert_allclose(crps(forecast, truth, AlmostFair(0.0)), standard, rtol=1e-10)
    np.testing.assert_allclose(crps(forecast, truth, AlmostFair(1.0)), fair, rtol=1e-10)
    middle = crps(forecast, truth, AlmostFair(0.5))
    np.testing.assert_allclose(middle, (standard + fair) / 2, rtol=1e-10)


def test_single_member_has_the_absolute_error_and_no_fair_crps():
    forecast, truth = sample(1)
    np.testing.assert_allclose(crps(forecast, truth, STANDARD), np.abs(forecast[0] - truth))
    with pytest.raises(InputError, match="crps_fair needs at least 2 members, found 1"):
        crps(forecast, truth, FAIR)


def test_constant_ensemble_has_the_absolute_error():
    forecast, truth = np.full((9, 4), 3.0), np.array([3.0, 2.0, 5.0, -1.0])
    for estimator in (FAIR, STANDARD, STRATIFIED):
        np.testing.assert_allclose(crps(forecast, truth, estimator), np.abs(3 - truth), atol=1e-14)


def test_missing_values_propagate_by_default():
    forecast, truth = sample(5)
    forecast[2, 10], truth[20] = np.nan, np.nan
    missing = np.isnan(crps(forecast, truth, FAIR))
    assert np.flatnonzero(missing).tolist() == [10, 20]


def test_omitting_uses_the_true_count_in_both_terms():
    forecast, truth = sample(8)
    forecast[[1, 5], 10], forecast[:, 11], forecast[1:, 12] = np.nan, np.nan, np.nan
    values = crps(forecast, truth, FAIR, missing=OMIT)
    present = np.delete(forecast[:, 10], [1, 5])[:, None]
    assert values[10] == pytest.approx(crps(present, truth[10:11], FAIR)[0], rel=1e-12)
    assert np.flatnonzero(np.isnan(values)).tolist() == [11, 12]


def test_stratified_is_the_brute_force_mean_over_admissible_pairs():
    forecast, truth = sample(9)
    structure = Structure(
        np.array([0, 0, 0, 0, 1, 1, 1, 1, 1]), np.array([-1, 0, 0, -1, 0, 0, 1, 1, -1])
    )
    weights = np.zeros((9, 9))
    for i in range(9):
        for j in range(9):
            if structure.groups[i] != structure.groups[j]:
                weights[i, j] = 1 / 81
    for group, pairs in ((0, 1), (1, 2)):
        own = np.flatnonzero(structure.groups == group)
        for i in own:
            for j in own:
                partners = structure.pairs[i] == structure.pairs[j] >= 0
                if i != j and not partners:
                    weights[i, j] = own.size**2 / 81 / (own.size * (own.size - 1) - 2 * pairs)
    assert weights.sum() == pytest.approx(1.0)
    expected = brute_force(forecast, truth, weights)
    values = crps(forecast, truth, STRATIFIED, structure=structure)
    np.testing.assert_allclose(values, expected, rtol=1e-10)


def test_stratified_is_fair_for_independent_members():
    forecast, truth = sample(11)
    np.testing.assert_allclose(
        crps(forecast, truth, STRATIFIED), crps(forecast, truth, FAIR), rtol=1e-10
    )


def test_stratified_recovers_the_exact_crps_where_fair_is_too_good():
    rng = np.random.default_rng(8)
    cells = 4_000
    # The forecast is the mixture of four fixed checkpoints, in the limit of ever more members.
    offsets = rng.standard_normal((4, 1, cells))
    many = (offsets + norm.ppf((np.arange(50) + 0.5) / 50)[:, None]).reshape(200, cells)
    few = (offsets + rng.standard_normal((4, 4, cells))).reshape(16, cells)
    truth = rng.normal(0, np.sqrt(2), cells)
    structure = Structure(np.repeat(np.arange(4), 4), np.full(16, -1))
    exact = crps(many, truth, STANDARD).mean()
    assert crps(few, truth, STRATIFIED, structure=structure).mean() == pytest.approx(
        exact, abs=6e-3
    )
    assert crps(few, truth, FAIR).mean() < exact - 0.006


def test_stratified_refuses_a_group_without_independent_members():
    forecast, truth = sample(4)
    structure = Structure(np.array([0, 0, 0, 1]), np.full(4, -1))
    with pytest.raises(InputError, match=r"two independent members in every group.*\[3\]"):
        crps(forecast, truth, STRATIFIED, structure=structure)
