"""The nature run: a long, chaotic, stationary climate to learn from, and analyses of it.

Several independent trajectories (segments) of the dry primitive equations with Held-Suarez forcing
are spun up at T21, refined to T42 and recorded 6-hourly, on pressure levels and truncated to T21.
After its training stretch every segment has an evaluation stretch with a twin: a replica that
starts from a climate state of another segment and is nudged every 6 h towards the truth plus
noise. Its states are analyses, with errors that grow and travel as the flow has them.

The unit of work is a chunk of some days of one segment. It starts from the native state that the
chunk before it left, writes its own region of the stores, and is done once its own last native
state has been put in place by an atomic rename: a killed run loses the chunks in flight, and a
rerun gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, fields
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from data.errors import ConfigurationError
from data.key import Key
from forecast.held_suarez import T21, T42, Resolution
from forecast.primitive_equations import spectral_core
from pipelines.nature_store import PER_DAY, NatureStores

if TYPE_CHECKING:
    from forecast.spectral_core import SpectralCore


@dataclass(frozen=True)
class NatureSettings:
    """What fixes a nature run: on one machine, bit for bit.

    Parameters
    ----------
    years : float
        Training years of 365 days over all segments; each share is rounded up to whole chunks.
    segments : int
        Independent trajectories; the twins need at least 2.
    seed : int
        Base seed of all draws.
    evaluation_days, twin_spinup_days : int
        Length of each segment's evaluation stretch, and of its beginning for which no analysis is
        written; multiples of `chunk_days`.
    gain : float
        Share of the difference to the observation that the twin takes over every 6 h.
    noise : float
        Amplitude of the observation noise, in standard deviations of the climate.
    truncation : {42, 21}
        Triangular truncation of the truth; 21 is quick, too tame, and meant for tests.
    coarse_spinup_days, fine_spinup_days : int
        Days at T21 from rest, then days at the truth's own truncation, before recording.
    chunk_days : int
        Length of a unit of work; training leaves a climate state at the end of each.

    Raises
    ------
    ConfigurationError
        If days are not whole chunks, or there is no other segment to start a twin from.
    """

    years: float = 5.0
    segments: int = 4
    seed: int = 2001
    evaluation_days: int = 60
    twin_spinup_days: int = 20
    gain: float = 0.1
    noise: float = 0.22
    truncation: int = 42
    coarse_spinup_days: int = 200
    fine_spinup_days: int = 30
    chunk_days: int = 10

    def __post_init__(self) -> None:
        if self.evaluation_days % self.chunk_days or self.twin_spinup_days % self.chunk_days:
            raise ConfigurationError(
                f"evaluation_days {self.evaluation_days} and twin_spinup_days "
                f"{self.twin_spinup_days} must be multiples of chunk_days {self.chunk_days}"
            )
        if self.segments < 2:
            raise ConfigurationError(
                "a twin starts from another segment: segments must be at least 2"
            )

    @property
    def training_chunks(self) -> int:
        """Chunks of each segment's training stretch."""
        return ceil(self.years * 365 / self.segments / self.chunk_days)

    def steps(self, chunk: int) -> range:
        """Steps of 6 h since a segment's start that are recorded by this chunk."""
        length = self.chunk_days * PER_DAY
        return range(chunk * length, (chunk + 1) * length)

    @property
    def chunks(self) -> int:
        """Chunks of each segment."""
        return self.training_chunks + self.evaluation_days // self.chunk_days

    @property
    def first_analysed_chunk(self) -> int:
        """First chunk of each segment whose analyses are written."""
        return self.training_chunks + self.twin_spinup_days // self.chunk_days

    @property
    def resolution(self) -> Resolution:
        """Resolution of the truth."""
        return {21: T21, 42: T42}[self.truncation]

    @property
    def key(self) -> Key:
        """Where this run's draws are addressed."""
        return Key(self.seed) / "nature"


@dataclass(frozen=True)
class Unit:
    """One chunk of one segment; chunk -1 is its spin-up."""

    segment: int
    chunk: int

    def state_path(self, directory: Path) -> Path:
        """Where the native state at the end of this unit is kept."""
        return directory / "states" / f"segment{self.segment}-chunk{self.chunk:03d}.npy"


def run_nature(
    directory: Path | str, settings: NatureSettings | None = None, workers: int = 0
) -> None:
    """Make, or finish, a nature run.

    Parameters
    ----------
    directory : path
        Where ``truth.zarr``, ``analysis.zarr``, ``native.zarr`` and ``states/`` go; a second call
        with the same settings does only what is missing.
    settings : NatureSettings, optional
    workers : int
        Single-threaded processes; 0 takes one per core. The result does not depend on it.

    Raises
    ------
    StoreError
        If the directory holds a nature run with other settings.
    MissingExtraError
        If the extra ``physics`` is not installed.
    """
    directory, settings = Path(directory), settings or NatureSettings()
    _stores(directory, settings).lay_out(spectral_core(settings.resolution))
    (directory / "states").mkdir(exist_ok=True)
    workers = min(workers or os.cpu_count() or 1, settings.segments)
    # XLA gains little from threads on fields this small, and their number could change rounding.
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), _use_one_thread) as pool,
        tqdm(total=settings.segments * (settings.chunks + 1), unit="chunk", desc="nature") as bar,
    ):
        for lanes in _stages(settings):
            for _ in _finished(pool, workers, directory, settings, lanes):
                bar.update()


def _stages(settings: NatureSettings) -> Iterator[list[list[Unit]]]:
    """Spin-up and training, then evaluation; the units of each segment in order.

    The twins draw from all segments' training states, so that the stages must not overlap.
    """
    training = settings.training_chunks
    for chunks in (range(-1, training), range(training, settings.chunks)):
        yield [[Unit(segment, c) for c in chunks] for segment in range(settings.segments)]


