"""The primitive equations: closed forms, conservation, round trips, the Forecaster's contract."""

import pickle
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from data.errors import MissingExtraError
from data.key import Key
from data.sphere import Sphere
from data.state import State
from forecast.held_suarez import (
    HELD_SUAREZ,
    MOUNTAINS,
    OUTPUT_CHANNELS,
    OUTPUT_GRID,
    T21,
    T42,
    UNFORCED,
    Mountain,
)
from forecast.primitive_equations import PrimitiveEquations, spectral_core

with_physics = pytest.mark.skipif(
    find_spec("dinosaur") is None,
    reason="needs the extra 'physics'",
)
TWO_LAYERS = replace(T21, layers=2)
GAS, GRAVITY, RADIUS, ROTATION = 286.857, 9.80616, 6.37122e6, 7.292e-5


@pytest.fixture(scope="module")
def core():
    """The T21 core with mountains and forcing."""
    return spectral_core(T21)


@pytest.fixture(scope="module")
def stirred(core):
    """Two different members, (2, ...), five days after rest with noise."""
    noise = (Key(1) / "noise").normal((2, *core.shape))[:, : T21.layers]
    return np.asarray(core.advance(core.rest(noise), hours=120))


def core_of(resolution, mountains, forcing=HELD_SUAREZ):
    from forecast.spectral_core import SpectralCore

    return SpectralCore(resolution, mountains, forcing)


def at_rest(core):
    return core.rest(np.zeros((1, core.resolution.layers, *core.shape[1:])))


def state_of(forecaster, coefficients, numbers):
    fields = torch.from_numpy(forecaster.core.native(coefficients).copy())
    time = np.datetime64("2001-01-01T00", "s")
    return State(fields, forecaster.channels, forecaster.grid, time, numbers)


@with_physics
def test_without_forcing_an_atmosphere_at_rest_over_mountains_stays_at_rest():
    # Without diffusion, which smooths pressure but not the ground that it balances.
    core = core_of(replace(TWO_LAYERS, diffusion_hours=np.inf), MOUNTAINS, UNFORCED)
    wind = core.native(core.advance(at_rest(core), hours=24))[0, :4]
    assert core.surface_geopotential.max() > 3000 * GRAVITY
    assert np.abs(wind).max() < 0.02


@pytest.mark.slow
@with_physics
def test_without_forcing_a_balanced_solid_body_rotation_is_steady():
    core = core_of(TWO_LAYERS, (), UNFORCED)
    fields = core.native(at_rest(core))[0]
    sine, speed = np.sin(np.deg2rad(T21.grid.latitude))[:, None], 20.0
    fields[:2] = speed * np.sqrt(1 - sine**2)
    steepness = (RADIUS * ROTATION * speed + speed**2 / 2) / (GAS * 288.0)
    fields[-1] = 1e5 * np.exp(-steepness * sine**2)
    end = core.native(core.advance(core.coefficients(fields[None]), hours=24))[0]
    assert np.abs(end[:4] - fields[:4]).max() < 0.05
    assert np.abs(end[-1] - fields[-1]).max() < 10.0


@with_physics
def test_mass_is_conserved_and_the_forced_flow_is_sane(core, stirred):
    weights = T21.grid.area_weights
    pressure = [(core.native(c)[:, -1] * weights).sum((1, 2)) for c in (at_rest(core), stirred)]
    np.testing.assert_allclose(pressure[1], np.repeat(pressure[0], 2), atol=0.2)
    fields = core.native(stirred)
    wind, temperature = fields[:, :16], fields[:, 16:24]
    assert 3 < np.abs(wind).max() < 100
    assert temperature.min() > 180
    assert temperature.max() < 320


