import numpy as np
import pytest
import torch
import xarray as xr

from data.errors import InputError
from data.grid import Grid
from data.sphere import Sphere
from scoring.score import mean_of
from scoring.spectra import Spectrum, angular_spectra, power_ratio, spectral_spread_skill
from scoring.sums import Sums

GRID = Grid("legendre-gauss", 16, 32)
SPHERE = Sphere(GRID, 10)
AREA = xr.DataArray(GRID.area_weights, dims=("latitude", "longitude"))
KEYS = {of: Spectrum(of, 10).key
        for of in ("members", "mean", "truth", "error", "variance", "expected_error")}  # fmt: skip


def fields(members: int = 5, dates: int = 3, level: float = 0.0, seed: int = 0):
    """Red fields within the truncation: members and a truth, exchangeable."""
    rng = np.random.default_rng(seed)
    slope = 1 / (1 + np.arange(11.0))[:, None]
    shape = (dates, members + 1, 11, 11)
    drawn = slope * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    drawn[..., 0] = drawn[..., 0].real * np.sqrt(2)
    values = SPHERE.synthesise(torch.from_numpy(drawn)).numpy().astype(float) + level
    labelled = xr.DataArray(
        values,
        {"init_time": np.arange(dates), "latitude": GRID.latitude, "longitude": GRID.longitude},
        ("init_time", "number", "latitude", "longitude"),
    )
    return labelled.isel(number=slice(1, None)), labelled.isel(number=0)


def area_mean(field: xr.DataArray) -> xr.DataArray:
    return (field * AREA).sum(("latitude", "longitude"))


@pytest.mark.parametrize("level", [0.0, 54_000.0])
def test_spectra_add_up_to_area_means(level):
    forecast, truth = fields(level=level)
    found = angular_spectra(forecast, truth, SPHERE).sum("degree")
    mean = forecast.mean("number")
    for of, expected in {
        "members": area_mean(forecast**2).mean("number"),
        "mean": area_mean(mean**2),
        "truth": area_mean(truth**2),
        "error": area_mean((mean - truth) ** 2),
        "variance": area_mean(forecast.var("number", ddof=1)),
        "expected_error": area_mean(forecast.var("number", ddof=1)) * 6 / 5,
    }.items():
        np.testing.assert_allclose(found[KEYS[of]], expected, rtol=2e-5, err_msg=of)


def test_power_lies_at_the_degree_of_a_harmonic():
    sine = np.sin(np.deg2rad(GRID.latitude))[:, None]
    angle = np.deg2rad(GRID.longitude)
    harmonic = np.sqrt(5 / 3) * 1.5 * (1 - sine**2) * np.cos(2 * angle)  # degree 2, order 2
    truth = xr.DataArray(harmonic, dims=("latitude", "longitude"))
    found = angular_spectra((3 * truth).expand_dims("number"), truth, SPHERE)
    expected = np.zeros(11)
    expected[2] = area_mean(truth**2).item()
    np.testing.assert_allclose(found[KEYS["truth"]], expected, atol=1e-6)
    np.testing.assert_allclose(found[KEYS["members"]], 9 * expected, atol=1e-5)
    np.testing.assert_allclose(found[KEYS["error"]], 4 * expected, atol=1e-5)
    assert np.isnan(found[KEYS["variance"]]).all()


def test_mean_and_variance_share_the_power_of_the_members():
    forecast, truth = fields(7)
    found = angular_spectra(forecast, truth, SPHERE)
    total = found[KEYS["mean"]] + 6 / 7 * found[KEYS["variance"]]
    np.testing.assert_allclose(total, found[KEYS["members"]], rtol=1e-5)


def test_blocks_of_members_change_nothing(monkeypatch):
    forecast, truth = fields(7)
    expected = angular_spectra(forecast, truth, SPHERE)
    monkeypatch.setattr("scoring.spectra._BLOCK_VALUES", 2 * truth[0].size)
    xr.testing.assert_allclose(angular_spectra(forecast, truth, SPHERE), expected, rtol=1e-5)


