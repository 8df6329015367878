"""Sources: every layout gives the same state, and every bad input ends with one clear message."""

import numpy as np
import pytest
import torch
import xarray as xr

from data.errors import InputError
from data.grid import Grid
from data.source import Source, open_source

GRID = Grid("equiangular", 19, 36)
TIMES = np.arange("2001-01-01T00", "2001-01-02T12", 6, dtype="datetime64[h]").astype("M8[ns]")
NAMES = ("u500", "z500", "t850", "u10m", "t2m", "msl")
LEVELS = [500, 850]
SCALES = {"z": (55_000, 500), "u": (5, 9), "t": (270, 8), "m": (101_000, 800)}


def values(name: str, *shape: int) -> np.ndarray:
    mean, spread = SCALES[name[0]]
    draws = np.random.default_rng(sum(map(ord, name))).normal(mean, spread, shape)
    return draws.astype(np.float32)


def plain() -> xr.Dataset:
    """Our own names, our own order of everything."""
    dims = ("time", "latitude", "longitude")
    coordinates = {"time": TIMES, "latitude": GRID.latitude, "longitude": GRID.longitude}
    fields = {name: (dims, values(name, len(TIMES), *GRID.shape)) for name in NAMES}
    return xr.Dataset(fields, coordinates)


def weatherbench() -> xr.Dataset:
    """WeatherBench 2: long names on levels, (time, level, longitude, latitude), south to north."""
    ours = plain()
    level = xr.DataArray(LEVELS, dims="level", name="level")
    found = {
        "u_component_of_wind": xr.concat([ours.u500, ours.u500 + 1], level),
        "geopotential": xr.concat([ours.z500, ours.z500 - 9e3], level),
        "temperature": xr.concat([ours.t850 - 20, ours.t850], level),
        "10m_u_component_of_wind": ours.u10m,
        "2m_temperature": ours.t2m,
        "mean_sea_level_pressure": ours.msl,
        "land_sea_mask": ours.msl[0].drop_vars("time") * 0,
    }
    units = ("m s**-1", "m**2 s**-2", "K", "m s**-1", "K", "Pa", "(0 - 1)")
    dataset = xr.Dataset(found).isel(latitude=slice(None, None, -1))
    for name, unit in zip(found, units, strict=True):
        dataset[name].attrs["units"] = unit
    return dataset.transpose("time", "level", "longitude", "latitude")


def climate_and_forecast() -> xr.Dataset:
    """CF: any names, standard names, pressure in Pa, heights, other units, from -180."""
    ours = plain()
    attributes = {
        "a": ("eastward_wind", "knots"),
        "b": ("geopotential_height", "m"),
        "c": ("air_temperature", "degC"),
        "f": ("air_pressure_at_mean_sea_level", "hPa"),
    }
    found = {
        "a": ours.u500 / np.float32(1852 / 3600),
        "b": ours.z500 / np.float32(9.80665),
        "c": ours.t850 - np.float32(273.15),
        "f": ours.msl / 100,
    }
    pressures = {"a": 50_000.0, "b": 50_000.0, "c": 85_000.0}
    for name, (standard_name, units) in attributes.items():
        found[name].attrs = {"standard_name": standard_name, "units": units}
        if name in pressures:
            plev = ("plev", [pressures[name]], {"units": "Pa", "standard_name": "air_pressure"})
            found[name] = found[name].expand_dims(plev=1).assign_coords(plev=plev)
    dataset = xr.merge([found["a"].rename("a"), found["f"].rename("f")], join="exact")
    dataset = dataset.merge(found["b"].rename("b"), join="exact")
    dataset = dataset.rename(latitude="lat", longitude="lon").roll(lon=18, roll_coords=True)
    return dataset.assign_coords(lon=(dataset.lon + 180) % 360 - 180)


def climate_data_store() -> xr.Dataset:
    """ERA5 as the Climate Data Store sends it today: short names, `valid_time`, scalar number."""
    ours = plain()
    level = ("pressure_level", [850.0, 500.0], {"units": "hPa", "standard_name": "air_pressure"})
    columns = {
        "u": [ours.u500 + 1, ours.u500],
        "z": [ours.z500 - 9e3, ours.z500],
        "t": [ours.t850, ours.t850 - 20],
    }
    found = {name: xr.concat(pair, "pressure_level") for name, pair in columns.items()}
    found |= {"u10": ours.u10m, "t2m": ours.t2m, "msl": ours.msl}
    dataset = xr.Dataset(found).assign_coords(pressure_level=level, number=0)
    dataset = dataset.assign_coords(expver=("time", ["0001"] * len(TIMES)))
    return dataset.transpose("time", "pressure_level", ...).rename(time="valid_time")


def saved(dataset: xr.Dataset, folder, kind: str = "nc"):
    path = folder / f"source.{kind}"
    if kind == "zarr":
        dataset.to_zarr(path, zarr_format=3, consolidated=False)
    else:
        dataset.to_netcdf(path)
    return path


