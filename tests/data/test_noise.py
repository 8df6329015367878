"""Isotropic noise: unit variance everywhere, the right correlation, addressed draws."""

import numpy as np
import pytest
import torch

from data.errors import InputError
from data.grid import Grid
from data.key import Key
from data.noise import (
    EARTH_RADIUS_KM,
    EvolvingNoise,
    GaussianCorrelation,
    IsotropicNoise,
    Matern,
    White,
)

GAUSS = Grid("legendre-gauss", 32, 64)
GRIDS = [GAUSS, Grid("equiangular", 37, 72), Grid("equiangular-cells", 32, 64)]
SPECTRA = [GaussianCorrelation(500.0), GaussianCorrelation(3_000.0), White(), Matern(5.0, 2.0)]
KEY = Key(11) / "noise"
PINNED = [0.186193, 0.199031, 0.252524]


@pytest.mark.parametrize("spectrum", SPECTRA, ids=repr)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_variance_is_exactly_one_at_every_latitude(grid, spectrum):
    """The variance is a quadratic form of the amplitudes: no sampling is needed."""
    noise = IsotropicNoise(grid, spectrum, truncation=10)
    amplitudes = noise._amplitudes
    size = amplitudes.shape[0]
    variance = torch.zeros(grid.latitudes, dtype=torch.float64)
    for degree in range(size):
        unit = torch.zeros(size, size, size, dtype=torch.complex64)
        orders = torch.arange(size)
        unit[orders, degree, orders] = 1
        # At longitude 0 a real coefficient gives the Legendre function; an imaginary one gives
        # the same a quarter wave away, so both parts together give its square at any longitude.
        legendre = noise.sphere.synthesise(unit)[:, :, 0].double()
        variance += (amplitudes[degree, :, 0].double() ** 2) @ legendre**2
    assert variance.numpy() == pytest.approx(np.ones(grid.latitudes), abs=1e-5)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_sampled_variance_is_one_at_every_latitude_poles_included(grid):
    """A latitude circle of one draw holds at least one independent value: 3,000 at the pole."""
    fields = IsotropicNoise(grid, GaussianCorrelation(1_500.0)).draw(KEY, 3_000)
    variance = fields.double().var(dim=0, correction=0).mean(dim=-1)
    sampling_error = np.sqrt(2 / 3_000)
    assert float((variance - 1).abs().max()) < 4 * sampling_error


def test_correlation_falls_off_as_a_gaussian_of_distance():
    length = 1_000.0
    fields = IsotropicNoise(GAUSS, GaussianCorrelation(length)).draw(KEY, 2_000).double()
    step_km = 2 * np.pi * EARTH_RADIUS_KM * np.cos(np.deg2rad(GAUSS.latitude[16])) / 64
    for steps in (1, 2, 3):
        found = float((fields[:, 16] * torch.roll(fields[:, 16], steps, dims=-1)).mean())
        assert found == pytest.approx(np.exp(-((steps * step_km / length) ** 2) / 2), abs=0.03)


@pytest.mark.parametrize(
    ("spectrum", "expected"),
    [
        (White(), lambda degree: np.ones(degree.size)),
        (Matern(4.0, 1.5), lambda degree: (2 * degree + 1) * (degree * (degree + 1) + 16) ** -1.5),
    ],
    ids=repr,
)
def test_power_follows_the_spectrum(spectrum, expected):
    noise = IsotropicNoise(GAUSS, spectrum, truncation=20)
    power = noise.sphere.power(noise.coefficients(KEY, 2_000)).double().mean(0)
    form = expected(np.arange(1, 21))
    assert power[0] == 0
    assert power[1:].numpy() == pytest.approx(form / form.sum(), rel=0.08)


def test_noise_has_no_global_mean():
    fields = IsotropicNoise(GAUSS, White()).draw(KEY, 5).double()
    means = (fields * torch.from_numpy(GAUSS.area_weights)).sum(dim=(-2, -1))
    assert float(means.abs().max()) < 1e-6


def test_equal_keys_give_equal_fields_and_other_paths_uncorrelated_ones():
    noise = IsotropicNoise(GAUSS, GaussianCorrelation(500.0))
    first = noise.draw(KEY / 1 / "seed")
    assert torch.equal(first, noise.draw(KEY / 1 / "seed"))
    for other in (KEY / 2 / "seed", KEY / 1 / "step", Key(12) / "noise" / 1 / "seed"):
        correlation = float((first * noise.draw(other)).mean())
        assert abs(correlation) < 0.15


def test_fields_do_not_depend_on_how_many_are_drawn():
    noise = IsotropicNoise(GAUSS, GaussianCorrelation(500.0))
    torch.testing.assert_close(noise.draw(KEY, 7)[:3], noise.draw(KEY, 3), rtol=0, atol=1e-6)


def test_first_draws_are_pinned():
    """A change of these numbers changes every archived ensemble: say so in the changelog."""
    fields = IsotropicNoise(GAUSS, GaussianCorrelation(500.0), truncation=21).draw(KEY)
    assert fields.dtype == torch.float32
    assert fields.shape == (1, 32, 64)
    assert fields[0, [0, 16, 31], 0].tolist() == pytest.approx(PINNED, abs=1e-5)


def test_draws_do_not_touch_or_read_the_global_generators():
    noise = IsotropicNoise(GAUSS, White())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = noise.draw(KEY)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(noise.draw(KEY), first)


def test_evolving_noise_is_stationary_and_forgets_at_its_rate():
    hours = np.timedelta64(1, "h")
    noise = EvolvingNoise(
        IsotropicNoise(GAUSS, GaussianCorrelation(1_000.0), truncation=21), 24 * hours, 6 * hours
    )
    assert noise.memory == pytest.approx(np.exp(-0.25))
    first = state = noise.start(KEY / 0, 800)
    for step in range(1, 4):
        state = noise.advance(state, KEY / step)
        fields = noise.fields(state).double()
        assert float(fields.var(correction=0)) == pytest.approx(1, abs=0.02)
        lagged = float((fields * noise.fields(first).double()).mean())
        assert lagged == pytest.approx(np.exp(-0.25 * step), abs=0.02)


def test_evolving_fields_are_independent_of_their_neighbours():
    """Running the autoregression along the member axis correlates neighbours at phi."""
    hours = np.timedelta64(1, "h")
    noise = EvolvingNoise(IsotropicNoise(GAUSS, White(), truncation=21), 48 * hours, 6 * hours)
    fields = noise.fields(noise.advance(noise.start(KEY / 0, 400), KEY / 1)).double()
    assert abs(float((fields[1:] * fields[:-1]).mean())) < 0.01


def test_noise_without_a_degree_above_zero_is_an_error():
    with pytest.raises(InputError, match="truncation of at least 1"):
        IsotropicNoise(GAUSS, White(), truncation=0)
    with pytest.raises(InputError, match="resolves truncations 0 to 31, not 40"):
        IsotropicNoise(GAUSS, White(), truncation=40)
