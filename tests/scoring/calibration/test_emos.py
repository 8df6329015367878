import numpy as np
import pytest
import scoringrules
import torch
import xarray as xr

from data.errors import InputError, StoreError
from scoring.calibration.emos import GAUSSIAN, TRUNCATED_GAUSSIAN, Emos

A, B, C, D = 1.5, 0.9, 0.6, 1.3


def case(dates: int = 300, cells: int = 4, members: int = 30, seed: int = 0):
    """Members, and truth from the Gaussian with mean A + B m and variance C^2 + D^2 s^2."""
    rng = np.random.default_rng(seed)
    centre, width = rng.normal(10, 4, (dates, cells)), rng.uniform(0.5, 2, (dates, cells))
    members = centre[..., None] + width[..., None] * rng.standard_normal((dates, cells, members))
    scale = np.sqrt(C**2 + D**2 * members.var(-1, ddof=1))
    truth = A + B * members.mean(-1) + scale * rng.standard_normal((dates, cells))
    return (
        xr.DataArray(members, dims=("init_time", "cell", "number")),
        xr.DataArray(truth, dims=("init_time", "cell")),
    )


def wind(seed: int, dates: int = 400):
    """A wind that is never below zero, forecast too weak and too sure."""
    rng = np.random.default_rng(seed)
    centre = rng.gamma(2.0, 1.5, (dates, 1))
    members = np.maximum(centre + 0.4 * rng.standard_normal((dates, 20)), 0.0)
    truth = np.abs(centre[:, 0] + 0.5 + 1.2 * rng.standard_normal(dates))
    return (
        xr.DataArray(members[:, None], dims=("init_time", "cell", "number")),
        xr.DataArray(truth[:, None], dims=("init_time", "cell")),
    )


def tensors(*values):
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)


def test_crps_in_closed_form_is_that_of_scoringrules():
    rng = np.random.default_rng(0)
    y, m, s = rng.uniform(0, 6, 50), rng.normal(2, 2, 50), rng.uniform(0.5, 2, 50)
    np.testing.assert_allclose(
        GAUSSIAN.crps(*tensors(y, m, s)), scoringrules.crps_normal(y, m, s), rtol=1e-9
    )
    np.testing.assert_allclose(
        TRUNCATED_GAUSSIAN.crps(*tensors(y, m, s)),
        scoringrules.crps_tnormal(y, m, s, lower=0.0),
        rtol=1e-6,
    )


@pytest.mark.parametrize("family", [GAUSSIAN, TRUNCATED_GAUSSIAN], ids=lambda f: f.name)
def test_crps_is_twice_the_pinball_loss_over_all_levels(family):
    y, m, s = tensors(1.7, 0.8, 1.5)
    levels = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    quantiles = family.quantile(levels, m, s)
    loss = torch.where(y >= quantiles, levels * (y - quantiles), (1 - levels) * (quantiles - y))
    assert float(2 * loss.mean()) == pytest.approx(float(family.crps(y, m, s)), rel=1e-4)


def test_planted_parameters_are_recovered():
    fitted = Emos.fit(*case(3000, 2), over=("init_time", "cell"))
    np.testing.assert_allclose(fitted.parameters, [A, B, C, D], rtol=0.12)


def test_location_and_scale_are_those_of_the_parameters():
    forecast, _ = case(20, 3)
    parameters = xr.DataArray([0.5, 1.2, -0.7, 1.9], {"parameter": list("abcd")}, "parameter")
    location, scale = Emos(parameters).location_and_scale(forecast)
    mean, variance = forecast.mean("number"), forecast.var("number", ddof=1)
    np.testing.assert_allclose(location, 0.5 + 1.2 * mean)
    np.testing.assert_allclose(scale, np.sqrt(0.49 + 3.61 * variance))


def test_no_other_parameters_score_better():
    forecast, truth = case(200, 1)
    fitted = Emos.fit(forecast, truth)
    best = float(fitted.crps(forecast, truth).mean())
    rng = np.random.default_rng(1)
    for _ in range(40):
        other = fitted.parameters * (1 + 0.03 * rng.standard_normal(4))
        assert float(Emos(other).crps(forecast, truth).mean()) > best


def test_groups_are_fitted_each_by_itself():
    forecast, truth = case(100, 3)
    together = Emos.fit(forecast, truth)
    for cell in range(3):
        alone = Emos.fit(forecast.isel(cell=[cell]), truth.isel(cell=[cell]))
        np.testing.assert_allclose(
            alone.parameters, together.parameters.isel(cell=[cell]), rtol=1e-3, atol=1e-3
        )


def test_quantiles_of_new_cases_cover_as_promised():
    fitted = Emos.fit(*case(seed=0), over=("init_time", "cell"))
    forecast, truth = case(1000, seed=1)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    quantiles = fitted.quantiles(forecast, levels)
    assert quantiles.dims == ("init_time", "cell", "quantile")
    below = (truth <= quantiles).mean(("init_time", "cell"))
    np.testing.assert_allclose(below, levels, atol=0.025)


def test_wind_is_never_below_zero_and_better_than_raw():
    fitted = Emos.fit(*wind(0), family=TRUNCATED_GAUSSIAN)
    forecast, truth = wind(1)
    quantiles = fitted.quantiles(forecast, [0.01, 0.1, 0.5, 0.9, 0.99])
    assert float(quantiles.min()) >= 0
    assert (quantiles.diff("quantile") > 0).all()
    raw = scoringrules.crps_ensemble(truth.values, forecast.values).mean()
    calibrated = float(fitted.crps(forecast, truth).mean())
    assert calibrated < 0.9 * raw
    assert calibrated <= float(Emos.fit(*wind(0)).crps(forecast, truth).mean())
    np.testing.assert_allclose((truth <= quantiles).mean(("init_time", "cell"))[[1, 3]], [0.1, 0.9],
                               atol=0.05)  # fmt: skip


def test_cases_without_truth_are_left_out():
    forecast, truth = case(120, 2)
    some = {"init_time": slice(0, 80)}
    left = Emos.fit(forecast, truth.where(truth.init_time < 80))
    right = Emos.fit(forecast.isel(some), truth.isel(some))
    np.testing.assert_allclose(left.parameters, right.parameters, rtol=1e-3, atol=1e-3)


def test_it_does_not_depend_on_the_unit():
    forecast, truth = case(150, 2)
    metres, millimetres = Emos.fit(forecast, truth), Emos.fit(1000 * forecast, 1000 * truth)
    scale = xr.DataArray([1000.0, 1.0, 1000.0, 1.0], dims="parameter")
    # One is zero but for rounding, which differs between processors.
    np.testing.assert_allclose(
        metres.parameters * scale, millimetres.parameters, rtol=1e-3, atol=1e-6
    )


def test_parameters_survive_a_save_and_load(tmp_path):
    forecast, truth = wind(0)
    fitted = Emos.fit(forecast, truth, family=TRUNCATED_GAUSSIAN)
    fitted.save(tmp_path / "emos.zarr")
    loaded = Emos.load(tmp_path / "emos.zarr")
    assert loaded.family == TRUNCATED_GAUSSIAN
    xr.testing.assert_identical(loaded.parameters, fitted.parameters)
    with pytest.raises(StoreError, match="no EMOS parameters"):
        Emos.load(tmp_path / "nothing.zarr")


def test_too_few_cases_are_refused():
    forecast, truth = case(9)
    with pytest.raises(InputError, match="at least 10 cases in every group, found 9"):
        Emos.fit(forecast, truth)