def test_dimensions_may_come_in_any_order():
    forecast, truth = fields()
    shuffled = forecast.transpose("longitude", "number", "latitude", "init_time")
    found = angular_spectra(shuffled, truth, SPHERE)
    xr.testing.assert_allclose(found, angular_spectra(forecast, truth, SPHERE), rtol=1e-6)
    assert found[KEYS["mean"]].dims == ("init_time", "degree")


def test_scores_of_an_exchangeable_ensemble_are_one_at_every_degree():
    parts = []
    for seed in range(2):
        forecast, truth = fields(6, 150, seed=seed)
        forecast["init_time"] = truth["init_time"] = np.arange(150) + 150 * seed
        values = angular_spectra(forecast, truth, SPHERE)
        parts.append(Sums.of(values, xr.ones_like(values.init_time, float), ()))
    sums = parts[1] + parts[0]
    ratio = power_ratio("members", 10).of(sums)
    assert ratio.dims == ("degree",)
    np.testing.assert_allclose(ratio[1:], 1.0, atol=0.12)
    np.testing.assert_allclose(spectral_spread_skill(10).of(sums)[1:], 1.0, atol=0.12)
    lost = power_ratio("mean", 10).of(sums)
    np.testing.assert_allclose(lost[1:], 1 / 6, atol=0.03)
    truth = mean_of("spectrum", "of the truth", Spectrum("truth", 10)).of(sums)
    np.testing.assert_allclose(truth, sums.mean(KEYS["truth"]))


def test_missing_values_stay_in_their_sample():
    forecast, truth = fields()
    forecast[1, 2, 3, 4] = np.nan
    found = angular_spectra(forecast, truth, SPHERE)
    assert np.isnan(found[KEYS["members"]][1]).all()
    assert np.isfinite(found[KEYS["truth"]]).all()
    assert np.isfinite(found.isel(init_time=[0, 2]).to_array()).all()
    truth[0, 5, 6] = np.nan
    assert np.isnan(angular_spectra(forecast, truth, SPHERE).isel(init_time=0).to_array()).all()


def test_what_is_not_on_the_sphere_is_refused():
    forecast, truth = fields()
    with pytest.raises(InputError, match=r"no dimension \['longitude'\]"):
        angular_spectra(forecast.isel(longitude=0), truth.isel(longitude=0), SPHERE)
    with pytest.raises(InputError, match=r"forecast of .* does not fit"):
        angular_spectra(forecast, truth, Sphere(Grid("equiangular", 19, 36)))
    with pytest.raises(InputError, match="no spectrum of 'noise'"):
        Spectrum("noise", 10)


def test_fields_of_another_grid_of_the_same_shape_are_refused():
    forecast, truth = fields()
    unlabelled = forecast.drop_vars(["latitude", "longitude"])
    expected = angular_spectra(forecast, truth, SPHERE)
    with pytest.raises(InputError, match="forecast lies on the grid legendre-gauss 16 x 32, exp"):
        angular_spectra(forecast, truth, Sphere(Grid("equiangular-cells", 16, 32)))
    with pytest.raises(InputError, match="truth lies on the grid legendre-gauss 16 x 32, expected"):
        angular_spectra(unlabelled, truth, Sphere(Grid("equiangular-cells", 16, 32)))
    northward = forecast.isel(latitude=slice(None, None, -1))
    with pytest.raises(InputError, match=r"forecast: latitudes .* are no global"):
        angular_spectra(northward, truth.isel(latitude=slice(None, None, -1)), SPHERE)
    with pytest.raises(InputError, match=r"forecast: .* longitudes .* are no global"):
        angular_spectra(*(
            field.drop_vars("latitude").assign_coords(longitude=GRID.longitude - 180)
            for field in (forecast, truth)
        ), SPHERE)  # fmt: skip
    stored = {"latitude": GRID.latitude + 0.009, "longitude": GRID.longitude.astype(np.float32)}
    near = forecast.assign_coords(stored), truth.assign_coords(stored)
    for given in (near, (unlabelled, truth.drop_vars(["latitude", "longitude"]))):
        xr.testing.assert_identical(angular_spectra(*given, SPHERE), expected)
