import numpy as np
import pandas as pd
import pytest
import xarray as xr

from data.errors import InputError
from scoring.calibration.features import (
    Category,
    Centre,
    Coordinate,
    Latitude,
    Season,
    Spread,
    feature_table,
)


def forecast() -> xr.DataArray:
    """(model, init_time, latitude, quantile)"""
    values = np.arange(48.0).reshape(2, 4, 2, 3)
    coordinates = {
        "model": ["a", "b"],
        "init_time": pd.to_datetime(["2024-01-01", "2024-04-01", "2024-07-01", "2024-10-01"]),
        "latitude": [-90.0, 30.0],
        "quantile": [0.1, 0.5, 0.9],
        "lead_time": np.timedelta64(36, "h").astype("timedelta64[ns]"),
        "region": ("latitude", ["south", "north"]),
    }
    return xr.DataArray(values, coordinates, ("model", "init_time", "latitude", "quantile"))


def test_table_has_the_cases_in_order():
    features = (
        Coordinate("lead_time"),
        Season(),
        Latitude(),
        Category("region", ("south",)),
        Centre(),
        Spread(2.0),
    )
    table = feature_table(features, forecast())
    assert table.shape == (4, 2, 9)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table[..., 0], 1.5)
    np.testing.assert_allclose(np.hypot(table[..., 1], table[..., 2]), 1, rtol=1e-6)
    np.testing.assert_allclose(table[0, 0, 1] + table[2, 0, 1], 0, atol=0.03)
    np.testing.assert_allclose(table[..., 3], [[-1, 0.5]] * 4, rtol=1e-6)
    np.testing.assert_allclose(table[..., 4], [[1, 0.5]] * 4, rtol=1e-6)
    np.testing.assert_array_equal(table[..., 5], [[1, 0]] * 4)
    middle = forecast().values[..., 1]
    np.testing.assert_allclose(table[..., 6], np.arcsinh(middle.mean(axis=0)), rtol=1e-6)
    np.testing.assert_allclose(table[..., 7], np.arcsinh(1.0), rtol=1e-6)
    np.testing.assert_allclose(table[..., 8], np.arcsinh(middle.std(axis=0) / 2), rtol=1e-6)


def test_spread_of_one_model_is_its_width():
    table = feature_table((Spread(),), forecast().isel(model=[0]))
    np.testing.assert_array_equal(table[..., 1], 0)


def test_coordinates_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="region has no numbers"):
        feature_table((Coordinate("region"),), forecast())
    with pytest.raises(InputError, match="not among the coordinates"):
        feature_table((Coordinate("site"),), forecast())
    named = forecast().assign_coords(weight=("model", [0.0, 1.0]))
    with pytest.raises(InputError, match=r"depends on \['model'\]"):
        feature_table((Coordinate("weight"),), named)
