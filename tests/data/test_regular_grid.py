import numpy as np
import pytest

from data.errors import InputError
from data.regular_grid import RegularGrid

ROUND = np.arange(0.0, 360.0, 5.0)


def brute_force(south: float, north: float) -> float:
    """The area between two latitudes over that of the globe, by adding up thin rings."""
    edges = np.linspace(south, north, 20_001)
    middles = np.deg2rad((edges[1:] + edges[:-1]) / 2)
    return float(np.cos(middles).sum() * np.deg2rad(edges[1] - edges[0])) / 2


@pytest.mark.parametrize("order", [1, -1])
def test_weights_are_the_areas_between_half_way_latitudes(order):
    latitude = np.array([60.0, 55.0, 52.0, 40.0])[::order]
    grid = RegularGrid(latitude, np.arange(5.0), "f.nc")
    bounds = [(57.5, 62.5), (53.5, 57.5), (46.0, 53.5), (34.0, 46.0)][::order]
    areas = np.array([brute_force(*each) for each in bounds])
    found = grid.area_weights
    np.testing.assert_allclose(found.sum(axis=1), areas / areas.sum(), rtol=1e-8)
    np.testing.assert_array_equal(found, found[:, :1] * np.ones(5))
    assert found.sum() == pytest.approx(1.0)


def test_rows_at_the_poles_are_half_as_wide():
    latitude = np.linspace(90, -90, 19)
    grid = RegularGrid(latitude, ROUND, "f.nc")
    rows = grid.area_weights.sum(axis=1)
    assert rows[0] == pytest.approx(brute_force(85, 90), rel=1e-8)
    assert rows[-1] == pytest.approx(rows[0])
    assert (rows * np.sin(np.deg2rad(latitude)) ** 2).sum() == pytest.approx(1 / 3, abs=0.01)


def test_a_grid_is_global_if_it_goes_round_and_lacks_at_most_one_circle():
    whole = np.linspace(90, -90, 37)
    for latitude, longitude, expected in (
        (whole, ROUND + 2.5, True),
        (whole[::-1], ROUND - 180, True),
        (whole[:36], ROUND, True),
        (whole[1:-1], ROUND, True),
        (whole[:30], ROUND, False),
        (whole[:18], ROUND, False),
        (whole, ROUND[:60], False),
    ):
        assert RegularGrid(latitude, longitude, "f.nc").is_global == expected


def test_one_circle_of_latitude_weighs_alike():
    grid = RegularGrid(np.array([50.0]), np.arange(4.0), "f.nc")
    np.testing.assert_allclose(grid.area_weights, 0.25)
    assert not grid.is_global


@pytest.mark.parametrize(
    ("latitude", "message"),
    [
        ([10.0, 20.0, 15.0], "f.nc: latitudes are neither ascending nor descending"),
        ([10.0, 10.0], "neither ascending nor descending"),
        ([100.0, 80.0], "reach from 80 to 100, expected degrees within -90 to 90"),
    ],
)
def test_what_is_no_latitude_is_refused(latitude, message):
    with pytest.raises(InputError, match=message):
        RegularGrid(np.array(latitude), ROUND, "f.nc")
