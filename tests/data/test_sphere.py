"""The transform pair: closed forms, algebra, and torch-harmonics as an oracle."""

import numpy as np
import pytest
import torch
from torch_harmonics import InverseRealSHT, RealSHT

from data.errors import InputError
from data.grid import Grid
from data.sphere import Sphere, largest_truncation

GAUSS = Grid("legendre-gauss", 32, 64)
GRIDS = [GAUSS, Grid("equiangular", 37, 72), Grid("equiangular-cells", 32, 64)]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def angles(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude in radians, each (latitude, longitude)."""
    return np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")


def coefficients_on(sphere: Sphere, count: int = 3) -> torch.Tensor:
    """Seeded coefficients that a real field can have, (count, l, m)."""
    size = sphere.truncation + 1
    generator = torch.Generator().manual_seed(1)
    pairs = torch.randn(count, size, size, 2, generator=generator)
    pairs[:, :, 0, 1] = 0
    return torch.view_as_complex(pairs * torch.ones(size, size).tril()[..., None])


def area_mean(fields: torch.Tensor, grid: Grid) -> torch.Tensor:
    return (fields.double() * torch.from_numpy(grid.area_weights)).sum(dim=(-2, -1))


@every_grid
def test_first_harmonics_have_their_closed_form(grid):
    sphere = Sphere(grid, 8)
    latitude, longitude = angles(grid)
    forms = {
        (0, 0): np.full(grid.shape, np.sqrt(1 / (4 * np.pi))),
        (1, 0): np.sqrt(3 / (4 * np.pi)) * np.sin(latitude),
        (2, 0): np.sqrt(5 / (16 * np.pi)) * (3 * np.sin(latitude) ** 2 - 1),
        # A unit coefficient at m > 0 stands for 2 Re Y_lm, with the Condon-Shortley phase.
        (1, 1): -2 * np.sqrt(3 / (8 * np.pi)) * np.cos(latitude) * np.cos(longitude),
        (2, 2): 2 * np.sqrt(15 / (32 * np.pi)) * np.cos(latitude) ** 2 * np.cos(2 * longitude),
    }
    for (degree, order), form in forms.items():
        found = sphere.analyse(torch.from_numpy(form))
        expected = torch.zeros(9, 9, dtype=torch.complex64)
        expected[degree, order] = 1
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
        field = sphere.synthesise(expected)
        torch.testing.assert_close(field, torch.from_numpy(form).float(), rtol=0, atol=2e-6)


@every_grid
def test_solid_body_rotation_has_degrees_0_and_2_and_the_known_mean_square(grid):
    """The stream function of u = cos(latitude) is -sin(latitude); mean of u^2 is 2/3."""
    sphere = Sphere(grid, 10)
    latitude, _ = angles(grid)
    stream = sphere.power(sphere.analyse(torch.from_numpy(-np.sin(latitude))))
    expected = torch.zeros(11)
    expected[1] = 1 / 3
    torch.testing.assert_close(stream, expected, rtol=0, atol=1e-6)
    energy = sphere.analyse(torch.from_numpy(np.cos(latitude) ** 2))
    assert sphere.power(energy)[[0, 2]].numpy() == pytest.approx([4 / 9, 4 / 45], abs=1e-6)
    assert float(sphere.power(energy)[3:].sum()) < 1e-10


@every_grid
def test_analysis_undoes_synthesis_at_every_truncation(grid):
    for truncation in (0, 1, 21, largest_truncation(grid)):
        sphere = Sphere(grid, truncation)
        coefficients = coefficients_on(sphere)
        found = sphere.analyse(sphere.synthesise(coefficients))
        torch.testing.assert_close(found, coefficients, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["legendre-gauss", "equiangular"])
def test_where_the_quadrature_is_exact_the_pair_is_the_one_of_torch_harmonics(kind):
    grid, truncation = Grid(kind, 33, 64), 16
    sphere = Sphere(grid, truncation)
    options = {"lmax": truncation + 1, "mmax": truncation + 1, "grid": kind, "norm": "ortho"}
    fields = torch.randn(2, *grid.shape, generator=torch.Generator().manual_seed(2))
    coefficients = sphere.analyse(fields)
    torch.testing.assert_close(coefficients, RealSHT(*grid.shape, **options)(fields))
    expected = InverseRealSHT(*grid.shape, **options)(coefficients)
    torch.testing.assert_close(sphere.synthesise(coefficients), expected)


@every_grid
def test_power_sums_to_the_area_mean_square(grid):
    sphere = Sphere(grid, 15)
    coefficients = coefficients_on(sphere)
    fields = sphere.synthesise(coefficients)
    total = sphere.power(coefficients).sum(-1).double()
    torch.testing.assert_close(total, area_mean(fields**2, grid), rtol=1e-5, atol=0)
    cross = sphere.cross_power(coefficients[0], coefficients[1]).sum(-1).double()
    torch.testing.assert_close(cross, area_mean(fields[0] * fields[1], grid), rtol=1e-4, atol=1e-5)


@every_grid
def test_truncation_is_a_projection(grid):
    coarse, fine = Sphere(grid, 10), Sphere(grid)
    noise = torch.randn(2, *grid.shape, generator=torch.Generator().manual_seed(3))
    resolved = fine.synthesise(coefficients_on(fine, 2))
    once = coarse.truncate(noise)
    torch.testing.assert_close(coarse.truncate(once), once, rtol=0, atol=1e-5)
    torch.testing.assert_close(fine.truncate(resolved), resolved, rtol=0, atol=2e-4)


def test_truncation_keeps_the_low_degrees_as_they_are():
    fine, coarse = Sphere(GAUSS, 21), Sphere(GAUSS, 10)
    coefficients = coefficients_on(fine)
    found = coarse.analyse(fine.synthesise(coefficients))
    torch.testing.assert_close(found, coefficients[:, :11, :11], rtol=0, atol=1e-5)


@every_grid
def test_shift_in_longitude_turns_the_phase_only(grid):
    sphere = Sphere(grid, 12)
    coefficients = coefficients_on(sphere)
    shifted = sphere.analyse(torch.roll(sphere.synthesise(coefficients), 3, dims=-1))
    turn = torch.polar(torch.ones(13), -torch.arange(13) * (3 * 2 * np.pi / grid.longitudes))
    torch.testing.assert_close(shifted, coefficients * turn, rtol=0, atol=1e-5)
    torch.testing.assert_close(sphere.power(shifted), sphere.power(coefficients))


def test_both_ways_are_differentiable():
    sphere = Sphere(GAUSS, 8)
    fields = torch.randn(2, *GAUSS.shape, generator=torch.Generator().manual_seed(4))
    fields.requires_grad_()
    sphere.power(sphere.analyse(fields)).sum().backward()
    # The gradient of the area mean of the square of the resolved part.
    weights = torch.from_numpy(GAUSS.area_weights).float()
    expected = 2 * weights * sphere.truncate(fields).detach()
    torch.testing.assert_close(fields.grad, expected, rtol=0, atol=1e-7)


def test_autocast_does_not_lower_the_precision():
    sphere = Sphere(GAUSS, 21)
    fields = torch.randn(GAUSS.shape, generator=torch.Generator().manual_seed(5))
    expected = sphere.truncate(fields)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sphere.truncate(fields)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("grid", "limit"), [(GRIDS[0], 31), (Grid("equiangular", 32, 64), 30), (GRIDS[2], 31)], ids=str
)
def test_truncation_beyond_the_grid_is_an_error(grid, limit):
    assert largest_truncation(grid) == limit
    with pytest.raises(InputError, match=f"resolves truncations 0 to {limit}, not {limit + 1}"):
        Sphere(grid, limit + 1)


def test_tables_are_no_part_of_a_checkpoint():
    assert Sphere(GAUSS, 5).state_dict() == {}
