import numpy as np
import pytest
import xarray as xr
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from data.errors import InputError
from data.key import Key
from scoring.calibration.pools import (
    UNTRAINED,
    BestModel,
    LinearPool,
    LogarithmicPool,
    Mean,
    Median,
    TrimmedMean,
)

LEVELS = np.array([0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])


def normal_models(mean: np.ndarray, deviation: np.ndarray) -> xr.DataArray:
    """Normal distributions, (case, model, quantile)."""
    values = mean[..., None] + deviation[..., None] * ndtri(LEVELS)
    names = [f"m{number}" for number in range(mean.shape[1])]
    return xr.DataArray(values, {"model": names, "quantile": LEVELS}, ("case", "model", "quantile"))


def some_models(cases: int = 30, models: int = 4) -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    draw = Key(0).generator()
    mean, deviation = draw.normal(size=(cases, models)), draw.uniform(0.5, 2.0, (cases, models))
    return normal_models(mean, deviation), mean, deviation


@pytest.mark.parametrize("weights", [None, (0.4, 0.3, 0.2, 0.1)])
def test_linear_pool_of_normals_is_their_mixture(weights):
    quantiles, mean, deviation = some_models()
    shares = np.full(4, 0.25) if weights is None else np.array(weights)
    found = LinearPool(weights).of(quantiles)
    for case in range(30):
        expected = [
            brentq(
                lambda x, case=case, level=level: (
                    ndtr((x - mean[case]) / deviation[case]) @ shares - level
                ),
                -50,
                50,
            )
            for level in LEVELS
        ]
        np.testing.assert_allclose(found[case], expected, atol=0.03)


@pytest.mark.parametrize("weights", [None, (0.4, 0.3, 0.2, 0.1)])
def test_logarithmic_pool_of_normals_weighs_precisions(weights):
    quantiles, mean, deviation = some_models()
    shares = np.full(4, 0.25) if weights is None else np.array(weights)
    precision = shares / deviation**2
    total = precision.sum(axis=1)
    centre = (precision * mean).sum(axis=1) / total
    expected = centre[:, None] + ndtri(LEVELS) / np.sqrt(total)[:, None]
    np.testing.assert_allclose(LogarithmicPool(weights).of(quantiles), expected, atol=0.05)


@pytest.mark.parametrize("pool", UNTRAINED)
def test_a_model_combined_with_itself_stays_as_it_is(pool):
    one = some_models()[0].isel(model=[0, 0, 0]).assign_coords(model=["a", "b", "c"])
    np.testing.assert_allclose(pool.of(one), one[:, 0], atol=0.03)


@pytest.mark.parametrize("pool", UNTRAINED)
def test_order_and_units_of_models_do_not_matter(pool):
    quantiles = some_models()[0]
    expected = pool.of(quantiles)
    found = pool.of(quantiles.isel(model=[2, 0, 3, 1]))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    found = pool.of(1e-3 * quantiles + 5)
    np.testing.assert_allclose(found, 1e-3 * expected + 5, rtol=1e-8)
    turned = pool.of(quantiles.transpose("quantile", "model", "case"))
    assert turned.dims == ("quantile", "case")
    np.testing.assert_allclose(turned.T, expected, atol=1e-9)


@pytest.mark.parametrize("pool", [*UNTRAINED, LinearPool((4.0, 3.0, 2.0, 1.0))])
def test_missing_models_are_left_out_case_by_case(pool):
    quantiles = some_models(6)[0]
    quantiles[1, 2] = np.nan
    quantiles[2, :3] = np.nan
    quantiles[3] = np.nan
    found = pool.of(quantiles)
    assert np.isnan(found[3]).all()
    assert int(found.isnull().sum()) == LEVELS.size
    np.testing.assert_allclose(found[2], quantiles[2, 3], atol=0.03)
    assert (found.diff("quantile") >= -1e-12).where(found[..., 1:].notnull(), True).all()
    if isinstance(pool, LinearPool) and pool.weights:
        pool = LinearPool((4.0, 3.0, 1.0))
    there = quantiles.isel(case=[1], model=[0, 1, 3])
    np.testing.assert_allclose(found[[1]], pool.of(there), atol=0.03)


def test_pools_bear_point_masses():
    values = np.zeros((1, 3, LEVELS.size))
    values[0, 1, 4:] = 3.0
    quantiles = normal_models(np.zeros((1, 3)), np.ones((1, 3))).copy(data=values)
    found = LinearPool().of(quantiles)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sel(quantile=[0.1, 0.5]), 0, atol=1e-3)
    np.testing.assert_allclose(found.sel(quantile=[0.9, 0.95]), 3, atol=0.1)
    assert np.isfinite(LogarithmicPool().of(quantiles)).all()


def test_trimmed_mean_leaves_out_as_many_at_both_ends():
    quantiles = some_models(5, 8)[0]
    ordered = np.sort(quantiles.transpose("case", "quantile", "model").values, axis=-1)
    np.testing.assert_allclose(TrimmedMean(0.25).of(quantiles), ordered[..., 2:6].mean(axis=-1))
    np.testing.assert_allclose(TrimmedMean(0.1).of(quantiles), ordered.mean(axis=-1))
    np.testing.assert_allclose(Median().of(quantiles), quantiles.median("model"))
    odd = quantiles.where(quantiles["model"] != "m0")
    np.testing.assert_allclose(Median().of(odd), odd.median("model"))
    np.testing.assert_allclose(Mean().of(odd), odd.mean("model"))


def test_best_model_is_ranked_on_its_own_cases_and_replaced_where_it_is_missing():
    draw = Key(1).generator()
    truth = xr.DataArray(draw.normal(size=400), dims="case")
    error = np.array([0.1, 1.0, 3.0]) * draw.normal(size=(400, 3))
    quantiles = normal_models(truth.values[:, None] + error, np.ones((400, 3)))
    # The best one skips the cases that are easy for all.
    quantiles[np.abs(error[:, 2]) < 2, 0] = np.nan
    best = BestModel.fit(quantiles, truth)
    assert best.ranking == ("m0", "m1", "m2")
    found = best.of(quantiles)
    assert found.notnull().all()
    missing = np.isnan(quantiles[:, 0, 0].values)
    np.testing.assert_array_equal(found[missing], quantiles[missing, 1])
    np.testing.assert_array_equal(found[~missing], quantiles[~missing, 0])
    with pytest.raises(InputError, match="no model has a case"):
        BestModel.fit(quantiles, truth.where(truth > 1e9))


def test_weights_must_be_one_for_each_model():
    with pytest.raises(InputError, match="2 weights were given for 4 models"):
        LinearPool((0.5, 0.5)).of(some_models()[0])
    weights = xr.DataArray([[0.2, 0.4], [0.8, 0.6]], dims=("model", "quantile"))
    assert LinearPool.weighted(weights).weights == pytest.approx((0.3, 0.7))