@with_physics
def test_heating_pulls_temperature_towards_the_published_equilibrium(core):
    # One step from rest at 288 K: dT/dt = -k_T (T - T_eq) dt in the lowermost layer.
    before = core.native(at_rest(core))[0, 16 + 7]
    after = core.native(core.advance(at_rest(core), hours=1))[0, 16 + 7]
    pressure = core.native(at_rest(core))[0, -1] * 15 / 16
    latitude = np.deg2rad(T21.grid.latitude)[:, None]
    warm = 315 - 60 * np.sin(latitude) ** 2
    warm = warm - 10 * np.log(pressure / 1e5) * np.cos(latitude) ** 2
    equilibrium = np.maximum(200, warm * (pressure / 1e5) ** (2 / 7))
    rates = 1 / np.array([HELD_SUAREZ.aloft_days, HELD_SUAREZ.ground_days])
    depth = (15 / 16 - 0.7) / 0.3
    rate = rates[0] + (rates[1] - rates[0]) * depth * np.cos(latitude) ** 4
    expected = rate / 24 * (equilibrium - before)
    assert np.abs(expected).max() > 0.15
    np.testing.assert_allclose(after - before, expected, atol=0.03)


@with_physics
def test_pressure_levels_of_an_isothermal_atmosphere_have_the_hydrostatic_closed_form():
    flat = core_of(TWO_LAYERS, ())
    fields = dict(zip(OUTPUT_CHANNELS, flat.pressure_levels(at_rest(flat))[0], strict=True))
    np.testing.assert_allclose(fields["z500"], GAS * 288 * np.log(2), rtol=1e-4)
    np.testing.assert_allclose(fields["t250"], 288, atol=1e-3)
    np.testing.assert_allclose(fields["t500"], 288, atol=1e-3)
    np.testing.assert_allclose(fields["sp"], 1e5, atol=0.1)
    np.testing.assert_allclose(fields["u500"], 0, atol=1e-4)


@with_physics
def test_a_column_is_exact_at_the_layers_hydrostatic_between_and_extrapolated_below():
    import jax.numpy as jnp

    from forecast.sigma_column import LAPSE_RATE, SigmaColumn

    sigma = np.array([0.25, 0.5, 0.75])
    temperature = jnp.asarray([220.0, 250.0, 280.0])[:, None, None]
    column = SigmaColumn(sigma, jnp.full((1, 1), 1e5), jnp.full((1, 1), 100.0), GAS, GRAVITY)
    at = [float(column.temperature(temperature, p)[0, 0]) for p in (25e3, 50e3, 75e3, 10e3)]
    np.testing.assert_allclose(at, [220, 250, 280, 220], rtol=1e-6)
    below = float(column.temperature(temperature, 90e3)[0, 0])
    np.testing.assert_allclose(below, 280 * 1.2 ** (GAS * LAPSE_RATE / GRAVITY), rtol=1e-6)
    # d(geopotential) = -R T d(log p) everywhere, by central differences.
    for pressure in (12e3, 40e3, 60e3, 74e3, 76e3, 95e3, 110e3):
        near = pressure * np.array([0.98, 1.02])
        z = [float(column.geopotential(temperature, p)[0, 0]) for p in near]
        t = float(column.temperature(temperature, pressure)[0, 0])
        np.testing.assert_allclose((z[0] - z[1]) / np.log(near[1] / near[0]), GAS * t, rtol=3e-3)
    at_center = float(column.geopotential(temperature, 75e3)[0, 0])
    np.testing.assert_allclose(at_center, 100 + GAS * 280 * np.log(1 / 0.75), rtol=1e-6)


@with_physics
def test_fields_go_to_coefficients_and_back_unchanged(core, stirred):
    fields = core.native(stirred)
    once = core.coefficients(fields)
    np.testing.assert_allclose(once[..., :-1], stirred[..., :-1], rtol=2e-3, atol=2e-5)
    again = core.native(once)  # without what the core had in its last degree: divergence only
    np.testing.assert_allclose(again, fields, rtol=1e-6, atol=0.02)
    twice = core.native(core.coefficients(again))
    np.testing.assert_allclose(twice[:, :-1], again[:, :-1], rtol=3e-7, atol=1e-4)
    np.testing.assert_allclose(twice[:, -1], again[:, -1], atol=0.04)


