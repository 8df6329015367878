"""Isotropic correlated noise on an analysis."""

import numpy as np
import pytest

from data.errors import ConfigurationError
from perturb.correlated import CorrelatedNoise
from perturb.member import Pairing, roster

MEMBERS = roster(121, 1, Pairing.SINGLES)


def test_standard_deviation_is_the_amplitude_at_every_latitude(analysis, amplitude, noise, key):
    increments = noise.increments(analysis, key, MEMBERS[1:]).double().numpy()
    ratio = np.sqrt((increments**2).mean(axis=(0, 3))) / amplitude[:, None]
    assert ratio == pytest.approx(
        np.ones_like(ratio), abs=0.15
    )  # 120 draws of 25 or so independent points


def test_channels_are_independent(analysis, noise, key):
    increments = noise.increments(analysis, key, MEMBERS[1:40])
    correlations = np.corrcoef(increments.transpose(0, 1).flatten(1).numpy())
    assert np.abs(correlations - np.eye(3)).max() < 0.05


def test_a_channels_noise_does_not_depend_on_the_other_channels(analysis, noise, key):
    whole = noise.increments(analysis, key, MEMBERS[1:3])
    alone = CorrelatedNoise({"z500": noise.amplitudes["z500"]})
    single = alone.increments(analysis.select(("z500", "t850")), key, MEMBERS[1:3])
    assert np.array_equal(whole[:, 2], single[:, 0])


def test_a_channel_without_an_amplitude_is_left_alone(analysis, key):
    state = CorrelatedNoise({"z500": 50.0}).perturb(analysis, key, MEMBERS[:4])
    assert (state.fields[:, :2] == analysis.fields[:, :2]).all()
    assert (state.fields[1:, 2] != analysis.fields[:, 2]).any()


def test_amplitudes_that_do_not_fit_are_refused(analysis, key):
    with pytest.raises(ConfigurationError, match=r"'u10m', which is not.*\(t850, q850, z500\)"):
        CorrelatedNoise({"t850": 1.0, "u10m": 1.0}).increments(analysis, key, MEMBERS[1:2])
    with pytest.raises(ConfigurationError, match="correlated noise: amplitude nan for 't850'"):
        CorrelatedNoise({"t850": np.nan}).increments(analysis, key, MEMBERS[1:2])
