"""Thresholds that are quantiles of a climatology: which of its levels are taken."""

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from scoring.thresholds import Reference

CELLS = xr.DataArray(np.zeros(3), dims="x")


def climate(*levels: float, dtype: type = float) -> dict[str, xr.DataArray]:
    """The value of each quantile is its place."""
    values = np.broadcast_to(np.arange(len(levels), dtype=float), (3, len(levels)))
    coordinates = {"quantile": np.array(levels, dtype)}
    return {"climate": xr.DataArray(values, coordinates, ("x", "quantile"))}


def taken(levels: tuple[float, ...], given: dict[str, xr.DataArray]) -> list[float]:
    return Reference("climate", levels).field(given, CELLS)[0].tolist()


def test_the_nearest_level_is_taken_whatever_the_order():
    assert taken((0.999999,), climate(0.99999, 0.999999)) == [1]
    assert taken((0.5, 0.9), climate(0.9, 0.5 + 5e-8, 0.5)) == [2, 0]
    assert taken((0.1, 0.3, 0.9, 0.99), climate(0.99, 0.1, 0.9, 0.3, dtype=np.float32)) == [
        1, 3, 2, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("levels", [(0.99999, 0.5), (0.5, 0.999), ()])
def test_another_level_is_not_taken_for_it(levels):
    with pytest.raises(InputError, match=r"'climate' has no quantiles at \[.*0\.999999\]"):
        taken((0.5, 0.999999), climate(*levels))
