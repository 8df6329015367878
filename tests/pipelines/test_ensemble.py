"""What a worker keeps between units."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import MyriadError
from pipelines.ensemble import Ensemble
from pipelines.experiment import read_experiment
from pipelines.job import Job
from pipelines.models import Models
from pipelines.plan import make_plan
from tests.conftest import World

BRED = {"kind": "bred_vectors", "correlation_length_km": 2000}
LAGGED = {"kind": "lagged_analyses", "interval": "6h", "count": 3, "scale": 0.5}


def ensemble(world: World, folder: Path, name: str, perturbation: dict) -> tuple[Ensemble, Path]:
    """An ensemble on a copy of the analyses, and that copy."""
    copy = shutil.copytree(world.folder / "analysis.zarr", folder / "analysis.zarr")
    changes = {"analyses": str(copy), "perturbations": [perturbation], "members": 3}
    return Ensemble(read_experiment(world.experiment(name, **changes))), copy


@pytest.mark.parametrize("perturbation", [BRED, LAGGED])
def test_the_analyses_of_an_init_time_are_read_once(
    world: World, tmp_path: Path, perturbation: dict
) -> None:
    found, copy = ensemble(world, tmp_path, f"kept-{perturbation['kind']}", perturbation)
    init_time = found.experiment.init_times[0]
    models = Models(found)
    before = list(models.trajectories(init_time, (0, 1, 2)))
    shutil.rmtree(copy)
    for one, other in zip(before, models.trajectories(init_time, (0, 1, 2)), strict=True):
        assert torch.equal(one, other)


def test_a_run_is_planned_without_loading_a_network(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = read_experiment(world.experiment("planned", perturbations=[BRED]))
    loaded = []
    monkeypatch.setattr(Models, "_load", lambda self, checkpoint: loaded.append(checkpoint))
    assert make_plan(experiment, tmp_path / "forecast.zarr").units
    assert not loaded


def test_no_more_analyses_are_kept_than_an_init_time_needs(world: World, tmp_path: Path) -> None:
    found, copy = ensemble(world, tmp_path, "kept-few", LAGGED)
    times = found.experiment.init_times[0] + np.arange(5) * found.timestep
    for time in times:
        found.control(time)
    shutil.rmtree(copy)
    for time in times[1:]:
        found.control(time)
    with pytest.raises(MyriadError):
        found.control(times[0])


def test_a_run_that_finds_nothing_to_do_imports_no_torch(world: World) -> None:
    changes = {"perturbations": [BRED], "members": 2, "cluster": {"kind": "in_process"}}
    experiment = world.experiment("resumed", **changes)
    job = Job.read(experiment, world.runs)
    job.run()
    resume = "import sys; from pipelines.cli import main; main(sys.argv[1:], standalone_mode=False)"
    there = f"{resume}; assert 'torch' not in sys.modules and 'zarr' in sys.modules"
    command = [sys.executable, "-c", there, "run", experiment, "--runs", world.runs]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "units done" in found.stdout


def test_what_is_read_is_hashed_in_the_order_of_the_perturbations(world: World) -> None:
    # Another order were another fingerprint: what a store has finished would be refused.
    bred = BRED | {"cycles": 2}
    experiment = read_experiment(world.experiment("order", members=3, perturbations=[LAGGED, bred]))
    init_time = experiment.init_times[0]
    found = [
        ((init_time - time) / np.timedelta64(6, "h"), len(fields))
        for time, fields in Models(Ensemble(experiment)).inputs(init_time)
    ]
    assert found == [(0, 1), (0, 3), (1, 1), (2, 1)]
