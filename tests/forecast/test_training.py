"""Training resumes exactly, improves, and refuses what it cannot do."""

import dataclasses

import numpy as np
import pytest
import torch

from data.errors import ConfigurationError, InputError
from forecast.dataset import normalisation, normalised_statics, read_archive
from forecast.hindcast import hindcast
from forecast.neural import NeuralForecaster
from forecast.training import Material, Phase, Regime, Trainer
from tests.forecast.conftest import CHANNELS, TIMESTEP, config, seeded_network

PHASES = (
    Phase(1, 6, 1e-2, warmup=2),
    Phase(2, 4, 1e-3, loss="variance-keeping", warmup=2, lead_decay=0.0),
)
REGIME = Regime(seed=1, validate_every=3, validation_cases=4, save_every=2)


@pytest.fixture
def material(archive):
    validation = archive.held_back(2.0)
    training = ~archive.evaluation & ~validation
    scales = normalisation(archive, training, TIMESTEP)
    return Material(archive, scales, training, validation, TIMESTEP)


def trainer(folder, material, phases=PHASES, latent=()):
    return Trainer(seeded_network(config(latent)), material, phases, REGIME, folder)


def weights(found: Trainer) -> torch.Tensor:
    return torch.cat([w.flatten() for w in found.average.state_dict().values()])


@pytest.mark.parametrize("stop", [3, 6, 8])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path, material, stop):
    whole = trainer(tmp_path / "whole", material)
    list(whole.run())
    steps = trainer(tmp_path / "parts", material).run()
    for _ in range(stop):
        next(steps)
    steps.close()
    resumed = trainer(tmp_path / "parts", material)
    list(resumed.run())
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.position == whole.position


def test_stochastic_training_resumes_too(tmp_path, material):
    phases = (Phase(2, 4, 1e-3, "almost-fair-crps", batch=2, members=2),)
    whole = trainer(tmp_path / "whole", material, phases, (1000.0,))
    list(whole.run())
    steps = trainer(tmp_path / "parts", material, phases, (1000.0,)).run()
    for _ in range(3):
        next(steps)
    resumed = trainer(tmp_path / "parts", material, phases, (1000.0,))
    list(resumed.run())
    assert torch.equal(weights(resumed), weights(whole))


def test_training_learns_a_turning_world(tmp_path, material):
    phases = (Phase(1, 120, 1e-2, warmup=10),)
    found = trainer(tmp_path, material, phases)
    losses = [progress.loss for progress in found.run()]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    scales = material.normalisation
    made = NeuralForecaster(found.average, scales, CHANNELS, material.archive.grid, TIMESTEP)
    starts = material.archive.starts(material.validation, 2, TIMESTEP)
    result = hindcast(made, material.archive, starts, 2)
    assert (result.rmse[1] < scales.tendency_std.numpy()).all()


def test_phase_ends_when_validation_stops_improving(tmp_path, material):
    regime = dataclasses.replace(REGIME, patience=1, validate_every=1)
    found = Trainer(seeded_network(config()), material, (Phase(1, 50, 0.5),), regime, tmp_path)
    assert len(list(found.run())) < 50


def test_position_of_other_settings_is_refused(tmp_path, material):
    first = trainer(tmp_path, material)
    next(first.run())
    first.save()
    with pytest.raises(ConfigurationError, match="other settings"):
        trainer(tmp_path, material, PHASES[:1])


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase(30, 5, 1e-3), "0 training cases of 30 consecutive steps"),
        (Phase(1, 5, 1e-3, members=2), "need latent noise"),
        (Phase(1, 5, 1e-3, loss="almost-fair-crps"), "needs members >= 2"),
    ],
)
def test_impossible_phase_is_refused_before_training(tmp_path, material, phase, message):
    with pytest.raises(ConfigurationError, match=message):
        trainer(tmp_path, material, (phase,))


def test_cases_never_cross_segments_or_enter_the_evaluation_stretch(archive):
    rows = ~archive.evaluation
    starts = archive.starts(rows, 3, TIMESTEP)
    assert starts.tolist() == [*range(33), *range(40, 73)]
    broken = dataclasses.replace(archive, times=archive.times + (np.arange(80) > 10) * TIMESTEP)
    assert not {8, 9, 10} & set(broken.starts(rows, 3, TIMESTEP).tolist())


def test_validation_is_the_last_stretch_of_each_segments_training(archive):
    assert np.flatnonzero(archive.held_back(1.0)).tolist() == [*range(32, 36), *range(72, 76)]


def test_normalisation_equals_its_definition(archive):
    rows = ~archive.evaluation
    found = normalisation(archive, rows, TIMESTEP)
    weights = archive.grid.area_weights
    values = archive.fields[rows][:, 0].astype(float)
    mean = (values * weights).sum((-2, -1)).mean()
    assert float(found.mean[0]) == pytest.approx(mean, rel=1e-5)
    variance = ((values - mean) ** 2 * weights).sum((-2, -1)).mean()
    assert float(found.std[0]) == pytest.approx(variance**0.5, rel=1e-4)
    change = archive.fields[1:36, 0].astype(float) - archive.fields[:35, 0]
    other = archive.fields[41:76, 0].astype(float) - archive.fields[40:75, 0]
    both = np.concatenate([change, other]) ** 2
    assert float(found.tendency_std[0]) == pytest.approx(
        (both * weights).sum((-2, -1)).mean() ** 0.5, rel=1e-4
    )


def test_statics_are_normalised_and_a_flat_one_is_zero(archive):
    flat = np.concatenate([archive.statics, np.full_like(archive.statics, 7.0)])
    found = normalised_statics(dataclasses.replace(archive, statics=flat)).numpy()
    weights = archive.grid.area_weights
    assert (found[0] * weights).sum() == pytest.approx(0, abs=1e-6)
    assert (found[0] ** 2 * weights).sum() == pytest.approx(1, rel=1e-5)
    assert not found[1].any()


def test_missing_archive_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_archive(tmp_path / "none.zarr", CHANNELS, ())
