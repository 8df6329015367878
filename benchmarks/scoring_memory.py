"""How much memory scoring a large store takes, each mode in a process of its own.

``python benchmarks/scoring_memory.py [--members 7424]`` makes a store of members x 12 leads x
4 channels x 32 x 64 in a temporary directory (3 GB; minutes), scores it with all members at once
and one block of them after the other, and prints peak resident sizes and how far apart the CRPS
are; the last line is JSON. `benchmarks/scoring.py --store` does the same beside its tables.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

# This folder has a script with the name of a package: the repository comes before it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import xarray as xr

from data.channel import channel
from data.grid import Grid
from pipelines.members import ALL_MEMBERS, MemberBlocks
from pipelines.score import ScoreSettings, score

CHANNELS = {"z500": (54_000.0, 600.0), "t850": (280.0, 6.0), "u500": (8.0, 9.0), "v500": (0.0, 9.0)}
LEADS = (np.arange(12) * np.timedelta64(12, "h")).astype("timedelta64[ns]")
INIT = np.datetime64("2006-01-01", "ns")
GRID = Grid("legendre-gauss", 32, 64)
PER_CHECKPOINT = 256
MODES = {"exact": ALL_MEMBERS, "blocks": MemberBlocks()}
LIMITS = {"exact": 1500, "blocks": 300}  # MB


def make(folder: Path, members: int) -> None:
    """Write `forecast.zarr` and `truth.zarr`: checkpoints with offsets, a channel at a time."""
    rng = np.random.default_rng(0)
    checkpoint = np.arange(members) // PER_CHECKPOINT
    cells = {"latitude": GRID.latitude, "longitude": GRID.longitude}
    coordinates = {
        "init_time": [INIT],
        "number": np.arange(members),
        "lead_time": LEADS,
        "checkpoint": ("number", checkpoint),
        "pair": ("number", np.full(members, -1)),
        "completed": (("init_time", "number"), np.ones((1, members), bool)),
    }
    dims = ("init_time", "number", "lead_time", "latitude", "longitude")
    for number, (name, (mean, std)) in enumerate(CHANNELS.items()):
        truth = (mean + std * rng.standard_normal((LEADS.size, *GRID.shape))).astype(np.float32)
        fields = rng.standard_normal((1, members, *truth.shape), dtype=np.float32)
        offsets = 0.3 * rng.standard_normal(checkpoint[-1] + 1, dtype=np.float32)
        fields += offsets[checkpoint, None, None, None]
        fields *= np.float32(std)
        fields += np.float32(mean)
        units = channel(name).attributes
        forecast = xr.Dataset({name: (dims, fields, units)}, coordinates | cells)
        observed = xr.Dataset(
            {name: (("time", *dims[3:]), truth, units)}, {"time": INIT + LEADS, **cells}
        )
        options = {"zarr_format": 3, "consolidated": False, "mode": "a" if number else "w-"}
        chunks = {name: {"chunks": (1, 64, 1, *GRID.shape)}}
        forecast.to_zarr(folder / "forecast.zarr", encoding=chunks, **options)
        observed.to_zarr(folder / "truth.zarr", **options)


def measure(folder: Path, mode: str) -> None:
    """Score the store and print a line of JSON: MB, and the CRPS of every channel and lead."""
    settings = ScoreSettings(members=MODES[mode])
    stores = folder / "forecast.zarr", folder / "truth.zarr"
    scores = score(*stores, folder / mode, settings=settings).scores
    crps = scores["crps"].sel(forecast="ensemble").isel(region=0).values
    print(json.dumps({"megabytes": peak(), "crps": crps.ravel().tolist()}))


def peak() -> float:
    """Largest resident size of this process so far, MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
    # What getrusage says on Linux begins with the size of the process that started this one.
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def in_process(*arguments: str) -> str:
    """What this script prints when it is run with these arguments, its last line."""
    command = [sys.executable, "-P", __file__, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1] if done.stdout else ""


def compare(members: int) -> dict[str, float]:
    """Make a store, score it in both ways, print a table and return what it comes to."""
    with tempfile.TemporaryDirectory() as folder:
        in_process("--make", folder, "--members", str(members))
        found = {mode: json.loads(in_process("--score", folder, mode)) for mode in MODES}
    exact, blocks = (np.array(found[mode]["crps"]) for mode in MODES)
    apart = float(np.abs(blocks / exact - 1).max())
    print(
        f"\nstore of {members} x {LEADS.size} x {len(CHANNELS)} x {GRID.shape}, peak resident size"
    )
    print("| mode | MB | limit |\n|---|---|---|")
    for mode, limit in LIMITS.items():
        print(f"| {mode} | {found[mode]['megabytes']:.0f} | {limit} |")
    print(f"CRPS of blocks beside the exact one, worst channel and lead: {apart:.3%}")
    return {mode + "_megabytes": found[mode]["megabytes"] for mode in MODES} | {
        "blocks_crps_apart": apart
    }


def main() -> None:
    """Read the arguments: compare, or one of its steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, default=7424)
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="make the stores only")
    parser.add_argument("--score", nargs=2, metavar=("FOLDER", "MODE"), help="score them only")
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make, arguments.members)
    elif arguments.score:
        measure(Path(arguments.score[0]), arguments.score[1])
    else:
        print(json.dumps(compare(arguments.members)))


if __name__ == "__main__":
    main()
