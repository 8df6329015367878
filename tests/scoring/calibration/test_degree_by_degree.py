import numpy as np
import pytest
import torch
import xarray as xr

from data.errors import InputError
from data.grid import Grid
from data.sphere import Sphere
from scoring.calibration.degree_by_degree import DegreeByDegree
from scoring.calibration.degree_moments import Moments, SpreadMoments, ZonalMoments, analysed
from scoring.quantiles import ensemble_quantiles

GRID = Grid("legendre-gauss", 16, 32)
SPHERE = Sphere(GRID)
DATES, MEMBERS = 60, 10
LEAD = xr.DataArray(
    np.array([24, 48], "timedelta64[h]").astype("timedelta64[ns]"), dims="lead_time"
)


def fields(rng: np.random.Generator, power: np.ndarray, *shape: int) -> np.ndarray:
    """Isotropic fields with this power at each degree, (*shape, latitude, longitude)."""
    count = power.size
    size = (*shape, count, count)
    noise = rng.standard_normal(size) + 1j * rng.standard_normal(size)
    noise[..., 0] = np.sqrt(2) * noise[..., 0].real
    noise *= np.sqrt(2 * np.pi * power / (2 * np.arange(count) + 1))[:, None]
    noise *= np.tri(count)
    coefficients = torch.from_numpy(noise.astype(np.complex64))
    return SPHERE.synthesise(coefficients).numpy()


