"""A climatology: exact quantiles, seasons, a small store."""

import numpy as np
import pytest
import xarray as xr

import data.climatology
from data.climatology import Climatology, Seasons, climatology_from, write_climatology
from data.errors import InputError, StoreError
from data.grid import Grid
from data.key import Key
from data.noise import GaussianCorrelation, IsotropicNoise
from data.source import open_source

GRID = Grid("legendre-gauss", 16, 32)
PROBABILITY = (np.arange(50) + 0.5) / 50


def truth(times: np.ndarray, names: tuple[str, ...] = ("t850", "u500")) -> xr.Dataset:
    noise = IsotropicNoise(GRID, GaussianCorrelation(2_000.0))
    dims = ("time", "latitude", "longitude")
    fields = {name: 250 * (name[0] == "t") + 10 * noise.draw(Key(1) / name, times.size).numpy()
              for name in names}  # fmt: skip
    coordinates = {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude}
    return xr.Dataset({name: (dims, field) for name, field in fields.items()}, coordinates)


def source_of(dataset: xr.Dataset, folder):
    dataset.to_netcdf(folder / "truth.nc")
    return open_source(folder / "truth.nc")


def six_hourly(first: str, last: str) -> np.ndarray:
    return np.arange(first, last, 6, dtype="datetime64[h]").astype("datetime64[ns]")


TIMES = six_hourly("2001-01-01T00", "2001-03-01T00")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return source_of(truth(TIMES), tmp_path_factory.mktemp("truth"))


@pytest.fixture
def climatology(source, tmp_path):
    write_climatology(climatology_from(source, ("t850", "u500")), tmp_path / "c.zarr")
    return Climatology(tmp_path / "c.zarr")


def test_a_climatology_opens_without_options_channel_by_channel(climatology):
    opened = xr.open_zarr(climatology.path)  # a warning is an error
    assert list(opened.data_vars)[:3] == ["t850_mean", "t850_std", "t850"]


def test_a_digest_is_made_of_all_values_and_of_nothing_else(climatology, tmp_path):
    values = climatology.dataset.load()

    def digest(changed: xr.Dataset, name: str) -> str:
        changed.drop_encoding().to_netcdf(tmp_path / name)
        return Climatology(tmp_path / name).digest

    assert digest(values, "same.nc") == digest(values.astype("f8"), "wide.nc") == climatology.digest
    for number, name in enumerate(("t850", "t850_mean", "u500", "latitude")):
        changed = values.copy(deep=True)
        moved = changed[name].values.copy()
        moved.flat[-1] += 0.5
        changed[name] = changed[name].copy(data=moved)
        assert digest(changed, f"{number}.nc") != climatology.digest, name


def test_a_digest_looks_at_every_season(source, tmp_path):
    seasons = Seasons((15, 45), 30.0, (0, 12))
    values = climatology_from(source, ("t850",), seasons=seasons)
    digests = set()
    for day in range(3):
        changed = values.copy(deep=True)
        if day < 2:
            changed.t850.values[day, 1, -1] += 1.0
        changed.to_netcdf(tmp_path / f"{day}.nc")
        digests.add(Climatology(tmp_path / f"{day}.nc").digest)
    assert len(digests) == 3


def test_with_as_many_times_as_members_the_members_are_the_sorted_values(source):
    found = climatology_from(source, ("t850",), TIMES[:50])
    expected = np.sort(truth(TIMES).t850.values[:50], axis=0)
    np.testing.assert_allclose(found.t850.values, expected, rtol=1e-6)


def test_mean_spread_and_quantiles_are_those_of_the_sample(source):
    found = climatology_from(source, ("u500",))
    sample = truth(TIMES).u500.values.astype(float)
    np.testing.assert_allclose(found.u500_mean, sample.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.u500_std, sample.std(0), atol=1e-5)
    share = (sample[None] <= found.u500.values[:, None]).mean(axis=1)
    assert np.abs(share - PROBABILITY[:, None, None]).max() <= 1 / TIMES.size
    assert np.allclose(found.probability, PROBABILITY)
    assert found.u500.dims == ("number", "latitude", "longitude")
    assert found.u500.attrs["units"] == "m s-1"


def test_bands_do_not_change_the_result(source, monkeypatch):
    whole = climatology_from(source, ("u500",))
    monkeypatch.setattr(data.climatology, "_BAND_BYTES", 4 * TIMES.size * 32 * 5)
    xr.testing.assert_identical(climatology_from(source, ("u500",)), whole)


