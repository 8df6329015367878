"""Thresholds: what is taken for them, and which levels of a climatology."""

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError
from scoring.events import JointDistribution
from scoring.probability import BrierScore, Exceedance, RankedProbabilityScore
from scoring.thresholds import Constants, Reference
from scoring.weighted import Above, Below, Between

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


@pytest.mark.parametrize(
    "made",
    [
        Exceedance,
        BrierScore,
        RankedProbabilityScore,
        Above,
        Below,
        lambda given: Between(given, Constants((1.0,))),
        lambda given: Between(Constants((0.0,)), given),
        lambda given: JointDistribution(given, 10),
    ],
)
@pytest.mark.parametrize("given", [(0.5,), 0.5, "climate"], ids=repr)
def test_bare_thresholds_are_refused_with_what_is_expected(made, given):
    with pytest.raises(InputError, match=r"thresholds are Constants\(\(10\.0, 20\.0\)\) or a Ref"):
        made(given)