@pytest.fixture
def source(tmp_path) -> Source:
    return open_source(saved(plain(), tmp_path))


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        (plain, "nc"),
        (plain, "zarr"),
        (weatherbench, "nc"),
        (weatherbench, "zarr"),
        (climate_data_store, "nc"),
    ],
)
def test_every_layout_gives_the_same_state(tmp_path, layout, kind):
    source = open_source(saved(layout(), tmp_path, kind))
    state = source.analysis(TIMES[3], NAMES)
    expected = np.stack([plain()[name].values[3] for name in NAMES])[None]
    assert np.array_equal(state.fields.numpy(), expected)
    assert (state.grid, state.channels, state.numbers) == (GRID, NAMES, (0,))
    assert state.valid_time == TIMES[3]
    assert source.grid == GRID
    assert set(NAMES) <= set(source.channels)


def test_standard_names_and_convertible_units_give_the_same_state(tmp_path):
    source = open_source(saved(climate_and_forecast(), tmp_path))
    assert source.channels == ("u500", "z500", "msl")
    state = source.analysis(TIMES[1])
    for index, name in enumerate(source.channels):
        expected = torch.from_numpy(plain()[name].values[1])
        torch.testing.assert_close(state.fields[0, index], expected, rtol=3e-7, atol=1e-5)


@pytest.mark.parametrize(
    ("standard_name", "height", "expected"),
    [
        ("eastward_wind", 10.0, ("u10m",)),
        ("air_temperature", 2.0, ("t2m",)),
        ("air_temperature", 1.5, ("t2m",)),
        ("air_temperature", 100.0, None),
        ("eastward_wind", 100.0, None),
    ],
)
def test_height_decides_what_a_standard_name_is(tmp_path, standard_name, height, expected):
    field = plain()[["t2m"]].rename(t2m="x").assign_coords(height=height)
    field.x.attrs = {"standard_name": standard_name}
    path = saved(field, tmp_path)
    if expected:
        assert open_source(path).channels == expected
    else:
        with pytest.raises(InputError, match="no known channel among its variables x"):
            open_source(path)


@pytest.mark.parametrize("layout", [plain, weatherbench])
def test_dataset_is_lazy_and_in_the_canonical_layout(tmp_path, layout):
    source = open_source(saved(layout(), tmp_path, "zarr"))
    dataset = source.dataset(("t850", "u10m"), TIMES[[1, 2, 4]])
    assert list(dataset.data_vars) == ["t850", "u10m"]
    for name, array in dataset.data_vars.items():
        assert array.chunks is not None
        assert array.dims == ("time", "latitude", "longitude")
        assert array.dtype == np.float32
        assert array.attrs["units"] in ("K", "m s-1")
        expected = plain()[name].sel(time=TIMES[[1, 2, 4]])
        xr.testing.assert_equal(array.compute().drop_attrs(), expected)
    assert np.array_equal(dataset.latitude, GRID.latitude)
    again = open_source(saved(dataset, tmp_path, "nc"))
    assert torch.equal(
        again.analysis(TIMES[4], ("u10m",)).fields, source.analysis(TIMES[4], ("u10m",)).fields
    )


def test_channels_come_from_the_top_down_whatever_the_file_lists(source):
    assert source.channels == ("u500", "z500", "t850", "u10m", "t2m", "msl")


@pytest.mark.parametrize("name", ["number", "realization", "member"])
def test_members_keep_their_numbers(tmp_path, name):
    members = xr.concat([plain(), plain() + 1], xr.DataArray([3, 7], dims=name, name=name))
    source = open_source(saved(members.transpose("time", ..., name), tmp_path))
    state = source.analysis(TIMES[0], ("t2m", "u500"))
    assert state.numbers == (3, 7)
    assert state.fields.shape == (2, 2, *GRID.shape)
    torch.testing.assert_close(state.fields[1], state.fields[0] + 1)
    assert source.dataset(("t2m",)).t2m.dims == ("time", "number", "latitude", "longitude")


def test_one_time_without_a_dimension_is_a_series_of_one(tmp_path):
    source = open_source(saved(plain().isel(time=2), tmp_path))
    assert source.times.tolist() == [TIMES[2].astype("datetime64[s]").item()]
    assert source.analysis(TIMES[2], ("t2m",)).fields.shape == (1, 1, *GRID.shape)
    assert source.dataset(("t2m",)).t2m.dims == ("time", "latitude", "longitude")


def test_analyses_are_offered_without_the_forecasts_beside_them(tmp_path):
    leads = ("time", [0, 3, 0, 3, 0, 3])
    source = open_source(saved(plain().assign_coords(step_hours=leads), tmp_path))
    assert np.array_equal(source.times, TIMES[::2].astype("datetime64[s]"))


def test_forecasts_alone_are_offered_with_their_lead_time(tmp_path):
    leads = ("time", np.full(6, 12), {"units": "hours"})
    dataset = plain().assign_coords(forecast_period=leads)
    source = open_source(saved(dataset, tmp_path))
    assert np.array_equal(source.times, TIMES.astype("datetime64[s]"))
    lead = source.dataset(("t2m",)).lead_time.values
    assert (lead == np.timedelta64(12, "h")).all()