def test_reader_gives_states_at_any_time(source, climatology):
    expected = climatology_from(source, ("t850", "u500"))
    time = np.datetime64("1999-07-01T06")
    members = climatology.members(time, ("u500", "t850"))
    assert (members.grid, members.channels) == (GRID, ("u500", "t850"))
    assert members.numbers == tuple(range(1, 51))
    assert np.abs(members.fields[:, 1].numpy() - expected.t850.values).max() <= 1 / 16
    for state, suffix in (climatology.mean, "_mean"), (climatology.std, "_std"):
        one = state(time, ("t850",))
        assert one.fields.shape == (1, 1, *GRID.shape)
        assert one.valid_time == time
        assert np.abs(one.fields[0, 0].numpy() - expected[f"t850{suffix}"].values).max() <= 1 / 128
    assert climatology.channels == ("t850", "u500")
    assert climatology.grid == GRID


def test_reader_gives_a_dataset_along_times(climatology):
    dataset = climatology.at(TIMES[:3], ("t850",))
    assert dataset.t850.dims == ("time", "number", "latitude", "longitude")
    assert dataset.t850_std.dims == ("time", "latitude", "longitude")
    assert np.array_equal(dataset.time, TIMES[:3])
    assert np.array_equal(dataset.t850[0], dataset.t850[2])


def test_seasons_hold_their_own_samples_over_the_turn_of_the_year(tmp_path):
    times = six_hourly("2001-01-01T00", "2003-01-01T00")[::2]
    dataset = truth(times, ("t850",))
    day = dataset.time.dt.dayofyear
    dataset["t850"] = 250 + 10 * np.cos(2 * np.pi * day / 365) + dataset.time.dt.hour
    dataset["t850"] = dataset.t850.broadcast_like(
        truth(times[:1], ("t850",)).isel(time=0, drop=True)
    )
    seasons = Seasons(days=(1, 183), half_width=10, hours=(0, 12))
    found = climatology_from(source_of(dataset, tmp_path), ("t850",), seasons=seasons)
    assert found.t850.dims == ("dayofyear", "hour", "number", "latitude", "longitude")
    means = found.t850_mean.mean(("latitude", "longitude"))
    assert means.values == pytest.approx(np.array([[260, 272], [240, 252]]), abs=0.2)
    write_climatology(found, tmp_path / "c.zarr")
    reader = Climatology(tmp_path / "c.zarr")
    for time, expected in {
        "2010-12-28T00": 260,
        "2010-07-10T13": 252,
        "2010-04-01T12": 272,
    }.items():
        state = reader.mean(np.datetime64(time), ("t850",))
        assert float(state.fields.mean()) == pytest.approx(expected, abs=0.2), time
    along = reader.at([np.datetime64("2010-12-28T00"), np.datetime64("2010-07-10T12")], ("t850",))
    assert along.t850_mean.mean(("latitude", "longitude")).values == pytest.approx(
        [260, 252], abs=0.2
    )
    assert along.t850.dims == ("time", "number", "latitude", "longitude")


def test_samples_of_a_season_wrap_around_the_year():
    times = np.array(["2001-12-25T06", "2001-01-05T05", "2001-01-20T06", "2001-01-05T12"], "M8[s]")
    seasons = Seasons(days=(1,), half_width=10, hours=(6, 12))
    assert seasons.samples(times, 1, 6).tolist() == [True, True, False, False]


def test_season_without_a_sample_is_an_error(source):
    seasons = Seasons(days=(200,), half_width=10)
    with pytest.raises(InputError, match="no sample within 10 days of day 200 of the year at 00"):
        climatology_from(source, ("u500",), seasons=seasons)


def test_value_that_is_not_finite_is_an_error(tmp_path):
    dataset = truth(TIMES)
    dataset.u500.values[3, 4, 5] = np.nan
    with pytest.raises(InputError, match=r"u500 at 2001-01-01T18.* not finite"):
        climatology_from(source_of(dataset, tmp_path), ("u500",))


def test_other_files_and_channels_are_errors(tmp_path, climatology):
    with pytest.raises(InputError, match="channel 'q700' is missing, it knows t850, u500"):
        climatology.mean(TIMES[0], ("q700",))
    truth(TIMES[:2]).to_netcdf(tmp_path / "truth.nc")
    with pytest.raises(InputError, match=r"truth\.nc: is no climatology.*found t850, u500"):
        Climatology(tmp_path / "truth.nc").mean(TIMES[0], ("t850",))
    with pytest.raises(InputError, match="does not exist"):
        Climatology(tmp_path / "none.zarr").channels  # noqa: B018


def test_target_that_cannot_be_written_is_an_error(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        write_climatology(climatology_from(source, ("u500",), TIMES[:3]), tmp_path / "file" / "c")


def test_store_of_eleven_channels_fits_the_sample(tmp_path):
    """1.5 MB for 11 channels of 32 x 64: 5,600 bytes a channel member there, 1,400 here."""
    names = ("u250", "v250", "u500", "v500", "u850", "v850")
    source = source_of(truth(TIMES, names), tmp_path)
    write_climatology(climatology_from(source, names), tmp_path / "c.zarr")
    size = sum(file.stat().st_size for file in (tmp_path / "c.zarr").rglob("*") if file.is_file())
    assert size < 6 * 50 * 1_400
