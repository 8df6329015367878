import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linprog, minimize

from data.errors import InputError, StoreError
from scoring.calibration.quantile_regression import QuantileRegression, Terms
from scoring.quantiles import quantile_score

LEVELS = [0.1, 0.3, 0.5, 0.7, 0.9]
NORMAL = np.array([-1.2816, -0.5244, 0.0, 0.5244, 1.2816])
BY_SITE = Terms(((), ("site",)), ((), ("site",)), ((), ("site",)))
OFFSET = Terms(((),), (), ())


def case(dates: int = 400, seed: int = 0):
    """Quantiles of a Gaussian, and truth of twice the spread whose mean is 1 + 0.8 m at one site
    and -2 + 1.1 m at the other."""
    rng = np.random.default_rng(seed)
    centre, width = rng.normal(3, 4, (dates, 2)), rng.uniform(0.5, 2, (dates, 2))
    quantiles = centre[..., None] + width[..., None] * NORMAL
    mean = np.array([1.0, -2.0]) + np.array([0.8, 1.1]) * centre
    truth = mean + 2 * width * rng.standard_normal((dates, 2))
    at = {"init_time": np.arange(dates), "site": ["a", "b"]}
    dims = ("init_time", "site")
    return (
        xr.DataArray(quantiles, at | {"quantile": LEVELS}, (*dims, "quantile")),
        xr.DataArray(truth, at, dims),
    )


def fit(quantiles, truth, terms=BY_SITE, ridge=1e-6, **settings):
    return QuantileRegression.fit(quantiles, truth, terms, ridge, **settings)


def test_planted_mean_and_spread_of_each_site_are_recovered():
    quantiles, truth = case(4000)
    new, _ = case(50, 1)
    middle = new.sel(quantile=0.5, drop=True)
    found = fit(quantiles, truth, smoothing=0.02).apply(new)
    mean = xr.DataArray([1.0, -2.0], dims="site") + xr.DataArray([0.8, 1.1], dims="site") * middle
    expected = mean + 2 * (new - middle)
    assert float(np.sqrt(((found - expected) ** 2).mean())) < 0.15


def test_nearly_without_smoothing_and_penalty_it_is_the_linear_programme():
    quantiles, truth = case(60)
    found = QuantileRegression.fit(quantiles, truth, Terms(), 1e-9, smoothing=1e-3).apply(quantiles)
    y, middle = truth.values.ravel(), quantiles.sel(quantile=0.5).values.ravel()
    for index, level in enumerate(LEVELS):
        own = quantiles.isel(quantile=index).values.ravel()
        design = np.stack([np.ones(y.size), middle, own - middle], 1)
        both, cost = np.eye(y.size), np.repeat([level, 1 - level], y.size)
        least = linprog(
            np.concatenate([np.zeros(3), cost]),
            A_eq=np.hstack([design, both, -both]),
            b_eq=y,
            bounds=[(None, None)] * 3 + [(0, None)] * (2 * y.size),
        ).fun
        rest = y - found.isel(quantile=index).values.ravel()
        loss = np.maximum(level * rest, (level - 1) * rest).sum()
        assert least - 1e-9 <= loss <= 1.003 * least


def test_coefficients_make_the_documented_objective_least():
    quantiles, truth = case(80)
    ridge, smoothing = 0.02, 0.3
    fitted = fit(quantiles, truth, Terms(), ridge, smoothing=smoothing)
    y, middle = truth.values.ravel(), quantiles.sel(quantile=0.5).values.ravel()
    unit = np.abs(y - y.mean()).mean()
    for index, level in enumerate(LEVELS):
        own = quantiles.isel(quantile=index).values.ravel()
        design = np.stack([np.ones(y.size), (middle - middle.mean()) / unit, (own - middle) / unit])

        def objective(at, own=own, design=design, level=level):
            rest = (y - own) / unit - at @ design
            loss = level * rest + smoothing * np.log1p(np.exp(-rest / smoothing))
            return loss.mean() + ridge * (at**2).sum()

        best = minimize(objective, np.zeros(3), tol=1e-9).x
        np.testing.assert_allclose(fitted.coefficients[:, index], best, atol=1e-4)


def test_one_offset_leaves_as_many_truths_below_as_the_level_says():
    quantiles, truth = case()
    calibrated = fit(quantiles, truth, OFFSET, 1e-9, smoothing=1e-3).apply(quantiles)
    below = (truth <= calibrated).mean(["init_time", "site"])
    np.testing.assert_allclose(below, LEVELS, atol=0.01)


def test_a_large_penalty_leaves_the_forecast_and_a_small_one_betters_it():
    quantiles, truth = case()
    scores = []
    for ridge in (1e9, 1.0, 0.1, 1e-3):
        calibrated = fit(quantiles, truth, ridge=ridge).apply(quantiles)
        scores.append(float(quantile_score(calibrated, truth).mean()))
        if ridge == 1e9:
            np.testing.assert_allclose(calibrated, quantiles, atol=1e-6)
    assert (np.diff(scores) < 0).all()


def test_units_do_not_matter():
    quantiles, truth = case(100)
    direct = fit(quantiles, truth, ridge=0.05).apply(quantiles)
    scaled = fit(300 + 10 * quantiles, 300 + 10 * truth, ridge=0.05).apply(300 + 10 * quantiles)
    np.testing.assert_allclose(scaled, 300 + 10 * direct, rtol=1e-6)


