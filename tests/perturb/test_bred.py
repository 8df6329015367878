"""Bred vectors against a slow reference and against what linear algebra says they become."""

import numpy as np
import pytest
import torch

from data.errors import ConfigurationError, RunError
from data.key import Key
from perturb.bred import BredVectors
from perturb.member import Pairing, roster
from perturb.norm import hemisphere_norms, rescaled

MEMBERS = roster(8, 1, Pairing.PAIRS)


def slow_cap_norm(field, grid, side):
    """Root mean square of (latitude, longitude) poleward of 20 degrees, point by point."""
    total = weights = 0.0
    for row, latitude in enumerate(grid.latitude):
        if side * latitude >= 20.0:
            for value in field[row].tolist():
                total += grid.latitude_weights[row] * value**2
                weights += grid.latitude_weights[row]
    return (total / weights) ** 0.5


def slow_rescaled(field, grid, amplitude):
    south, north = slow_cap_norm(field, grid, -1), slow_cap_norm(field, grid, +1)
    norms = np.interp(grid.latitude, [-20.0, 20.0], [south, north])
    return torch.stack(
        [row * amplitude / norm for row, norm in zip(field, norms, strict=True)]
    ).float()


def slow_bred(bred, time, seed):
    """One perturbation, channel by channel."""
    dx = seed
    for cycle in (3, 2, 1):
        x0 = bred.analyses.analysis(time - cycle * bred.forecaster.timestep)
        perturbed = x0.with_members(x0.fields + dx, (0,))
        there = bred.forecaster.step(perturbed, Key(0)).fields[0]
        here = bred.forecaster.step(x0, Key(0)).fields[0]
        columns = zip(there - here, bred.amplitude, strict=True)
        dx = torch.stack([slow_rescaled(one, bred.forecaster.grid, float(a)) for one, a in columns])
    return dx


@pytest.fixture
def bred(toy, analyses, amplitude):
    return BredVectors(toy(), analyses, amplitude)


def test_bred_vectors_agree_with_a_slow_reference(bred, time, key):
    seeds = bred.seed([key / "a", key / "b"])
    fast = bred.breed(seeds, time, key)
    for seed, dx in zip(seeds, fast, strict=True):
        ratio = (dx - slow_bred(bred, time, seed)) / torch.tensor(bred.amplitude)[:, None, None]
        assert ratio.abs().max() < 1e-4  # float32 resolves 4e-5 of z500's amplitude


def test_norms_after_the_last_cycle_are_the_amplitudes_in_each_hemisphere(
    bred, analysis, amplitude, key
):
    increments = bred.increments(analysis, key, MEMBERS[1:])
    for row in increments.double():
        for field, expected in zip(row, amplitude, strict=True):
            for side in (-1, 1):
                assert slow_cap_norm(field, bred.forecaster.grid, side) == pytest.approx(
                    expected, rel=1e-6
                )


def test_the_norm_of_a_constant_is_its_magnitude_in_any_cap(grid):
    dx = torch.full((2, 3, *grid.shape), -7.0)
    assert hemisphere_norms(dx, grid).numpy() == pytest.approx(7.0, rel=1e-14)


def test_between_the_hemispheres_the_norm_is_linear_in_latitude(grid):
    latitude = torch.from_numpy(grid.latitude)
    norm = torch.where(latitude > 0, 3.0, 1.0).float()  # 1 in the south, 3 in the north
    dx = norm[None, None, :, None].expand(1, 1, *grid.shape)
    expected = 10.0 * norm.double() / (2.0 + (latitude / 20.0).clamp(-1.0, 1.0))
    found = rescaled(dx, grid, torch.tensor([10.0], dtype=torch.float64))
    assert found[0, 0, :, 5].numpy() == pytest.approx(expected.numpy(), rel=1e-6)


def test_no_norm_mixes_channels_or_members(grid):
    dx = torch.from_numpy(Key(3).normal((4, 3, *grid.shape)))
    amplitude = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    swollen = dx.clone()
    swollen[2, 1] *= 1e6
    before, after = rescaled(dx, grid, amplitude), rescaled(swollen, grid, amplitude)
    assert torch.allclose(before, after, rtol=1e-6, atol=0)
    others = torch.ones(4, 3, dtype=torch.bool)
    others[2, 1] = False
    assert torch.equal(before[others], after[others])


