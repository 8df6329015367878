"""The project's real files open as they came; skipped where they are not at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from data.errors import InputError
from data.grid import Grid
from data.source import open_source

FOLDER = os.environ.get("MYRIAD_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER, reason="MYRIAD_REAL_DATA is not set: no real data at hand"),
]


def opened(name: str):
    if name.split(".")[-1].startswith("grib"):
        pytest.importorskip("cfgrib", reason="needs the extra 'grib'")
    return open_source(Path(FOLDER) / name)


def test_era5_state_with_37_levels_longitude_first_and_south_to_north():
    source = opened("era5_tl31_19590102T00.nc")
    assert len(source.channels) == 5 * 37 + 1
    assert source.grid == Grid("legendre-gauss", 32, 64)
    channels = [name for name in source.channels if name != "sst"]
    state = source.analysis(np.datetime64("1959-01-02T00"), channels)
    assert state.fields.shape == (1, 185, 32, 64)
    zonal = state.select(("t850", "u250", "z500")).fields[0].mean(-1)
    # January: the south pole's summer is warmer than the north's winter; jets blow eastward.
    assert zonal[0, 16] > 285
    assert zonal[0, -1] > zonal[0, 0]
    assert zonal[1].max() > 25
    assert zonal[2, 16] / 9.80665 == pytest.approx(5_860, abs=60)


def test_gfs_wind_offers_its_analyses_only():
    source = opened("gfs1p0_wind10m_2018_florence_michael.nc")
    assert source.channels == ("u10m", "v10m")
    assert source.grid == Grid("equiangular", 181, 360)
    assert source.times.size == 37
    assert set(np.diff(source.times).astype(int)[:20]) == {6 * 3600}
    state = source.analysis(np.datetime64("2018-09-15T06"))
    speed = state.fields.square().sum(1).sqrt()[0]
    assert 25 < float(speed.max()) < 60
    with pytest.raises(InputError, match="2018-09-19T18:00:00 and 2018-10-06"):
        source.check_times([np.datetime64("2018-09-25T00")])
    dataset = source.dataset(("u10m",), source.times[:3])
    assert dataset.u10m.shape == (3, 181, 360)


def test_era5_ensemble_of_analyses_gives_ten_members():
    source = opened("era5-levels-members.grib")
    assert source.channels == ("t500", "z500", "t850", "z850")
    state = source.analysis(np.datetime64("2017-01-01T12"), ("z500",))
    assert state.numbers == tuple(range(10))
    assert state.grid == Grid("equiangular", 61, 120)
    weights = state.grid.area_weights
    spread = np.sqrt((state.fields[:, 0].numpy().var(axis=0, ddof=1) * weights).sum()) / 9.80665
    assert spread == pytest.approx(1.3, abs=0.3)


def test_gfs_forecast_of_every_usual_variable():
    source = opened("gfs.t12z.pgrbf120.2p5deg.grib2")
    assert {"z500", "t850", "u250", "v250", "t2m", "u10m", "msl", "sp", "tcwv"} <= set(
        source.channels
    )
    state = source.analysis(np.datetime64("2011-01-15T12"), ("z500", "t2m", "msl"))
    assert state.grid == Grid("equiangular", 73, 144)
    assert source.dataset(("t2m",)).lead_time.values == np.timedelta64(120, "h")


@pytest.mark.parametrize(
    ("name", "channel", "mean"),
    [("fc_20170602T0300Z-PT0012H", "t2m", 287.2), ("truth_20170602T1500Z", "ws10m", 4.31)],
)
def test_regional_ensemble_and_truth_on_a_projection(name, channel, mean):
    file = {"t2m": "t2m", "ws10m": "ws10"}[channel]
    source = opened(f"mogreps_uk/{name}-{file}.nc")
    assert source.channels == (channel,)
    assert source.grid is None
    assert source.times.tolist() == [np.datetime64("2017-06-02T15", "s").item()]
    array = source.dataset()[channel]
    dims = ("projection_y_coordinate", "projection_x_coordinate")
    assert array.dims[-2:] == dims
    assert array.sizes.get("number", 1) == (12 if name.startswith("fc") else 1)
    lead = np.timedelta64(12 if name.startswith("fc") else 0, "h")
    assert array.lead_time.values == lead
    assert float(array.mean()) == pytest.approx(mean, abs=0.01)


def test_regional_ensemble_in_grib_joins_control_and_members():
    source = opened("metview_z500_ens.grib")
    array = source.dataset().z500
    assert array.shape == (1, 51, 46, 71)
    assert array.number.values.tolist() == list(range(51))
    assert array.longitude.values[[0, -1]].tolist() == [-50, 20]
    assert source.times[0] == np.datetime64("2012-09-24T00")
    with pytest.raises(InputError, match=r"longitudes \(71: -50 to 20\) are no global"):
        source.analysis(source.times[0])
