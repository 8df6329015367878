"""Members that go through the network together."""

from pathlib import Path

import numpy as np

from pipelines.engine import unit_fields
from pipelines.experiment import read_experiment
from pipelines.plan import Plan, make_plan
from pipelines.replay import member_dataset
from tests.conftest import World


def planned(world: World, path: Path, micro_batch: int, **more: object) -> Plan:
    forecaster = {"kind": "neural", "checkpoints": ["a"], "micro_batch": micro_batch}
    noise = [{"kind": "correlated_noise", "correlation_length_km": 2000}]
    changes = {"forecaster": forecaster, "perturbations": noise, "members": 6}
    changes |= {"store": {"block": 3}} | more
    return make_plan(read_experiment(world.experiment(f"micro-{micro_batch}", **changes)), path)


def test_members_forecast_together_differ_in_the_last_bits_only(
    world: World, tmp_path: Path
) -> None:
    alone, together = (planned(world, tmp_path / "f.zarr", count) for count in (1, 3))
    assert alone.units[0].fingerprint != together.units[0].fingerprint
    time = alone.layout.init_times[0]
    expected = unit_fields(alone, time, (3, 4, 5))
    found = unit_fields(together, time, (3, 4, 5))
    np.testing.assert_array_equal(found[:, :, 0], expected[:, :, 0])
    np.testing.assert_allclose(found[:, :, 1], expected[:, :, 1], rtol=1e-4, atol=1e-2)


def test_a_member_is_replayed_in_the_company_in_which_it_was_forecast(
    world: World, tmp_path: Path
) -> None:
    plan = planned(world, tmp_path / "f.zarr", 3)
    [unit] = [unit for unit in plan.units if unit.init == 0 and 4 in unit.numbers]
    fields = unit_fields(plan, plan.layout.init_times[0], unit.numbers)
    found = member_dataset(plan, 4)
    for index, name in enumerate(plan.layout.channels):
        expected = plan.layout.rounded(name, fields[1, index])
        np.testing.assert_array_equal(found[name].values, expected)


def test_who_is_in_a_unit_is_part_of_the_fingerprint_where_it_decides_bits(
    world: World, tmp_path: Path
) -> None:
    digests = {
        (count, block): planned(
            world, tmp_path / "f.zarr", count, in_flight={"block": block}
        ).units[0].fingerprint
        for count in (1, 2)
        for block in (2, 3)
    }  # fmt: skip
    assert digests[1, 2] == digests[1, 3]
    assert digests[2, 2] != digests[2, 3]
