"""What cells count on grids that are none of the known global ones, and under masks."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from pipelines.score import ScoreSettings, score
from pipelines.score_table import ScoreResult
from scoring.regions import Box

ROUND = np.arange(0.0, 360.0, 15.0)
CUT = np.linspace(90, -90, 37)[:36]  # as ERA5 without its southernmost circle
DAYS = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(1, "D")
LEADS = np.array([24, 48], "timedelta64[h]").astype("timedelta64[ns]")


def world(cells: dict[str, np.ndarray], sizes: tuple[int, ...]) -> tuple[xr.Dataset, xr.Dataset]:
    """A forecast with errors that grow towards the poles, and its truth."""
    rng = np.random.default_rng(3)
    rows = np.linspace(1.0, 20.0, sizes[0]).reshape(-1, *[1] * (len(sizes) - 1))
    kelvin = {"units": "K"}
    members = 280 + rows * rng.standard_normal((2, 5, 2, *sizes))
    truth = 280 + rows * rng.standard_normal((4, *sizes))
    own = {name: values for name, values in cells.items() if values is not None}
    forecast = xr.Dataset(
        {"t850": (("init_time", "number", "lead_time", *cells), members.astype("f4"), kelvin)},
        {"init_time": DAYS[:2], "number": np.arange(5), "lead_time": LEADS, **own},
    )
    observed = xr.Dataset(
        {"t850": (("time", *cells), truth.astype("f4"), kelvin)}, {"time": DAYS, **own}
    )
    return forecast, observed


def scored(folder: Path, forecast: xr.Dataset, truth: xr.Dataset, **settings) -> ScoreResult:
    folder.mkdir(exist_ok=True)
    forecast.to_netcdf(folder / "f.nc")
    truth.to_netcdf(folder / "t.nc")
    return score(folder / "f.nc", folder / "t.nc", folder / "s", settings=ScoreSettings(**settings))


def mean_square(forecast: xr.Dataset, truth: xr.Dataset, latitude: np.ndarray) -> np.ndarray:
    """By latitude, of the ensemble mean at the first lead."""
    mean = forecast.t850.isel(lead_time=0).mean("number")
    error = mean.values - truth.t850.values[1:3]
    return (error.astype(float) ** 2).mean(axis=(0, 2))


def areas(latitude: np.ndarray, step: float) -> np.ndarray:
    """Of circles of latitude at equal steps, by their definition."""
    north, south = (np.clip(latitude + half, -90, 90) for half in (step / 2, -step / 2))
    return np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south))


@pytest.mark.parametrize(
    ("latitude", "longitude", "head"),
    [
        (CUT, ROUND, "globe"),
        (CUT, ROUND + 7.5, "globe"),
        (np.arange(60.0, 29.0, -5.0), ROUND[:7], "all"),
        (CUT[:20], ROUND, "all"),
    ],
)
def test_cells_of_any_regular_grid_count_by_their_area(tmp_path, latitude, longitude, head):
    cells = {"latitude": latitude, "longitude": longitude}
    forecast, truth = world(cells, (latitude.size, longitude.size))
    scores = scored(tmp_path, forecast, truth).scores
    square = mean_square(forecast, truth, latitude)
    expected = np.sqrt(np.average(square, weights=areas(latitude, 5.0)))
    found = scores.rmse.sel(forecast="ensemble", region=head).isel(lead_time=0).item()
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(float(np.sqrt(square.mean())), rel=1e-2)
    assert scores.attrs["weights"] == "area"
    assert scores.region.values[0] == head
    north = latitude >= 20
    expected = np.sqrt(np.average(square[north], weights=areas(latitude, 5.0)[north]))
    at = {"forecast": "ensemble", "region": "northern_extratropics"}
    assert scores.rmse.sel(at).isel(lead_time=0).item() == pytest.approx(expected, rel=1e-5)


def test_regions_that_a_grid_does_not_reach_are_left_out_and_said(tmp_path):
    cells = {"latitude": np.arange(60.0, 29.0, -5.0), "longitude": ROUND[:7]}
    forecast, truth = world(cells, (7, 7))
    found = scored(tmp_path, forecast, truth)
    assert found.scores.region.values.tolist() == ["all", "northern_extratropics"]
    said = "Left out: no cell of the grid lies in tropics, southern_extratropics."
    assert said in found.table().splitlines()
    with pytest.raises(InputError, match="no cell of the grid lies in box"):
        scored(tmp_path, forecast, truth, regions={"box": Box(-10, 10, 0, 90)})
    box = scored(tmp_path, forecast, truth, regions={"box": Box(40, 50, 30, 60)})
    assert box.scores.region.values.tolist() == ["box"]


def test_longitude_may_come_first(tmp_path):
    latitude, longitude = np.arange(60.0, 29.0, -5.0), ROUND[:9]
    forecast, truth = world({"latitude": latitude, "longitude": longitude}, (7, 9))
    plain = scored(tmp_path / "a", forecast, truth).scores
    turned = forecast.transpose("init_time", "number", "lead_time", "longitude", "latitude")
    turned.to_zarr(tmp_path / "f.zarr", zarr_format=3, consolidated=False)
    found = score(tmp_path / "f.zarr", tmp_path / "a" / "t.nc", tmp_path / "b").scores
    for name in ("rmse", "crps", "spread_skill_area_mean"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-6, err_msg=name)


def test_without_latitudes_cells_count_alike_and_that_is_said(tmp_path):
    forecast, truth = world({"y": None, "x": None}, (7, 9))
    found = scored(tmp_path, forecast, truth)
    expected = np.sqrt(mean_square(forecast, truth, np.arange(7)).mean())
    rmse = found.scores.rmse.sel(forecast="ensemble", region="all").isel(lead_time=0)
    assert rmse.item() == pytest.approx(float(expected), rel=1e-5)
    assert found.scores.attrs["weights"] == "equal"
    assert "All cells count alike" in found.table()


def test_a_mask_that_leaves_nothing_of_a_region_leaves_it_out(verified, tmp_path):
    with xr.open_zarr(verified.truth, consolidated=False) as truth:
        latitude = truth.latitude.load()
        mask = xr.ones_like(truth.z500.isel(time=0)).load().where(latitude < 0, 0.0)

    def run(mask: xr.DataArray) -> ScoreResult:
        settings = ScoreSettings(channels=("z500",), mask=mask)
        return score(verified.forecast, verified.truth, tmp_path, settings=settings)

    found = run(mask)
    regions = ["globe", "tropics", "southern_extratropics"]
    assert found.scores.region.values.tolist() == regions
    said = "Left out: the mask leaves nothing of northern_extratropics."
    assert said in found.table().splitlines()
    with pytest.raises(InputError, match="0 everywhere"):
        run(mask * 0)
    settings = ScoreSettings(mask=mask, regions={"box": Box(20, 90, 0, 360)})
    with pytest.raises(InputError, match="the mask leaves nothing of box"):
        score(verified.forecast, verified.truth, tmp_path, settings=settings)
