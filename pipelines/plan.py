"""What a run will do, checked in full before it does anything."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.state import State
from pipelines.ensemble import Ensemble
from pipelines.experiment import Experiment
from pipelines.store import Layout, member_coordinates

_VERSIONED = ("myriadcast", "torch", "torch-harmonics", "numpy")


@dataclass(frozen=True)
class Unit:
    """One init time and one block of members.

    Attributes
    ----------
    init, block : int
        Position of the init time, and of the block along `number`.
    numbers : tuple of int
        The block's members.
    fingerprint : str
        Digest of everything that decides the values: experiment, init time, analyses, versions.
    """

    init: int
    block: int
    numbers: tuple[int, ...]
    fingerprint: str

    @property
    def name(self) -> str:
        """Names the unit's marker."""
        return f"{self.init:05d}-{self.block:05d}"


@dataclass(frozen=True)
class Plan:
    """A checked experiment: what is computed, by whom, and where it goes."""

    ensemble: Ensemble
    layout: Layout
    units: tuple[Unit, ...]
    path: Path

    @property
    def steps(self) -> int:
        """Steps of one member's forecast."""
        return self.layout.shape[2] - 1


def make_plan(experiment: Experiment, path: Path) -> Plan:
    """Check an experiment and lay out its work; writes nothing.

    Every analysis that the run will read is read here once: a bad one ends the run before its
    first forecast step, and its digest becomes part of the fingerprint.

    Raises
    ------
    ConfigurationError, InputError, CheckpointError
        If the experiment, an analysis or a checkpoint is not what it must be.
    """
    ensemble = Ensemble(experiment)
    ensemble.perturbation(0)  # refuses what does not fit the channels, before a worker would
    analyses = {time: _digest(ensemble.analyses_for(time)) for time in experiment.init_times}
    identity = _identity(experiment, ensemble)
    fingerprint = _hash(identity)
    layout = _layout(experiment, ensemble, fingerprint, identity)
    units = []
    for init, time in enumerate(experiment.init_times):
        digest = _hash([fingerprint, str(time), analyses[time]])
        for block, first in enumerate(range(0, experiment.members, experiment.store.block)):
            numbers = range(first, min(first + experiment.store.block, experiment.members))
            units.append(Unit(init, block, tuple(numbers), digest))
    return Plan(ensemble, layout, tuple(units), path)


def _identity(experiment: Experiment, ensemble: Ensemble) -> dict[str, Any]:
    """Everything that decides values or layout, and nothing else."""
    settings = experiment.model_dump(exclude={"name", "truth", "climatology"})
    for section in (settings, settings["forecaster"], *settings["perturbations"]):
        for key in ("analyses", "checkpoints", "source"):
            section.pop(key, None)  # where a file lies decides nothing; what it holds does
    return {
        "experiment": settings,
        "checkpoints": list(ensemble.hashes),
        "versions": {name: version(name) for name in _VERSIONED},
    }


def _layout(
    experiment: Experiment, ensemble: Ensemble, fingerprint: str, identity: dict[str, Any]
) -> Layout:
    steps = experiment.steps(ensemble.timestep)
    attributes = {
        "Conventions": "CF-1.11",
        "title": experiment.name,
        "source": f"myriadcast {version('myriadcast')}",
        "fingerprint": fingerprint,
        "experiment": json.dumps(experiment.model_dump(), default=str),
        "identity": json.dumps(identity, default=str),
    }
    return Layout(
        channels=ensemble.channels,
        grid=ensemble.grid,
        init_times=experiment.init_times,
        lead_times=np.arange(steps + 1) * ensemble.timestep,
        members=member_coordinates(ensemble.members, ensemble.names),
        block=experiment.store.block,
        lossless=experiment.store.lossless,
        attributes=attributes,
    )


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _digest(states: list[State]) -> str:
    """Digest of the values of some states."""
    digest = hashlib.blake2b(digest_size=12)
    for state in states:
        digest.update(str(state.valid_time).encode())
        digest.update(torch.as_tensor(state.fields).contiguous().numpy().tobytes())
    return digest.hexdigest()
