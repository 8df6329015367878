"""An experiment brought to life: its source, forecasters, perturbations and members.

The one place where configured names meet classes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from data.climatology import Climatology
from data.errors import CheckpointError, ConfigurationError, InputError, RunError
from data.grid import Grid
from data.key import Key
from data.source import Source, open_source
from data.state import State
from forecast.checkpoint import (
    CheckpointMetadata,
    checkpoint_hash,
    load_checkpoint,
    read_metadata,
)
from forecast.forecaster import Forecaster, rollout
from forecast.reference import ClimatologyForecaster, Persistence
from perturb.analyses import EnsembleOfAnalyses, LaggedAnalyses
from perturb.bred import BredVectors
from perturb.correlated import CorrelatedNoise
from perturb.member import Member, Pairing, group_by_checkpoint, roster
from perturb.perturbation import Compose, Perturbation, Unperturbed
from pipelines import experiment as settings


class Ensemble:
    """The members of an experiment, each of which can be forecast alone.

    Everything is opened on first use and kept, so that a worker loads a checkpoint once, and reads
    the analyses of an init time once for all of its units. What travels between processes is the
    experiment alone.

    Parameters
    ----------
    experiment : Experiment
        Checked settings.
    """

    def __init__(self, experiment: settings.Experiment) -> None:
        self.experiment = experiment
        self._forecasters: dict[int, Forecaster] = {}
        self._perturbations: dict[int, Perturbation] = {}
        self._device = "cpu"
        self._read_lately = lru_cache(_analyses_needed(experiment))(self._read_analysis)

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
        found = tuple(read_metadata(path) for path in self._checkpoint_paths)
        for path, other in zip(self._checkpoint_paths[1:], found[1:], strict=True):
            for name in ("channels", "grid", "timestep"):
                if getattr(other, name) != getattr(found[0], name):
                    raise CheckpointError(
                        f"{path}: {name} {getattr(other, name)}, expected "
                        f"{getattr(found[0], name)} as in {self._checkpoint_paths[0]}"
                    )
        for path, first in zip(self._checkpoint_paths, found, strict=True):
            if sum(first.hash == other.hash for other in found) > 1:
                raise CheckpointError(f"{path}: is given twice; its members would be each other's")
        if len(set(self.names)) < len(found):
            raise CheckpointError(f"checkpoints have names of their own, found {self.names}")
        return found

    @property
    def _checkpoint_paths(self) -> tuple[Path, ...]:
        chosen = self.experiment.forecaster
        return chosen.checkpoints if isinstance(chosen, settings.Neural) else ()

    @property
    def hashes(self) -> tuple[str, ...]:
        """Hash of each checkpoint, its weights verified against it."""
        return tuple(checkpoint_hash(path) for path in self._checkpoint_paths)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each checkpoint, or of the reference forecaster."""
        kind = self.experiment.forecaster.kind
        # CF separates the meanings of flags by blanks.
        return tuple("_".join(path.name.split()) for path in self._checkpoint_paths) or (kind,)

    @property
    def _described(self) -> CheckpointMetadata | Forecaster:
        """What knows channels, grid and timestep, without loading a network for it."""
        return self.checkpoints[0] if self.checkpoints else self.forecaster(0)

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

    def forecaster(self, checkpoint: int) -> Forecaster:
        """The forecaster of one checkpoint, loaded once."""
        if checkpoint not in self._forecasters:
            self._forecasters[checkpoint] = self._load(checkpoint)
        return self._forecasters[checkpoint]

    def perturbation(self, checkpoint: int) -> Perturbation:
        """What perturbs the analyses of one checkpoint's members."""
        if checkpoint not in self._perturbations:
            parts = tuple(self._build(part, checkpoint) for part in self.experiment.perturbations)
            single = parts[0] if len(parts) == 1 else Compose(parts)
            self._perturbations[checkpoint] = single if parts else Unperturbed()
        return self._perturbations[checkpoint]

    def analysis(self, time: np.datetime64) -> State:
        """The control analysis on the forecast's channels, checked against its grid.

        Of an ensemble of analyses it is the first member.

        Raises
        ------
        InputError
            If it is missing, damaged, or on another grid.
        """
        return self._read_lately(time)

    def _read_analysis(self, time: np.datetime64) -> State:
        state = self.source.analysis(time, self.channels)
        if state.grid != self.grid:
            raise InputError(
                f"{self.experiment.analyses}: analysis at {time} is on grid {state.grid}, the "
                f"forecaster needs {self.grid}"
            )
        first = state.fields if len(state.numbers) == 1 else state.fields[:1].clone()
        return state.with_members(first, (0,))

    def analyses_for(self, init_time: np.datetime64) -> list[State]:
        """Every field that forecasts from this init time read, checked."""
        states = [self.analysis(init_time)]
        if isinstance(self.experiment.forecaster, settings.Climatology):
            climatology = self.forecaster(0).climatology
            leads = range(1, self.experiment.steps(self.timestep) + 1)
            later = (init_time + k * self.timestep for k in leads)
            states += [climatology.mean(time, self.channels) for time in later]
        for part in self.experiment.perturbations:
            match part:
                case settings.BredVectors():
                    earlier = (init_time - (k + 1) * self.timestep for k in range(part.cycles))
                    states += [self.analysis(time) for time in earlier]
                case settings.EnsembleOfAnalyses() | settings.LaggedAnalyses():
                    perturbation = self._ensemble_of_analyses(part)
                    states.append(perturbation.analyses.analysis(init_time))
                    draws = 1 + max(member.seed for member in self.members)
                    perturbation.check_draws(len(states[-1].numbers), draws)
        return states

    def trajectories(
        self, init_time: np.datetime64, numbers: tuple[int, ...]
    ) -> Iterator[torch.Tensor]:
        """Forecasts of some members, lead by lead, the initial state first.

        Yields
        ------
        torch.Tensor
            (number, channel, latitude, longitude), float32, in the processor's memory; a member's
            values do not depend on which others are asked for, if `micro_batch` is 1.

        Raises
        ------
        RunError
            If a GPU is asked for and none is there.
        """
        self._take_device()
        key = Key(self.experiment.seed) / init_time
        analysis = self.analysis(init_time)
        steps = self.experiment.steps(self.timestep)
        chosen = [self.members[number] for number in numbers]
        rollouts = []
        for checkpoint, members in group_by_checkpoint(chosen).items():
            start = self.perturbation(checkpoint).perturb(analysis, key, members)
            start = start.with_members(start.fields.to(self._device), start.numbers)
            rollouts.append(rollout(self.forecaster(checkpoint), start, steps, key / "forecast"))
        for states in zip(*rollouts, strict=True):
            yield torch.cat([state.fields for state in states]).cpu()

    def _take_device(self) -> None:
        """Have networks where the experiment wants them: a run may be planned without a GPU."""
        chosen = self.experiment.forecaster
        if not isinstance(chosen, settings.Neural) or chosen.device == self._device:
            return
        if not torch.cuda.is_available():
            raise RunError(
                f"forecaster: device is {chosen.device!r}, and process {os.getpid()} on "
                f"{socket.gethostname()} finds no GPU that torch {torch.__version__} can use"
            )
        self._device = chosen.device
        self._forecasters.clear()
        self._perturbations.clear()

    def _load(self, checkpoint: int) -> Forecaster:
        chosen = self.experiment.forecaster
        if isinstance(chosen, settings.Neural):
            return load_checkpoint(chosen.checkpoints[checkpoint], chosen.micro_batch, self._device)
        channels = self.experiment.channels or self.source.channels
        timestep = np.timedelta64(chosen.timestep, "h")
        if isinstance(chosen, settings.Persistence):
            return Persistence(channels, self.source.grid, timestep)
        if self.experiment.climatology is None:
            raise ConfigurationError("climatology: is needed by the climatology forecaster")
        return ClimatologyForecaster(Climatology(self.experiment.climatology), channels, timestep)

    def _build(self, part: settings.PerturbationSettings, checkpoint: int) -> Perturbation:
        match part:
            case settings.BredVectors():
                amplitude = part.amplitude * self._forecast_error(checkpoint)
                load = partial(self.forecaster, checkpoint)
                return BredVectors(
                    forecaster=_Unloaded(self.checkpoints[checkpoint], load),
                    analyses=self,
                    amplitude=amplitude,
                    cycles=part.cycles,
                    seed_channel=part.seed_channel,
                    correlation_length_km=part.correlation_length_km,
                )
            case settings.CorrelatedNoise():
                amplitudes = part.amplitude * self._forecast_error(checkpoint)
                by_channel = dict(zip(self.channels, amplitudes.tolist(), strict=True))
                for name in part.channels:
                    if name not in by_channel:
                        raise ConfigurationError(
                            f"perturbations: correlated_noise on {name!r}, which is not among the "
                            f"channels ({', '.join(self.channels)})"
                        )
                chosen = {name: by_channel[name] for name in part.channels or self.channels}
                return CorrelatedNoise(chosen, part.correlation_length_km)
            case settings.EnsembleOfAnalyses() | settings.LaggedAnalyses():
                return self._ensemble_of_analyses(part)

    def _ensemble_of_analyses(
        self, part: settings.EnsembleOfAnalyses | settings.LaggedAnalyses
    ) -> EnsembleOfAnalyses:
        if isinstance(part, settings.LaggedAnalyses):
            interval = np.timedelta64(part.interval, "h")
            return EnsembleOfAnalyses(LaggedAnalyses(self, interval, part.count), part.scale)
        source = _Selection(open_source(part.analyses), self.channels)
        return EnsembleOfAnalyses(source, part.scale, part.reuse)

    def _forecast_error(self, checkpoint: int) -> np.ndarray:
        """Root mean square error of the checkpoint's 48 h forecast, (channel,)."""
        if not self.checkpoints:
            raise ConfigurationError(
                "perturbations: amplitudes are shares of a checkpoint's 48 h error, and "
                f"forecaster {self.experiment.forecaster.kind!r} has none"
            )
        return np.asarray(self.checkpoints[checkpoint].rmse_48h)


@dataclass(frozen=True)
class _Unloaded:
    """A checkpoint's forecaster, whose network is loaded when it first steps: a run that finds
    nothing to do, or something wrong, need not wait for it."""

    metadata: CheckpointMetadata
    load: Callable[[], Forecaster]

    @property
    def channels(self) -> tuple[str, ...]:
        return self.metadata.channels

    @property
    def grid(self) -> Grid:
        return self.metadata.grid

    @property
    def timestep(self) -> np.timedelta64:
        return self.metadata.timestep

    def step(self, state: State, key: Key) -> State:
        return self.load().step(state, key)


@dataclass(frozen=True)
class _Selection:
    """Some channels of a source; what is not needed is not read, and the last one is kept."""

    source: Source
    channels: tuple[str, ...]

    def analysis(self, time: np.datetime64) -> State:
        return self._read_lately(time)

    @cached_property
    def _read_lately(self) -> Callable[[np.datetime64], State]:
        return lru_cache(maxsize=1)(partial(self.source.analysis, channels=self.channels))


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
