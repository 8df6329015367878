"""The forecasters and perturbations that an experiment names, built.

The one place where configured names meet classes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import torch

from data.errors import ConfigurationError, RunError
from data.grid import Grid
from data.key import Key
from data.source import Source, open_source
from data.state import State
from forecast.checkpoint import load_checkpoint
from forecast.forecaster import Forecaster, rollout
from forecast.metadata import CheckpointMetadata
from perturb.analyses import EnsembleOfAnalyses, LaggedAnalyses
from perturb.bred import BredVectors
from perturb.correlated import CorrelatedNoise
from perturb.member import group_by_checkpoint
from perturb.perturbation import Compose, Perturbation, Unperturbed
from pipelines import experiment as settings
from pipelines.ensemble import Ensemble


class Models:
    """What forecasts the members of an ensemble, each of which can be forecast alone.

    Everything is built on first use and kept, so that a worker loads a checkpoint once. What
    travels between processes is the ensemble alone.

    Parameters
    ----------
    ensemble : Ensemble
        Who they are.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self._forecasters: dict[int, Forecaster] = {}
        self._perturbations: dict[int, Perturbation] = {}
        self._device = "cpu"

    def __reduce__(self) -> tuple[type[Models], tuple[Ensemble]]:
        return Models, (self._ensemble,)

    @property
    def _experiment(self) -> settings.Experiment:
        return self._ensemble.experiment

    def forecaster(self, checkpoint: int) -> Forecaster:
        """The forecaster of one checkpoint, loaded once."""
        if checkpoint not in self._forecasters:
            self._forecasters[checkpoint] = self._load(checkpoint)
        return self._forecasters[checkpoint]

    def perturbation(self, checkpoint: int) -> Perturbation:
        """What perturbs the analyses of one checkpoint's members."""
        if checkpoint not in self._perturbations:
            parts = tuple(self._build(part, checkpoint) for part in self._experiment.perturbations)
            single = parts[0] if len(parts) == 1 else Compose(parts)
            self._perturbations[checkpoint] = single if parts else Unperturbed()
        return self._perturbations[checkpoint]

    def analysis(self, time: np.datetime64) -> State:
        """The control analysis; see `Ensemble.control`."""
        fields = torch.from_numpy(self._ensemble.control(time))
        ensemble = self._ensemble
        return State(fields, ensemble.channels, ensemble.grid, np.datetime64(time, "s"))

    def inputs(self, init_time: np.datetime64) -> Iterator[tuple[np.datetime64, np.ndarray]]:
        """All that forecasts from this init time read, checked.

        In the order of the experiment's perturbations: units' fingerprints are made of it.

        Yields
        ------
        tuple
            Time, and (number, channel, latitude, longitude), float32.

        Raises
        ------
        InputError
            If something is not what it must be.
        ConfigurationError
            If analyses are too few for the members.
        """
        ensemble = self._ensemble
        yield init_time, ensemble.control(init_time)
        if isinstance(self._experiment.forecaster, settings.Climatology):
            for step in range(1, self._experiment.steps(ensemble.timestep) + 1):
                later = init_time + step * ensemble.timestep
                mean = ensemble.reference.climatology.mean(later, ensemble.channels)
                yield later, mean.fields.contiguous().numpy()
        for part in self._experiment.perturbations:
            match part:
                case settings.BredVectors():
                    yield from ensemble.before(init_time, part.cycles)
                case settings.EnsembleOfAnalyses() | settings.LaggedAnalyses():
                    perturbation = self._ensemble_of_analyses(part)
                    state = perturbation.analyses.analysis(init_time)
                    draws = 1 + max(member.seed for member in ensemble.members)
                    perturbation.check_draws(len(state.numbers), draws)
                    yield init_time, state.fields.contiguous().numpy()

    @torch.inference_mode()
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
        key = Key(self._experiment.seed) / init_time
        analysis = self.analysis(init_time)
        steps = self._experiment.steps(self._ensemble.timestep)
        chosen = [self._ensemble.members[number] for number in numbers]
        rollouts = []
        for checkpoint, members in group_by_checkpoint(chosen).items():
            start = self.perturbation(checkpoint).perturb(analysis, key, members)
            start = start.with_members(start.fields.to(self._device), start.numbers)
            rollouts.append(rollout(self.forecaster(checkpoint), start, steps, key / "forecast"))
        for states in zip(*rollouts, strict=True):
            yield torch.cat([state.fields for state in states]).cpu()

    def _take_device(self) -> None:
        """Have networks where the experiment wants them: a run may be planned without a GPU."""
        chosen = self._experiment.forecaster
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
        chosen = self._experiment.forecaster
        if isinstance(chosen, settings.Neural):
            return load_checkpoint(chosen.checkpoints[checkpoint], chosen.micro_batch, self._device)
        return self._ensemble.reference

    def _build(self, part: settings.PerturbationSettings, checkpoint: int) -> Perturbation:
        channels = self._ensemble.channels
        match part:
            case settings.BredVectors():
                amplitude = part.amplitude * self._forecast_error(checkpoint)
                load = partial(self.forecaster, checkpoint)
                return BredVectors(
                    forecaster=_Unloaded(self._ensemble.checkpoints[checkpoint], load),
                    analyses=self,
                    amplitude=amplitude,
                    cycles=part.cycles,
                    seed_channel=part.seed_channel,
                    correlation_length_km=part.correlation_length_km,
                )
            case settings.CorrelatedNoise():
                amplitudes = part.amplitude * self._forecast_error(checkpoint)
                by_channel = dict(zip(channels, amplitudes.tolist(), strict=True))
                for name in part.channels:
                    if name not in by_channel:
                        raise ConfigurationError(
                            f"perturbations: correlated_noise on {name!r}, which is not among the "
                            f"channels ({', '.join(channels)})"
                        )
                chosen = {name: by_channel[name] for name in part.channels or channels}
                return CorrelatedNoise(chosen, part.correlation_length_km)
            case settings.EnsembleOfAnalyses() | settings.LaggedAnalyses():
                return self._ensemble_of_analyses(part)

    def _ensemble_of_analyses(
        self, part: settings.EnsembleOfAnalyses | settings.LaggedAnalyses
    ) -> EnsembleOfAnalyses:
        if isinstance(part, settings.LaggedAnalyses):
            interval = np.timedelta64(part.interval, "h")
            return EnsembleOfAnalyses(LaggedAnalyses(self, interval, part.count), part.scale)
        source = _Selection(open_source(part.analyses), self._ensemble.channels)
        return EnsembleOfAnalyses(source, part.scale, part.reuse)

    def _forecast_error(self, checkpoint: int) -> np.ndarray:
        """Root mean square error of the checkpoint's 48 h forecast, (channel,)."""
        if not self._ensemble.checkpoints:
            raise ConfigurationError(
                "perturbations: amplitudes are shares of a checkpoint's 48 h error, and "
                f"forecaster {self._experiment.forecaster.kind!r} has none"
            )
        return np.asarray(self._ensemble.checkpoints[checkpoint].rmse_48h)


@dataclass(frozen=True)
class _Unloaded:
    """A checkpoint's forecaster, whose network is loaded when it first steps: a run that finds
    something wrong need not wait for it."""

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
