"""Training from a YAML file: archive in, checkpoint out."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from tqdm import tqdm

from data.channel import channel
from data.errors import ConfigurationError, InputError
from data.grid import Grid
from data.key import Key
from forecast.architecture import SFNOConfig
from forecast.checkpoint import load_checkpoint, load_network, save_checkpoint
from forecast.dataset import (
    Archive,
    Normalisation,
    normalisation,
    normalised_statics,
    read_archive,
)
from forecast.hindcast import hindcast
from forecast.metadata import CheckpointMetadata, read_metadata
from forecast.sfno import SFNO
from forecast.training import LOSS_NAMES, Material, Phase, Progress, Regime, Trainer
from pipelines.configuration import explain, read_yaml
from pipelines.settings import Hours, Settings, Time

_HINDCAST_CASES = 64
_HINDCAST_HOURS = 48


class DataSettings(Settings):
    """Which archive, and which of its rows."""

    archive: Path
    label: str
    channels: tuple[str, ...] = Field(min_length=1)
    statics: tuple[str, ...] = ()
    timestep: Hours
    first: Time | None = None
    last: Time | None = None
    validation_days: float = Field(default=30, gt=0)


class NetworkSettings(Settings):
    """Sizes of the network; the inner grid has `latitudes` x twice as many points."""

    latitudes: int = Field(ge=4)
    degrees: int = Field(ge=2)
    embed: int = Field(default=64, ge=1)
    blocks: int = Field(default=4, ge=1)
    scalars: int = Field(default=32, ge=1)
    gradients: int = Field(default=16, ge=0)
    hidden: int = Field(default=64, ge=1)


class LatentSettings(Settings):
    """Noise inputs of a stochastic network."""

    lengths_km: tuple[float, ...] = Field(min_length=1)
    per_length: int = Field(default=2, ge=1)


class PhaseSettings(Settings):
    """One phase; see `forecast.training.Phase`."""

    steps: int = Field(ge=1)
    updates: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    loss: Literal[LOSS_NAMES] = "squared-error"
    batch: int = Field(default=4, ge=1)
    members: int = Field(default=1, ge=1)
    warmup: int = Field(default=100, ge=1)
    lead_decay: float = Field(default=1.0, ge=0)


class RegimeSettings(Settings):
    """What holds in all phases; see `forecast.training.Regime`."""

    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    averaging: float = Field(default=0.998, ge=0, lt=1)
    validate_every: int = Field(default=500, ge=1)
    validation_cases: int = Field(default=48, ge=1)
    patience: int = Field(default=8, ge=1)
    save_every: int = Field(default=500, ge=1)


class TrainingSettings(Settings):
    """A training run.

    Exactly one of `network` (a fresh one) and `start_from` (go on from a checkpoint, with its
    sizes and scales; with `latent`, as a stochastic network) is given.
    """

    output: Path
    work: Path
    seed: int
    data: DataSettings
    network: NetworkSettings | None = None
    start_from: Path | None = None
    latent: LatentSettings | None = None
    regime: RegimeSettings = RegimeSettings()
    phases: tuple[PhaseSettings, ...] = Field(min_length=1)


def read_training(path: Path) -> TrainingSettings:
    """The training run in a YAML file; its relative paths are relative to the file.

    Raises
    ------
    ConfigurationError
        If the file is missing, no YAML mapping, or a key or value is wrong; names the key.
    """
    try:
        settings = TrainingSettings.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {explain(error)}") from None
    if (settings.network is None) == (settings.start_from is None):
        raise ConfigurationError(f"{path}: give exactly one of the keys network and start_from")
    folder = Path(path).resolve().parent
    data = settings.data.model_copy(update={"archive": folder / settings.data.archive})
    start_from = settings.start_from and folder / settings.start_from
    paths = {"output": folder / settings.output, "work": folder / settings.work}
    return settings.model_copy(update=paths | {"data": data, "start_from": start_from})


def run_training(settings: TrainingSettings) -> CheckpointMetadata:
    """Train to the end, or go on where a stopped run was, and write the checkpoint.

    After every phase the checkpoint at `output` is written anew.

    Raises
    ------
    InputError, ConfigurationError, CheckpointError
        If the archive, the settings or the checkpoint to start from are not what they must be.
    """
    for name in settings.data.channels:
        channel(name)
    archive = read_archive(settings.data.archive, settings.data.channels, settings.data.statics)
    network, statics, scales = _start(settings, archive)
    material = _material(settings, archive, scales)
    phases = tuple(Phase(**phase.model_dump()) for phase in settings.phases)
    regime = Regime(seed=settings.seed, **settings.regime.model_dump())
    trainer = Trainer(network, material, phases, regime, settings.work)
    export = partial(_export, settings, material, statics)
    metadata = None
    with tqdm(total=sum(phase.updates for phase in phases), unit="update") as bar:
        done = sum(phase.updates for phase in phases[: trainer.position.phase])
        bar.update(done + trainer.position.update)
        phase = trainer.position.phase
        for progress in trainer.run():
            if progress.phase != phase:
                metadata, phase = export(trainer), progress.phase
            _show(bar, progress)
    return export(trainer) if trainer.position.phase > phase or metadata is None else metadata


def _show(bar: tqdm, progress: Progress) -> None:
    bar.update()
    bar.set_postfix_str(
        f"phase {progress.phase}, loss {progress.loss:.4f}, "
        f"{progress.samples_per_second:.0f} samples/s",
        refresh=False,
    )
    if progress.validation is not None:
        bar.write(f"phase {progress.phase}, update {progress.update}: {progress.validation:.5f}")


def _start(
    settings: TrainingSettings, archive: Archive
) -> tuple[SFNO, torch.Tensor, Normalisation | None]:
    """The network to train, its statics, and its scales if a checkpoint fixes them."""
    if settings.start_from is None:
        statics = normalised_statics(archive)
        config = _config(settings.network, archive)
        return _initialised(_with_latent(config, settings.latent), statics, settings), statics, None
    metadata = read_metadata(settings.start_from)
    if (metadata.channels, metadata.grid) != (archive.channels, archive.grid):
        raise ConfigurationError(
            f"{settings.start_from}: made for channels {', '.join(metadata.channels)} on "
            f"{metadata.grid}, but the archive gives {', '.join(archive.channels)} "
            f"on {archive.grid}"
        )
    trained, statics = load_network(settings.start_from, metadata)
    network = _initialised(_with_latent(metadata.architecture, settings.latent), statics, settings)
    network.load_state_dict(network.state_dict() | trained.state_dict())
    scales = (metadata.mean, metadata.std, metadata.tendency_std)
    return network, statics, Normalisation(*(torch.tensor(scale) for scale in scales))


def _config(sizes: NetworkSettings, archive: Archive) -> SFNOConfig:
    values = sizes.model_dump()
    latitudes = values.pop("latitudes")
    return SFNOConfig(
        channels=len(archive.channels),
        statics=len(archive.statics),
        grid=archive.grid,
        inner_grid=Grid("legendre-gauss", latitudes, 2 * latitudes),
        **values,
    )


def _with_latent(config: SFNOConfig, latent: LatentSettings | None) -> SFNOConfig:
    if latent is None:
        return config
    return replace(
        config, latent_lengths_km=latent.lengths_km, latents_per_length=latent.per_length
    )


def _initialised(config: SFNOConfig, statics: torch.Tensor, settings: TrainingSettings) -> SFNO:
    """A network whose first weights depend on the seed alone; the global generator is put back."""
    seed = int((Key(settings.seed) / "weights").generator().integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SFNO(config, statics)


def _material(
    settings: TrainingSettings, archive: Archive, scales: Normalisation | None
) -> Material:
    timestep = np.timedelta64(settings.data.timestep, "h").astype("timedelta64[s]")
    chosen = ~archive.evaluation
    if settings.data.first is not None:
        chosen &= archive.times >= settings.data.first
    if settings.data.last is not None:
        chosen &= archive.times <= settings.data.last
    if not chosen.any():
        raise InputError(f"{settings.data.archive}: no training rows between first and last")
    archive = replace(archive, evaluation=~chosen)
    validation = archive.held_back(settings.data.validation_days)
    training = chosen & ~validation
    scales = scales or normalisation(archive, training, timestep)
    return Material(archive, scales, training, validation, timestep)


def _export(
    settings: TrainingSettings, material: Material, statics: torch.Tensor, trainer: Trainer
) -> CheckpointMetadata:
    """Write the averaged weights with the errors of their own hindcasts."""
    archive, scales = material.archive, material.normalisation
    metadata = CheckpointMetadata(
        architecture=trainer.average.config,
        channels=archive.channels,
        grid=archive.grid,
        timestep=material.timestep,
        mean=tuple(scales.mean.tolist()),
        std=tuple(scales.std.tolist()),
        tendency_std=tuple(scales.tendency_std.tolist()),
        statics=settings.data.statics,
        rmse_48h=(0.0,) * len(archive.channels),
        provenance=_provenance(settings, material, trainer),
    )
    save_checkpoint(settings.output, trainer.average, statics, metadata)
    steps = max(1, round(np.timedelta64(_HINDCAST_HOURS, "h") / material.timestep))
    starts = archive.starts(material.validation, steps, material.timestep)
    if not starts.size:
        raise InputError(f"no {_HINDCAST_HOURS} h forecast fits into the validation stretch")
    chosen = starts[np.linspace(0, len(starts) - 1, _HINDCAST_CASES).astype(int)]
    result = hindcast(load_checkpoint(settings.output), archive, np.unique(chosen), steps)
    metadata = replace(metadata, rmse_48h=tuple(map(float, result.rmse[-1])))
    return save_checkpoint(settings.output, trainer.average, statics, metadata)


def _provenance(
    settings: TrainingSettings, material: Material, trainer: Trainer
) -> dict[str, str | int | float]:
    times = material.archive.times
    updates = [phase.updates for phase in settings.phases[: trainer.position.phase]]
    phases = [f"{p.loss} over {p.steps} steps x {p.updates}" for p in settings.phases]
    before = read_metadata(settings.start_from) if settings.start_from else None
    if before is not None:
        phases.insert(0, str(before.provenance["phases"]))
    return {
        "data": settings.data.label,
        "first_time": str(times[material.training].min()),
        "last_time": str(times[material.training].max()),
        "training_fields": int(material.training.sum()),
        "validation": f"last {settings.data.validation_days:g} days of each segment's training",
        "validation_fields": int(material.validation.sum()),
        "seed": settings.seed,
        "started_from": before.hash if before else "",
        "phases": "; ".join(phases),
        "updates": sum(updates) + trainer.position.update,
        "myriadcast": importlib.metadata.version("myriadcast"),
        "torch": importlib.metadata.version("torch"),
    }
