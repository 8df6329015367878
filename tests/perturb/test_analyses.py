"""Perturbations taken from analyses: recentring, its closed form, and what it refuses."""

import numpy as np
import pytest
import torch

from data.errors import ConfigurationError, InputError
from data.grid import Grid
from data.state import State
from perturb.analyses import EnsembleOfAnalyses, LaggedAnalyses
from perturb.member import Pairing, roster

MEMBERS = roster(7, 1, Pairing.SINGLES)
DAY = np.timedelta64(24, "h")


def test_recentred_members_are_the_control_plus_their_anomaly(analysis, ensemble, time, key):
    others = ensemble.analysis(time).fields.double().numpy()
    expected = analysis.fields.numpy() + others - others.mean(axis=0)
    state = EnsembleOfAnalyses(ensemble).perturb(analysis, key, MEMBERS)
    wind = [0, 2]  # humidity is clipped
    assert state.fields[1:, wind].numpy() == pytest.approx(expected[:, wind], rel=2e-7)


def test_the_mean_over_the_ensemble_is_the_control_however_biased_its_own_mean(
    analysis, ensemble, key
):
    increments = EnsembleOfAnalyses(ensemble).increments(analysis, key, MEMBERS[1:])
    sizes = increments.abs().amax(dim=(0, 2, 3))
    assert (increments.double().mean(0).abs().amax(dim=(1, 2)) < 1e-6 * sizes).all()


def test_scale_multiplies_the_spread(analysis, ensemble, key):
    plain = EnsembleOfAnalyses(ensemble).increments(analysis, key, MEMBERS[1:])
    half = EnsembleOfAnalyses(ensemble, scale=0.5).increments(analysis, key, MEMBERS[1:])
    assert torch.equal(half, plain / 2)


def test_channels_are_found_by_name(analysis, ensemble, key):
    order = ("z500", "t850", "q850")
    straight = EnsembleOfAnalyses(ensemble).increments(analysis, key, MEMBERS[1:])
    shuffled = EnsembleOfAnalyses(ensemble).increments(analysis.select(order), key, MEMBERS[1:])
    assert torch.equal(shuffled, straight[:, [2, 0, 1]])


def test_more_draws_than_analyses_are_refused_unless_reuse_is_asked_for(analysis, ensemble, key):
    members = roster(13, 1, Pairing.SINGLES)
    with pytest.raises(ConfigurationError, match=r"6 analyses used 1 times make 6 draws.* 12"):
        EnsembleOfAnalyses(ensemble).perturb(analysis, key, members)
    twice = EnsembleOfAnalyses(ensemble, reuse=2).perturb(analysis, key, members)
    assert torch.equal(twice.fields[1:7], twice.fields[7:13])


def test_too_few_lagged_analyses_are_mended_by_their_own_key(analyses, analysis, key):
    members = roster(6, 1, Pairing.SINGLES)
    with pytest.raises(ConfigurationError, match=r"^lagged analyses: 3 .* or raise count$"):
        EnsembleOfAnalyses(LaggedAnalyses(analyses, DAY, 3)).perturb(analysis, key, members)


def test_one_analysis_is_no_ensemble(analysis, analyses, key):
    with pytest.raises(InputError, match="1 members on legendre-gauss 16 x 32, expected at least"):
        EnsembleOfAnalyses(analyses).perturb(analysis, key, MEMBERS)


def test_analyses_on_another_grid_are_refused(source, analysis, ensemble, key):
    grid = Grid("equiangular-cells", 16, 32)

    def elsewhere(when: np.datetime64) -> State:
        state = ensemble.analysis(when)
        return State(state.fields, state.channels, grid, when, state.numbers)

    with pytest.raises(InputError, match="equiangular-cells 16 x 32, expected at least 2 on legen"):
        EnsembleOfAnalyses(source(elsewhere)).perturb(analysis, key, MEMBERS)


def test_lagged_analyses_are_the_present_one_and_those_before(analyses, time):
    lagged = LaggedAnalyses(analyses, DAY, 3).analysis(time)
    assert (lagged.numbers, lagged.valid_time) == ((0, 1, 2), time)
    for lag in range(3):
        assert torch.equal(lagged.fields[lag], analyses.analysis(time - lag * DAY).fields[0])
