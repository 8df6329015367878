"""What methods share that calibrate one forecast, each lead by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from data.errors import InputError
from pipelines.calibration.cases import Cases
from pipelines.calibration.given import open_input
from pipelines.calibration.tables import TableTruths, is_table, verification_of_tables
from pipelines.labels import decode
from pipelines.settings import Settings
from pipelines.truths import Paths, Truths, cell_dims, listed
from pipelines.verification import Verification, verify
from scoring.labels import save

Forecasts = Paths | Mapping[str, Paths]


class ByLead(Settings):
    """A method whose state is a dataset along `lead_time`; see `pipelines.calibration.methods`."""

    def open(self, forecast: Forecasts, channels: tuple[str, ...] | None) -> xr.Dataset:
        """See `Method.open`."""
        return open_input(listed(_one(forecast)))

    def open_pair(
        self, forecast: Forecasts, truth: Paths, channels: tuple[str, ...] | None
    ) -> Verification:
        """See `Method.open_pair`."""
        dataset, truths = self.open(forecast, channels), listed(truth)
        where = ", ".join(forecast if isinstance(forecast, Mapping) else map(str, listed(forecast)))
        if all(map(is_table, truths)):
            cells = cell_dims(next(iter(dataset.values())))
            return verification_of_tables(dataset, TableTruths.open(truths, cells), channels, where)
        return verify(dataset, Truths.open(truths), channels, where)

    def fit(self, cases: Cases) -> xr.Dataset:
        """See `Method.fit`."""
        parts = [self.fit_leads(part) for part in cases.windows()]
        if len(parts) == 1:
            return parts[0]
        return xr.concat(
            parts, "lead_time", data_vars="minimal", coords="minimal", compat="override",
            join="override", combine_attrs="override",
        )  # fmt: skip

    def fit_leads(self, cases: Cases) -> xr.Dataset:
        """The state of some leads; parts of different leads join along `lead_time`."""
        raise NotImplementedError

    def at_leads(self, state: xr.Dataset, leads: np.ndarray) -> xr.Dataset:
        """See `Method.at_leads`."""
        return state if leads.size == state.sizes["lead_time"] else state.isel(lead_time=leads)

    def summary(self, state: xr.Dataset) -> str:
        """See `Method.summary`."""
        return ""

    def write(self, state: xr.Dataset, path: Path) -> None:
        """See `Method.write`."""
        save(state.drop_encoding(), path.with_name(f"{path.name}.zarr"))

    def read(self, path: Path) -> xr.Dataset:
        """See `Method.read`."""
        zarr = path.with_name(f"{path.name}.zarr")
        with xr.open_zarr(zarr, consolidated=False, decode_timedelta=True) as dataset:
            return decode(dataset).load()


def _one(forecast: Forecasts) -> Paths:
    """The forecast, if it is one."""
    if isinstance(forecast, Mapping):
        raise InputError(
            f"this method calibrates one forecast, found {len(forecast)} models "
            f"({', '.join(forecast)}): `aggregation` makes one of them"
        )
    return forecast


def all_paths(forecast: Forecasts) -> list[Path | str]:
    """Every path of one forecast or several."""
    if isinstance(forecast, Mapping):
        return [path for paths in forecast.values() for path in listed(paths)]
    return listed(forecast)
