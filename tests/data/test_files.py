"""Files that are missing, damaged or of another kind: one clear error each."""

import re

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from data.files import open_file
from data.netcdf3 import expected_size
from data.source import open_source

TIMES = np.arange("2001-01-01", "2001-01-05", dtype="datetime64[D]").astype("M8[ns]")


def dataset() -> xr.Dataset:
    draws = np.random.default_rng(1).normal(size=(4, 19, 36)).astype(np.float32)
    coordinates = {
        "time": TIMES,
        "latitude": np.linspace(90, -90, 19),
        "longitude": np.arange(36) * 10.0,
    }
    dims = ("time", "latitude", "longitude")
    return xr.Dataset({"u500": (dims, draws), "v500": (dims, -draws)}, coordinates)


def cut(path, share: float):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


FORMATS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF3_64BIT_DATA", "NETCDF4"]


@pytest.mark.parametrize("unlimited", [(), ("time",)], ids=["fixed", "unlimited"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.95])
@pytest.mark.parametrize("version", FORMATS)
def test_truncated_netcdf_is_an_error_at_the_door(tmp_path, version, share, unlimited):
    path = tmp_path / "a.nc"
    dataset().to_netcdf(path, format=version, engine="netcdf4", unlimited_dims=unlimited)
    open_file(path)
    with pytest.raises(InputError, match=r"a\.nc: .*(truncated|complete)"):
        open_file(cut(path, share))


@pytest.mark.parametrize("unlimited", [(), ("time",)], ids=["fixed", "unlimited"])
@pytest.mark.parametrize("version", FORMATS[:3])
@pytest.mark.parametrize("names", [["u500"], ["u500", "v500"]], ids=len)
def test_header_of_a_classic_file_tells_its_length(tmp_path, version, unlimited, names):
    path = tmp_path / "a.nc"
    chosen = dataset()[names].assign_attrs(title="odd length", numbers=[1, 2, 3])
    small = chosen.assign(flags=("time", np.int8([1, 2, 3, 4])))
    small.to_netcdf(path, format=version, engine="netcdf4", unlimited_dims=unlimited)
    assert 0 <= path.stat().st_size - expected_size(path) <= 3


def test_damaged_zarr_chunk_names_file_variable_and_time(tmp_path):
    path = tmp_path / "a.zarr"
    dataset().to_zarr(path, zarr_format=3, consolidated=False)
    cut(path / "v500" / "c" / "0" / "0" / "0", 0.5)
    source = open_source(path)
    source.analysis(TIMES[2], ["u500"])
    message = r"a\.zarr: v500 at 2001-01-03T00:00:00 cannot be read; is the file complete"
    with pytest.raises(InputError, match=message):
        source.analysis(TIMES[2], ["v500"])


def test_missing_zarr_chunk_is_found_when_it_is_read(tmp_path):
    path = tmp_path / "a.zarr"
    chunks = {name: {"chunks": (1, 19, 36)} for name in ("u500", "v500")}
    dataset().to_zarr(path, zarr_format=3, consolidated=False, encoding=chunks)
    (path / "u500" / "c" / "1" / "0" / "0").unlink()
    source = open_source(path)
    source.analysis(TIMES[0])
    with pytest.raises(InputError, match=r"u500 at 2001-01-02.* 684 of 684 values are not finite"):
        source.analysis(TIMES[1])


def test_damaged_zarr_metadata_is_an_error_at_the_door(tmp_path):
    path = tmp_path / "a.zarr"
    dataset().to_zarr(path, zarr_format=3, consolidated=False)
    cut(path / "zarr.json", 0.5)
    with pytest.raises(InputError, match=r"a\.zarr: cannot be opened; is it complete"):
        open_file(path)


def test_zarr_of_version_2_opens_with_its_consolidated_metadata(tmp_path):
    path = tmp_path / "a.zarr"
    dataset().to_zarr(path, zarr_format=2, consolidated=True)
    assert open_source(path).channels == ("u500", "v500")


def test_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'none.nc'}: does not exist")):
        open_file(tmp_path / "none.nc")


def test_a_name_that_no_file_can_have_is_named(tmp_path):
    path = tmp_path / ("a" * 300 + ".nc")
    with pytest.raises(InputError, match=f"^{path}: cannot be read: File name too long$"):
        open_file(path)


def test_other_files_and_folders_are_errors(tmp_path):
    (tmp_path / "a.csv").write_text("time,t2m\n")
    (tmp_path / "empty.nc").touch()
    for name in ("a.csv", "empty.nc"):
        with pytest.raises(InputError, match=rf"{name}: is no zarr store, NetCDF or GRIB file"):
            open_file(tmp_path / name)
    with pytest.raises(InputError, match="is a folder, but no zarr store"):
        open_file(tmp_path)
