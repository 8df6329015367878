"""An experiment's members, and what each is made from.

Nothing of this module imports torch, which takes longer than planning a run, or finding that it
is finished: what forecasts is in `pipelines.models`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from data.climatology import Climatology
from data.errors import CheckpointError, ConfigurationError, InputError
from data.grid import Grid
from data.source import Source, open_source
from forecast.metadata import CheckpointMetadata, checkpoint_hash, read_metadata
from forecast.reference import ClimatologyForecaster, Persistence
from perturb.member import Member, Pairing, roster
from pipelines import experiment as settings


class Ensemble:
    """The members of an experiment, and what each is made from.

    Everything is opened on first use and kept, so that a worker reads the analyses of an init time
    once for all of its units. What travels between processes is the experiment alone.

    Parameters
    ----------
    experiment : Experiment
        Checked settings.
    """

    def __init__(self, experiment: settings.Experiment) -> None:
        self.experiment = experiment
        self._read_lately = lru_cache(_analyses_needed(experiment))(self._read_control)

    def __reduce__(self) -> tuple[type[Ensemble], tuple[settings.Experiment]]:
        return Ensemble, (self.experiment,)

    @cached_property
    def source(self) -> Source:
        """Where the analyses come from."""
        return open_source(self.experiment.analyses)

    @cached_property
    def checkpoints(self) -> tuple[CheckpointMetadata, ...]:
        """What each checkpoint says of itself; none for a reference forecaster.

        Raises
        ------
        CheckpointError
            If one is damaged, or they differ in channels, grid or timestep.
        """
        found = tuple(read_metadata(path) for path in self.checkpoint_paths)
        for path, other in zip(self.checkpoint_paths[1:], found[1:], strict=True):
            for name in ("channels", "grid", "timestep"):
                if getattr(other, name) != getattr(found[0], name):
                    raise CheckpointError(
                        f"{path}: {name} {getattr(other, name)}, expected "
                        f"{getattr(found[0], name)} as in {self.checkpoint_paths[0]}"
                    )
        for path, first in zip(self.checkpoint_paths, found, strict=True):
            if sum(first.hash == other.hash for other in found) > 1:
                raise CheckpointError(f"{path}: is given twice; its members would be each other's")
        if len(set(self.names)) < len(found):
            raise CheckpointError(f"checkpoints have names of their own, found {self.names}")
        return found

    @property
    def checkpoint_paths(self) -> tuple[Path, ...]:
        """Where the checkpoints are; none for a reference forecaster."""
        chosen = self.experiment.forecaster
        return chosen.checkpoints if isinstance(chosen, settings.Neural) else ()

    @property
    def hashes(self) -> tuple[str, ...]:
        """Hash of each checkpoint, its weights verified against it."""
        return tuple(checkpoint_hash(path) for path in self.checkpoint_paths)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each checkpoint, or of the reference forecaster."""
        kind = self.experiment.forecaster.kind
        # CF separates the meanings of flags by blanks.
        return tuple("_".join(path.name.split()) for path in self.checkpoint_paths) or (kind,)

    @cached_property
    def reference(self) -> Persistence | ClimatologyForecaster:
        """The forecaster, where it has no checkpoint.

        Raises
        ------
        ConfigurationError
            If it is the climatology's, and the experiment names none.
        """
        chosen = self.experiment.forecaster
        channels = self.experiment.channels or self.source.channels
        timestep = np.timedelta64(chosen.timestep, "h")
        if isinstance(chosen, settings.Persistence):
            return Persistence(channels, self.source.grid, timestep)
        if self.experiment.climatology is None:
            raise ConfigurationError("climatology: is needed by the climatology forecaster")
        return ClimatologyForecaster(Climatology(self.experiment.climatology), channels, timestep)

    @property
    def _described(self) -> CheckpointMetadata | Persistence | ClimatologyForecaster:
        """What knows channels, grid and timestep, without loading a network for it."""
        return self.checkpoints[0] if self.checkpoints else self.reference

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of the forecasts."""
        return self._described.channels

    @property
    def grid(self) -> Grid:
        """Grid of the forecasts."""
        return self._described.grid

    @property
    def timestep(self) -> np.timedelta64:
        """Length of one step."""
        return self._described.timestep

    @property
    def micro_batch(self) -> int:
        """Members that are forecast at once; with more than 1 their last bits depend on it."""
        chosen = self.experiment.forecaster
        return chosen.micro_batch if isinstance(chosen, settings.Neural) else 1

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """Who each member is, by its number."""
        configured = self.experiment.perturbations
        name = "+".join(part.kind for part in configured) or "unperturbed"
        pairing = Pairing.NONE
        if configured:
            paired = all(_is_paired(part) for part in configured)
            pairing = Pairing.PAIRS if paired else Pairing.SINGLES
        return roster(self.experiment.members, max(1, len(self.checkpoints)), pairing, name)

    def control(self, time: np.datetime64) -> np.ndarray:
        """The control analysis, (1, channel, latitude, longitude), float32, checked.

        Of an ensemble of analyses it is the first member.

        Raises
        ------
        InputError
            If it is missing, damaged, or on another grid than the forecast's.
        """
        return self._read_lately(np.datetime64(time, "s"))

    def _read_control(self, time: np.datetime64) -> np.ndarray:
        fields = self.source.values(time, self.channels)
        if self.source.grid != self.grid:
            raise InputError(
                f"{self.experiment.analyses}: analysis at {time} is on grid {self.source.grid}, "
                f"the forecaster needs {self.grid}"
            )
        return fields if len(fields) == 1 else fields[:1].copy()

    def inputs(self, init_time: np.datetime64) -> Iterator[tuple[np.datetime64, np.ndarray]]:
        """The control analyses that forecasts from this init time read, checked.

        That is all they read, unless `reads_more`.

        Yields
        ------
        tuple
            Time, and (1, channel, latitude, longitude), float32.

        Raises
        ------
        InputError
            If one of them is not what it must be.
        """
        yield init_time, self.control(init_time)
        for part in self.experiment.perturbations:
            if isinstance(part, settings.BredVectors):
                yield from self.before(init_time, part.cycles)

    def before(
        self, init_time: np.datetime64, count: int
    ) -> Iterator[tuple[np.datetime64, np.ndarray]]:
        """As `inputs`: so many control analyses before an init time, backwards in timesteps."""
        for k in range(1, count + 1):
            yield init_time - k * self.timestep, self.control(init_time - k * self.timestep)

    @property
    def reads_more(self) -> bool:
        """Whether forecasts read something else than control analyses: see `Models.inputs`."""
        others = (settings.EnsembleOfAnalyses, settings.LaggedAnalyses)
        return isinstance(self.experiment.forecaster, settings.Climatology) or any(
            isinstance(part, others) for part in self.experiment.perturbations
        )


def _analyses_needed(experiment: settings.Experiment) -> int:
    """How many analyses, the control one and those before it, the members of an init time need."""
    parts = experiment.perturbations
    bred = sum(part.cycles for part in parts if isinstance(part, settings.BredVectors))
    lagged = sum(part.count for part in parts if isinstance(part, settings.LaggedAnalyses))
    return 1 + bred + lagged


def _is_paired(part: settings.PerturbationSettings) -> bool:
    """Whether members of this perturbation come in +- pairs."""
    if isinstance(part, settings.CorrelatedNoise):
        return part.paired
    return isinstance(part, settings.BredVectors)
