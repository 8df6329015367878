import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from scoring.calibration.coupling import couple, map_members, member_levels
from scoring.calibration.emos import Emos
from scoring.quantiles import ensemble_quantiles

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def ensemble(members: int = 40, seed: int = 0) -> xr.DataArray:
    """Waves on a circle: smooth members, (init_time, number, cell)."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(64) / 64
    waves = np.stack([np.cos(k * angle) for k in range(1, 9)]
                     + [np.sin(k * angle) for k in range(1, 9)])  # fmt: skip
    size = np.tile(1 / np.arange(1, 9), 2)
    values = (rng.standard_normal((3, members, 16)) * size) @ waves
    return xr.DataArray(
        (280 + values).astype(np.float32),
        {"number": np.arange(members)},
        ("init_time", "number", "cell"),
        name="t850",
    )


def in_order(calibrated: xr.DataArray, raw: xr.DataArray) -> bool:
    """Whether members stand in the order of the raw ones; rounding may make neighbours equal."""
    order = np.argsort(raw.values, axis=1, kind="stable")
    return bool((np.diff(np.take_along_axis(calibrated.values, order, 1), axis=1) >= 0).all())


def spectrum(forecast: xr.DataArray) -> np.ndarray:
    amplitudes = np.fft.rfft(forecast - forecast.mean("number"), axis=-1)
    return (np.abs(amplitudes) ** 2).mean((0, 1))[1:9]


def test_coupling_the_own_quantiles_gives_the_members_back():
    forecast = ensemble()
    own = ensemble_quantiles(forecast, member_levels(40))
    np.testing.assert_allclose(couple(forecast, own), forecast, rtol=1e-6)


def test_coupled_members_have_the_quantiles_and_the_ranks():
    forecast = ensemble()
    own = ensemble_quantiles(forecast, member_levels(40))
    wanted = 2 * (own - 280) ** 3 + 270
    coupled = couple(forecast, wanted)
    assert coupled.dims == forecast.dims
    assert coupled.dtype == forecast.dtype
    xr.testing.assert_identical(coupled["number"], forecast["number"])
    np.testing.assert_allclose(
        np.sort(coupled.values, axis=1),
        np.sort(wanted.transpose("init_time", "quantile", "cell").values, axis=1),
        rtol=1e-6,
    )
    assert in_order(coupled, forecast)


def test_a_shift_of_all_levels_is_a_shift_of_all_members():
    forecast = ensemble()
    calibrated = ensemble_quantiles(forecast, LEVELS) + 1.5
    np.testing.assert_allclose(map_members(forecast, calibrated), forecast + 1.5, rtol=1e-6)


@pytest.mark.parametrize("levels", [(0.5,), (0.3, 0.6)])
def test_shifts_are_straight_between_levels_and_held_beyond_them(levels):
    forecast = ensemble(members=9)
    shift = xr.DataArray(
        np.array([1.0, 4.0])[: len(levels)], {"quantile": list(levels)}, "quantile"
    )
    found = map_members(forecast, ensemble_quantiles(forecast, levels) + shift)
    expected = np.interp(np.arange(1, 10) / 10, levels, shift.values)
    moved = np.sort(found.values, axis=1) - np.sort(forecast.values, axis=1)
    np.testing.assert_allclose(moved, expected[:, None] * np.ones((3, 1, 64)), atol=1e-4)


def test_mapped_members_have_the_calibrated_quantiles():
    forecast = ensemble(members=199)  # every level is the level of a member
    raw = ensemble_quantiles(forecast, LEVELS)
    centre = raw.sel(quantile=0.5)
    calibrated = centre + 1.6 * (raw - centre) - 0.5
    mapped = map_members(forecast, calibrated)
    np.testing.assert_allclose(ensemble_quantiles(mapped, LEVELS), calibrated, rtol=1e-6)
    assert in_order(mapped, forecast)


def test_spectra_stay_where_calibration_stretches():
    """What is left after the stretch: variance by wavenumber keeps its shape within 5 %."""
    forecast = ensemble(members=200)
    raw = ensemble_quantiles(forecast, LEVELS)
    centre = raw.sel(quantile=0.5)
    mapped = map_members(forecast, centre + 1.3 * (raw - centre))
    shares = [spectrum(field) / spectrum(field).sum() for field in (mapped, forecast)]
    np.testing.assert_allclose(shares[0][:4], shares[1][:4], rtol=0.05)
    shuffled = forecast.copy(data=np.random.default_rng(0).permuted(mapped.values, axis=1))
    assert abs(spectrum(shuffled)[0] / spectrum(mapped)[0] - 1) > 0.5


def test_correlations_between_channels_stay():
    first = ensemble(members=200)
    second = (0.7 * first + 0.3 * ensemble(members=200, seed=1)).rename("z500")
    mapped = []
    for channel, stretch in ((first, 1.4), (second, 0.8)):
        raw = ensemble_quantiles(channel, LEVELS)
        centre = raw.sel(quantile=0.5)
        mapped.append(map_members(channel, centre + stretch * (raw - centre) + 1.0))
    before, after = (xr.corr(*pair, dim="number") for pair in ((first, second), mapped))
    np.testing.assert_allclose(after, before, rtol=0.05)


def test_emos_and_coupling_make_an_ensemble():
    forecast = ensemble()
    rng = np.random.default_rng(5)
    dates = xr.concat([forecast] * 8, "init_time")
    truth = dates.mean("number") + 2 + rng.standard_normal((24, 64))
    fitted = Emos.fit(dates, truth, over=("init_time", "cell"))
    coupled = couple(forecast, fitted.quantiles(forecast, member_levels(40)))
    assert coupled.dims == forecast.dims
    np.testing.assert_allclose(
        (coupled.mean("number") - forecast.mean("number")).mean(), 2.0, atol=0.1
    )


def test_cells_that_were_not_calibrated_are_missing():
    forecast = ensemble()
    calibrated = ensemble_quantiles(forecast, LEVELS)
    calibrated[{"init_time": 1}] = np.nan
    mapped = map_members(forecast, calibrated)
    assert mapped.isel(init_time=1).isnull().all()
    assert mapped.isel(init_time=[0, 2]).notnull().all()


def test_other_levels_than_those_of_the_members_are_refused():
    forecast = ensemble()
    with pytest.raises(InputError, match=r"1/41 to 40/41, found 7 levels from 0\.05 to 0\.95"):
        couple(forecast, ensemble_quantiles(forecast, LEVELS))
