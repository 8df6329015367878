"""What the engine costs beside the network itself, and how it grows with workers and members.

``python benchmarks/engine.py [--members 64] [--steps 40]``: forecasts with the shipped checkpoint,
on workers started before the clock, each figure beside the bare network's on the same
workers: the same number of member-steps, nothing perturbed, kept or written. Wall time is what a
user waits; process time is what the workers computed, and what to compare on a busy machine.

Where Earth2Studio is installed in the same environment, its ensemble workflow with its zarr
back-end takes turns with ours on the same network and as many members, with the batch size
and threads that a short trial finds best. Both store every channel and lead. It steps the
network as the torch module that it is, as it does with any model; and, lest our step in C be all
the difference, in a second turn with that.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# This folder has a script with the name of a package: the repository comes before it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
import torch
from beside_earth2studio import Workflow, installed, workflows
from distributed import Client

from data.key import Key
from pipelines import engine
from pipelines.clusters import DaskScheduler, LocalProcesses
from pipelines.cores import usable_cores
from pipelines.ensemble import Ensemble
from pipelines.experiment import Experiment
from pipelines.lanes import Patience
from pipelines.models import Models
from pipelines.plan import Plan, Unit, make_plan

SAMPLES = Path(__file__).parent.parent / "data" / "samples"


@dataclass(frozen=True)
class Bare:
    """The network alone: as many steps as a unit's forecasts take."""

    ensemble: Ensemble
    steps: int

    @cached_property
    def models(self) -> Models:
        """What steps, kept from unit to unit."""
        return Models(self.ensemble)

    def __call__(self, unit: Unit) -> None:
        """Step the control once for each member and step."""
        init_time = self.ensemble.experiment.init_times[0]
        models = self.models
        forecaster = models.forecaster(unit.checkpoint)
        with torch.inference_mode():
            for _ in unit.numbers:
                state = models.analysis(init_time)
                for step in range(self.steps):
                    state = forecaster.step(state, Key(0) / step)


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, seconds computed on all workers, and the largest worker's bytes."""

    wall: float
    computed: float
    memory: int