def world(seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """Members whose mean is too bold and whose spread is too small, most at small scales."""
    rng = np.random.default_rng(seed)
    degree = np.arange(SPHERE.truncation + 1)
    total = 100.0 / (1 + degree) ** 2
    predictable = 1 / (1 + (degree / 5.0) ** 2)
    leads = LEAD.size
    signal = fields(rng, total * predictable, DATES, leads)
    truth = signal + fields(rng, total * (1 - predictable), DATES, leads)
    wrong = fields(rng, total * (1 - predictable) * 0.5, DATES, 1, leads)
    own = fields(rng, total * (1 - predictable) * 0.5, DATES, MEMBERS, leads)
    members = signal[:, None] + wrong + own + 3.0
    dims = ("init_time", "number", "lead_time", "latitude", "longitude")
    at = {"lead_time": LEAD.values, "latitude": GRID.latitude, "longitude": GRID.longitude}
    forecast = xr.DataArray(members.astype(np.float32), at, dims)
    return forecast, xr.DataArray(truth.astype(np.float32), at, (dims[0], *dims[2:]))


def summed(forecast: xr.DataArray, truth: xr.DataArray) -> Moments:
    about = forecast.values[0, 0, 0]
    half = len(forecast) // 2
    parts = [
        Moments.of(members, observed, about, int(number >= half), SPHERE)
        for number, (members, observed) in enumerate(
            zip(forecast.values, truth.values, strict=True)
        )
    ]
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def fitted(forecast: xr.DataArray, truth: xr.DataArray, change: float = np.inf) -> DegreeByDegree:
    return DegreeByDegree.from_moments(summed(forecast, truth), LEAD, SPHERE, change)


def spread_right(forecast: xr.DataArray, truth: xr.DataArray, change: float) -> DegreeByDegree:
    """Fitted in all three steps."""
    calibration = fitted(forecast, truth, change)
    zonal, spread = [], []
    for members, observed in zip(forecast, truth.values, strict=True):
        after = calibration.apply(members).values
        part = ZonalMoments.of_mean(after.mean(axis=0), observed)
        zonal.append(part + ZonalMoments.of_members(after))
    latitudes = sum(zonal[1:], zonal[0])
    calibration = calibration.with_zonal(latitudes)
    for members, observed in zip(forecast, truth.values, strict=True):
        after = calibration.apply(members).values
        spread.append(SpreadMoments.of(members.values, after, observed, SPHERE))
    rest = sum(spread[1:], spread[0])
    return calibration.with_spread(summed(forecast, truth), latitudes, rest, change)


def held(forecast: xr.DataArray, truth: xr.DataArray, level: float) -> float:
    """Share of the truths that the central interval holds."""
    ends = ensemble_quantiles(forecast, [(1 - level) / 2, (1 + level) / 2]).transpose(
        "quantile", ...
    )
    inside = (ends[0].values <= truth.values) & (truth.values <= ends[1].values)
    return float(
        (inside * GRID.area_weights / GRID.area_weights.sum()).sum() / inside[..., 0, 0].size
    )


def power(values: np.ndarray) -> np.ndarray:
    """Mean power by degree, (degree,)."""
    found = SPHERE.power(analysed(values, SPHERE)).numpy()
    return found.reshape(-1, found.shape[-1]).mean(axis=0)


def ratio(forecast: xr.DataArray, truth: xr.DataArray) -> float:
    weights = GRID.area_weights
    mean, variance = forecast.mean("number"), forecast.var("number", ddof=1)
    size = forecast.sizes["number"]
    error = ((mean - truth) ** 2).mean(("init_time", "lead_time")).values
    spread = variance.mean(("init_time", "lead_time")).values
    return float(np.sqrt((size + 1) / size * (spread * weights).sum() / (error * weights).sum()))


def test_spread_and_power_of_new_dates_become_those_of_the_truth():
    calibration = fitted(*world(0))
    forecast, truth = world(1)
    after = xr.concat([calibration.apply(one) for one in forecast], "init_time")
    assert ratio(forecast, truth) < 0.75
    assert abs(ratio(after, truth) - 1) < 0.1
    share = power(after.values)[2:] / power(truth.values)[2:]
    assert abs(share - 1).max() < 0.2
    error = ((after.mean("number") - truth) ** 2).mean()
    assert error < ((forecast.mean("number") - truth) ** 2).mean()


def test_a_lasting_error_is_taken_out():
    calibration = fitted(*world(0))
    forecast, truth = world(1)
    after = xr.concat([calibration.apply(one) for one in forecast], "init_time")
    assert abs(float((forecast - truth).mean())) > 2.9
    assert abs(float((after - truth).mean())) < 0.3


def test_power_changes_by_no_more_than_allowed():
    forecast, truth = world(0)
    forecast = forecast - 3.0
    before = power(forecast[::3].values)[1:]
    for factor in (1.5, 0.6):
        calibration = fitted(forecast, factor * truth, 0.03)
        after = np.stack([calibration.apply(one).values for one in forecast[::3]])
        share = power(after)[1:] / before
        # On a third of the dates that were fitted, the share of the mean in the power varies.
        assert abs(share - 1).max() < 0.1
        assert abs(share - 1).mean() < 0.045
        assert float(calibration.factors.sel(parameter="t").max()) <= 3.0


def test_moments_merge_in_any_order_and_an_unknown_lead_has_no_say():
    forecast, truth = world(0)
    truth[3, 1] = np.nan
    truth[3, 1, 4:, 4:] = 1.0
    about = forecast.values[0, 0, 0]
    parts = [
        Moments.of(forecast.values[i], truth.values[i], about, i % 2, SPHERE) for i in range(4)
    ]
    one = parts[0] + parts[1] + parts[2] + parts[3]
    other = (parts[3] + parts[1]) + (parts[0] + parts[2])
    np.testing.assert_allclose(one.products, other.products)
    np.testing.assert_array_equal(one.dates, [4, 3])
    np.testing.assert_allclose(one.products[:, 1], (parts[0] + parts[1] + parts[2]).products[:, 1])


def test_spread_goes_to_the_latitudes_that_err():
    rng = np.random.default_rng(3)
    north = np.where(GRID.latitude > 0, 2.0, 1.0)[:, None]
    total = None
    for _ in range(40):
        truth = north * rng.standard_normal((2, *GRID.shape))
        members = rng.standard_normal((MEMBERS, 2, *GRID.shape))
        part = ZonalMoments.of_mean(np.zeros_like(truth), truth) + ZonalMoments.of_members(members)
        total = part if total is None else total + part
    stretch = total.stretch(GRID.latitude_weights)
    np.testing.assert_allclose(stretch[:, 0] / stretch[:, -1], 2.0, rtol=0.1)
    weights = GRID.latitude_weights / GRID.latitude_weights.sum()
    np.testing.assert_allclose((stretch**2) @ weights, 1.0, rtol=0.03)


def test_spread_coverage_and_power_are_right_after_the_factors_of_latitudes():
    north = np.where(GRID.latitude > 0, 1.6, 0.7)[:, None].astype(np.float32)
    forecast, truth = world(0)
    mean = forecast.mean("number")
    forecast = (mean - 3.0 + (forecast - mean) * north).transpose(*forecast.dims)
    calibration = spread_right(forecast, truth, 0.05)
    after = xr.concat([calibration.apply(one) for one in forecast], "init_time")
    share = power(after.values)[1:] / power(forecast.values)[1:]
    assert abs(share - 1).max() < 0.07
    assert abs(ratio(forecast, truth) - 1) > 0.2
    assert abs(ratio(after, truth) - 1) < 0.03
    for level in (0.5, 0.8):
        assert abs(held(after, truth, level) - level) < 0.02


@pytest.mark.parametrize("size", [0.8, 1.3])
@pytest.mark.parametrize("members", [9, 40])
def test_members_grow_as_far_as_spread_and_coverage_need(size, members):
    rng = np.random.default_rng(2)
    drawn = rng.standard_normal((60, members, 2, *GRID.shape))
    truth = size * rng.standard_normal((60, 2, *GRID.shape))
    truth -= (size - 1) * drawn.mean(axis=1)
    truth[:30, 1] = np.nan
    parts = [SpreadMoments.of(x, x, y, SPHERE) for x, y in zip(drawn, truth, strict=True)]
    total = sum(parts[1:], parts[0])
    zonal = [
        ZonalMoments.of_mean(x.mean(axis=0), y) + ZonalMoments.of_members(x)
        for x, y in zip(drawn, truth, strict=True)
    ]
    skill = sum(zonal[1:], zonal[0]).growth(GRID.latitude_weights)
    np.testing.assert_allclose(skill, size, rtol=0.02)
    np.testing.assert_allclose(total.growth(skill)[:, 0], size, rtol=0.02)
    np.testing.assert_allclose(total.raw, total.calibrated)
    # Truths that are not known have no say.
    assert sum(parts[1:30], parts[0]).growth(np.array([1.0, 1.3]))[1] == 1.3


def test_the_reach_of_an_interval_is_the_factor_that_makes_it_hold_its_share():
    rng = np.random.default_rng(4)
    drawn, own = rng.exponential(size=(2, 40, 20, 1, *GRID.shape))
    middle = drawn.mean(axis=1, keepdims=True)
    truth = 1.3 * (own[:, 0] - 1) + 1
    parts = [SpreadMoments.of(x, x, y, SPHERE) for x, y in zip(drawn, truth, strict=True)]
    total = sum(parts[1:], parts[0])
    reach, found = total.reach[:, 0].cumsum(axis=1), []
    labels = ("init_time", "number", "lead_time", "latitude", "longitude")
    for row, level in zip(reach, (0.5, 0.8, 0.9), strict=True):
        found.append(np.interp(level, row[:-1] / row[-1], np.linspace(0.5, 2.0, 301)))
        wider = xr.DataArray(middle + found[-1] * (drawn - middle), dims=labels)
        assert abs(held(wider, wider[:, 0].copy(data=truth), level) - level) < 2e-3
    skill = np.array([1.1])
    np.testing.assert_allclose(total.growth(skill), np.sqrt(np.mean(found) * skill)[:, None])


def test_powers_are_about_what_dates_to_come_have_too():
    rng = np.random.default_rng(1)
    pattern = single(rng, 3)
    forecast, truth = (array[:12] for array in world())
    sign = np.where(np.arange(12) < 6, 1.0, -1.0)[:, None, None, None]
    members = np.zeros_like(forecast.values) + (sign * pattern)[:, None] + 7.0
    observed = np.zeros_like(truth.values) + sign * pattern
    powers = summed(forecast.copy(data=members), truth.copy(data=observed)).powers(SPHERE)
    for found in (powers.truth, powers.mean, powers.cross):
        np.testing.assert_allclose(found[:, 3], 2 * power(pattern)[3], rtol=1e-4)
    noise = fields(rng, np.ones(SPHERE.truncation + 1), 40, 4, 1, 2).astype(np.float32)
    found = [
        summed(forecast[:4].copy(data=np.repeat(one, MEMBERS, 1)), truth[:4]).powers(SPHERE).mean
        for one in noise
    ]
    np.testing.assert_allclose(np.mean(found, axis=0)[:, 4:].mean(), 1.0, rtol=0.05)


def test_members_that_are_calibrated_stay():
    rng = np.random.default_rng(5)
    degree = np.arange(SPHERE.truncation + 1)
    base = fields(rng, 100.0 / (1 + degree) ** 2, DATES, 1, 2)
    drawn = base + fields(rng, 30.0 / (1 + degree) ** 2, DATES, MEMBERS + 1, 2)
    forecast, _ = world()
    forecast = forecast.copy(data=drawn[:, 1:].astype(np.float32))
    truth = forecast.isel(number=0, drop=True).copy(data=drawn[:, 0].astype(np.float32))
    factors = fitted(forecast, truth).factors.sel(degree=slice(2, None))
    assert abs(factors.sel(parameter="b") - 1).mean() < 0.06
    assert abs(factors.sel(parameter="t") - 1).mean() < 0.08


def test_what_is_saved_goes_on_alike(tmp_path):
    forecast, truth = world()
    calibration = fitted(forecast, truth)
    calibration.save(tmp_path / "state.zarr")
    again = DegreeByDegree.load(tmp_path / "state.zarr", SPHERE)
    xr.testing.assert_identical(again.apply(forecast[0]), calibration.apply(forecast[0]))


def test_other_grids_leads_and_too_few_dates_are_refused():
    forecast, truth = world()
    calibration = fitted(forecast, truth)
    with pytest.raises(InputError, match="do not fit"):
        calibration.apply(forecast[0, ..., :-1])
    later = LEAD.values + np.timedelta64(48, "h")
    with pytest.raises(InputError, match="not fitted for the lead time 72 h"):
        calibration.apply(forecast[0].assign_coords(lead_time=later))
    with pytest.raises(InputError, match="at least 10 dates, found 9 at lead 24 h"):
        fitted(forecast[:9], truth[:9])
    truth[9:, 1] = np.nan
    with pytest.raises(InputError, match="at least 10 dates, found 9 at lead 48 h"):
        fitted(forecast, truth)


def test_what_the_truth_has_not_at_all_goes():
    forecast, truth = world(0)
    degree = np.arange(SPHERE.truncation + 1)
    noise = fields(np.random.default_rng(9), np.where(degree > 8, 20.0, 0.0), DATES, MEMBERS, 2)
    # In +- pairs, as perturbations come: the mean has none of it.
    noise[:, 1::2] = -noise[:, ::2]
    smooth = SPHERE.analyse(torch.from_numpy(truth.values)) * torch.from_numpy(degree <= 8)[:, None]
    truth = truth.copy(data=SPHERE.synthesise(smooth).numpy())
    members = SPHERE.analyse(torch.from_numpy(forecast.values))
    members = SPHERE.synthesise(members * torch.from_numpy(degree <= 8)[:, None]).numpy()
    calibration = fitted(forecast.copy(data=members + noise), truth, 0.03)
    assert float(calibration.factors.sel(parameter="b").max()) <= 2.0
    assert float(calibration.factors.sel(parameter="t", degree=slice(9, None)).max()) < 0.3


def single(rng: np.random.Generator, degree: int, *shape: int) -> np.ndarray:
    """Fields of one degree alone, (*shape, latitude, longitude)."""
    return fields(rng, np.where(np.arange(SPHERE.truncation + 1) == degree, 9.0, 0.0), *shape)


def test_every_degree_is_moved_and_stretched_by_its_own_factors():
    rng = np.random.default_rng(6)
    forecast, truth = world()
    calibration = fitted(forecast, truth)
    b, t = 0.2 + rng.random((2, 2, SPHERE.truncation + 1))
    zonal = 0.5 + rng.random((2, GRID.shape[0]))
    centre, shift = 5 * rng.standard_normal((2, 2, *GRID.shape))
    calibration = DegreeByDegree(
        calibration.factors.copy(data=np.stack([b, t], axis=1)),
        calibration.fields.copy(data=np.stack([centre, shift], axis=1)),
        calibration.zonal.copy(data=zonal),
        SPHERE,
    )
    two, seven = single(rng, 2, 2), single(rng, 7, 2)
    apart = {degree: single(rng, degree, MEMBERS, 2) for degree in (3, 6)}
    apart = {degree: one - one.mean(axis=0) for degree, one in apart.items()}
    members = centre + two + seven + apart[3] + apart[6]
    found = calibration.apply(forecast[0].copy(data=members.astype(np.float32)))
    for lead in range(2):
        middle = (centre + shift)[lead] + b[lead, 2] * two[lead] + b[lead, 7] * seven[lead]
        drawn = t[lead, 3] * apart[3][:, lead] + t[lead, 6] * apart[6][:, lead]
        expected = middle + zonal[lead][:, None] * drawn
        np.testing.assert_allclose(found.values[:, lead], expected, atol=2e-3)
    moments = ZonalMoments.of_mean(two, seven) + ZonalMoments.of_members(apart[3] + two)
    again = calibration.with_zonal(moments)
    np.testing.assert_allclose(again.zonal, zonal * moments.stretch(GRID.latitude_weights))


@pytest.mark.parametrize(
    ("second", "share"), [(1.0, 1.0), (0.5, (1.6 / 1.8) ** 2), (0.0, 0.0), (-1.0, 0.0)]
)
def test_an_error_lasts_as_far_as_both_halves_of_the_dates_agree(second, share):
    rng = np.random.default_rng(7)
    pattern = single(rng, 4)
    forecast, truth = world()
    members = np.zeros_like(forecast.values) + single(rng, 2, DATES, MEMBERS, 1)
    observed = members.mean(axis=1) + pattern
    observed[DATES // 2 :] += (second - 1.0) * pattern
    calibration = fitted(forecast.copy(data=members), truth.copy(data=observed.astype(np.float32)))
    shift = calibration.fields.sel(field="shift")
    mean = (1 + second) / 2 * pattern
    np.testing.assert_allclose(shift[0], share * mean, atol=1e-3)
