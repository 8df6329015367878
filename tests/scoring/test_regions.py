import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from data.grid import Grid
from scoring.regions import REGIONS, Band, Box, Mask, region_weights, season_weights
from scoring.sums import Sums

GRID = Grid("equiangular", 19, 36)


def longitudes(box: Box) -> list[float]:
    return GRID.longitude[box.mask(GRID).any(axis=0)].tolist()


@pytest.mark.parametrize(
    ("west", "east", "expected"),
    [
        (350, 10, [0, 10, 350]),
        (-10, 10, [0, 10, 350]),
        (170, -170, [170, 180, 190]),
        (170, 190, [170, 180, 190]),
        (-190, -170, [170, 180, 190]),
        (20, 20, [20]),
    ],
)
def test_a_box_crosses_greenwich_and_the_date_line(west, east, expected):
    assert longitudes(Box(-90, 90, west, east)) == expected


@pytest.mark.parametrize(("west", "east"), [(-180, 180), (0, 360), (90, 450)])
def test_a_box_may_go_all_the_way_round(west, east):
    box, band = Box(20, 60, west, east), Band(20, 60)
    np.testing.assert_array_equal(box.mask(GRID), band.mask(GRID))


def test_a_box_and_its_complement_share_the_band():
    weights = region_weights(
        GRID,
        {
            "band": Band(30, 60),
            "in": Box(30, 60, -30.1, 44.9),
            "out": Box(30, 60, 44.95, -30.2),
        },
    )
    total = weights.sum(("latitude", "longitude"))
    np.testing.assert_allclose(total[1] + total[2], total[0], rtol=1e-14)


def test_a_mask_is_a_region_and_may_hold_shares():
    land = np.random.default_rng(0).random(GRID.shape)
    weights = region_weights(GRID, {"land": Mask(land), "sea": Mask(1 - land)})
    np.testing.assert_allclose(weights.sum("region"), GRID.area_weights, rtol=1e-14)
    assert Mask(land) == Mask(land.copy())
    assert Mask(land) != Mask(1 - land)
    assert len({Mask(land), Mask(land.copy())}) == 1


def test_what_is_no_region_is_refused():
    with pytest.raises(InputError, match="from south to north, found 10 to -10"):
        Box(10, -10, 0, 20)
    with pytest.raises(InputError, match=r"shape \(2, 3\) does not fit the grid"):
        region_weights(GRID, {"land": Mask(np.ones((2, 3)))})
    with pytest.raises(InputError, match="within 0 to 1"):
        Mask(np.array([[np.nan]]))
    with pytest.raises(InputError, match="'nowhere' holds no point"):
        region_weights(GRID, {"nowhere": Box(41, 49, 0, 360)})


def test_seasons_are_those_of_the_valid_time_and_share_the_year():
    days = np.arange("2019-12-01", "2020-12-01", dtype="datetime64[D]").astype("datetime64[ns]")
    leads = np.array([0, 10], "timedelta64[D]").astype("timedelta64[ns]")
    init = xr.DataArray(days, {"init_time": days}, ("init_time",))
    valid = init + xr.DataArray(leads, {"lead_time": leads}, ("lead_time",))
    weights = season_weights(valid)
    assert weights.dims == ("season", "init_time", "lead_time")
    np.testing.assert_array_equal(weights.sum("season"), np.ones(valid.shape))
    assert weights.isel(lead_time=0).sum("init_time").values.tolist() == [91, 92, 92, 91]
    assert float(weights.sel(season="MAM", init_time="2020-02-25").isel(lead_time=1)) == 1
    with pytest.raises(InputError, match="seasons need times"):
        season_weights(xr.DataArray([1, 2], dims="init_time"))


def test_sums_carry_seasons_and_regions_and_merge():
    dates = np.array(["2020-01-05", "2020-04-05", "2020-07-05"], "datetime64[ns]")
    rng = np.random.default_rng(1)
    cells = {"latitude": GRID.latitude, "longitude": GRID.longitude}
    values = xr.DataArray(
        rng.random((3, *GRID.shape)), {"init_time": dates} | cells, ("init_time", *cells)
    ).to_dataset(name="value")
    seasons = season_weights(values.init_time)
    weights = region_weights(GRID) * seasons
    whole = Sums.of(values, weights, tuple(cells))
    parts = [
        Sums.of(values.isel(init_time=[i]), weights.isel(init_time=[i]), tuple(cells))
        for i in range(3)
    ]
    merged = parts[2] + (parts[0] + parts[1])
    mean = whole.mean("value")
    xr.testing.assert_allclose(merged.mean("value"), mean)
    area = xr.DataArray(GRID.area_weights, dims=tuple(cells))
    expected = values.value.isel(init_time=1).weighted(area).mean()
    np.testing.assert_allclose(mean.sel(region="globe", season="MAM"), expected)
    assert np.isnan(mean.sel(season="SON")).all()
    assert set(mean.region.values) == set(REGIONS)
