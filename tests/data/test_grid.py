"""Grids: known latitudes, quadrature that integrates what it claims, recognition."""

import numpy as np
import pytest

from data.errors import InputError
from data.grid import KINDS, Grid

GRIDS = [
    Grid("legendre-gauss", 32, 64),
    Grid("equiangular", 33, 64),
    Grid("equiangular", 32, 64),
    Grid("equiangular-cells", 32, 64),
    Grid("equiangular-cells", 33, 64),
]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


@every_grid
def test_latitudes_run_from_north_to_south_and_longitudes_eastward_from_zero(grid):
    assert (np.diff(grid.latitude) < 0).all()
    assert np.allclose(grid.latitude, -grid.latitude[::-1])
    assert grid.longitude[0] == 0
    assert np.allclose(np.diff(grid.longitude), 360 / 64)
    assert (abs(grid.latitude[0]) == 90) == (grid.kind == "equiangular")


@every_grid
def test_weights_sum_to_one_and_are_positive(grid):
    assert grid.latitude_weights.sum() == pytest.approx(1, abs=1e-14)
    assert (grid.latitude_weights > 0).all()
    assert grid.area_weights.shape == grid.shape
    assert grid.area_weights.sum() == pytest.approx(1, abs=1e-13)


@every_grid
def test_weights_are_exact_for_the_polynomials_they_claim(grid):
    sine = np.sin(np.deg2rad(grid.latitude))
    exact = 2 * grid.latitudes - 1 if grid.kind == "legendre-gauss" else grid.latitudes - 1
    for degree in range(exact + 1):
        integral = 1 / (degree + 1) if degree % 2 == 0 else 0
        assert grid.latitude_weights @ sine**degree == pytest.approx(integral, abs=1e-13), degree


def test_weights_of_one_degree_are_nearly_the_area_of_their_cells():
    grid = Grid("equiangular-cells", 180, 360)
    edges = np.sin(np.deg2rad(np.linspace(90, -90, 181)))
    assert grid.latitude_weights == pytest.approx(-np.diff(edges) / 2, abs=1e-5)


@every_grid
def test_grid_is_recognised_by_its_coordinates(grid):
    assert Grid.from_coordinates(grid.latitude, grid.longitude, "file") == grid
    single = grid.latitude.astype(np.float32), grid.longitude.astype(np.float32)
    assert Grid.from_coordinates(*single, "file") == grid


def test_coordinates_of_no_known_grid_are_an_error_that_names_the_file():
    grid = GRIDS[0]
    for latitude, longitude in (
        (grid.latitude[:-1], grid.longitude),
        (grid.latitude[::-1], grid.longitude),
        (grid.latitude, grid.longitude - 180),
        (grid.latitude + 0.02, grid.longitude),
        (np.array([]), np.array([])),
    ):
        with pytest.raises(InputError, match=r"a file: latitudes .* are no global"):
            Grid.from_coordinates(latitude, longitude, "a file")
    with pytest.raises(InputError, match="must be 1-D"):
        Grid.from_coordinates(np.zeros((2, 2)), grid.longitude, "a file")


def test_unknown_kind_is_an_error():
    with pytest.raises(InputError, match="grid kind 'healpix' is unknown"):
        Grid("healpix", 8, 16)
    with pytest.raises(InputError, match="grid of 1 x 16 points is none"):
        Grid("equiangular", 1, 16)
    assert {grid.kind for grid in GRIDS} == set(KINDS)
