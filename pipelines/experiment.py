"""An experiment: the YAML file that says what is forecast, from what, by whom, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from data.errors import ConfigurationError
from pipelines.configuration import explain, read_yaml
from pipelines.settings import Hours, InFlight, Settings, StoreSettings, Time, time_of


class InitTimes(Settings):
    """Init times at equal intervals from the first on, the last included where they reach it."""

    first: Time
    last: Time
    every: Hours

    @model_validator(mode="after")
    def _fit(self) -> InitTimes:
        if self.first > self.last:
            raise ValueError(f"first, {self.first}, is after last, {self.last}")
        return self

    @property
    def times(self) -> tuple[np.datetime64, ...]:
        """The times, ascending."""
        step = np.timedelta64(self.every, "h")
        return tuple(np.arange(self.first, self.last + np.timedelta64(1, "s"), step))


def _times(value: Any) -> tuple[np.datetime64, ...]:
    """Init times from a list, or from first, last and every."""
    if isinstance(value, dict):
        times = InitTimes(**value).times
    else:
        times = tuple(
            time_of(one) for one in (value if isinstance(value, list | tuple) else [value])
        )
    if not times or list(times) != sorted(set(times)):
        raise ValueError("expected at least one init time, ascending and without duplicates")
    return times


class Neural(Settings):
    """Neural forecasters from checkpoints; several are divided over the members.

    Attributes
    ----------
    checkpoints : tuple of pathlib.Path
        Their directories.
    device : str
        What the workers compute on, ``cpu`` or ``cuda``; decides the last bits.
    micro_batch : int
        Members of a unit that go through the network at once. With 1 a member's values do not
        depend on who else is in its unit; a GPU is busy with more only, and then they do in the
        last bits.
    """

    kind: Literal["neural"]
    checkpoints: tuple[Path, ...] = Field(min_length=1)
    device: Literal["cpu", "cuda"] = "cpu"
    micro_batch: int = Field(1, ge=1)


class Persistence(Settings):
    """The analysis stays as it is."""

    kind: Literal["persistence"]
    timestep: Hours = 6


class Climatology(Settings):
    """The climatological mean at every lead."""

    kind: Literal["climatology"]
    timestep: Hours = 6


class BredVectors(Settings):
    """Bred vectors in +- pairs; amplitudes are `amplitude` x the checkpoint's 48 h RMSE."""

    kind: Literal["bred_vectors"]
    amplitude: float = Field(0.35, gt=0)
    cycles: int = Field(3, ge=1, le=20)
    seed_channel: str = "z500"
    correlation_length_km: float = Field(500.0, gt=0)


class CorrelatedNoise(Settings):
    """Isotropic correlated noise; amplitudes are `amplitude` x the checkpoint's 48 h RMSE.

    It goes on all channels, or on those that are named.
    """

    kind: Literal["correlated_noise"]
    amplitude: float = Field(0.1, gt=0)
    channels: tuple[str, ...] = ()
    correlation_length_km: float = Field(500.0, gt=0)
    paired: bool = True


class EnsembleOfAnalyses(Settings):
    """The members of an ensemble of analyses, recentred on the control analysis."""

    kind: Literal["ensemble_of_analyses"]
    analyses: Path
    scale: float = Field(1.0, gt=0)
    reuse: int = Field(1, ge=1)


class LaggedAnalyses(Settings):
    """Earlier analyses, recentred on the control analysis."""

    kind: Literal["lagged_analyses"]
    interval: Hours = 24
    count: int = Field(ge=2)
    scale: float = Field(0.5, gt=0)


PerturbationSettings = Annotated[
    BredVectors | CorrelatedNoise | EnsembleOfAnalyses | LaggedAnalyses, Field(discriminator="kind")
]
ForecasterSettings = Annotated[Neural | Persistence | Climatology, Field(discriminator="kind")]


class InProcess(Settings):
    """No workers: every unit is computed by the run itself, for a debugger to step through."""

    kind: Literal["in_process"]


class LocalProcesses(Settings):
    """Processes of this machine, one thread each.

    Attributes
    ----------
    workers : int
        How many; by default one per core.
    memory_gb : float
        What each may use, in GB; one that wants more is ended and its unit retried. By default an
        equal share of the machine's.
    """

    kind: Literal["local"] = "local"
    workers: int | None = Field(None, ge=1)
    memory_gb: float | None = Field(None, gt=0)


class LocalGpus(Settings):
    """Processes of this machine, one for each GPU.

    Attributes
    ----------
    devices : tuple of str
        As in ``CUDA_VISIBLE_DEVICES``; by default all that the run sees.
    memory_gb : float
        What of the machine's memory each process may use, in GB; by default an equal share.
    """

    kind: Literal["gpus"]
    devices: tuple[str, ...] | None = Field(None, min_length=1)
    memory_gb: float | None = Field(None, gt=0)


class DaskScheduler(Settings):
    """The workers of a Dask scheduler that is there already; they see the same files."""

    kind: Literal["scheduler"]
    address: str = Field(pattern=r"^[a-z]+://.+")


