"""Differences between two forecasts as files, and as a table for the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from data.errors import StoreError
from pipelines.labels import check_replaceable, replace_whole, write_labelled

_COLUMNS = ("score", "estimator", "channel", "units", "region", "lead_hours")
VARIABLES = (
    "this", "other", "difference", "lower", "upper", "p_value", "significant", "skill",
    "skill_lower", "skill_upper", "standard_error", "autocorrelation", "effective_dates",
    "dates",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What `pipelines.against.compare` made.

    Attributes
    ----------
    differences : xarray.Dataset
        As in against.zarr, with text labels, in memory.
    output : pathlib.Path
        The folder written.
    """

    differences: xr.Dataset
    output: Path

    @property
    def written(self) -> tuple[Path, ...]:
        """What is in the folder beside the scores."""
        return _files(self.output)

    def write(self) -> None:
        """Write `against.zarr` and `against.csv`.

        Raises
        ------
        StoreError
            If that cannot be.
        """
        store, file = self.written
        table = tidy(self.differences)
        write_labelled(self.differences, store)
        replace_whole(file, lambda draft: table.to_csv(draft, index=False))

    def table(self, days: tuple[float, ...] = (1, 3, 5, 7, 10)) -> str:
        """A compact table, channel by lead, of the first region, and the notes below it.

        Where no lead is one of these days, all leads are shown.
        """
        lines = list(_rows(self.differences.isel(region=0), days))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        rows = [
            "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([*rows, *self.differences.attrs["notes"]])


def check_writable(output: Path) -> None:
    """Refuse a folder with files of these names that this program did not write.

    Raises
    ------
    StoreError
        Naming the file.
    """
    store, file = _files(output)
    check_replaceable(store)
    if file.exists() and not _is_table(file):
        raise StoreError(f"{file}: is another file than is to be written, nothing was changed")


def remove(output: Path) -> None:
    """Remove what `Comparison.write` wrote into a folder; what others wrote stays."""
    store, file = _files(output)
    with suppress(StoreError):
        check_replaceable(store)
        shutil.rmtree(store, ignore_errors=True)
    if _is_table(file):
        file.unlink()


def tidy(differences: xr.Dataset) -> pd.DataFrame:
    """One row per score, channel, region and lead: labels first, then all variables."""
    table = differences.to_dataframe().reset_index().dropna(subset="difference")
    table["lead_hours"] = table.lead_time / np.timedelta64(1, "h")
    return table[[*_COLUMNS, *differences.data_vars]]


def _files(output: Path) -> tuple[Path, Path]:
    return output / "against.zarr", output / "against.csv"


def _is_table(path: Path) -> bool:
    """Whether a file has the columns of `tidy`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline().strip() == ",".join((*_COLUMNS, *VARIABLES)).encode()


def _rows(differences: xr.Dataset, days: tuple[float, ...]) -> Iterator[list[str]]:
    """Header and rows of the terminal's table."""
    lead_days = differences.lead_time.values / np.timedelta64(1, "D")
    wanted = np.flatnonzero(np.isin(lead_days, days))
    wanted = wanted if wanted.size else np.arange(lead_days.size)
    head = [[name.upper(), "other", "difference", ""] for name in differences.score.values]
    yield ["channel", "units", "lead h", *(word for words in head for word in words)]
    for name in differences.channel.values:
        for index in wanted:
            cell = differences.sel(channel=name).isel(lead_time=index)
            parts = [_cells(cell.sel(score=score)) for score in differences.score.values]
            units = str(cell.units.item())
            yield [str(name), units, f"{24 * lead_days[index]:g}", *parts[0], *parts[1]]


def _cells(cell: xr.Dataset) -> list[str]:
    """Both scores, the difference with its interval, and its mark."""
    value = {str(name): float(array) for name, array in cell.data_vars.items()}
    if np.isnan(value["difference"]):
        return ["-", "-", "-", ""]
    interval = f"[{value['lower']:.3g}, {value['upper']:.3g}]"
    interval = "[-]" if np.isnan(value["lower"]) else interval
    return [
        f"{value['this']:.4g}",
        f"{value['other']:.4g}",
        f"{value['difference']:.3g} {interval}",
        "*" if value["significant"] else "",
    ]