def test_the_vectors_of_a_linear_forecaster_turn_into_its_leading_mode(
    toy, analyses, grid, amplitude, time, key
):
    units = torch.from_numpy(amplitude).float()[:, None, None]
    wave = torch.from_numpy(np.sin(4 * np.deg2rad(grid.longitude))).float()
    mode = (wave / wave.square().mean().sqrt()).expand(3, *grid.shape)  # norm one in every cap

    def amplify(fields):
        """Nine times along the mode, once across it."""
        x = fields / units
        return fields + 8 * units * mode * (x * mode).mean()

    vectors = {}
    for cycles in (1, 8):
        bred = BredVectors(toy(advance=amplify), analyses, amplitude, cycles)
        vectors[cycles] = bred.breed(bred.seed([key / 1, key / 2, key / 3]), time, key) / units
    likeness = {n: (dx * mode).mean(dim=(1, 2, 3)).abs() for n, dx in vectors.items()}
    assert likeness[8].min() > 0.999
    assert likeness[1].max() < 0.99


def test_cycles_start_from_the_analyses_before_and_end_at_the_init_time(
    toy, source, analyses, amplitude, time, key
):
    asked = []

    def noting(when):
        asked.append(when)
        return analyses.analysis(when)

    bred = BredVectors(toy(), source(noting), amplitude)
    bred.breed(bred.seed([key]), time, key)
    assert [int((time - when) / np.timedelta64(1, "h")) for when in asked] == [18, 12, 6]


def test_the_seed_is_noise_of_the_amplitude_on_its_channel_alone(bred, key):
    seeds = bred.seed([key / number for number in range(40)])
    assert not seeds[:, :2].any()
    assert float(seeds[:, 2].double().std()) == pytest.approx(90.0, rel=0.05)
    assert torch.equal(seeds[7], bred.seed([key / 7])[0])


def test_a_forecasters_own_noise_does_not_enter_the_vectors(toy, analyses, amplitude, time, key):
    calm = BredVectors(toy(advance=lambda x: 1.5 * x), analyses, amplitude)
    noisy = BredVectors(toy(advance=lambda x: 1.5 * x, noise=2.0), analyses, amplitude)
    seeds = calm.seed([key / 1, key / 2])
    difference = calm.breed(seeds, time, key) - noisy.breed(seeds, time, key)
    assert difference.abs().max() < 1e-3 * amplitude[2]


def test_a_channel_that_does_not_respond_stays_unperturbed(toy, analyses, amplitude, time, key):
    persistence = BredVectors(toy(advance=lambda x: x), analyses, amplitude)
    dx = persistence.breed(persistence.seed([key]), time, key)
    assert not dx[:, :2].any()
    assert torch.isfinite(dx).all()


def test_a_missing_seed_channel_is_named(toy, analyses, amplitude):
    with pytest.raises(ConfigurationError, match=r"seed_channel 'z850' is not among.*t850, q850"):
        BredVectors(toy(), analyses, amplitude, seed_channel="z850")


@pytest.mark.parametrize(
    ("amplitude", "message"),
    [
        ([1.0, 1.0], r"bred vectors: amplitudes of shape \(2,\) for the 3 channels t850, q850"),
        ([1.0, 1.0, np.inf], "bred vectors: amplitude inf for 'z500'"),
        ([1.0, -1.0, 1.0], "bred vectors: amplitude -1.0 for 'q850', expected a finite number"),
    ],
)
def test_amplitudes_that_do_not_fit_are_refused(toy, analyses, amplitude, message):
    with pytest.raises(ConfigurationError, match=message):
        BredVectors(toy(), analyses, np.array(amplitude))


def test_no_cycle_is_refused(toy, analyses, amplitude):
    with pytest.raises(ConfigurationError, match="at least one cycle, not 0"):
        BredVectors(toy(), analyses, amplitude, cycles=0)


def test_members_of_several_checkpoints_are_refused(bred, analysis, key):
    with pytest.raises(ConfigurationError, match=r"checkpoints \[0, 1\]; each.*breeds its own"):
        bred.perturb(analysis, key, roster(9, 2, Pairing.PAIRS))


def test_an_analysis_of_other_channels_is_refused(bred, analysis, key):
    with pytest.raises(ConfigurationError, match="have the channels t850, q850, z500, the"):
        bred.perturb(analysis.select(("t850", "z500")), key, MEMBERS)


def test_a_forecast_that_is_not_finite_ends_the_run(toy, analyses, amplitude, analysis, key):
    broken = BredVectors(toy(advance=lambda x: x / 0), analyses, amplitude)
    with pytest.raises(RunError, match="the forecast from 2030-01-04T06:00:00 is not finite"):
        broken.perturb(analysis, key, MEMBERS)
