"""Where there is a GPU: runs on it repeat, whatever is killed, and are those of a processor."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import engine
from pipelines.clusters import InProcess, LocalGpus, local_gpus
from pipelines.engine import UnitTask, unit_fields
from pipelines.experiment import read_experiment
from pipelines.lanes import Patience
from pipelines.plan import Plan, Unit, make_plan
from pipelines.replay import member_dataset
from pipelines.validate import validate
from tests.conftest import World

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
MICRO_BATCH = 2


def planned(world: World, name: str, **changes: object) -> Plan:
    """Three units of each of two init times, in windows of two leads."""
    forecaster = {"kind": "neural", "checkpoints": ["a", "b"], "micro_batch": MICRO_BATCH}
    forecaster |= changes.pop("forecaster", {"device": "cuda"})
    store = {"block": 3, "window_gb": 1e-5}
    experiment = world.experiment(name, forecaster=forecaster, store=store, **changes)
    return make_plan(read_experiment(experiment), world.runs / name / "forecast.zarr")


def digests(path: Path) -> dict[str, str]:
    """Digest of every file in a store."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@dataclass(frozen=True)
class Dying:
    """Does a unit, and the first time that it is asked for the third one kills its process."""

    task: UnitTask
    folder: Path

    def __call__(self, unit: Unit) -> Callable[[], None] | None:
        if unit.block == 2 and unit.init == 0:
            try:
                (self.folder / "died").touch(exist_ok=False)
            except FileExistsError:
                return self.task(unit)
            return partial(self._die, self.task(unit))
        return self.task(unit)

    @staticmethod
    def _die(rest: Callable[[], None] | None) -> None:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)


@needs_gpu
def test_runs_on_a_gpu_write_the_same_bytes_even_if_its_process_is_killed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = local_gpus(None)
    assert isinstance(cluster, LocalGpus)
    first, second = planned(world, "gpu-first"), planned(world, "gpu-second")
    engine.run(first, cluster, quiet=True)
    expected = digests(first.path)
    monkeypatch.setattr(engine, "UnitTask", lambda *of: Dying(UnitTask(*of), tmp_path))
    done = engine.run(second, cluster, quiet=True, patience=Patience(least=60))
    assert (tmp_path / "died").exists()
    assert done.lost == ""
    found = digests(second.path)
    # The store says whose it is.
    own = {"zarr.json", "completed/layout.json"}
    assert {name: found[name] for name in found.keys() - own} == {
        name: expected[name] for name in expected.keys() - own
    }
    assert validate(first.path).damages == ()


@needs_gpu
def test_a_member_is_replayed_on_a_gpu(world: World) -> None:
    plan = planned(world, "gpu-member")
    engine.run(plan, InProcess(), quiet=True)
    found = member_dataset(plan, 4)
    [unit] = [unit for unit in plan.units if unit.init == 0 and 4 in unit.numbers]
    fields = unit_fields(plan, plan.layout.init_times[0], unit.numbers)
    for index, name in enumerate(plan.layout.channels):
        expected = plan.layout.rounded(name, fields[unit.numbers.index(4), index])
        np.testing.assert_array_equal(found[name].values, expected)


@needs_gpu
def test_a_step_on_a_gpu_is_that_on_a_processor_to_rounding(world: World) -> None:
    noise = [{"kind": "correlated_noise", "correlation_length_km": 2000}]
    there = planned(world, "gpu-step", perturbations=noise)
    here = planned(world, "cpu-step", perturbations=noise, forecaster={})
    init_time, numbers = there.layout.init_times[0], (0, 1, 2)
    found = unit_fields(there, init_time, numbers)
    expected = unit_fields(here, init_time, numbers)
    np.testing.assert_array_equal(found[:, :, 0], expected[:, :, 0])
    np.testing.assert_allclose(found[:, :, 1], expected[:, :, 1], rtol=1e-4, atol=1e-2)