@with_physics
def test_output_is_truncated_to_t21_and_truncating_again_changes_nothing():
    fine = core_of(replace(T42, layers=2), MOUNTAINS)
    noise = (Key(2) / "noise").normal((1, *fine.shape))[:, :2]
    fields = torch.from_numpy(fine.pressure_levels(fine.rest(noise)).copy())
    sphere = Sphere(OUTPUT_GRID, 21)
    again = sphere.truncate(fields)
    scale = fields.abs().amax((0, 2, 3), keepdim=True) + 1.0
    assert ((again - fields).abs() / scale).max() < 2e-5
    lower = Sphere(OUTPUT_GRID, 20).truncate(fields)
    assert (lower - fields)[0, 2].abs().max() > 1e-3


@with_physics
def test_a_member_does_not_depend_on_its_batch_and_steps_repeat_exactly(core, stirred):
    together = np.asarray(core.advance(stirred))
    np.testing.assert_array_equal(core.advance(stirred[1:])[0], together[1])
    np.testing.assert_array_equal(core.advance(stirred), together)
    assert np.abs(together[0] - together[1]).max() > 1e-4


@with_physics
def test_refining_keeps_the_waves_and_the_balance_over_finer_mountains(core, stirred):
    fine = core_of(T42, MOUNTAINS)
    rest = fine.rest(np.zeros((1, T42.layers, *fine.shape[1:])))
    np.testing.assert_allclose(fine.refined(at_rest(core), core), rest, atol=1e-6)
    np.testing.assert_array_equal(
        fine.refined(stirred, core)[:, : 2 * T42.layers, :43, :22],
        stirred[:, : 2 * T21.layers, :, :22],
    )


@with_physics
def test_the_forecaster_steps_six_hours_and_agrees_with_the_core(core, stirred):
    forecaster = PrimitiveEquations(T21)
    state = state_of(forecaster, stirred, (4, 9))
    later = forecaster.step(state, Key(0))
    assert later.valid_time == state.valid_time + np.timedelta64(6, "h")
    assert later.numbers == (4, 9)
    expected = core.native(core.advance(stirred))
    np.testing.assert_allclose(later.fields[:, :-1], expected[:, :-1], atol=5e-3)
    np.testing.assert_allclose(later.fields[:, -1], expected[:, -1], atol=1.0)
    alone = forecaster.step(state.with_members(state.fields[1:], (9,)), Key(5))
    assert torch.equal(alone.fields[0], later.fields[1])
    levels = forecaster.pressure_levels(state)
    assert levels.channels == OUTPUT_CHANNELS
    np.testing.assert_allclose(levels.fields, core.pressure_levels(stirred), rtol=1e-3, atol=2e-2)
    assert pickle.loads(pickle.dumps(forecaster)) == forecaster


@with_physics
def test_a_time_that_is_no_multiple_of_the_step_is_refused(core):
    with pytest.raises(ValueError, match="no multiple of 60 min"):
        core.advance(at_rest(core), hours=1.5)


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dinosaur", None)
    monkeypatch.delitem(sys.modules, "forecast.spectral_core", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'myriadcast\[physics\]'"):
        spectral_core.__wrapped__(T21)


def test_a_mountain_has_its_height_on_top_and_wraps_around_the_globe():
    mountain = Mountain(1000.0, 350.0, 10.0, width=15.0, depth=10.0)
    assert mountain(np.array(350.0), np.array(10.0)) == 1000.0
    np.testing.assert_allclose(mountain(np.array(5.0), np.array(10.0)), 1000 / np.e)
    np.testing.assert_allclose(mountain(np.array(350.0), np.array(0.0)), 1000 / np.e)
