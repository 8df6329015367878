"""What a GPU does: the bare network, the whole run beside it, and scores of its members.

``python benchmarks/gpu.py [--members 1024] [--steps 40]``: member-steps a second of the shipped
network for each micro-batch, and of the whole run with the fastest two, every channel and lead
stored, by one worker started before the clock; what a step of a larger network takes; and the fair
CRPS of 1000 members on 181 x 360 points beside the same of an array.
``--device cpu`` tries out the benchmark itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# This folder has a script with the name of a package: the repository comes before it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil
import torch
from distributed import Client
from engine import SAMPLES, measured, run, told

from data.grid import Grid
from forecast.architecture import SFNOConfig
from forecast.checkpoint import load_checkpoint
from forecast.sfno import SFNO
from pipelines.clusters import LocalGpus, LocalProcesses, local_gpus
from pipelines.experiment import Experiment
from pipelines.plan import Plan, make_plan
from scoring.crps import CRPS, FAIR
from scoring.device import evaluate_tensor
from scoring.statistic import evaluate_arrays

CHECKPOINT = SAMPLES / "checkpoints" / "sfno-a"
# 1 degree, 120 degrees of harmonics, 50 million weights, which are random.
LARGE = SFNOConfig(
    channels=11, statics=0, grid=Grid("legendre-gauss", 180, 360),
    inner_grid=Grid("legendre-gauss", 120, 240), degrees=120, embed=256, blocks=8, scalars=128,
    gradients=64, hidden=256,
)  # fmt: skip
_SECONDS = 1.0  # that a rate is measured for


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 8, 32, 128, 256, 512])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    chosen = parser.parse_args()
    if chosen.device == "cuda":
        print(torch.cuda.get_device_name(), "torch", torch.__version__)
    shipped = load_checkpoint(CHECKPOINT).network
    rates = bare("shipped network", shipped, chosen.micro_batches, chosen.device)
    best = sorted(rates, key=rates.__getitem__)[-2:]
    with worker(chosen.device) as client, tempfile.TemporaryDirectory() as folder:
        run(client, planned(Path(folder), 2, 1, 2, chosen.device), Path(folder) / "warm")
        for micro_batch in best:
            beside = Path(folder) / f"{micro_batch}"
            plan = planned(beside, chosen.members, chosen.steps, micro_batch, chosen.device)
            cost = told(f"whole run, {micro_batch}", plan, measured(client, run, plan))
            rate = chosen.members * chosen.steps / cost.wall
            print(f"  {rate / rates[micro_batch]:.3f} of the bare network's rate")
    if chosen.device == "cuda":
        large = SFNO(LARGE, torch.zeros(0, *LARGE.grid.shape))
        bare("larger network", large, [1, 4, 16], chosen.device)
    crps(chosen.device)


def bare(name: str, network: SFNO, batches: list[int], device: str) -> dict[int, float]:
    """Member-steps a second of a network alone, by members that go through it at once."""
    network, config, rates = network.eval().to(device), network.config, {}
    with torch.inference_mode(), suppress(torch.OutOfMemoryError):
        for batch in batches:
            shape = batch, config.channels, *config.grid.shape
            fields = torch.randn(shape, device=device)
            seconds = timed(lambda fields=fields: network(fields), device)
            rates[batch] = batch / seconds
            memory = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
            print(f"{name}, {batch:4d} at once: {1e3 * seconds:8.2f} ms, {rates[batch]:8.0f} "
                  f"member-steps/s, at most {memory:.2f} GB", flush=True)  # fmt: skip
    return rates


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that some work takes on a device, warmed up and done again and again."""

    def seconds(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            work()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / count

    seconds(3)
    return seconds(max(1, int(_SECONDS / seconds(2))))


@contextmanager
def worker(device: str) -> Iterator[Client]:
    """One worker as a run starts it."""
    memory = psutil.virtual_memory().total
    cluster: LocalGpus | LocalProcesses = LocalProcesses(1, memory)
    if device == "cuda":
        cluster = local_gpus(None)
    with cluster.started(1) as client:
        yield client


def planned(folder: Path, members: int, steps: int, micro_batch: int, device: str) -> Plan:
    """A plan on the shipped sample, whose units go through the network at once."""
    forecaster = {
        "kind": "neural", "checkpoints": [CHECKPOINT], "device": device, "micro_batch": micro_batch,
    }  # fmt: skip
    experiment = Experiment(
        name="benchmark", seed=1, analyses=SAMPLES / "analysis.zarr", init_times=["2006-09-04"],
        lead_time=f"{6 * steps}h", members=members, forecaster=forecaster,
        perturbations=[{"kind": "correlated_noise"}], store={"block": micro_batch},
    )  # fmt: skip
    return make_plan(experiment, folder / "forecast.zarr")


def crps(device: str) -> None:
    """The fair CRPS of members that are a tensor, and of the same ones as an array."""
    rng, statistic = np.random.default_rng(0), CRPS(FAIR)
    truth = rng.normal(280.0, 10.0, (181, 360)).astype(np.float32)
    members = truth + rng.standard_normal((1000, *truth.shape), np.float32)
    there = torch.from_numpy(members).to(device), torch.from_numpy(truth).to(device)
    found = evaluate_tensor((statistic,), *there)[statistic].cpu().numpy()
    seconds = timed(lambda: evaluate_tensor((statistic,), *there), device)
    started = time.perf_counter()
    expected = evaluate_arrays((statistic,), members, truth, 0)[statistic]
    array = time.perf_counter() - started
    difference = np.abs(found / expected - 1).max()
    print(f"fair CRPS of 1000 members on 181 x 360: {seconds:.3f} s as a tensor, {array:.3f} s as "
          f"an array; they differ by {difference:.1e} at most")  # fmt: skip


if __name__ == "__main__":
    main()