def test_order_of_cases_and_dimensions_does_not_matter():
    quantiles, truth = case(100)
    direct = fit(quantiles, truth, ridge=0.05).apply(quantiles)
    order = np.random.default_rng(3).permutation(100)
    turned = quantiles.isel(init_time=order).transpose("quantile", "site", "init_time")
    found = fit(turned, truth.isel(init_time=order), ridge=0.05).apply(turned)
    assert found.dims == turned.dims
    np.testing.assert_allclose(found.sortby("init_time").transpose(*direct.dims), direct, rtol=1e-6)


def test_weight_zero_and_missing_truth_leave_a_case_out():
    quantiles, truth = case(100)
    fewer = fit(quantiles.isel(init_time=slice(60)), truth.isel(init_time=slice(60)))
    first = (truth.init_time < 60).astype(float)
    weighted = fit(quantiles, truth, weights=first)
    missing = fit(quantiles, truth.where(truth.init_time < 60))
    for other in (weighted, missing):
        np.testing.assert_allclose(other.coefficients, fewer.coefficients, rtol=1e-9, atol=1e-12)


def test_twice_the_weight_is_the_case_twice():
    quantiles, truth = case(60)
    twice = np.concatenate([np.arange(60), np.arange(20)])
    weights = xr.DataArray(
        np.where(np.arange(60) < 20, 2.0, 1.0), {"init_time": np.arange(60)}, "init_time"
    )
    repeated = fit(quantiles.isel(init_time=twice), truth.isel(init_time=twice), ridge=0.01)
    found = fit(quantiles, truth, ridge=0.01, weights=weights)
    np.testing.assert_allclose(found.coefficients, repeated.coefficients, atol=1e-6)


def test_a_group_with_few_cases_leans_on_all():
    quantiles, truth = case(200)
    few = truth.where((truth.site == "a") | (truth.init_time < 2))
    fitted = fit(quantiles, few, Terms(((), ("site",)), (), ()), ridge=0.05)
    own = fitted.coefficients.sel(quantile=0.5)
    assert abs(own.sel(term="offset site=b")) < 0.2 * abs(own.sel(term="offset site=a"))


def test_crossed_labels_have_coefficients_of_their_own():
    quantiles, truth = case(400)
    half = ("init_time", np.where(np.arange(400) < 200, "early", "late"))
    quantiles = quantiles.assign_coords(half=half)
    jump = xr.where((quantiles.half == "late") & (quantiles.site == "b"), 5.0, 0.0)
    terms = Terms(((), ("site",), ("half",), ("site", "half")), ((),), ((),))
    fitted = fit(quantiles, truth + jump.drop_vars("half"), terms)
    assert fitted.coefficients.sizes["term"] == 1 + 2 + 2 + 4 + 2
    part = fitted.coefficients.sel(quantile=0.5, drop=True)
    crossed = {
        (site, when): float(part.sel(term=f"offset site={site} half={when}"))
        for site in "ab"
        for when in ("early", "late")
    }
    contrast = crossed["b", "late"] - crossed["b", "early"]
    contrast -= crossed["a", "late"] - crossed["a", "early"]
    assert max(crossed, key=crossed.get) == ("b", "late")
    assert contrast > 0
    below = (truth + jump <= fitted.apply(quantiles).sel(quantile=0.5)).mean("init_time")
    np.testing.assert_allclose(below, 0.5, atol=0.03)


def test_levels_come_out_in_order():
    quantiles, truth = case(20)
    found = fit(quantiles, truth, smoothing=1e-3).apply(case(500, 5)[0])
    assert (found.diff("quantile") >= 0).all()


def test_what_was_saved_gives_the_same(tmp_path):
    quantiles, truth = case(50)
    fitted = fit(quantiles, truth)
    fitted.save(tmp_path / "regression.zarr")
    loaded = QuantileRegression.load(tmp_path / "regression.zarr")
    assert loaded.terms == BY_SITE
    xr.testing.assert_identical(loaded.apply(quantiles), fitted.apply(quantiles))
    with pytest.raises(StoreError, match="quantile regression"):
        QuantileRegression.load(tmp_path / "nothing.zarr")


def test_errors_name_what_was_found():
    quantiles, truth = case(20)
    with pytest.raises(InputError, match="season"):
        fit(quantiles, truth, Terms((("season",),)))
    with pytest.raises(InputError, match="no case"):
        fit(quantiles, truth * np.nan)
    with pytest.raises(InputError, match="positive"):
        fit(quantiles, truth, ridge=0.0)
    with pytest.raises(InputError, match="dimensions"):
        fit(quantiles, truth.isel(site=0))
    with pytest.raises(InputError, match="coordinates"):
        fit(quantiles, truth.assign_coords(site=["a", "c"]))
    fitted = fit(quantiles, truth)
    with pytest.raises(InputError, match=r"\['c'\]"):
        fitted.apply(quantiles.assign_coords(site=["a", "c"]))
    with pytest.raises(InputError, match="levels"):
        fitted.apply(quantiles.isel(quantile=slice(1, 4)))
