"""Shards that hold a window of the leads: the same values, and no more of them in memory."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from data.errors import StoreError
from pipelines import engine
from pipelines.clusters import InProcess
from pipelines.engine import StoreSink, unit_fields
from pipelines.estimate import estimate
from pipelines.experiment import read_experiment
from pipelines.plan import Plan, make_plan
from pipelines.store import Store, open_store
from pipelines.validate import repair, validate
from tests.conftest import GRID, World
from tests.pipelines.test_faults import disk

# Bytes of one lead: 2 members of 3 channels.
LEAD = 4 * 2 * 3 * 8 * 16
CHANGES = {"perturbations": [], "lead_time": "24h", "members": 5}


def planned(world: World, path: Path, leads: int, **changes: object) -> Plan:
    """A plan whose windows have so many leads."""
    store = {"block": 2, "window_gb": (leads + 0.5) * LEAD / 1e9} | changes.pop("store", {})
    experiment = world.experiment(path.parent.name, store=store, **CHANGES | changes)
    return make_plan(read_experiment(experiment), path)


def digests(path: Path) -> dict[str, str]:
    """Digest of every file in a store."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def whole(world: World) -> Plan:
    """A run of which all leads are in one shard."""
    plan = planned(world, world.runs / "whole" / "forecast.zarr", 5)
    engine.run(plan, InProcess(), quiet=True)
    return plan


def test_windows_hold_the_same_values(world: World, whole: Plan) -> None:
    plan = planned(world, world.runs / "windows" / "forecast.zarr", 2)
    assert (plan.layout.leads_together, plan.layout.windows) == (2, 3)
    expected = estimate(plan)
    engine.run(plan, InProcess(), quiet=True)
    shards = [file for file in plan.path.glob("*/c/*/*/*/0/0") if file.is_file()]
    assert len(shards) == 2 * 3 * 3 * 3
    assert expected.files == len(shards) + 6
    assert sum(file.stat().st_size for file in shards) <= expected.most
    with open_store(plan.path) as found, open_store(whole.path) as other:
        assert found.completed.values.all()
        for name in other.data_vars:
            np.testing.assert_array_equal(found[name].values, other[name].values)
    assert validate(plan.path).damages == ()


def test_a_damaged_window_and_half_a_unit_are_made_whole(world: World, tmp_path: Path) -> None:
    plan = planned(world, tmp_path / "forecast.zarr", 2)
    engine.run(plan, InProcess(), quiet=True)
    before = digests(plan.path)
    unit = plan.units[1]
    (plan.path / f"completed/units/{unit.name}.json").unlink()
    (plan.path / "t850" / "c" / f"{unit.init}/{unit.block}/1/0/0").unlink()
    stray = plan.path / "t850" / "c" / f"{unit.init}/{unit.block}/3/0/0"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of an attempt with other windows")
    engine.run(plan, InProcess(), quiet=True)
    assert digests(plan.path) == before
    shard = plan.path / "z500" / "c" / "1/0/2/0/0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    found = validate(plan.path)
    assert [damage.unit for damage in found.damages] == ["00001-00000"]
    assert repair(plan, found, InProcess(), quiet=True).damages == ()
    assert digests(plan.path) == before


def test_stored_beside_statistics_in_windows(world: World, whole: Plan, tmp_path: Path) -> None:
    store = {"members": [0, 3], "channels": ["t850"], "lead_times": ["6h", "18h", "24h"]}
    store["window_gb"] = 2.5 * LEAD / 3 / 1e9  # one channel of two members
    in_flight = {"bins": 8, "block": 2}
    plan = planned(world, tmp_path / "forecast.zarr", 1, store=store, in_flight=in_flight)
    engine.run(plan, InProcess(), quiet=True)
    assert len(list(plan.path.glob("t850/c/0/0/*/0/0"))) == 2
    with open_store(plan.path) as found, open_store(whole.path) as other:
        expected = other.t850.isel(number=[0, 3], lead_time=[0, 1, 3, 4])
        np.testing.assert_array_equal(found.t850.values, expected.values)


def test_a_member_that_is_not_finite_in_one_window_is_named(world: World, tmp_path: Path) -> None:
    plan = planned(world, tmp_path / "forecast.zarr", 2)
    store = Store(plan.path, plan.layout)
    store.create()
    unit = plan.units[0]
    fields = unit_fields(plan, plan.layout.init_times[0], unit.numbers)
    fields[1, 2, 3] = np.nan
    StoreSink(store).take(unit, lambda _: iter(np.moveaxis(fields, 2, 0)))()
    assert store.marker(unit.name).diverged == (1,)


def test_a_window_that_cannot_be_written_is_said_and_not_marked(
    world: World, tmp_path: Path
) -> None:
    plan = planned(world, tmp_path / "plan" / "forecast.zarr", 2)
    with disk(tmp_path / "disk", 2**18) as folder:
        store = Store(folder / "forecast.zarr", plan.layout)
        store.create()
        state = os.statvfs(folder)
        (folder / "filler").write_bytes(bytes((state.f_bavail - 4) * state.f_frsize))
        leads = np.random.default_rng(0).random((5, 2, 3, *GRID.shape), np.float32)
        with pytest.raises(StoreError, match="cannot be written"):
            StoreSink(store).take(plan.units[0], lambda _: iter(leads))()
        assert store.markers() == {}


def test_memory_does_not_grow_with_leads(world: World, tmp_path: Path) -> None:
    """What is planned for a worker."""
    peaks = {}
    for hours in (48, 192):
        plan = planned(world, tmp_path / f"{hours}" / "forecast.zarr", 2, lead_time=f"{hours}h")
        peaks[hours] = estimate(plan).memory
    assert peaks[48] == pytest.approx(peaks[192], rel=0.05)