def test_grid_that_is_none_of_ours_can_be_scored_but_not_forecast_from(tmp_path):
    names = {"latitude": "projection_y_coordinate", "longitude": "projection_x_coordinate"}
    projected = plain().rename(names).isel(projection_y_coordinate=slice(5, 9))
    source = open_source(saved(projected, tmp_path))
    assert source.grid is None
    dims = source.dataset(("t2m",)).t2m.dims
    assert dims == ("time", "projection_y_coordinate", "projection_x_coordinate")
    with pytest.raises(InputError, match=r"no latitude-longitude grid, which a forecast needs"):
        source.analysis(TIMES[0])


def test_ten_metre_wind_is_not_the_wind_at_10_hectopascal(tmp_path):
    archive = plain()[["u10m"]].rename(u10m="u10")
    (tmp_path / "ours").mkdir()
    assert open_source(saved(archive, tmp_path)).channels == ("u10m",)
    archive.u10.attrs["level"] = 10
    assert open_source(saved(archive, tmp_path / "ours")).channels == ("u10",)


def changed(**fields) -> xr.Dataset:
    return plain().assign(fields)


def with_value(value: float) -> xr.Dataset:
    dataset = plain()
    dataset.t2m.values[3, 4, 5] = value
    return dataset


def with_units(units: str) -> xr.Dataset:
    dataset = plain()
    dataset.t2m.attrs["units"] = units
    return dataset


BAD_STATES = {
    "channel": (plain, ["q700"], r"channel 'q700' is missing.*it offers u500, z500"),
    "near channel": (plain, ["z50"], r"channel 'z50' is missing, the nearest is 'z500'"),
    "NaN": (lambda: with_value(np.nan), ["t2m"], r"t2m at 2001-01-01T18:00:00: 1 of 684 values are"
            r" not finite, the first at latitude index 4, longitude index 5"),
    "infinity": (lambda: with_value(np.inf), ["t2m"], r"t2m at .* 1 of 684 values are not finite"),
    "bounds": (lambda: changed(t2m=plain().t2m - 273), ["t2m"], r"t2m at 2001.*leave the bounds"
               r" 170 to 345 K; are the units right"),
    "units": (lambda: with_units("furlong"), ["t2m"], r"t2m has units 'furlong', channel t2m needs"
              r" 'K'"),
    "grid": (lambda: plain().isel(latitude=slice(3, 12)), ["t2m"], r"latitudes \(9: 60 to -20\) and"
             r" longitudes \(36: 0 to 350\) are no global"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_STATES)
def test_bad_state_is_one_clear_error_that_names_the_file(tmp_path, case):
    make, channels, message = BAD_STATES[case]
    source = open_source(saved(make(), tmp_path))
    with pytest.raises(InputError, match=r"source\.nc: " + message):
        source.analysis(TIMES[3], channels)


def test_missing_channel_and_wrong_units_are_found_without_reading(tmp_path):
    source = open_source(saved(with_units("furlong"), tmp_path))
    source.check_channels(["u500", "msl"])
    with pytest.raises(InputError, match="furlong"):
        source.check_channels(["u500", "t2m"])
    with pytest.raises(InputError, match="'d2m' is missing"):
        source.dataset(["d2m"])


def test_missing_time_names_the_nearest_and_the_range(source):
    source.check_times(TIMES)
    message = (
        r"source\.nc: time 2001-01-01T09:00:00 \(and 1 more\) is not in it; the nearest are "
        r"2001-01-01T06:00:00 and 2001-01-01T12:00:00, of 6 from 2001-01-01T00:00:00 to 2001-01-02"
    )
    with pytest.raises(InputError, match=message):
        source.check_times([TIMES[0], np.datetime64("2001-01-01T09"), np.datetime64("1999-01-01")])
    with pytest.raises(InputError, match="time 2001-01-03T00:00:00 is not in it"):
        source.analysis(np.datetime64("2001-01-03"))


BAD_FILES = {
    "unsorted": (lambda: plain().isel(time=[0, 2, 1]), r"times are unsorted or duplicated: "
                 r"2001-01-01T12:00:00 is followed by 2001-01-01T06:00:00"),
    "duplicate": (lambda: plain().isel(time=[0, 1, 1]), r"times are unsorted or duplicated: "
                  r"2001-01-01T06:00:00 is followed by 2001-01-01T06:00:00"),
    "no time": (lambda: plain().isel(time=0, drop=True), r"has no time coordinate, found latitude"),
    "numbers": (lambda: plain().assign_coords(time=np.arange(6)), r"times are int64, expected"),
    "layout": (lambda: plain().rename({n: f"x{n}" for n in NAMES}), r"no known channel among its"
               r" variables xu500"),
    "twice": (lambda: changed(w10=plain().u10m).rename(u10m="10u", w10="u10"), r"both '10u' and"
              r" 'u10' hold u10m"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_one_clear_error_at_the_door(tmp_path, case):
    make, message = BAD_FILES[case]
    with pytest.raises(InputError, match=r"source\.nc: " + message):
        open_source(saved(make(), tmp_path))
