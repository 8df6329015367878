"""Dense transforms against torch-harmonics and the sphere of the ground floor."""

import pytest
import torch
from torch_harmonics import InverseRealSHT, InverseRealVectorSHT, RealSHT

from data.grid import Grid
from data.key import Key
from data.sphere import Sphere
from forecast.transform import Analysis, Synthesis

GRIDS = [
    Grid("legendre-gauss", 12, 24),
    Grid("legendre-gauss", 32, 64),
    Grid("equiangular", 33, 64),
]
HARMONIC_NAMES = {"legendre-gauss": "legendre-gauss", "equiangular": "equiangular"}


def fields_on(grid: Grid, degrees: int, count: int = 3) -> torch.Tensor:
    """Fields that `degrees` resolve, (field, latitude, longitude)."""
    sphere = Sphere(grid, degrees - 1)
    rough = torch.from_numpy(Key(1).normal((count, *grid.shape)))
    return sphere.truncate(rough)


def to_complex(coefficients: torch.Tensor) -> torch.Tensor:
    """(m, part, l, field) as (field, l, m)."""
    return torch.complex(coefficients[:, 0], coefficients[:, 1]).permute(2, 1, 0)


def from_complex(coefficients: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(coefficients).permute(2, 3, 1, 0).contiguous()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_analysis_equals_torch_harmonics(grid):
    degrees = 8
    fields = fields_on(grid, degrees)
    oracle = RealSHT(
        *grid.shape, lmax=degrees, mmax=degrees, grid=HARMONIC_NAMES[grid.kind], norm="ortho"
    )
    found = to_complex(Analysis(grid, degrees)(fields.permute(2, 1, 0)))
    torch.testing.assert_close(found, oracle(fields), atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_synthesis_equals_torch_harmonics(grid):
    degrees = 8
    coefficients = Sphere(grid, degrees - 1).analyse(fields_on(grid, degrees))
    oracle = InverseRealSHT(
        *grid.shape, lmax=degrees, mmax=degrees, grid=HARMONIC_NAMES[grid.kind], norm="ortho"
    )
    found = Synthesis(grid, degrees)(from_complex(coefficients)).permute(2, 1, 0)
    torch.testing.assert_close(found, oracle(coefficients), atol=2e-6, rtol=1e-4)


def test_gradients_equal_the_spheroidal_harmonics_of_torch_harmonics():
    grid, degrees = GRIDS[0], 8
    coefficients = Sphere(grid, degrees - 1).analyse(fields_on(grid, degrees))
    oracle = InverseRealVectorSHT(
        *grid.shape, lmax=degrees, mmax=degrees, grid=grid.kind, norm="ortho"
    )
    both = torch.stack([coefficients, torch.zeros_like(coefficients)], dim=1)
    expected = oracle(both)  # (field, component, latitude, longitude)
    found = Synthesis(grid, degrees)(from_complex(coefficients), gradients=3)
    found = found.permute(2, 1, 0).unflatten(0, (2, 3)).transpose(0, 1)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-4)


def test_power_of_a_gradient_is_l_times_l_plus_1_times_that_of_its_field():
    grid, degrees = Grid("legendre-gauss", 12, 24), 8
    weights = torch.from_numpy(grid.area_weights).float()
    fields = fields_on(grid, degrees, 1)
    sphere = Sphere(grid, degrees - 1)
    degree = torch.arange(degrees)
    expected = (sphere.power(sphere.analyse(fields)) * degree * (degree + 1)).sum()
    coefficients = Analysis(grid, degrees)(fields.permute(2, 1, 0))
    slopes = Synthesis(grid, degrees)(coefficients, gradients=1).permute(2, 1, 0)
    torch.testing.assert_close((slopes.square() * weights).sum(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["legendre-gauss", "equiangular", "equiangular-cells"])
def test_synthesis_undoes_analysis_on_every_grid(kind):
    grid = Grid(kind, 20, 40)
    fields = fields_on(grid, 8).permute(2, 1, 0)
    back = Synthesis(grid, 8)(Analysis(grid, 8)(fields))
    torch.testing.assert_close(back, fields, atol=1e-5, rtol=1e-4)
