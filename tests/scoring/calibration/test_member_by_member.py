import numpy as np
import pytest
import scoringrules
import xarray as xr

from data.errors import InputError, StoreError
from scoring.calibration.member_by_member import MemberByMember


def case(dates: int, seed: int, cells: int = 2, members: int = 20):
    """Members that are biased and too much alike; the flow sets how uncertain a date is."""
    rng = np.random.default_rng(seed)
    centre, width = rng.normal(10, 4, (dates, cells)), rng.uniform(0.5, 2, (dates, cells))
    members = centre[..., None] + width[..., None] * rng.standard_normal((dates, cells, members))
    truth = 2 + 0.8 * centre + 1.8 * width * rng.standard_normal((dates, cells))
    return (
        xr.DataArray(members.astype(np.float32), dims=("init_time", "cell", "number")),
        xr.DataArray(truth.astype(np.float32), dims=("init_time", "cell")),
    )


def crps(forecast, truth) -> float:
    return float(scoringrules.crps_ensemble(truth.values, forecast.values, estimator="nrg").mean())


def test_calibrated_members_are_better_and_as_spread_as_they_err():
    fitted = MemberByMember.fit(*case(400, 0), over=("init_time", "cell"))
    forecast, truth = case(1000, 1)
    calibrated = fitted.apply(forecast)
    assert crps(calibrated, truth) < 0.9 * crps(forecast, truth)
    spread = float(np.sqrt(calibrated.var("number", ddof=1).mean() * 21 / 20))
    error = float(np.sqrt(((calibrated.mean("number") - truth) ** 2).mean()))
    assert spread / error == pytest.approx(1, abs=0.08)


def test_members_are_those_of_the_parameters():
    forecast, _ = case(20, 0, members=7)
    forecast[3] = 5.0
    parameters = xr.DataArray([0.5, 1.2, -0.7, 1.9], {"parameter": list("abcd")}, "parameter")
    found = MemberByMember(parameters).apply(forecast)
    for date, cell in np.ndindex(20, 2):
        own = forecast.values[date, cell].astype(float)
        apart = np.abs(own[:, None] - own[None]).sum() / (7 * 6)
        stretch = np.sqrt(0.49 + (1.9 / apart) ** 2) if apart else 0.0
        expected = 0.5 + 1.2 * own.mean() + stretch * (own - own.mean())
        np.testing.assert_allclose(found.values[date, cell], expected, rtol=1e-5)


def test_planted_parameters_are_recovered():
    rng = np.random.default_rng(4)
    members = rng.normal(10, 4, (4000, 1, 1)) + rng.uniform(0.5, 2, (4000, 1, 1)) * (
        rng.standard_normal((4000, 1, 11))
    )
    forecast = xr.DataArray(members, dims=("init_time", "cell", "number"))
    planted = xr.DataArray([2.0, 0.8, 1.5, 1.0], {"parameter": list("abcd")}, "parameter")
    drawn = MemberByMember(planted).apply(forecast)
    # One of the members is the truth; the others are what is calibrated.
    truth = drawn.isel(number=0)
    found = MemberByMember.fit(forecast, truth).parameters.squeeze("cell")
    np.testing.assert_allclose(found, planted, rtol=0.2)


def test_cases_that_miss_truth_or_a_member_are_left_out():
    forecast, truth = case(120, 2)
    some = {"init_time": slice(20, 80)}
    gaps = forecast.copy()
    gaps[:20, :, 3] = np.nan
    left = MemberByMember.fit(gaps, truth.where(truth.init_time < 80))
    right = MemberByMember.fit(forecast.isel(some), truth.isel(some))
    np.testing.assert_allclose(left.parameters, right.parameters, rtol=1e-3, atol=1e-3)


def test_it_does_not_depend_on_the_unit():
    forecast, truth = case(150, 2)
    metres, millimetres = (MemberByMember.fit(u * forecast, u * truth) for u in (1.0, 1000.0))
    scale = xr.DataArray([1000.0, 1.0, 1.0, 1000.0], dims="parameter")
    np.testing.assert_allclose(metres.parameters * scale, millimetres.parameters, rtol=1e-2)


def test_parameters_survive_a_save_and_load(tmp_path):
    fitted = MemberByMember.fit(*case(60, 1))
    fitted.save(tmp_path / "members.zarr")
    xr.testing.assert_identical(
        MemberByMember.load(tmp_path / "members.zarr").parameters, fitted.parameters
    )
    with pytest.raises(StoreError, match="no members' parameters are"):
        MemberByMember.load(tmp_path / "nothing.zarr")


def test_ranks_of_members_stay():
    forecast, truth = case(100, 0)
    calibrated = MemberByMember.fit(forecast, truth).apply(forecast)
    assert calibrated.dims == forecast.dims
    assert calibrated.dtype == forecast.dtype
    np.testing.assert_array_equal(calibrated.argsort(axis=2), forecast.argsort(axis=2))


def test_no_other_parameters_score_better():
    forecast, truth = case(200, 0, cells=1)
    fitted = MemberByMember.fit(forecast, truth)
    best = crps(fitted.apply(forecast), truth)
    rng = np.random.default_rng(1)
    for _ in range(40):
        other = fitted.parameters * (1 + 0.05 * rng.standard_normal(4))
        assert crps(MemberByMember(other).apply(forecast), truth) > best - 1e-5


def test_a_calibrated_ensemble_is_hardly_changed():
    rng = np.random.default_rng(3)
    members = rng.normal(0, 3, (3000, 1, 1)) + rng.standard_normal((3000, 1, 21))
    forecast = xr.DataArray(members[..., 1:], dims=("init_time", "cell", "number"))
    truth = xr.DataArray(members[..., 0], dims=("init_time", "cell"))
    calibrated = MemberByMember.fit(forecast, truth).apply(forecast)
    assert crps(forecast, truth) - 0.01 < crps(calibrated, truth) < crps(forecast, truth) + 0.002
    ratio = calibrated.std("number").mean() / forecast.std("number").mean()
    assert float(ratio) == pytest.approx(1, abs=0.04)
    np.testing.assert_allclose(calibrated.mean("number"), forecast.mean("number"), atol=0.25)


def test_groups_are_fitted_each_by_itself():
    forecast, truth = case(100, 0)
    together = MemberByMember.fit(forecast, truth).apply(forecast)
    alone = MemberByMember.fit(forecast.isel(cell=[1]), truth.isel(cell=[1]))
    np.testing.assert_allclose(
        alone.apply(forecast.isel(cell=[1])), together.isel(cell=[1]), rtol=1e-3, atol=1e-2
    )


def test_members_that_are_all_alike_stay_together():
    forecast, truth = case(100, 0)
    forecast[50] = 7.0
    calibrated = MemberByMember.fit(forecast, truth).apply(forecast)
    assert float(calibrated[50].std("number").max()) < 1e-4
    assert np.isfinite(calibrated).all()


def test_too_few_cases_are_refused():
    forecast, truth = case(30, 0)
    with pytest.raises(InputError, match="at least 10 cases in every group, found 5"):
        MemberByMember.fit(forecast, truth.where(truth.init_time < 5))
