from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError, StoreError
from data.grid import Grid
from scoring.crps import CRPS
from scoring.decomposition import MemberIntervals
from scoring.events import JointDistribution
from scoring.identity import key_of
from scoring.intervals import QuantileScore
from scoring.moments import SquaredError, Variance
from scoring.rank import RankHistogram
from scoring.regions import REGIONS, Band, equal_weights, region_weights, season_weights
from scoring.sample import paired
from scoring.score import CRPS_FAIR, RMSE, rank_histogram, reliability_index
from scoring.statistic import evaluate
from scoring.sums import Sums, merge, weighted_sum
from scoring.thresholds import Constants
from scoring.weighted import Between, ThresholdWeightedCRPS

GRID = Grid("legendre-gauss", 8, 16)
DATES = np.array(["2006-01-01", "2006-01-02", "2006-01-03"], "datetime64[ns]")
LEADS = np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]")
CELLS = ("latitude", "longitude")


def statistics(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    dims = ("init_time", "number", "lead_time", *CELLS)
    coordinates = {
        "init_time": DATES,
        "lead_time": LEADS,
        "latitude": GRID.latitude,
        "longitude": GRID.longitude,
    }
    forecast = xr.DataArray(rng.standard_normal((3, 5, 2, *GRID.shape)), coordinates, dims)
    truth = forecast.isel(number=0, drop=True) * 0 + rng.standard_normal((3, 2, *GRID.shape))
    return evaluate((CRPS(), SquaredError(), Variance(), RankHistogram(6)), forecast, truth)


def parts() -> list[Sums]:
    values, weights = statistics(), region_weights(GRID)
    return [
        Sums.of(values.isel(init_time=[i], lead_time=[j]), weights, CELLS).label({"channel": name})
        for i in range(3)
        for j in range(2)
        for name in ("z500", "t850")
    ]


def assert_same(left: Sums, right: Sums) -> None:
    assert left.keys == right.keys
    for key in left.keys:
        xr.testing.assert_allclose(left.mean(key, over=()), right.mean(key, over=()), rtol=1e-12)


def test_mean_is_the_area_weighted_mean_over_all_samples():
    values = statistics()
    sums = Sums.of(values, region_weights(GRID), CELLS)
    weights = xr.DataArray(GRID.area_weights, dims=CELLS)
    expected = values.crps_fair.weighted(weights).mean((*CELLS, "init_time"))
    np.testing.assert_allclose(sums.mean("crps_fair").sel(region="globe"), expected)


def test_parts_merge_to_the_whole_in_any_order_and_grouping():
    pieces = parts()
    whole = merge(pieces)
    rng = np.random.default_rng(3)
    for _ in range(2):
        order = rng.permutation(len(pieces))
        assert_same(merge([pieces[i] for i in order]), whole)
    half = merge(pieces[:5]) + (merge(pieces[5:8]) + merge(pieces[8:]))
    assert_same(half, whole)
    a, b, c = pieces[:3]
    assert_same((c + a) + b, a + (b + c))


def test_adding_the_same_samples_twice_does_not_change_the_mean():
    whole = merge(parts())
    assert_same(whole + whole, whole)


def test_sums_survive_a_save_and_load(tmp_path):
    whole = merge([*parts(), Sums.of(statistics(5)[["variance"]], region_weights(GRID), CELLS)
                  .label({"channel": "sp"})])  # fmt: skip
    whole.save(tmp_path / "sums.zarr")
    loaded = Sums.load(tmp_path / "sums.zarr")
    for key in whole.keys:
        expected = whole.mean(key, over=())
        found = loaded.mean(key, over=()).reindex_like(expected)
        xr.testing.assert_allclose(found, expected, rtol=1e-15)


def assert_identical(left: Sums, right: Sums) -> None:
    assert left.settings == right.settings
    for one, two in ((left.totals, right.totals), (left.weights, right.weights)):
        assert one.keys() == two.keys()
        for key in one:
            xr.testing.assert_identical(one[key].rename(key), two[key].rename(key))


def test_axes_of_one_name_keep_their_own_labels_in_a_store(tmp_path):
    rng = np.random.default_rng(1)
    forecast = xr.DataArray(
        rng.normal(size=(3, 8, 4)), {"init_time": DATES}, ("init_time", "number", "x")
    )
    truth = xr.DataArray(rng.normal(size=(3, 4)), {"init_time": DATES}, ("init_time", "x"))
    several = (
        RankHistogram(11), RankHistogram(5), JointDistribution(Constants((0.0,)), 10),
        JointDistribution(Constants((0.0, 1.0)), 4), QuantileScore((0.1, 0.5, 0.9)),
        QuantileScore((0.25, 0.75)), MemberIntervals(8),
        ThresholdWeightedCRPS(Between(Constants((0.0,)), Constants((1.0,)))),
    )  # fmt: skip
    cells = xr.DataArray(np.ones(4), dims="x")
    parts = [Sums.of(evaluate((one,), forecast, truth), cells, ("x",)) for one in several]
    parts[0] = parts[0].label({"forecast": "control"})
    parts[1] = parts[1].label({"forecast": "ensemble"}) + parts[1].label({"forecast": "control"})
    whole = merge(parts)
    whole.save(tmp_path / "sums.zarr")
    loaded = Sums.load(tmp_path / "sums.zarr")
    assert_identical(loaded, whole)
    index = reliability_index(11)
    xr.testing.assert_identical(index.of(loaded), index.of(whole))
    assert rank_histogram(5).of(loaded).sizes == {"forecast": 2, "bin": 5}
    stored = xr.open_zarr(tmp_path / "sums.zarr")
    assert stored.sizes["forecast"] == 2  # one of them has both
    assert {stored.sizes["bin"], stored.sizes["bin_2"]} == {5, 11}
    assert stored[RankHistogram(5).key].notnull().all()


def test_labels_keep_their_order_in_a_store(tmp_path):
    whole = merge(parts())
    backwards = {
        key: total.isel(channel=slice(None, None, -1)) for key, total in whole.totals.items()
    }
    weights = {key: whole.weights[key].sel(channel=["z500", "t850"]) for key in whole.keys}
    sums = Sums(backwards, weights, whole.settings)
    sums = replace(
        sums,
        totals=sums.totals | {"variance": sums.totals["variance"].sel(channel=["t850"])},
        weights=sums.weights | {"variance": sums.weights["variance"].sel(channel=["t850"])},
    )
    sums.save(tmp_path / "sums.zarr")
    assert_identical(Sums.load(tmp_path / "sums.zarr"), sums)


def test_missing_sums_are_an_error(tmp_path):
    with pytest.raises(StoreError, match="no sums"):
        Sums.load(tmp_path / "nothing.zarr")
    with pytest.raises(InputError, match="'bias' was not summed, found crps_fair"):
        parts()[0].mean("bias")


def test_sums_of_different_settings_do_not_mix(tmp_path):
    values, weights = statistics(), region_weights(GRID)
    land = Sums.of(values, weights, CELLS, {"mask": "land"})
    regions = {f"region {name}": key_of(region) for name, region in REGIONS.items()}
    assert land.settings == {"missing": "propagate", "mask": "land"} | regions
    omitted = Sums.of(values.assign_attrs(missing="omit"), weights, CELLS)
    with pytest.raises(InputError, match="missing is 'propagate' and 'omit'"):
        land + omitted
    with pytest.raises(InputError, match="missing is 'propagate' and 'omit'"):
        paired((RMSE, RMSE), (land, omitted))
    land.save(tmp_path / "land.zarr")
    kept = Sums.load(tmp_path / "land.zarr").sel({"region": "globe"}).label({"channel": "z500"})
    assert (kept + kept.only(("variance",))).settings == land.settings
    unmasked = Sums.of(values, weights, CELLS)
    assert (unmasked + land).settings == land.settings  # what only one states is kept


def test_regions_that_share_a_name_do_not_mix():
    values, seasons = statistics(), season_weights(xr.DataArray(DATES, dims="init_time"))
    narrow, wide = (
        Sums.of(values, region_weights(GRID, {"box": Band(-south, south)}) * seasons, CELLS)
        for south in (20, 60)
    )
    with pytest.raises(InputError, match=r"region box is 'band_south_-20.*' and 'band_south_-60"):
        narrow + wide
    weights = region_weights(GRID)
    halves = [
        Sums.of(values.isel(latitude=rows), weights.isel(latitude=rows), CELLS)
        for rows in (slice(0, 4), slice(4, 8))
    ]
    assert_same(halves[0] + halves[1], Sums.of(values, weights, CELLS))
    one = Sums.of(values, weights.sel(region="tropics"), CELLS)
    assert one.settings["region tropics"] == key_of(REGIONS["tropics"])


def test_a_sample_of_weight_zero_has_no_say_even_where_it_is_missing():
    values = statistics()[["crps_fair"]].copy(deep=True)
    values.crps_fair[:, :, :4] = np.nan
    south = Sums.of(values, region_weights(GRID, {"south": Band(-90, 0)}), CELLS)
    assert np.isfinite(south.mean("crps_fair")).all()
    globe = Sums.of(values, region_weights(GRID, {"globe": Band(-90, 90)}), CELLS)
    assert np.isnan(globe.mean("crps_fair")).all()


@pytest.mark.parametrize("labels", [(), (2,)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_infinite_values_count_where_they_have_weight_and_nowhere_else(bad, labels):
    values = np.ones((3, 4, *labels))
    values[1, 2], values[2, 2], values[2, 3] = bad, np.inf, -np.inf
    weights = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    array = xr.DataArray(values, dims=("date", "x", *("label" for _ in labels)))
    regions = xr.DataArray(weights, dims=("region", "x"))
    found = Sums.of(array.to_dataset(name="error"), regions, ("x",)).totals["error"]
    expected = np.array([[2, 2, 2], [3, 2 + bad, np.inf], [4, 3 + bad, np.nan]])
    expected = np.broadcast_to(expected.reshape(3, 3, *(1 for _ in labels)), (3, 3, *labels))
    np.testing.assert_array_equal(found.transpose("region", "date", ...), expected)
    plain = weighted_sum(values.reshape(3, 4, -1), weights)
    np.testing.assert_array_equal(plain.reshape(expected.shape), expected)


def test_coordinates_may_differ_by_rounding_and_no_more():
    grid = Grid("equiangular", 19, 36)
    weights = region_weights(grid, {"globe": Band(-90, 90)})
    rounded = np.linspace(90, -90, 19)
    rounded[6] += 1.4e-14
    assert (rounded != grid.latitude).any()
    values = xr.DataArray(
        np.ones(grid.shape), {"latitude": rounded, "longitude": grid.longitude}, CELLS
    ).to_dataset(name="error")
    assert Sums.of(values, weights, CELLS).mean("error").item() == pytest.approx(1.0)
    shifted = values.assign_coords(latitude=rounded + 0.2)
    with pytest.raises(InputError, match="different coordinates along latitude"):
        Sums.of(shifted, weights, CELLS)


def test_no_weight_is_no_value():
    values = statistics()[["crps_fair"]]
    nowhere = xr.zeros_like(values.crps_fair.isel(init_time=0, lead_time=0, drop=True))
    assert np.isnan(Sums.of(values, nowhere, CELLS).mean("crps_fair")).all()


def test_regions_share_the_globe_and_weigh_one():
    weights = region_weights(GRID)
    total = weights.sum(CELLS)
    assert float(total.sel(region="globe")) == pytest.approx(1.0)
    assert float(total.sel(region=list(REGIONS)[1:]).sum()) == pytest.approx(1.0)
    cells = xr.DataArray(np.zeros((3, 4)), dims=("y", "x"))
    assert float(equal_weights(cells).sum()) == pytest.approx(1.0)


def test_a_region_without_a_point_of_the_grid_is_refused():
    with pytest.raises(InputError, match="'sliver' holds no point"):
        region_weights(GRID, {"sliver": Band(1.0, 2.0)})


def test_score_is_a_function_of_means():
    sums = merge(parts())
    np.testing.assert_allclose(RMSE.of(sums) ** 2, sums.mean("squared_error"))
    assert CRPS_FAIR.of(sums).attrs["estimator"] == "fair"
    assert "init_time" in CRPS_FAIR.of(sums, over=()).dims
    assert "init_time" not in CRPS_FAIR.of(sums).dims
