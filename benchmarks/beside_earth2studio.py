"""The same network driven by Earth2Studio's ensemble workflow, where it is installed.

Used by ``benchmarks/engine.py``. Earth2Studio and this package are looked for in the same
environment; nothing of theirs is part of this one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from data.state import State
from forecast.compiled import CompiledSFNO, compiled
from forecast.neural import NeuralForecaster

BATCH_SIZES = (1, 4, 8, 16, 32, 64)


def installed() -> bool:
    """Whether Earth2Studio is there."""
    return find_spec("earth2studio") is not None


Change = Callable[[torch.Tensor, None], torch.Tensor]


@dataclass(frozen=True)
class OneByOne:
    """The step in C for a batch, a member at a time."""

    step: CompiledSFNO

    def __call__(self, fields: torch.Tensor, noise: None) -> torch.Tensor:
        """As `SFNO.forward`."""
        return torch.cat([self.step(member[None], noise) for member in fields])


class Prognostic(torch.nn.Module):
    """A checkpoint's network as Earth2Studio steps it.

    Fields are (ensemble, time, lead_time, variable, lat, lon); `change` takes a whole batch.
    """

    def __init__(self, forecaster: NeuralForecaster, change: Change) -> None:
        super().__init__()
        self._forecaster = forecaster
        self._change = change
        self._step = forecaster.timestep.astype("timedelta64[ns]")

    def input_coords(self) -> OrderedDict:
        """What it takes."""
        return self._coords(0)

    def output_coords(self, input_coords: OrderedDict) -> OrderedDict:
        """What it gives."""
        return self._coords(1)

    def _coords(self, steps: int) -> OrderedDict:
        grid = self._forecaster.grid
        return OrderedDict(
            batch=np.empty(0),
            time=np.empty(0),
            lead_time=np.array([steps * self._step]),
            variable=np.array(self._forecaster.channels),
            lat=grid.latitude,
            lon=grid.longitude,
        )

    def create_iterator(
        self, fields: torch.Tensor, coords: OrderedDict
    ) -> Iterator[tuple[torch.Tensor, OrderedDict]]:
        """Yield the initial fields, and then those of one step after the other."""
        scales = self._forecaster.normalisation
        coords, lead = coords.copy(), coords["lead_time"]
        yield fields, coords
        with torch.inference_mode():
            while True:
                flat = fields.flatten(0, 2)
                flat = scales.advance(flat, self._change(scales.normalise(flat), None))
                fields, lead = flat.view_as(fields), lead + self._step
                coords = coords.copy()
                coords["lead_time"] = lead
                yield fields, coords


@dataclass(frozen=True)
class Analysis:
    """One state as Earth2Studio's data source."""

    state: State

    def __call__(self, time: np.ndarray, variable: np.ndarray) -> xr.DataArray:
        """The state's fields, (time, variable, lat, lon)."""
        grid, names = self.state.grid, list(self.state.channels)
        values = self.state.fields[0, [names.index(name) for name in variable]].numpy()
        return xr.DataArray(
            np.repeat(values[None], len(time), axis=0),
            dims=("time", "variable", "lat", "lon"),
            coords={"time": time, "variable": variable, "lat": grid.latitude,
                    "lon": grid.longitude},
        )  # fmt: skip


@dataclass(frozen=True)
class Workflow:
    """How Earth2Studio is used.

    Attributes
    ----------
    stepped : {"torch", "C"}
        The network as the torch module that it is, a batch at once; or by our step in C.
    batch, threads, chunk : int
        Members in a batch, torch's threads, members in a chunk of its store.
    """

    stepped: str
    batch: int
    threads: int
    chunk: int

    def __str__(self) -> str:
        return (
            f"earth2studio, network in {self.stepped}, batch {self.batch}, threads {self.threads}, "
            f"chunks of {self.chunk}"
        )

    def run(
        self, forecaster: NeuralForecaster, state: State, members: int, steps: int, folder: Path
    ) -> None:
        """`earth2studio.run.ensemble` with `earth2studio.io.ZarrBackend` in an empty folder."""
        from earth2studio.io import ZarrBackend
        from earth2studio.perturbation import Gaussian
        from earth2studio.run import ensemble
        from loguru import logger

        logger.disable("earth2studio")
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        # As strong as ours, and cheaper: white noise, a tenth of each channel's deviation.
        noise = 0.1 * forecaster.normalisation.std[:, None, None]
        chunks = {"ensemble": self.chunk, "time": 1, "lead_time": 1}
        try:
            ensemble(
                [state.valid_time], steps, members, self._prognostic(forecaster), Analysis(state),
                ZarrBackend(str(folder / "forecast.zarr"), chunks),
                Gaussian(noise, seed=1), self.batch, device=torch.device("cpu"), verbose=False,
            )  # fmt: skip
        finally:
            torch.set_num_threads(before)

    def _prognostic(self, forecaster: NeuralForecaster) -> Prognostic:
        step = compiled(forecaster.network) if self.stepped == "C" else None
        return Prognostic(forecaster, OneByOne(step) if step else forecaster.network)


def workflows(members: int, threads: int, stepped: str) -> Iterator[Workflow]:
    """Every batch size with one thread and with all, and chunks of a batch: smaller ones, of a
    member each by its default, take up to ten times as long to write."""
    for batch in (size for size in BATCH_SIZES if size <= members):
        for count in sorted({1, threads}):
            yield Workflow(stepped, batch, count, batch)
