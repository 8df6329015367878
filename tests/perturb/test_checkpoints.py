"""Several checkpoints, one or mixed along the way, and the streams of a stochastic one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.errors import CheckpointError, ConfigurationError
from forecast.forecaster import rollout
from perturb.bred import BredVectors
from perturb.checkpoints import MixedCheckpoints, PerCheckpoint
from perturb.member import Pairing, group_by_checkpoint, roster
from perturb.perturbation import Unperturbed

MEMBERS = roster(6, 1, Pairing.NONE)


@pytest.fixture
def mixed(toy):
    return MixedCheckpoints(tuple(toy(advance=lambda x, a=a: x * a) for a in (1.0, 1.1, 1.2)))


def end(forecaster, state, key, steps=6):
    """The last state of a rollout."""
    *_, last = rollout(forecaster, state, steps, key)
    return last


def test_every_checkpoint_breeds_its_own_vectors(toy, analyses, analysis, amplitude, key):
    members = roster(9, 2, Pairing.PAIRS)
    parts = {
        0: BredVectors(toy(), analyses, amplitude),
        1: BredVectors(toy(advance=lambda x: torch.roll(x, 2, 0)), analyses, 2 * amplitude),
    }
    together = PerCheckpoint(parts).perturb(analysis, key, members)
    assert together.numbers == tuple(range(9))
    for checkpoint, group in group_by_checkpoint(members).items():
        alone = parts[checkpoint].perturb(analysis, key, group)
        assert torch.equal(together.fields[list(alone.numbers)], alone.fields)


def test_a_checkpoint_without_a_perturbation_is_named(toy, analyses, analysis, amplitude, key):
    parts = PerCheckpoint({0: BredVectors(toy(), analyses, amplitude)})
    with pytest.raises(ConfigurationError, match="checkpoint 1 has no perturbation"):
        parts.perturb(analysis, key, roster(9, 2, Pairing.PAIRS))


def test_the_members_of_a_stochastic_forecaster_differ(toy, analysis, key):
    start = Unperturbed().perturb(analysis, key, MEMBERS)
    fields = end(toy(noise=0.1), start, key).fields
    distances = torch.cdist(fields.flatten(1), fields.flatten(1))
    assert (distances + torch.eye(6) * 1e9).min() > 100


def test_a_member_of_a_stochastic_forecaster_regenerates_alone(toy, analysis, key):
    forecaster = toy(noise=0.1)
    together = end(forecaster, Unperturbed().perturb(analysis, key, MEMBERS), key)
    for member in MEMBERS:
        alone = end(forecaster, Unperturbed().perturb(analysis, key, [member]), key)
        assert torch.equal(alone.fields[0], together.fields[member.number])


def test_a_mixed_step_is_taken_by_the_checkpoint_drawn(mixed, analysis, key):
    state = Unperturbed().perturb(analysis, key, MEMBERS)
    later = mixed.step(state, key)
    assert later.valid_time == state.valid_time + mixed.timestep
    assert later.numbers == state.numbers
    for row, number in enumerate(state.numbers):
        factor = (1.0, 1.1, 1.2)[mixed.choice(key, number)]
        assert torch.equal(later.fields[row], state.fields[row] * factor)


def test_a_mixed_member_regenerates_alone(mixed, analysis, key):
    together = end(mixed, Unperturbed().perturb(analysis, key, MEMBERS), key)
    for member in MEMBERS:
        alone = end(mixed, Unperturbed().perturb(analysis, key, [member]), key)
        assert torch.equal(alone.fields[0], together.fields[member.number])


def test_checkpoints_are_drawn_evenly_over_members_and_steps(mixed, key):
    drawn = [mixed.choice(key / step, number) for step in range(60) for number in range(50)]
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)  # 3000 draws: 0.9 % each
    by_step = np.reshape(drawn, (60, 50))
    assert all(len(set(column)) == 3 for column in by_step.T)


def test_checkpoints_that_do_not_agree_are_refused(toy):
    other = replace(toy(), timestep=np.timedelta64(12, "h"))
    with pytest.raises(CheckpointError, match="found 2 different sets among 2 checkpoints"):
        MixedCheckpoints((toy(), other))
    with pytest.raises(CheckpointError, match="found 0 different sets among 0"):
        MixedCheckpoints(())
