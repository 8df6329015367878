"""Many init times in one store, and later ones added to it."""

import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data.errors import StoreError
from pipelines import engine
from pipelines.clusters import InProcess
from pipelines.experiment import read_experiment
from pipelines.layout import Layout
from pipelines.plan import Plan, make_plan
from pipelines.store import Store, open_store
from pipelines.validate import validate
from tests.conftest import World
from tests.pipelines.test_engine import digests

FIRST = ["2006-01-02T00", "2006-01-02T12"]
LATER = ["2006-01-03T00", "2006-01-03T18"]


def planned(world: World, path: Path, init_times: list[str]) -> Plan:
    experiment = world.experiment("dates", members=3, lead_time="12h", init_times=init_times)
    return make_plan(read_experiment(experiment), path)


def extend(path: Path, layout: Layout) -> None:
    Store(path, layout).create()


def done(world: World, path: Path, init_times: list[str]) -> engine.Progress:
    return engine.run(planned(world, path, init_times), InProcess(), quiet=True)


@pytest.fixture(scope="module")
def at_once(world: World) -> Path:
    """A store of all init times, made in one run."""
    path = world.runs / "at-once" / "forecast.zarr"
    done(world, path, FIRST + LATER)
    return path


def test_adding_later_dates_ends_with_the_bytes_of_a_run_of_all(
    world: World, at_once: Path, tmp_path: Path
) -> None:
    path = tmp_path / "forecast.zarr"
    done(world, path, FIRST)
    progress = done(world, path, FIRST + LATER)
    assert (progress.units, progress.resumed) == (8, 4)
    assert digests(path) == digests(at_once)
    assert validate(path).damages == ()


def test_an_experiment_names_only_the_dates_it_adds(
    world: World, at_once: Path, tmp_path: Path
) -> None:
    path = tmp_path / "forecast.zarr"
    for time_added in FIRST + LATER:
        progress = done(world, path, [time_added])
        assert (progress.units, progress.resumed) == (2, 0)
    with open_store(path) as found, open_store(at_once) as expected:
        assert found.completed.values.all()
        xr.testing.assert_equal(found.load(), expected.load())
    assert done(world, path, FIRST).resumed == 4


def test_a_date_before_or_between_is_refused_and_nothing_changed(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "forecast.zarr"
    done(world, path, FIRST)
    before = digests(path)
    for wrong in ("2006-01-01T18", "2006-01-02T06"):
        with pytest.raises(StoreError, match=f"later ones can be added, {wrong}"):
            planned(world, path, sorted([*FIRST, wrong]))
    assert digests(path) == before


def test_dates_added_by_another_run_meanwhile_are_noticed(world: World, tmp_path: Path) -> None:
    path = tmp_path / "forecast.zarr"
    done(world, path, FIRST)
    slow = planned(world, path, [LATER[0]])
    done(world, path, [LATER[1]])
    with pytest.raises(StoreError, match="has added init times meanwhile"):
        engine.run(slow, InProcess(), quiet=True)


def test_readers_see_the_old_store_until_the_new_one_is_whole(
    world: World, tmp_path: Path, at_once: Path
) -> None:
    """Extensions killed at any moment leave a store that opens and shows what it had."""
    path = tmp_path / "forecast.zarr"
    done(world, path, FIRST)
    plan = planned(world, path, FIRST + LATER)
    with open_store(path) as dataset:
        before = dataset.load()
    context = multiprocessing.get_context("forkserver")
    for delay in np.linspace(0.0, 0.25, 12):
        process = context.Process(target=extend, args=(path, plan.layout))
        process.start()
        time.sleep(delay)
        process.kill()
        process.join()
        with open_store(path) as dataset:
            found = dataset.isel(init_time=slice(2)).load()
            assert dataset.sizes["init_time"] in (2, 4)
        xr.testing.assert_equal(found, before)
    done(world, path, FIRST + LATER)
    assert digests(path) == digests(at_once)
    assert not list(path.parent.rglob("*.partial"))
