"""What the shipped checkpoints can do: speed on one core, errors, and variance in long rollouts.

``python benchmarks/checkpoints.py [ARCHIVE]``: forecasts from the truth at every tenth init time of
an archive's evaluation stretches (of `myriad nature`; by default the shipped sample). Errors are
area means over all of them, in standard deviations; the change of variance is that of a field's
area variance, beside the truth's on the same dates.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

# This folder has a script with the name of a package: the repository comes before it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from data.key import Key
from data.state import State
from forecast.checkpoint import load_checkpoint
from forecast.dataset import Archive, read_archive
from forecast.forecaster import rollout
from forecast.hindcast import hindcast
from forecast.neural import NeuralForecaster

SAMPLES = Path(__file__).parent.parent / "data" / "samples"
DAYS = (1, 3, 5, 10)
SPEED_STEPS = 40


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, nargs="?", default=SAMPLES / "truth.zarr")
    parser.add_argument("--every", type=int, default=10, help="of the init times, one in so many")
    parser.add_argument(
        "--checkpoints", type=Path, nargs="+", default=sorted((SAMPLES / "checkpoints").iterdir())
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread")
    forecasters = {path.name: load_checkpoint(path) for path in arguments.checkpoints}
    channels = next(iter(forecasters.values())).channels
    archive = read_archive(arguments.archive, channels, ())
    figures = {
        name: judged(name, one, archive, arguments.every) for name, one in forecasters.items()
    }
    print(json.dumps(figures))


def judged(
    name: str, forecaster: NeuralForecaster, archive: Archive, every: int
) -> dict[str, object]:
    """Print one checkpoint's table and give its figures."""
    per_day = int(np.timedelta64(1, "D") / forecaster.timestep)
    rows = archive.evaluation if archive.evaluation.any() else np.ones(len(archive.times), bool)
    steps = DAYS[-1] * per_day
    starts = archive.starts(rows, steps, forecaster.timestep)[::every]
    found = hindcast(forecaster, archive, starts, steps)
    leads = [day * per_day for day in DAYS]
    std = archive.fields[rows].std(axis=0, dtype=float)
    std = np.sqrt((std**2 * archive.grid.area_weights).sum((-2, -1)))
    error = found.rmse[leads] / std
    change = found.variance[leads] / found.truth_variance[leads] - 1
    rate = speed(forecaster, archive, starts[:1])
    print(f"\n{name}: {rate:.0f} member-steps per CPU-second; {len(starts)} init times")
    print(f"{'':22}" + "".join(f"{name:>8}" for name in archive.channels))
    for index, day in enumerate(DAYS):
        print(f"RMSE / std, day {day:<6}" + "".join(f"{one:8.3f}" for one in error[index]))
    for index, day in enumerate(DAYS):
        print(f"variance, day {day:<8}" + "".join(f"{one:+8.1%}" for one in change[index]))
    return {
        "member_steps_per_cpu_second": rate,
        "init_times": len(starts),
        "rmse": {day: error[index].tolist() for index, day in enumerate(DAYS)},
        "variance_change": {day: change[index].tolist() for index, day in enumerate(DAYS)},
    }


def speed(forecaster: NeuralForecaster, archive: Archive, starts: np.ndarray) -> float:
    """Member-steps per CPU-second of a rollout of one member."""
    fields = torch.from_numpy(archive.fields[starts])
    state = State(fields, archive.channels, archive.grid, archive.times[starts[0]], (0,))
    for _ in rollout(forecaster, state, 2, Key(0)):
        pass
    began = time.process_time()
    for _ in rollout(forecaster, state, SPEED_STEPS, Key(0)):
        pass
    return SPEED_STEPS / (time.process_time() - began)


if __name__ == "__main__":
    main()