def main() -> None:
    """Read the arguments and print the figures, the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--workers", type=int, default=len(usable_cores()))
    parser.add_argument("--larger", type=int, default=4, help="the larger ensemble, times members")
    parser.add_argument("--repeats", type=int, default=3, help="of which the cheapest counts")
    chosen = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        plans = {
            size: planned(Path(folder), size, chosen.steps, chosen.block)
            for size in (chosen.members, chosen.larger * chosen.members)
        }
        small, large = plans.values()
        with workers(1) as client:
            figures["one worker"] = told("one worker", small, measured(client, run, small))
        theirs = {
            stepped: best_workflow(small, chosen.workers, stepped)
            for stepped in (("torch", "C") if installed() else ())
        }
        with workers(chosen.workers) as client:
            for _ in range(chosen.repeats):  # by turns, as other work on the machine comes and goes
                for stepped, way in theirs.items():
                    keep_cheapest(figures, stepped, beside(way, small))
                for name, work, plan in (
                    ("bare", bare, small), ("run", run, small), ("large", run, large),
                ):  # fmt: skip
                    keep_cheapest(figures, name, told(name, plan, measured(client, work, plan)))
    bare_cost, run_cost = figures["bare"], figures["run"]
    ratios = {
        "run / bare, wall": run_cost.wall / bare_cost.wall,
        "run / bare, computed": run_cost.computed / bare_cost.computed,
        f"{chosen.workers} workers / one, wall": figures["one worker"].wall / run_cost.wall,
        "seconds computed per member-step, larger / smaller":
            figures["large"].computed / run_cost.computed / chosen.larger,
        "memory, larger / smaller": figures["large"].memory / run_cost.memory,
    }  # fmt: skip
    if not theirs:
        print("earth2studio is not installed here: nothing of it was measured")
    for stepped in theirs:
        cost, name = figures[stepped], f"Earth2Studio's with {stepped}"
        ratios[f"member-steps/s, ours / {name}"] = cost.wall / run_cost.wall
        ratios[f"computed, {name} / ours"] = cost.computed / run_cost.computed
    for name, ratio in ratios.items():
        print(f"{name:56s} {ratio:6.3f}")
    print(json.dumps(ratios))


def planned(folder: Path, members: int, steps: int, block: int) -> Plan:
    """A plan on the shipped sample."""
    experiment = Experiment(
        name="benchmark", seed=1, analyses=SAMPLES / "analysis.zarr",
        init_times=["2006-09-04"], lead_time=f"{6 * steps}h", members=members,
        forecaster={"kind": "neural", "checkpoints": [SAMPLES / "checkpoints" / "sfno-a"]},
        perturbations=[{"kind": "correlated_noise"}], store={"block": block},
    )  # fmt: skip
    return make_plan(experiment, folder / f"{members}" / "forecast.zarr")


@contextmanager
def workers(count: int) -> Iterator[Client]:
    """Workers as a run starts them, which have loaded the network."""
    memory = psutil.virtual_memory().total
    with LocalProcesses(count, memory).started(count) as client:
        with tempfile.TemporaryDirectory() as folder:
            run(client, planned(Path(folder), 2 * count, 1, 1), Path(folder))
        yield client


def run(client: Client, plan: Plan, folder: Path) -> None:
    """The whole run of a plan, into a store of its own."""
    fresh = Plan(plan.ensemble, plan.layout, plan.units, folder / "forecast.zarr")
    engine.run(fresh, DaskScheduler(client.scheduler.address), quiet=True)


def bare(client: Client, plan: Plan, folder: Path) -> None:
    """As many member-steps of the network alone."""
    task = Bare(plan.ensemble, plan.steps)
    cluster = DaskScheduler(client.scheduler.address)
    for outcome in cluster.outcomes(task, list(plan.units), Patience()):
        assert outcome.failure is None, outcome.failure


def keep_cheapest(figures: dict[str, Cost], name: str, cost: Cost) -> None:
    """Keep the cost of which the least was computed, the least disturbed one."""
    figures[name] = min(cost, figures.get(name, cost), key=lambda one: one.computed)


def best_workflow(plan: Plan, threads: int, stepped: str) -> Workflow:
    """The fastest way to use Earth2Studio, by a trial of ten steps."""
    ways = list(workflows(plan.layout.shape[1], threads, stepped))
    beside(ways[0], plan, 1)  # imports, and tables of the network
    costs = [beside(way, plan, 10) for way in ways]
    return ways[min(range(len(ways)), key=lambda index: costs[index].wall)]


def beside(way: Workflow, plan: Plan, steps: int | None = None) -> Cost:
    """What Earth2Studio takes for the same members in this process."""
    steps = plan.steps if steps is None else steps
    forecaster = plan.models.forecaster(0)
    state = plan.models.analysis(plan.layout.init_times[0])
    with tempfile.TemporaryDirectory() as folder:
        before, started = time.process_time(), time.perf_counter()
        way.run(forecaster, state, plan.layout.shape[1], steps, Path(folder))
        cost = Cost(time.perf_counter() - started, time.process_time() - before, resident())
    rate = plan.layout.shape[1] * steps / cost.wall
    print(f"{way}: {steps} steps  wall {cost.wall:7.2f} s  {rate:7.1f} member-steps/s  "
          f"computed {cost.computed:7.2f} s", flush=True)  # fmt: skip
    return cost


def measured(client: Client, work: Callable[[Client, Plan, Path], None], plan: Plan) -> Cost:
    """What some work on the workers costs, less the removal of what it wrote."""
    before = sum(client.run(time.process_time).values())
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        work(client, plan, Path(folder))
        wall = time.perf_counter() - started
    computed = sum(client.run(time.process_time).values()) - before
    return Cost(wall, computed, max(client.run(resident).values()))


def resident() -> int:
    """Bytes that this process holds."""
    return psutil.Process().memory_info().rss


def told(name: str, plan: Plan, cost: Cost) -> Cost:
    """Print a cost and give it back."""
    steps = sum(len(unit.numbers) for unit in plan.units) * plan.steps
    print(
        f"{name:16s} {steps:7d} member-steps  wall {cost.wall:7.2f} s  {steps / cost.wall:7.1f}/s  "
        f"computed {cost.computed:7.2f} s  worker {cost.memory / 1e6:6.0f} MB",
        flush=True,
    )
    return cost


if __name__ == "__main__":
    main()
