"""Legendre functions against torch-harmonics and their differential equation."""

import math

import numpy as np
import pytest
import torch
from torch_harmonics.legendre import dlegpoly, legpoly

from data.grid import Grid
from data.legendre import legendre_functions, legendre_slopes

COLATITUDE = torch.from_numpy(np.deg2rad(90 - Grid("equiangular", 33, 64).latitude))


@pytest.mark.parametrize("count", [1, 2, 3, 21, 180])
def test_functions_equal_those_of_torch_harmonics(count):
    sine = COLATITUDE.cos()
    expected = legpoly(count, count, sine, norm="ortho", csphase=True)
    torch.testing.assert_close(legendre_functions(count, sine), expected, rtol=0, atol=0)


@pytest.mark.parametrize("count", [1, 2, 3, 21, 180])
def test_slopes_equal_those_of_torch_harmonics(count):
    expected = dlegpoly(count, count, COLATITUDE, norm="ortho", csphase=True)
    torch.testing.assert_close(legendre_slopes(count, COLATITUDE), expected, rtol=0, atol=0)


def test_the_first_functions_are_the_known_ones():
    found = legendre_functions(3, COLATITUDE.cos())
    sine, cosine = COLATITUDE.cos(), COLATITUDE.sin()
    expected = {
        (0, 0): math.sqrt(1 / 4 / math.pi) * torch.ones_like(sine),
        (0, 1): math.sqrt(3 / 4 / math.pi) * sine,
        (1, 1): -math.sqrt(3 / 8 / math.pi) * cosine,
        (1, 2): -math.sqrt(15 / 8 / math.pi) * cosine * sine,
        (2, 2): math.sqrt(15 / 32 / math.pi) * cosine**2,
    }
    for (order, degree), values in expected.items():
        torch.testing.assert_close(found[order, degree], values, rtol=0, atol=1e-14)


def test_functions_are_orthonormal_at_a_high_degree():
    sine, weights = np.polynomial.legendre.leggauss(400)
    values = legendre_functions(400, torch.from_numpy(sine))
    for order in (0, 1, 57, 399):
        of_order = values[order, order:]
        gram = 2 * math.pi * (of_order * torch.from_numpy(weights)) @ of_order.T
        torch.testing.assert_close(gram, torch.eye(400 - order).double(), rtol=0, atol=1e-11)
