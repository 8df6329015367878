"""Isotropic correlated noise on an analysis."""

import numpy as np
import pytest

from data.errors import ConfigurationError
from perturb.correlated import CorrelatedNoise
from perturb.member import Pairing, roster

MEMBERS = roster(121, 1, Pairing.SINGLES)


def test_standard_deviation_is_the_amplitude_at_every_latitude(analysis, amplitude, key):
    noise = CorrelatedNoise(amplitude, 2_000.0)
    increments = noise.increments(analysis, key, MEMBERS[1:]).double().numpy()
    ratio = np.sqrt((increments**2).mean(axis=(0, 3))) / amplitude[:, None]
    assert ratio == pytest.approx(
        np.ones_like(ratio), abs=0.15
    )  # 120 draws of 25 or so independent points


def test_channels_are_independent(analysis, amplitude, key):
    increments = CorrelatedNoise(amplitude).increments(analysis, key, MEMBERS[1:40])
    correlations = np.corrcoef(increments.transpose(0, 1).flatten(1).numpy())
    assert np.abs(correlations - np.eye(3)).max() < 0.05


def test_a_channels_noise_does_not_depend_on_the_other_channels(analysis, amplitude, key):
    whole = CorrelatedNoise(amplitude).increments(analysis, key, MEMBERS[1:3])
    single = CorrelatedNoise(amplitude[2:]).increments(
        analysis.select(("z500",)), key, MEMBERS[1:3]
    )
    assert np.array_equal(whole[:, 2:], single)


def test_zero_amplitude_leaves_a_channel_alone(analysis, key):
    noise = CorrelatedNoise(np.array([0.0, 0.0, 50.0]))
    state = noise.perturb(analysis, key, MEMBERS[:4])
    assert (state.fields[:, :2] == analysis.fields[:, :2]).all()
    assert (state.fields[1:, 2] != analysis.fields[:, 2]).any()


@pytest.mark.parametrize("amplitude", [[1.0, 2.0], [1.0, -2.0, 3.0], [1.0, np.nan, 3.0]])
def test_amplitudes_that_do_not_fit_are_refused(amplitude, analysis, key):
    with pytest.raises(ConfigurationError, match=r"correlated noise: amplitude.*t850, q850, z500"):
        CorrelatedNoise(np.array(amplitude)).increments(analysis, key, MEMBERS[1:2])
