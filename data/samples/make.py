"""Cut the shipped sample out of a nature run.

``python data/samples/make.py NATURE`` reads ``NATURE/truth.zarr`` and ``NATURE/analysis.zarr`` (as
`myriad nature` writes them) and writes, beside this file, truth and analyses of a stretch that no
network was trained on, and the climatology of the training stretch.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import xarray as xr
from zarr.codecs import BloscCodec

from data.channel import channel
from data.climatology import climatology_from, write_climatology
from data.consolidated import consolidate
from data.packing import round_to_quantum
from data.source import open_source

HERE = Path(__file__).parent
CHANNELS = ("u250", "v250", "t250", "u500", "v500", "t500", "z500", "u850", "v850", "t850", "sp")
EVALUATION = 1
# Coarser than a forecast store's: still far below the analysis error, and a quarter smaller.
COARSER = 4
CODEC = BloscCodec(cname="zstd", clevel=9, shuffle="bitshuffle")


def main() -> None:
    """Read the arguments and write the three stores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nature", type=Path)
    parser.add_argument("--segment", type=int, default=3)
    parser.add_argument("--analysis-days", type=int, default=22)
    parser.add_argument("--truth-days", type=int, default=32)
    arguments = parser.parse_args()
    truth = xr.open_zarr(arguments.nature / "truth.zarr", consolidated=False)
    analysis = xr.open_zarr(arguments.nature / "analysis.zarr", consolidated=False)
    first = analysis.time.values[analysis.segment.values == arguments.segment][0]
    write(stretch(truth, first, arguments.truth_days), HERE / "truth.zarr")
    write(stretch(analysis, first, arguments.analysis_days), HERE / "analysis.zarr")
    training = truth.time.values[truth.subset.values != EVALUATION]
    climatology = climatology_from(open_source(arguments.nature / "truth.zarr"), CHANNELS, training)
    write_climatology(climatology, HERE / "climatology.zarr")


def stretch(dataset: xr.Dataset, first: np.datetime64, days: int) -> xr.Dataset:
    """The channels from `first` on, 6-hourly, both ends included."""
    last = first + np.timedelta64(days, "D")
    return dataset[list(CHANNELS)].sel(time=slice(first, last)).load()


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write rounded fields, one file for each channel."""
    for name in CHANNELS:
        values = round_to_quantum(dataset[name].values, channel(name).quantum * COARSER)
        dataset[name].values[:] = values
        dataset[name].encoding = {"chunks": dataset[name].shape, "compressors": (CODEC,)}
    replace(dataset, path)


def replace(dataset: xr.Dataset, path: Path) -> None:
    """Write a store in place of the one that is there."""
    shutil.rmtree(path, ignore_errors=True)
    dataset.to_zarr(path, zarr_format=3, consolidated=False)
    consolidate(path, (*dataset.coords, *dataset.data_vars))


if __name__ == "__main__":
    main()
