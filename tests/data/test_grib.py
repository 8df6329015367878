"""GRIB files, written here with ecCodes: members, levels, surface fields, broken ones."""

import sys

import numpy as np
import pytest

from data.errors import InputError, MissingExtraError
from data.files import open_file
from data.grid import Grid
from data.source import open_source

eccodes = pytest.importorskip("eccodes", reason="needs the extra 'grib'")
GRID = Grid("equiangular", 7, 12)
SURFACE = {"10u": ("heightAboveGround", 10), "2t": ("heightAboveGround", 2), "sp": ("surface", 0)}


def message(file, name: str, level: int, values: np.ndarray, hour: int = 0, **keys) -> None:
    kind, height = SURFACE.get(name, ("isobaricInhPa", level))
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
    ends = {"latitudeOfFirstGridPointInDegrees": 90, "latitudeOfLastGridPointInDegrees": -90}
    ends |= {"longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 330}
    steps = {"iDirectionIncrementInDegrees": 30, "jDirectionIncrementInDegrees": 30}
    when = {"dataDate": 20010101, "dataTime": 100 * hour}
    place = {"typeOfLevel": kind, "level": height, "shortName": name}
    for key, value in ({"Ni": 12, "Nj": 7} | ends | steps | when | keys | place).items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set(handle, "bitsPerValue", 24)
    eccodes.codes_set_values(handle, values.astype(float).ravel())
    eccodes.codes_write(handle, file)
    eccodes.codes_release(handle)


def field(mean: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 3, GRID.shape)


@pytest.fixture
def path(tmp_path):
    """Two times of wind and temperature at two levels and near the surface."""
    with (tmp_path / "a.grib2").open("wb") as file:
        for hour in (0, 12):
            for index, name in enumerate(("u", "10u", "2t", "sp")):
                mean = {"2t": 280, "sp": 98_000}.get(name, 5)
                for level in (500, 850) if name == "u" else (0,):
                    message(file, name, level, field(mean, level + 10 * index + hour), hour)
    return tmp_path / "a.grib2"


def test_levels_and_surface_fields_become_channels(path):
    source = open_source(path)
    assert source.channels == ("u500", "u850", "u10m", "t2m", "sp")
    assert source.grid == GRID
    assert source.times.tolist() == np.array(["2001-01-01T00", "2001-01-01T12"], "M8[s]").tolist()
    state = source.analysis(source.times[1])
    expected = [field(5, 512), field(5, 862), field(5, 22), field(280, 32), field(98_000, 42)]
    assert np.abs(state.fields[0].numpy() - np.array(expected)).max() < 0.01


def test_dataset_is_read_lazily_and_again(path):
    source = open_source(path)
    dataset = source.dataset(("u850", "t2m"))
    assert dataset.u850.chunks is not None
    assert np.abs(dataset.u850.values[0] - field(5, 850)).max() < 1e-4
    assert np.abs(dataset.t2m.values[1] - field(280, 32)).max() < 1e-4


def test_control_and_perturbed_members_are_one_ensemble(tmp_path):
    """Geopotential height in geopotential metres becomes geopotential."""
    ensemble = {"productDefinitionTemplateNumber": 1, "numberOfForecastsInEnsemble": 3}
    with (tmp_path / "a.grib2").open("wb") as file:
        for number in (0, 1, 2):
            kind = {"typeOfProcessedData": "cf" if number == 0 else "pf"}
            keys = ensemble | kind | {"perturbationNumber": number}
            message(file, "gh", 500, field(5_500, number), **keys)
    state = open_source(tmp_path / "a.grib2").analysis(np.datetime64("2001-01-01"))
    assert state.numbers == (0, 1, 2)
    assert state.channels == ("z500",)
    expected = 9.80665 * np.array([[field(5_500, number)] for number in range(3)])
    assert np.abs(state.fields.numpy() - expected).max() < 0.05


def test_forecast_holds_at_its_valid_time_and_tells_its_lead(tmp_path):
    with (tmp_path / "a.grib2").open("wb") as file:
        message(file, "2t", 0, field(280, 1), hour=6, forecastTime=36)
    source = open_source(tmp_path / "a.grib2")
    assert source.times[0] == np.datetime64("2001-01-02T18")
    assert source.dataset().lead_time.values == np.timedelta64(36, "h")


def test_series_of_steps_from_one_time_is_a_series(tmp_path):
    with (tmp_path / "a.grib2").open("wb") as file:
        for step in (6, 12):
            message(file, "2t", 0, field(280, step), forecastTime=step)
    source = open_source(tmp_path / "a.grib2")
    assert source.times.tolist() == np.array(["2001-01-01T06", "2001-01-01T12"], "M8[s]").tolist()
    state = source.analysis(source.times[1])
    assert np.abs(state.fields[0, 0].numpy() - field(280, 12)).max() < 1e-4


def test_truncated_file_is_an_error_at_the_door(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 40])
    with pytest.raises(InputError, match=r"a\.grib2: GRIB file is truncated"):
        open_source(path)


def test_nothing_is_written_beside_the_file(path):
    open_source(path).analysis(np.datetime64("2001-01-01T12"))
    assert [file.name for file in path.parent.iterdir()] == ["a.grib2"]


def test_without_the_extra_the_message_names_it(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "data.grib", None)
    with pytest.raises(MissingExtraError, match=r"needs the extra 'grib': pip install"):
        open_file(path)
