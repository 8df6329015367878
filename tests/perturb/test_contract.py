"""What every perturbation promises, put to each of them."""

import numpy as np
import pytest
import torch

from data.errors import InputError
from data.key import Key
from perturb.analyses import EnsembleOfAnalyses, LaggedAnalyses
from perturb.bred import BredVectors
from perturb.checkpoints import PerCheckpoint
from perturb.member import Pairing, roster
from perturb.perturbation import Compose, Perturbation, Unperturbed

KINDS = ("bred", "noise", "analyses", "lagged", "composed", "per checkpoint")
MEMBERS = roster(8, 1, Pairing.PAIRS)


@pytest.fixture(params=KINDS)
def perturbation(request, analyses, ensemble, amplitude, noise, toy) -> Perturbation:
    bred = BredVectors(toy(noise=0.1), analyses, amplitude)
    members = EnsembleOfAnalyses(ensemble)
    lagged = LaggedAnalyses(analyses, np.timedelta64(24, "h"), 5)
    every = [bred, noise, members, EnsembleOfAnalyses(lagged, scale=0.2)]
    every += [Compose((noise, bred, members)), PerCheckpoint({0: bred})]
    return dict(zip(KINDS, every, strict=True))[request.param]


def test_control_is_the_analysis_bit_for_bit(perturbation, analysis, key):
    for members in (MEMBERS, MEMBERS[:1], MEMBERS[3::-1]):
        state = perturbation.perturb(analysis, key, members)
        row = state.numbers.index(0)
        assert torch.equal(state.fields[row], analysis.fields[0])


def test_members_come_in_the_order_asked_for_at_the_time_of_the_analysis(
    perturbation, analysis, key
):
    state = perturbation.perturb(analysis, key, [MEMBERS[5], MEMBERS[0], MEMBERS[2]])
    assert state.numbers == (5, 0, 2)
    assert state.valid_time == analysis.valid_time
    assert (state.channels, state.grid) == (analysis.channels, analysis.grid)


def test_a_member_does_not_depend_on_which_others_are_asked_for(perturbation, analysis, key):
    together = perturbation.perturb(analysis, key, MEMBERS).fields
    for asked in ([6], [2, 1], [7, 0, 3], [4, 5, 6, 1]):
        some = perturbation.perturb(analysis, key, [MEMBERS[number] for number in asked])
        assert torch.equal(some.fields, together[asked])


def test_the_same_key_gives_the_same_members(perturbation, analysis, key):
    first = perturbation.perturb(analysis, key, MEMBERS)
    again = perturbation.perturb(analysis, Key(5) / analysis.valid_time, MEMBERS)
    assert torch.equal(first.fields, again.fields)


def test_another_init_time_gives_other_members(perturbation, analysis, analyses, key):
    later = analysis.valid_time + np.timedelta64(6, "h")
    here = perturbation.increments(analysis, key, MEMBERS[1:])
    there = perturbation.increments(analyses.analysis(later), Key(5) / later, MEMBERS[1:])
    assert (here != there).flatten(1).any(1).all()


def test_pairs_are_symmetric_about_the_analysis(perturbation, analysis, key):
    fields = perturbation.perturb(analysis, key, MEMBERS[1:7]).fields[:, [0, 2]]  # never clipped
    middle, control = (fields[0::2] + fields[1::2]) / 2, analysis.fields[:, [0, 2]]
    assert (fields - control).flatten(1).abs().amax(1).min() > 0.1
    ulp = torch.finfo(torch.float32).eps * control.abs()
    assert ((middle - control).abs() <= ulp).all()


def test_partners_share_an_increment_and_strangers_do_not(perturbation, analysis, key):
    increments = perturbation.increments(analysis, key, MEMBERS[1:])
    assert torch.equal(increments[0:6:2], increments[1:6:2])
    assert len({row.numpy().tobytes() for row in increments}) == 4


def test_humidity_is_never_negative(perturbation, analysis, key):
    state = perturbation.perturb(analysis, key, MEMBERS)
    assert state.fields[:, 1].min() >= 0


def test_an_analysis_of_several_members_is_refused(perturbation, ensemble, time, key):
    with pytest.raises(InputError, match="6 members, expected one"):
        perturbation.perturb(ensemble.analysis(time), key, MEMBERS)


def test_clipping_bites_and_leaves_slightly_negative_archives_alone(analysis, noise, key):
    negative = analysis.fields.clone()
    negative[0, 1, 3] = -1e-6
    state = analysis.with_members(negative, (0,))
    fields = noise.perturb(state, key, MEMBERS[1:]).fields[:, 1]
    assert (fields == 0).any()
    assert fields.min() == pytest.approx(-1e-6)


def test_members_without_a_perturbation_are_the_analysis_bit_for_bit(analysis, key):
    members = roster(5, 2, Pairing.NONE)
    for unmoved in (Unperturbed(), Compose((Unperturbed(), Unperturbed()))):
        state = unmoved.perturb(analysis, key, members)
        assert state.numbers == (0, 1, 2, 3, 4)
        assert all(torch.equal(row, analysis.fields[0]) for row in state.fields)


def test_composition_is_the_sum_of_its_parts(analysis, analyses, amplitude, noise, toy, key):
    bred = BredVectors(toy(), analyses, amplitude)
    total = Compose((bred, noise)).increments(analysis, key, MEMBERS[1:])
    first = bred.increments(analysis, key / "part" / 0, MEMBERS[1:])
    second = noise.increments(analysis, key / "part" / 1, MEMBERS[1:])
    assert torch.allclose(total, first + second, rtol=1e-6, atol=0)


def test_two_parts_of_one_kind_are_independent(analysis, noise, key):
    both = Compose((noise, noise)).increments(analysis, key, MEMBERS[1:])
    one = noise.increments(analysis, key / "part" / 0, MEMBERS[1:])
    assert torch.corrcoef(torch.stack([one.flatten(), (both - one).flatten()]))[0, 1].abs() < 0.1