def _finished(
    pool: Executor,
    workers: int,
    directory: Path,
    settings: NatureSettings,
    lanes: list[list[Unit]],
) -> Iterator[Unit]:
    """Run each lane's units in order, as many lanes at a time as workers; yield those finished."""
    waiting, running = [iter(lane) for lane in lanes], {}
    while waiting or running:
        while waiting and len(running) < workers:
            lane = waiting.pop(0)
            yield from _submit_next(pool, directory, settings, lane, running)
        done, _ = wait(running, return_when=FIRST_COMPLETED) if running else ((), ())
        for future in done:
            unit, lane = running.pop(future)
            future.result()
            yield unit
            yield from _submit_next(pool, directory, settings, lane, running)


def _submit_next(
    pool: Executor,
    directory: Path,
    settings: NatureSettings,
    lane: Iterator[Unit],
    running: dict[Future, tuple[Unit, Iterator[Unit]]],
) -> Iterator[Unit]:
    """Yield the lane's next units that are done already, and submit the first that is not."""
    for unit in lane:
        if not unit.state_path(directory).exists():
            running[pool.submit(run_unit, directory, settings, unit)] = unit, lane
            return
        yield unit


def _use_one_thread() -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()


def run_unit(directory: Path, settings: NatureSettings, unit: Unit) -> None:
    """Do one unit of work: write its regions of the stores, then its last native state."""
    core = spectral_core(settings.resolution)
    if unit.chunk < 0:
        state = _climate_state(settings, unit.segment, core)
    elif unit.chunk < settings.training_chunks:
        state = _record_training(directory, settings, unit, core)
    else:
        state = _record_evaluation(directory, settings, unit, core)
    path = unit.state_path(directory)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, np.asarray(state))
    partial.replace(path)


def _climate_state(settings: NatureSettings, segment: int, core: SpectralCore) -> np.ndarray:
    """Coefficients (1, ...) long after rest with small noise, first at T21 and then refined."""
    coarse = spectral_core(T21)
    shape = (1, coarse.resolution.layers, *coarse.shape[1:])
    state = coarse.rest(0.1 * (settings.key / "rest" / segment).normal(shape))
    for _ in range(settings.coarse_spinup_days):
        state = coarse.advance(state, hours=24)
    state = core.refined(state, coarse)
    for _ in range(settings.fine_spinup_days):
        state = core.advance(state, hours=24)
    return state


def _record_training(
    directory: Path, settings: NatureSettings, unit: Unit, core: SpectralCore
) -> np.ndarray:
    """Integrate and write one chunk of truth; the coefficients after it, (1, ...)."""
    state = np.load(Unit(unit.segment, unit.chunk - 1).state_path(directory))
    fields = []
    for _ in settings.steps(unit.chunk):
        fields.append(core.pressure_levels(state)[0])
        state = core.advance(state)
    stores = _stores(directory, settings)
    stores.write_truth(unit.segment, unit.chunk, np.stack(fields))
    return state


def _record_evaluation(
    directory: Path, settings: NatureSettings, unit: Unit, core: SpectralCore
) -> np.ndarray:
    """Integrate truth and twin over one chunk and write both; coefficients after it, (2, ...)."""
    state = np.load(Unit(unit.segment, unit.chunk - 1).state_path(directory))
    if unit.chunk == settings.training_chunks:
        state = np.concatenate([state, _twin_start(directory, settings, unit.segment)])
    fields, native = [], []
    for step in settings.steps(unit.chunk):
        observation = state[0] + _noise(directory, settings, unit.segment, step)
        state = np.stack([state[0], state[1] + settings.gain * (observation - state[1])])
        fields.append(core.pressure_levels(state))
        if step % PER_DAY == 0:
            native.append(core.native(state))
        state = np.asarray(core.advance(state))
    stores = _stores(directory, settings)
    truth, analysis = np.stack(fields, axis=1)
    stores.write_truth(unit.segment, unit.chunk, truth)
    if unit.chunk >= settings.first_analysed_chunk:
        stores.write_analysis(unit.segment, unit.chunk, analysis, *np.stack(native, axis=1))
    return state


def _bank(directory: Path, settings: NatureSettings) -> list[Unit]:
    """The units whose last native states are the bank of climate states."""
    training = range(settings.training_chunks)
    return [Unit(segment, c) for segment in range(settings.segments) for c in training]


def _twin_start(directory: Path, settings: NatureSettings, segment: int) -> np.ndarray:
    """A climate state of another segment, (1, ...)."""
    others = [unit for unit in _bank(directory, settings) if unit.segment != segment]
    index = (settings.key / "twin" / segment).generator().integers(len(others))
    return np.load(others[index].state_path(directory))


def _noise(directory: Path, settings: NatureSettings, segment: int, step: int) -> np.ndarray:
    """Observation noise: a scaled difference of two climate states, balanced as they are."""
    bank = _bank(directory, settings)
    draw = (settings.key / "observation" / segment / step).generator()
    first, second = draw.choice(len(bank), 2, replace=False)
    a, b = (np.load(bank[index].state_path(directory))[0] for index in (first, second))
    return np.float32(settings.noise / np.sqrt(2.0)) * (a - b)


def _stores(directory: Path, settings: NatureSettings) -> NatureStores:
    return NatureStores(
        directory=directory,
        segments=settings.segments,
        chunks=settings.chunks,
        chunk_days=settings.chunk_days,
        first_evaluated=settings.training_chunks,
        first_analysed=settings.first_analysed_chunk,
        resolution=settings.resolution,
        settings={field.name: getattr(settings, field.name) for field in fields(settings)},
    )
