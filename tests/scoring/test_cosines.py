"""Weights of cosines: sums over covariances by definition, and what they are for each series."""

import numpy as np
import pytest
from scipy import fft

from scoring.cosines import (
    Weights,
    cosines,
    effective_dates,
    mean_variance,
    most,
    persistence,
    relative_variance,
    standard_error,
)
from tests.scoring.series import PERSISTENT, PROCESSES, WHITE, series


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.95])
@pytest.mark.parametrize("size", [7, 20])
def test_variances_are_the_sums_over_the_covariances_of_an_autoregression(rho, size):
    time = np.arange(size)
    covariance = rho ** np.abs(time[:, None] - time)
    of_mean = covariance.sum() / size
    basis = cosines(size, size - 1)
    expected = np.diag(basis.T @ covariance @ basis) / of_mean
    autocorrelation = np.array([rho])
    assert mean_variance(autocorrelation, size)[0] == pytest.approx(of_mean, rel=1e-12)
    found = relative_variance(autocorrelation, size, size - 1)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("size", [4, 5, 12, 31, 60, 365])
def test_variances_fall_from_cosine_to_cosine(size):
    found = relative_variance(np.linspace(0, 0.99, 100), size, most(size))
    assert (np.diff(found, axis=0) <= 1e-12).all()
    assert (found <= 1 + 1e-12).all()


def test_cosines_are_those_of_the_transform():
    values = np.random.default_rng(1).normal(size=(12, 3))
    np.testing.assert_allclose(
        cosines(12, 4).T @ values, fft.dct(values, norm="ortho", axis=0)[1:5], atol=1e-12
    )


@pytest.mark.parametrize(("size", "number"), [(4, 1), (30, 3), (125, 10), (200, 13)])
def test_cosines_are_rounded_down(size, number):
    assert most(size) == number


def test_autocorrelation_of_few_values_is_right_on_average():
    values = series(PROCESSES["AR(1) 0.5"], 40, 20_000, 2)
    assert persistence(values).mean() == pytest.approx(0.5, abs=0.01)
    assert (persistence(values) <= persistence(values, deviations=1)).all()


def test_a_constant_series_is_of_independent_values():
    assert persistence(np.ones((8, 1))).tolist() == [0.0]
    assert effective_dates(np.ones((8, 1))).tolist() == [8.0]


def test_weights_are_one_over_the_relative_variances_of_those_that_count():
    values = series(PERSISTENT["AR(1) 0.8"], 100, 50, 3)
    found = Weights.adapted(values)
    for weights, rho in zip(found.values.T, persistence(values, deviations=1), strict=True):
        relative = relative_variance(np.array([rho]), 100, 8)[:, 0]
        below = np.flatnonzero(relative < 0.6)
        number = max(1, below[0] if below.size else 8)
        expected = np.where(np.arange(8) < number, 1 / (number * relative), 0.0)
        np.testing.assert_allclose(weights, expected)
    assert set(found.degrees) >= {2, 3, 4}


def test_the_more_alike_neighbours_are_the_fewer_cosines_count():
    degrees = [
        Weights.adapted(series(process, 100, 500, 4)).degrees.mean()
        for process in (WHITE, PROCESSES["AR(1) 0.5"], PERSISTENT["AR(1) 0.8"])
    ]
    assert degrees[0] == 8
    assert degrees[0] > degrees[1] > degrees[2] > 1


def test_variance_of_a_mean_is_right_on_average_where_the_autocorrelation_is_known():
    rho, size = 0.8, 60
    values = series(PERSISTENT["AR(1) 0.8"], size, 20_000, 5)
    weights = Weights.equal(4, values.shape[1]).among(np.full(values.shape[1], rho), size)
    square = standard_error(values - values.mean(axis=0), cosines(size, 4), weights) ** 2
    assert square.mean() == pytest.approx(values.mean(axis=0).var(), rel=0.04)


def test_effective_dates_are_those_of_the_variance_of_the_mean():
    values = series(PROCESSES["AR(1) 0.5"], 400, 500, 6)
    assert np.median(effective_dates(values)) == pytest.approx(400 / 3, rel=0.05)
