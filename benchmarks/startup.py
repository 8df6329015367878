"""What a run costs before its first unit: a resume with nothing to do, and planning.

``python benchmarks/startup.py [--finished 500] [--planned 10000]``: whole processes of the command
line, interpreter and imports included, the cheapest of some repeats. Processor time is what to
compare on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

SAMPLES = Path(__file__).parent.parent / "data" / "samples"


def experiment(folder: Path, members: int) -> Path:
    """An experiment of one step in units of one member."""
    content = {
        "name": f"members-{members}", "seed": 1, "analyses": str(SAMPLES / "analysis.zarr"),
        "init_times": ["2006-09-04"], "lead_time": "6h", "members": members,
        "forecaster": {
            "kind": "neural", "checkpoints": [str(SAMPLES / "checkpoints" / "sfno-a")]
        },
        "perturbations": [{"kind": "bred_vectors"}], "store": {"block": 1},
        "cluster": {"kind": "in_process"},
    }  # fmt: skip
    file = folder / f"{members}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def timed(*arguments: object) -> tuple[float, float]:
    """Seconds on the clock and of the processor for one `myriad` command."""
    command = [sys.executable, "-c", "from pipelines.cli import main; main()"]
    before, started = _children(), time.perf_counter()
    subprocess.run([*command, *map(str, arguments)], check=True, capture_output=True)
    return time.perf_counter() - started, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Read the arguments and print the figures, the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finished", type=int, default=500, help="units of the resumed run")
    parser.add_argument("--planned", type=int, default=10_000, help="units of the planned run")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = ("--runs", folder)
        finished, planned = (experiment(folder, n) for n in (chosen.finished, chosen.planned))
        print(f"first run: {timed('run', finished, *runs)[0]:.1f} s", flush=True)
        for what, arguments in (
            ("resume", ("run", finished, *runs)),
            ("plan", ("plan", planned, *runs, "--rate", 50)),
            ("help", ("--help",)),
        ):
            costs = [timed(*arguments) for _ in range(chosen.repeats)]
            figures[what] = min(costs, key=lambda cost: cost[1])
            print(f"{what:8s} wall {figures[what][0]:6.2f} s  processor {figures[what][1]:6.2f} s",
                  flush=True)  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
