import numpy as np
import pytest
from scipy import fft

from data.key import Key
from scoring.bootstrap import (
    automatic_block_length,
    lag_one_autocorrelation,
    stationary_positions,
)
from scoring.cosines import Weights
from scoring.sample import of_mean
from scoring.significance import StationaryBootstrap
from tests.scoring.series import PERSISTENT, PROCESSES, dated, series


def test_block_length_is_that_of_the_published_formula():
    for seed, process in enumerate(PROCESSES.values()):
        values = series(process, 80, 2, seed)
        expected = [block_length_by_definition(one) for one in values.T]
        np.testing.assert_allclose(automatic_block_length(values), expected, rtol=1e-12)


def block_length_by_definition(values: np.ndarray) -> float:
    """Politis and White (2004) with the correction of 2009, one sum at a time."""
    n = len(values)
    centred = values - values.mean()

    def covariance(lag: int) -> float:
        return sum(centred[t] * centred[t + abs(lag)] for t in range(n - abs(lag))) / n

    band = 2 * np.sqrt(np.log10(n) / n)
    most = int(np.ceil(np.sqrt(n))) + 5
    bandwidth = most
    for lag in range(1, most - 3):
        if all(abs(covariance(lag + k)) < band * covariance(0) for k in range(5)):
            bandwidth = min(2 * lag, most)
            break
    window = {k: min(1.0, 2 * (1 - abs(k) / bandwidth)) for k in range(-bandwidth, bandwidth + 1)}
    slope = sum(window[k] * abs(k) * covariance(k) for k in window)
    variance = 2 * sum(window[k] * covariance(k) for k in window) ** 2
    length = (2 * slope**2 / variance) ** (1 / 3) * n ** (1 / 3)
    return float(np.clip(length, 1.0, np.ceil(min(3 * np.sqrt(n), n / 3))))


def test_block_lengths_are_those_of_arch():
    """Fixed numbers: `arch.bootstrap.optimal_block_length`, arch 8.0.0, of the same series."""
    found = [
        automatic_block_length(series(PROCESSES[name], 150, 1, 7))[0]
        for name in ("AR(1) 0.3", "AR(1) 0.5", "AR(2) 1.0, -0.3", "MA(4), equal")
    ]
    expected = [3.365421120006566, 4.800585400318104, 6.121539734073008, 7.279964174942134]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_constant_series_has_blocks_of_one():
    assert automatic_block_length(np.ones((12, 2))).tolist() == [1.0, 1.0]
    assert np.isnan(lag_one_autocorrelation(np.ones((12, 2)))).all()


def test_blocks_run_on_and_have_the_mean_length():
    positions = stationary_positions(50, 4.0, 2000, np.random.default_rng(4))
    goes_on = np.diff(positions, axis=1) % 50 == 1
    # A new block may start where the old one would have gone on: 1/50 of the starts.
    assert goes_on.mean() == pytest.approx(1 - 1 / 4 + 1 / 4 / 50, abs=0.004)
    assert np.bincount(positions.ravel()).std() < 0.05 * positions.size / 50


def test_variance_of_drawn_means_is_the_closed_form():
    """Politis and Romano (1994), lemma 1: circular covariances, weights of geometric lengths."""
    n, length = 40, 5.0
    values = series(PROCESSES["AR(1) 0.5"], n, 1, 5)[:, 0]
    centred = values - values.mean()
    circular = [centred @ np.roll(centred, lag) / n for lag in range(n)]
    stay = 1 - 1 / length
    weights = [(1 - lag / n) * stay**lag + lag / n * stay ** (n - lag) for lag in range(1, n)]
    expected = (circular[0] + np.dot(weights, circular[1:])) / n
    positions = stationary_positions(n, length, 40_000, np.random.default_rng(6))
    assert values[positions].mean(axis=1).var() == pytest.approx(expected, rel=0.03)


def test_bootstrap_is_its_definition_one_draw_at_a_time():
    values = series(PROCESSES["AR(1) 0.5"], 24, 1, 8)[:, 0] + 0.4
    test = StationaryBootstrap(Key(5), draws=99, block_length=3.0)
    result = test.of(of_mean(dated(values[:, None])))
    generator = (Key(5) / 24 / "3").generator()
    positions = stationary_positions(24, 3.0, 99, generator)

    weights = Weights.adapted(values[:, None])
    cut = lag_one_autocorrelation(values[:, None]) * (1 - 1 / 3)

    def error(one: np.ndarray, weights: Weights) -> float:
        squares = fft.dct(one, norm="ortho")[1:4] ** 2  # 0.4 * 24^(2/3) = 3.3
        return np.sqrt((weights.values[:, 0] * squares).sum() / 24)

    drawn = weights.among(cut, 24)
    ratios = [abs(one.mean() - values.mean()) / error(one, drawn) for one in values[positions]]
    reached = abs(values.mean()) / error(values, weights)
    assert result.p_value.item() == (1 + np.sum(np.array(ratios) >= reached)) / 100
    half = np.sort(ratios)[94] * error(values, weights)
    assert (result.upper - result.estimate).item() == pytest.approx(half)


def test_blocks_of_each_series_are_of_the_length_that_its_distribution_asks_for():
    values = series(PERSISTENT["AR(1) 0.8"], 120, 2, 9)
    test = StationaryBootstrap(Key(6), draws=49)
    found = test.of(of_mean(dated(values)))
    lengths = np.ceil(automatic_block_length(values) * 120 ** (1 / 5 - 1 / 3))
    assert (lengths < np.ceil(automatic_block_length(values))).all()
    for cell, length in enumerate(lengths):
        by_hand = StationaryBootstrap(Key(6), 49, float(length)).of(of_mean(dated(values)))
        for name in ("p_value", "lower", "upper"):
            np.testing.assert_allclose(found[name][cell], by_hand[name][cell], rtol=1e-12)
