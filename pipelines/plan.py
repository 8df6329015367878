"""What a run will do, checked in full before it does anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.errors import StoreError
from forecast.builds import library
from pipelines.ensemble import Ensemble
from pipelines.experiment import Experiment
from pipelines.layout import Layout, member_coordinates
from pipelines.settings import InFlight, StoreSettings
from pipelines.store import fingerprint as fingerprint_of
from pipelines.store import stored_init_times, unit_name
from pipelines.subset import selected

if TYPE_CHECKING:
    from pipelines.models import Models

# Of some members, by their numbers: (number, channel, latitude, longitude), lead by lead, float32.
Forecast = Callable[[tuple[int, ...]], Iterator[np.ndarray]]
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
    checkpoint : int
        The checkpoint of its first member.
    fingerprint : str
        Digest of everything that decides the values: experiment, init time, analyses, versions.
    """

    init: int
    block: int
    numbers: tuple[int, ...]
    checkpoint: int
    fingerprint: str

    @property
    def name(self) -> str:
        """Names the unit's marker."""
        return unit_name(self.init, self.block)


@dataclass(frozen=True)
class Plan:
    """A checked experiment: what is computed, by whom, and where it goes.

    Attributes
    ----------
    ensemble : Ensemble
        Who forecasts.
    layout : Layout
        Of all that is forecast, with the init times that the store has already.
    units : tuple of Unit
        The experiment's work.
    path : pathlib.Path
        The store.
    """

    ensemble: Ensemble
    layout: Layout
    units: tuple[Unit, ...]
    path: Path

    @cached_property
    def models(self) -> Models:
        """What forecasts the members, in this process."""
        return _models(self.ensemble)

    @property
    def kept(self) -> InFlight | None:
        """What is kept of all members without storing them."""
        return self.ensemble.experiment.in_flight

    @property
    def stored(self) -> Layout | None:
        """The layout of the store, where anything is stored."""
        if self.kept is None:
            return self.layout
        # Any unit can write a shard of one member, whatever other members it has.
        return selected(self.layout, self.ensemble.experiment.store, 1)

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
    identity = _identity(experiment, ensemble)
    fingerprint = hashed(identity)
    begun = (path / "zarr.json").exists() and fingerprint_of(path) == fingerprint
    if not begun:
        # Refuses what does not fit the channels, before a worker would.
        _models(ensemble).perturbation(0)
    analyses = {time: _digest(_inputs(ensemble, time)) for time in experiment.init_times}
    init_times = _joined(path, experiment.init_times) if begun else experiment.init_times
    layout = _layout(experiment, ensemble, init_times, fingerprint, identity)
    blocks = _blocks(experiment, ensemble)
    position = {time: index for index, time in enumerate(init_times)}
    units = []
    for time in experiment.init_times:
        digest = hashed([fingerprint, str(time), analyses[time]])
        for block, numbers in enumerate(blocks):
            checkpoint = ensemble.members[numbers[0]].checkpoint
            units.append(Unit(position[time], block, numbers, checkpoint, digest))
    return Plan(ensemble, layout, tuple(units), path)


def _models(ensemble: Ensemble) -> Models:
    from pipelines.models import Models  # with torch, which planning can mostly do without

    return Models(ensemble)


def _inputs(
    ensemble: Ensemble, init_time: np.datetime64
) -> Iterator[tuple[np.datetime64, np.ndarray]]:
    """All that forecasts from an init time read."""
    if ensemble.reads_more:
        return _models(ensemble).inputs(init_time)
    return ensemble.inputs(init_time)


def _blocks(experiment: Experiment, ensemble: Ensemble) -> list[tuple[int, ...]]:
    """The members of each unit of one init time.

    Where statistics are kept, all of one checkpoint, and partners in one unit.
    """
    if experiment.in_flight is None:
        size, members = experiment.store.block, experiment.members
        return [tuple(range(k, min(k + size, members))) for k in range(0, members, size)]
    blocks: list[list[int]] = []
    before = None
    for member in ensemble.members:
        partner = before is not None and member.pair >= 0 and member.pair == before.pair
        full = bool(blocks) and len(blocks[-1]) >= experiment.in_flight.block
        if before is None or member.checkpoint != before.checkpoint or (full and not partner):
            blocks.append([])
        blocks[-1].append(member.number)
        before = member
    return [tuple(block) for block in blocks]


def _joined(path: Path, wanted: tuple[np.datetime64, ...]) -> tuple[np.datetime64, ...]:
    """Init times of the store at `path` and after them the others that are wanted.

    Raises
    ------
    StoreError
        If one would have to go before or between those that are there.
    """
    stored = stored_init_times(path)
    added = tuple(time for time in wanted if time not in stored)
    if added and added[0] < stored[-1]:
        raise StoreError(
            f"{path}: has init times to {stored[-1]}, later ones can be added, {added[0]} cannot: "
            "nothing was changed"
        )
    return stored + added


def _identity(experiment: Experiment, ensemble: Ensemble) -> dict[str, Any]:
    """Everything that decides values or layout, and nothing else.

    Init times are not of it: each unit's fingerprint has its own, and a store can get more.
    """
    elsewhere = {"name", "truth", "climatology", "init_times", "min_members", "cluster"}
    settings = experiment.model_dump(exclude=elsewhere | {"in_flight"})
    for name, value in StoreSettings().model_dump(exclude={"block", "lossless"}).items():
        if settings["store"][name] == value:
            del settings["store"][name]
    for section in (settings, settings["forecaster"], *settings["perturbations"]):
        for key in ("analyses", "checkpoints", "source"):
            section.pop(key, None)  # where a file lies decides nothing; what it holds does
    if experiment.in_flight is not None and ensemble.micro_batch > 1:
        settings["in_flight"] = {"block": experiment.in_flight.block}  # who goes together
    return {
        "experiment": settings,
        "checkpoints": list(ensemble.hashes),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that decide values, and what steps a network that fits it."""
    step = "torch" if library() is None else "C"
    return {name: version(name) for name in _VERSIONED} | {"network step": step}


def _layout(
    experiment: Experiment,
    ensemble: Ensemble,
    init_times: tuple[np.datetime64, ...],
    fingerprint: str,
    identity: dict[str, Any],
) -> Layout:
    steps = experiment.steps(ensemble.timestep)
    attributes = {
        "Conventions": "CF-1.11",
        "title": experiment.name,
        "source": f"myriadcast {version('myriadcast')}",
        "fingerprint": fingerprint,
        "experiment": json.dumps(experiment.model_dump(exclude={"cluster"}), default=str),
        "identity": json.dumps(identity, default=str),
    }
    return Layout(
        channels=ensemble.channels,
        grid=ensemble.grid,
        init_times=init_times,
        lead_times=np.arange(steps + 1) * ensemble.timestep,
        members=member_coordinates(ensemble.members, ensemble.names),
        block=experiment.store.block,
        lossless=experiment.store.lossless,
        attributes=attributes,
    ).within(experiment.store.window_gb, experiment.store.block)


def hashed(content: Any) -> str:
    """Digest of plain content."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _digest(inputs: Iterable[tuple[np.datetime64, np.ndarray]]) -> str:
    """Digest of fields and their times."""
    digest = hashlib.blake2b(digest_size=12)
    for time, fields in inputs:
        digest.update(str(np.datetime64(time, "s")).encode())
        digest.update(fields.tobytes())
    return digest.hexdigest()
