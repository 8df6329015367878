import numpy as np
import pytest
import scoringrules
import xarray as xr
from scipy.stats import norm

from data.errors import InputError
from scoring.crps import CRPS
from scoring.gaussian import GaussianCRPS, crps_gaussian


def forecasts() -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(0)
    mean, truth = rng.normal(280, 5, (2, 30))
    return tuple(xr.DataArray(x, dims="x") for x in (mean, rng.uniform(0.1, 4, 30), truth))


def test_crps_is_that_of_scoringrules_and_of_the_closed_form():
    mean, spread, truth = forecasts()
    found = crps_gaussian(mean, spread, truth)
    expected = scoringrules.crps_normal(truth.values, mean.values, spread.values, backend="numpy")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    z = (truth - mean) / spread
    closed = spread * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(found, closed, rtol=1e-12)


def test_without_spread_it_is_the_absolute_error():
    mean, spread, truth = forecasts()
    np.testing.assert_array_equal(crps_gaussian(mean, spread * 0, truth), np.abs(mean - truth))
    constant = xr.DataArray(np.full((4, 2), 3.0), dims=("number", "x"))
    found = GaussianCRPS()(constant, xr.DataArray([3.0, 5.0], dims="x"))
    np.testing.assert_allclose(found, [0.0, 2.0])
    assert np.isnan(crps_gaussian(mean * np.nan, spread, truth)).all()
    with pytest.raises(InputError, match="must not be negative, found -4"):
        crps_gaussian(mean, xr.full_like(spread, -4.0), truth)


def test_of_an_ensemble_it_is_that_of_its_mean_and_variance():
    rng = np.random.default_rng(1)
    forecast = xr.DataArray(rng.normal(54_000, 60, (12, 40)), dims=("number", "x"))
    truth = xr.DataArray(rng.normal(54_000, 60, 40), dims="x")
    expected = crps_gaussian(forecast.mean("number"), forecast.std("number", ddof=1), truth)
    np.testing.assert_allclose(GaussianCRPS()(forecast, truth), expected, rtol=1e-8)


def test_of_a_large_gaussian_ensemble_it_is_its_crps():
    rng = np.random.default_rng(2)
    forecast = xr.DataArray(rng.standard_normal((4000, 20)), dims=("number", "x"))
    truth = xr.DataArray(rng.standard_normal(20), dims="x")
    np.testing.assert_allclose(GaussianCRPS()(forecast, truth), CRPS()(forecast, truth), atol=0.03)
