import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from scoring.calibration.persistence import climatology, damped_persistence
from scoring.quantiles import quantile_score

LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]
HOUR = np.timedelta64(1, "h")
START = np.datetime64("2021-08-01T00", "ns")


def case(hours: int = 400, every: int = 48, leads: int = 30, keep: float = 0.9, seed: int = 0):
    """Hourly truth of two sites, an autoregressive process about 5 and 9, and the cases."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((hours, 2)) * np.sqrt(1 - keep**2)
    values = np.zeros((hours, 2))
    values[0] = rng.standard_normal(2)
    for hour in range(1, hours):
        values[hour] = keep * values[hour - 1] + noise[hour]
    valid = START + np.arange(hours) * HOUR
    at = {"valid_time": valid, "site": ["a", "b"]}
    truth = xr.DataArray(values + np.array([5.0, 9.0]), at, ("valid_time", "site"))
    init_time, lead_time = valid[::every], np.arange(1, leads + 1) * HOUR
    sizes = (init_time.size, lead_time.size, 2, len(LEVELS))
    like = xr.DataArray(
        np.zeros(sizes),
        {
            "init_time": init_time,
            "lead_time": lead_time,
            "site": ["a", "b"],
            "quantile": LEVELS,
            "part": ("lead_time", np.arange(leads) % 2),
        },
        ("init_time", "lead_time", "site", "quantile"),
    )
    return truth, like


def verified(truth: xr.DataArray, forecast: xr.DataArray) -> xr.DataArray:
    valid = forecast.init_time + forecast.lead_time
    last = truth.valid_time.values[-1]
    known = truth.reindex(valid_time=np.unique(valid)).sel(valid_time=valid)
    return known.where(valid <= last).drop_vars("valid_time")


def test_climatology_is_the_quantiles_of_what_was_known():
    truth, like = case()
    found = climatology(truth, like)
    known = truth.sel(valid_time=slice(None, like.init_time.values[3]))
    expected = np.quantile(known.sel(site="b"), LEVELS, method="weibull")
    for lead in (0, 29):
        np.testing.assert_allclose(
            found.isel(init_time=3, lead_time=lead).sel(site="b"), expected, rtol=1e-12
        )
    xr.testing.assert_identical(found.coords.to_dataset(), like.coords.to_dataset())
    assert found.dims == like.dims


@pytest.mark.parametrize(
    "forecast", [climatology, lambda t, q, **k: damped_persistence(t, q, 9 * HOUR, **k)]
)
def test_nothing_of_the_future_is_seen(forecast):
    truth, like = case()
    now = like.init_time.values[4]
    changed = truth.where(truth.valid_time <= now, 99.0)
    some = {"init_time": slice(0, 5)}
    before = forecast(truth, like).isel(some)
    assert before.notnull().any()
    xr.testing.assert_identical(forecast(changed, like).isel(some), before)
    late = truth.where(truth.valid_time <= now - 6 * HOUR, 99.0)
    assert not forecast(late, like).isel(some).equals(before)
    delayed = {"latency": 6 * HOUR}
    xr.testing.assert_identical(
        forecast(late, like, **delayed).isel(some), forecast(truth, like, **delayed).isel(some)
    )


def test_too_few_truths_for_the_outermost_level_give_nothing():
    truth, like = case(every=4)
    found = climatology(truth, like)
    enough = (like.init_time.values - START) / HOUR + 1 >= 9  # 1 / 0.1 - 1
    np.testing.assert_array_equal(found.notnull().all(["lead_time", "site", "quantile"]), enough)
    np.testing.assert_array_equal(found.isnull().all(["lead_time", "site", "quantile"]), ~enough)


def test_persistence_goes_from_the_last_truth_to_the_climatology():
    truth, like = case()
    climate = climatology(truth, like)
    short = damped_persistence(truth, like, np.timedelta64(1, "ms"))
    np.testing.assert_allclose(
        short.isel(init_time=slice(1, None)), climate.isel(init_time=slice(1, None))
    )
    long = damped_persistence(truth, like, np.timedelta64(365 * 50, "D")).isel(init_time=2)
    last = truth.sel(valid_time=like.init_time.values[2])
    np.testing.assert_allclose(long - last, 0.0, atol=0.05)
    assert (long.diff("quantile") > 0).all()


def test_half_way_the_formula_is_that_of_an_autoregressive_process():
    truth, like = case()
    decay = 10 * HOUR
    found = damped_persistence(truth, like, decay).isel(init_time=5)
    climate = climatology(truth, like).isel(init_time=5)
    last = truth.sel(valid_time=like.init_time.values[5])
    middle = climate.sel(quantile=0.5, drop=True)
    share = np.exp(-like.lead_time / decay)
    expected = middle + share * (last - middle) + np.sqrt(1 - share**2) * (climate - middle)
    np.testing.assert_allclose(found, expected.transpose(*found.dims), rtol=1e-9)


def test_missing_truth_ages_the_last_one_of_its_site_alone():
    truth, like = case()
    now, decay = like.init_time.values[5], 10 * HOUR
    gap = truth.where((truth.site == "b") | (truth.valid_time <= now - 3 * HOUR))
    found = damped_persistence(gap, like, decay).isel(init_time=5).sel(quantile=0.5)
    middle = climatology(gap, like).isel(init_time=5).sel(quantile=0.5)
    for site, age in (("a", 3 * HOUR), ("b", 0 * HOUR)):
        last = truth.sel(valid_time=now - age, site=site, drop=True)
        share = np.exp(-(like.lead_time + age) / decay)
        own = middle.sel(site=site)
        np.testing.assert_allclose(found.sel(site=site), own + share * (last - own), rtol=1e-9)


def test_of_an_autoregressive_process_the_right_decay_is_calibrated_and_best():
    truth, like = case(hours=20_000, every=100)
    decay = -HOUR / np.log(0.9)
    like = like.isel(init_time=slice(20, None))
    observed = verified(truth, like)
    scores = {}
    for factor in (0.2, 1.0, 5.0):
        found = damped_persistence(truth, like, factor * decay)
        scores[factor] = float(quantile_score(found, observed).mean())
        if factor == 1.0:
            below = (observed <= found).where(observed.notnull()).mean(observed.dims)
            np.testing.assert_allclose(below, LEVELS, atol=0.03)
    reference = float(quantile_score(climatology(truth, like), observed).mean())
    assert scores[1.0] < min(scores[0.2], scores[5.0], reference)


def test_errors_name_what_was_found():
    truth, like = case(100)
    with pytest.raises(InputError, match="valid_time"):
        climatology(truth.rename(valid_time="time"), like)
    with pytest.raises(InputError, match="increase"):
        climatology(truth.isel(valid_time=slice(None, None, -1)), like)
    with pytest.raises(InputError, match="decay"):
        damped_persistence(truth, like, 0 * HOUR)
    with pytest.raises(InputError, match="lead_time"):
        climatology(truth, like.isel(lead_time=0, drop=True))
