"""Forecasts in stores and in files say the same of their members, dates and leads."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from pipelines.against import find_scored
from pipelines.forecasts import open_forecast
from pipelines.masks import open_mask
from pipelines.score import ScoreSettings, score
from pipelines.verification import open_verification

OF_MEMBERS = ("checkpoint", "pair", "completed")


@pytest.fixture(scope="module")
def whole(verified) -> xr.Dataset:
    """All of the forecast store but its labels of valid times, in memory."""
    with xr.open_zarr(verified.forecast, consolidated=False, decode_timedelta=True) as store:
        return store.drop_vars("valid_time").load().drop_encoding()


def to_store(dataset: xr.Dataset, path: Path) -> Path:
    dataset.to_zarr(path, zarr_format=3, consolidated=False)
    return path


def to_file(dataset: xr.Dataset, path: Path) -> Path:
    dataset.to_netcdf(path)
    return path


@pytest.mark.parametrize("named", ["number", "realization"])
@pytest.mark.parametrize("as_variables", [False, True])
def test_a_file_carries_what_a_store_says_of_members(whole, tmp_path, named, as_variables):
    changed = whole.rename(number=named)
    if as_variables:
        changed = changed.reset_coords(OF_MEMBERS)
        changed["completed"] = changed.completed.astype("i1")
    found = open_forecast([to_file(changed, tmp_path / "f.nc")])
    for name in OF_MEMBERS:
        np.testing.assert_array_equal(found[name].values, whole[name].values, name)
        assert found[name].dims == whole[name].dims


def test_a_file_scores_like_the_store(verified, whole, tmp_path):
    expected = score(verified.forecast, verified.truth, tmp_path / "a").scores
    found = score(to_file(whole, tmp_path / "f.nc"), verified.truth, tmp_path / "b").scores
    found = found.reindex_like(expected)
    assert found.crps_estimator.sel(forecast="ensemble") == "stratified"
    np.testing.assert_allclose(found.crps, expected.crps, rtol=1e-6)
    np.testing.assert_array_equal(found.cases, expected.cases)


@pytest.mark.parametrize("cut", ["init_time", "lead_time"])
def test_files_of_dates_or_leads_carry_it_together(whole, tmp_path, cut):
    one = whole.isel(init_time=[4]) if cut == "lead_time" else whole
    sizes = range(one.sizes[cut])
    paths = [to_file(one.isel({cut: [i]}), tmp_path / f"{i}.nc") for i in sizes]
    found = open_forecast(paths)
    for name in OF_MEMBERS:
        np.testing.assert_array_equal(found[name].values, one[name].values, name)


def test_a_member_is_finished_if_it_is_so_in_all_files(whole, tmp_path):
    one = whole.isel(init_time=0)
    late = one.isel(lead_time=[2, 3]).assign_coords(completed=one.number != 5)
    early = one.isel(lead_time=[0, 1])
    paths = [to_file(each, tmp_path / f"{i}.nc") for i, each in enumerate((early, late))]
    found = open_forecast(paths).completed
    np.testing.assert_array_equal(found.values, [whole.number.values != 5])


def test_files_that_disagree_on_members_are_refused(whole, tmp_path):
    parts = [whole.isel(init_time=i) for i in range(2)]
    parts[1] = parts[1].assign_coords(checkpoint=parts[1].checkpoint[::-1] + 1)
    paths = [to_file(each, tmp_path / f"{i}.nc") for i, each in enumerate(parts)]
    with pytest.raises(InputError, match="checkpoint of z500 is not the same in all of them"):
        open_forecast(paths)


def test_a_store_that_says_nothing_of_members_has_all_of_them(whole, tmp_path):
    bare = whole.drop_vars(OF_MEMBERS)
    assert open_forecast([to_store(bare, tmp_path / "f.zarr")]).completed.all()


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"init_time": [0, 1, 1, 2]}, r"f.zarr: init_time 2006-01-04 00:00:00 is there twice"),
        ({"lead_time": [0, 1, 1, 2]}, r"f.zarr: lead_time 1 days 00:00:00 is there twice"),
        ({"number": [0, 1, 1, 2]}, r"f.zarr: number 1 is there twice"),
        ({"init_time": [0, 2, 1]}, r"init_time is unsorted: 2006-01-07 .* followed by 2006-01-04"),
        ({"lead_time": [0, 2, 1]}, r"lead_time is unsorted: 2 days .* is followed by 1 days"),
    ],
)
def test_labels_that_come_twice_or_in_no_order_are_refused(
    verified, whole, tmp_path, selection, message
):
    store = to_store(whole.isel(selection), tmp_path / "f.zarr")
    with pytest.raises(InputError, match=message):
        open_verification(store, verified.truth)

    def score_alike(forecast: Path, output: Path):
        return score(forecast, verified.truth, output)

    with pytest.raises(InputError, match=message):
        find_scored(store, score_alike, tmp_path)


def test_members_that_come_twice_in_a_file_are_refused(whole, tmp_path):
    path = to_file(whole.isel(number=[0, 1, 1]), tmp_path / "f.nc")
    with pytest.raises(InputError, match=r"f\.nc: number 1 is there twice"):
        open_forecast([path])
    path = to_file(whole.isel(init_time=[0, 1, 1]), tmp_path / "g.nc")
    with pytest.raises(InputError, match=r"g\.nc: z500 is there twice for init_time 2006-01-04"):
        open_forecast([path])


@pytest.mark.parametrize(
    "dims", [("init_time", "number", "lead_time"), ("init_time", "lead_time"), ("init_time",)]
)
def test_a_field_that_cannot_be_scored_is_refused_unless_channels_are_named(
    verified, whole, tmp_path, dims
):
    lacking = [dim for dim in ("init_time", "number", "lead_time") if dim not in dims]
    more = whole.assign(foo=whole.t850.isel(dict.fromkeys(lacking, 0), drop=True))
    for path in (to_store(more, tmp_path / "f.zarr"), to_file(more, tmp_path / "f.nc")):
        with pytest.raises(InputError, match="foo cannot be scored"):
            open_verification(path, verified.truth)
        assert open_verification(path, verified.truth, ["z500"]).channels == ("z500",)


def test_what_is_no_field_in_time_is_no_hindrance(verified, whole, tmp_path):
    leads = np.stack([whole.lead_time.values] * 2, axis=1) / np.timedelta64(1, "h")
    hours = {"units": "hours"}
    more = whole.assign(
        crs=((), 0),
        orography=whole.t850.isel(init_time=0, number=0, lead_time=0, drop=True),
        lead_time_bnds=(("lead_time", "bnds"), leads, hours),
        latitude_bnds=(("latitude", "bnds"), np.stack([whole.latitude.values] * 2, axis=1)),
        area_by_member=(("number", "latitude", "side"), np.zeros((9, 8, 2))),
        names=(("number", "latitude", "longitude"), np.full((9, 8, 16), "a")),
    )
    more.number.attrs["bounds"] = "area_by_member"
    more.t850.attrs["grid_mapping"] = "crs"
    found = open_verification(to_file(more, tmp_path / "f.nc"), verified.truth)
    assert set(found.channels) == {"z500", "t850"}


def test_stores_and_masks_may_run_northward_and_from_the_date_line(verified, whole, tmp_path):
    def turned(fields: xr.Dataset) -> xr.Dataset:
        east = (fields.longitude + 180) % 360 - 180
        return fields.assign_coords(longitude=east).sortby(["latitude", "longitude"])

    land = (whole.latitude + whole.longitude > 60).astype(float).to_dataset(name="land")
    scores = []
    for name, change in (("plain", lambda fields: fields), ("turned", turned)):
        folder = tmp_path / name
        folder.mkdir()
        store = to_store(change(whole), folder / "f.zarr")
        mask = open_mask(f"{to_file(change(land), folder / 'land.nc')}:land")
        settings = ScoreSettings(channels=("z500",), mask=mask)
        scores.append(score(store, verified.truth, folder, settings=settings).scores)
    xr.testing.assert_allclose(*(each.drop_attrs() for each in scores))


def test_a_store_of_quantiles_is_called_one_and_what_judges_it_is_named(verified, whole, tmp_path):
    quantiles = whole[["z500"]].quantile([0.1, 0.5, 0.9], "number")
    path = to_store(quantiles.drop_vars("completed", errors="ignore"), tmp_path / "q.zarr")
    found = r"q\.zarr: is a store of quantiles \(z500 at 3 levels, 0\.1 to 0\.9\), expected members"
    with pytest.raises(InputError, match=f"{found}.*--calibrated PATH"):
        score(path, verified.truth, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_of_quantiles_is_called_one_and_what_takes_it_is_named(verified, whole, tmp_path):
    quantiles = whole[["z500"]].quantile([0.1, 0.5, 0.9], "number").drop_encoding()
    path = tmp_path / "q.nc"
    quantiles.drop_vars(["completed", "valid_time"], errors="ignore").to_netcdf(path)
    found = r"q\.nc: is a file of quantiles \(z500 at 3 levels, 0\.1 to 0\.9\), expected members"
    with pytest.raises(InputError, match=f"{found}.*as a zarr store"):
        score(path, verified.truth, tmp_path / "out")
