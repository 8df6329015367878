import numpy as np
import pytest
import xarray as xr

from data.errors import StoreError
from scoring.labels import decode, encode, save


def labelled() -> xr.Dataset:
    return xr.Dataset(
        {"crps": (("forecast", "lead"), np.arange(6.0).reshape(3, 2))},
        {
            "forecast": ["ensemble", "control", "none"],
            "units": ("forecast", ["m s-1", "K", "K"]),
            "region": "globe",
            "lead": [0, 6],
        },
    )


def test_a_store_opens_as_it_is_with_text(tmp_path):
    save(labelled(), tmp_path / "a.zarr")
    with xr.open_zarr(tmp_path / "a.zarr") as stored:  # warnings are errors
        assert float(stored.crps.sel(forecast="control", lead=6)) == 3.0
        assert stored.units.values.tolist() == ["m s-1", "K", "K"]
        assert stored.region.item() == "globe"
        xr.testing.assert_identical(decode(stored.load()), labelled())


def test_text_survives_a_store(tmp_path):
    encode(labelled()).to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(tmp_path / "a.zarr", consolidated=False) as stored:
        xr.testing.assert_identical(decode(stored.load()), labelled())


def test_flags_separated_by_blanks_are_understood():
    dataset = xr.Dataset(coords={"checkpoint": ("number", [1, 0])})
    dataset.checkpoint.attrs.update(flag_values=[0, 1], flag_meanings="a b")
    assert decode(dataset).checkpoint.values.tolist() == ["b", "a"]


def test_a_code_without_meaning_is_an_error():
    dataset = xr.Dataset(coords={"checkpoint": ("number", [2])})
    dataset.checkpoint.attrs.update(flag_values=[0, 1], flag_meanings="a b")
    with pytest.raises(StoreError, match="code 2 is not among"):
        decode(dataset)
