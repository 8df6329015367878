from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from data.consolidated import consolidate

SAMPLES = Path(__file__).parents[2] / "data" / "samples"


def test_a_store_opens_without_options_and_in_the_order_that_is_given(tmp_path):
    names = ["z", "q", "a", "x", "m"]
    dataset = xr.Dataset({name: ("cell", np.arange(3.0)) for name in names})
    dataset.to_zarr(tmp_path / "s.zarr", zarr_format=3, consolidated=False)
    consolidate(tmp_path / "s.zarr", names)
    assert list(xr.open_zarr(tmp_path / "s.zarr").data_vars) == names  # a warning is an error
    with pytest.raises(KeyError):
        consolidate(tmp_path / "s.zarr", [*names, "nowhere"])


@pytest.mark.parametrize("name", ["analysis", "truth", "climatology"])
def test_the_shipped_samples_list_all_their_arrays_as_each_is(name):
    path = SAMPLES / f"{name}.zarr"
    listed = zarr.open_group(path, mode="r", use_consolidated=True)
    there = zarr.open_group(path, mode="r", use_consolidated=False)
    assert dict(listed.arrays()).keys() == dict(there.arrays()).keys()
    for key, array in there.arrays():
        assert str(listed[key].metadata) == str(array.metadata)  # nan is not nan
    fields = list(xr.open_zarr(path).data_vars)
    assert fields[0].startswith("u250")
    assert fields[-1] == "sp"