class Slurm(Settings):
    """Jobs of a Slurm cluster, through dask-jobqueue; they see the same files.

    Attributes
    ----------
    jobs, workers : int
        How many jobs, and single-threaded workers in each.
    memory_gb : float
        Memory of a job, in GB.
    walltime : str
        Of a job, ``HH:MM:SS``; one that ends is followed by another.
    queue, account : str
        As the cluster names them.
    directives : tuple of str
        Further ``#SBATCH`` options, such as ``--gres=gpu:1``.
    prologue : tuple of str
        Shell lines before a worker starts, such as ``module load python``.
    """

    kind: Literal["slurm"]
    jobs: int = Field(ge=1)
    workers: int = Field(1, ge=1)
    memory_gb: float = Field(gt=0)
    walltime: str = "01:00:00"
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()


ClusterSettings = Annotated[
    InProcess | LocalProcesses | LocalGpus | DaskScheduler | Slurm, Field(discriminator="kind")
]


class Experiment(Settings):
    """One ensemble forecast experiment.

    Attributes
    ----------
    name : str
        Names the folder below the output root; letters, digits, ``-``, ``_`` and ``.``.
    seed : int
        Base seed of every random draw.
    analyses, truth, climatology : pathlib.Path
        Sources; relative paths start at the experiment file's folder.
    channels : tuple of str
        Channels of a reference forecaster; a neural one knows its own.
    init_times : tuple of numpy.datetime64
        As a list, or as first, last and every.
    lead_time : int
        Length of the forecast in hours, given as ``10d`` or ``240h``.
    members : int
        Ensemble size, control included.
    store : StoreSettings
        What of the members is stored.
    in_flight : InFlight or None
        What is kept of all members without storing them; None is nothing.
    min_members : int
        How many members of each init time must be whole for a run to count as degraded instead of
        failed; by default all.
    cluster : ClusterSettings
        Who computes; decides nothing about the values.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(ge=0)
    analyses: Path
    truth: Path | None = None
    climatology: Path | None = None
    channels: tuple[str, ...] = ()
    init_times: Annotated[tuple[np.datetime64, ...], BeforeValidator(_times)]
    lead_time: Hours
    members: int = Field(ge=1, le=100_000)
    forecaster: ForecasterSettings
    perturbations: tuple[PerturbationSettings, ...] = ()
    store: StoreSettings = StoreSettings()
    in_flight: InFlight | None = None
    min_members: int | None = Field(None, ge=1)
    cluster: ClusterSettings = LocalProcesses()

    @model_validator(mode="after")
    def _fit(self) -> Experiment:
        if self.channels and isinstance(self.forecaster, Neural):
            raise ValueError("channels: a neural forecaster knows its own; leave the key out")
        if self.min_members is not None and self.min_members > self.members:
            raise ValueError(f"min_members {self.min_members} are more than {self.members} members")
        self._check_kept()
        return self

    @property
    def stores_all(self) -> bool:
        """Whether everything that is forecast is stored."""
        how = self.store.model_dump(include={"block", "lossless", "window_gb"})
        return self.store == StoreSettings(**how)

    def _check_kept(self) -> None:
        """Refuse members to store that there are not, and forecasts of which nothing is kept."""
        stored = self.store.members
        if isinstance(stored, tuple) and stored[-1] >= self.members:
            raise ValueError(f"store: {stored[-1]} is not among members 0 to {self.members - 1}")
        if self.in_flight is not None and self.members < 2:
            raise ValueError("in_flight: statistics need at least 2 members")
        if not self.stores_all and self.in_flight is None:
            raise ValueError(
                "store: what is not stored is lost without statistics: say what `in_flight` keeps"
            )

    def steps(self, timestep: np.timedelta64) -> int:
        """Number of steps of this length to the end of the forecast.

        Raises
        ------
        ConfigurationError
            If the lead time is no whole number of steps.
        """
        step = timestep / np.timedelta64(1, "h")
        if self.lead_time % step:
            raise ConfigurationError(
                f"lead_time: {self.lead_time} h is no multiple of the forecaster's {step:g} h step"
            )
        return int(self.lead_time // step)


def read_experiment(path: Path) -> Experiment:
    """The experiment in a YAML file, its relative paths made absolute.

    Raises
    ------
    ConfigurationError
        If the file is missing, no YAML mapping, or a key or value is wrong; names the key.
    """
    content = read_yaml(path)
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {explain(error)}") from None
    return _anchored(experiment, path.resolve().parent)


def _anchored(settings: Settings, folder: Path) -> Any:
    """The same settings with every relative path starting at `folder`."""
    changes: dict[str, Any] = {}
    for name in type(settings).model_fields:
        changes[name] = _anchor(getattr(settings, name), folder)
    return settings.model_copy(update=changes)


def _anchor(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return (folder / value).resolve()
    if isinstance(value, Settings):
        return _anchored(value, folder)
    if isinstance(value, tuple):
        return tuple(_anchor(one, folder) for one in value)
    return value
