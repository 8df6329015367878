"""A store proved whole, and damage found, named and repaired to the same bytes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result

from data.errors import StoreError
from pipelines import engine
from pipelines.cli import main
from pipelines.clusters import InProcess
from pipelines.experiment import read_experiment
from pipelines.plan import Plan, make_plan
from pipelines.store import Marker, Store, open_store
from pipelines.validate import repair, validate
from tests.conftest import World
from tests.pipelines.test_engine import digests

CHANGES = {"members": 5, "lead_time": "12h", "init_times": ["2006-01-02T00", "2006-01-02T12"]}


@pytest.fixture(scope="module")
def whole(world: World) -> Plan:
    """A finished run."""
    experiment = read_experiment(world.experiment("proved", **CHANGES))
    plan = make_plan(experiment, world.runs / "proved" / "proved" / "forecast.zarr")
    engine.run(plan, InProcess(), quiet=True)
    return plan


@pytest.fixture
def damaged(whole: Plan, tmp_path: Path) -> Plan:
    """A copy of it, to be damaged."""
    path = tmp_path / "proved" / "forecast.zarr"
    shutil.copytree(whole.path, path)
    return Plan(whole.ensemble, whole.layout, whole.units, path)


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= 0x10
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def renumbered(path: Path) -> None:
    """A marker that says nothing of a member that is not finite."""
    marker = path / "completed/units/00000-00001.json"
    zarr.open_group(path, mode="r+")["z500"][0, 2, 1, 3, 3] = np.nan
    shard = path / "z500/c/0/1/0/0/0"
    content = json.loads(marker.read_text())
    from pipelines.shards import checksum

    content["shards"]["z500/c/0/1/0/0/0"] = checksum(shard.read_bytes())
    del content["checksum"]
    marker.write_text(json.dumps(content))


def untold(path: Path) -> None:
    """A finished member of which readers are told that it is none."""
    zarr.open_group(path, mode="r+")["completed"][1, 3] = False


DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "a flipped byte": (
        lambda path: flip(path / "t850/c/1/0/0/0/0", 700), "00001-00000", "not as written",
    ),
    "a truncated shard": (
        lambda path: truncate(path / "u500/c/0/2/0/0/0"), "00000-00002", "not as written",
    ),
    "a missing shard": (
        lambda path: (path / "u500/c/0/2/0/0/0").unlink(), "00000-00002", "is missing",
    ),
    "a shard that nobody wrote": (
        lambda path: (path / "u500/c/0/2/0/0/1").write_bytes(b"?"), "00000-00002", "not written",
    ),
    "a broken marker": (
        lambda path: truncate(path / "completed/units/00001-00001.json"), "00001-00001", "marker",
    ),
    "values that are not finite": (renumbered, "00000-00001", "member 2 has values"),
    "a coordinate": (
        lambda path: flip(path / "latitude/c/0", 20), "", "latitude/c/0: is missing or not",
    ),
    "a finished member that is said not to be": (
        untold, "", "completed: is False at position 3 along number, 1 along init_time",
    ),
    "what is said of members": (
        lambda path: truncate(path / "completed/c/0/0"), "", "completed: cannot be read",
    ),
    "metadata of an array": (
        lambda path: (path / "z500/zarr.json").unlink(), "", "z500/zarr.json: is missing or not",
    ),
}  # fmt: skip


def test_a_finished_store_is_whole(whole: Plan) -> None:
    found = validate(whole.path)
    assert found.damages == ()
    assert (found.units, found.finished, found.files, found.diverged) == (6, 6, 18, 0)
    assert found.missing == {"u500": 0, "z500": 0, "t850": 0}
    files = [file for name in found.missing for file in (whole.path / name / "c").rglob("*")]
    assert found.size == sum(file.stat().st_size for file in files if file.is_file())


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_found_in_its_place_and_repaired_to_the_same_bytes(
    whole: Plan, damaged: Plan, case: str
) -> None:
    spoil, unit, said = DAMAGES[case]
    spoil(damaged.path)
    try:
        found = validate(damaged.path)
    except StoreError as error:
        pytest.fail(f"could not be read: {error}")
    assert {damage.unit for damage in found.damages} == {unit}
    assert said in found.damages[0].what
    before = {marker: (damaged.path / marker).stat().st_mtime_ns for marker in markers(damaged)}
    assert repair(damaged, found, InProcess(), quiet=True).damages == ()
    assert digests(damaged.path) == digests(whole.path)
    done_again = {
        Path(marker).stem
        for marker, time in before.items()
        if (damaged.path / marker).stat().st_mtime_ns != time
    }
    assert done_again == {unit} - {""}


def markers(plan: Plan) -> list[str]:
    return [f"completed/units/{unit.name}.json" for unit in plan.units]


def test_an_unfinished_store_is_not_damaged(damaged: Plan) -> None:
    store = Store(damaged.path, damaged.layout)
    store.unmark("00000-00000")
    zarr.open_group(damaged.path, mode="r+")["completed"][:] = False  # as before the end of a run
    found = validate(damaged.path)
    assert (found.finished, found.damages) == (5, ())
    store.complete()
    assert validate(damaged.path).damages == ()


def test_a_member_that_is_said_to_be_completed_without_a_marker_is_a_damage(
    whole: Plan, damaged: Plan
) -> None:
    (damaged.path / "completed/units/00000-00001.json").unlink()
    found = validate(damaged.path)
    assert [damage.unit for damage in found.damages] == [""]
    assert "completed: is True at position 2 along number, 0 along init" in found.damages[0].what
    assert repair(damaged, found, InProcess(), quiet=True).damages == ()
    assert digests(damaged.path) == digests(whole.path)


def test_every_flipped_byte_of_a_marker_is_found(damaged: Plan) -> None:
    marker = damaged.path / "completed/units/00001-00000.json"
    content = marker.read_bytes()
    for position in range(len(content)):
        flip(marker, position)
        with pytest.raises(StoreError, match="is no marker"):
            Marker.read(marker)
        marker.write_bytes(content)
    flip(marker, content.index(damaged.units[-1].fingerprint.encode()))
    assert [damage.unit for damage in validate(damaged.path).damages] == ["00001-00000"]


def test_a_marker_of_an_older_store_has_no_checksum(damaged: Plan) -> None:
    marker = damaged.path / "completed/units/00001-00000.json"
    expected = Marker.read(marker)
    content = json.loads(marker.read_text())
    del content["checksum"]
    marker.write_text(json.dumps(content))
    assert Marker.read(marker) == expected


def test_readers_are_told_what_is_being_repaired(
    damaged: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncate(damaged.path / "u500/c/0/2/0/0/0")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.validate.run", killed)
    with pytest.raises(KeyboardInterrupt):
        repair(damaged, validate(damaged.path), InProcess(), quiet=True)
    with open_store(damaged.path) as dataset:
        assert dataset.completed.values[0].tolist() == [True, True, True, True, False]


def test_every_flipped_byte_of_a_shard_is_found(damaged: Plan) -> None:
    shard = damaged.path / "t850/c/1/0/0/0/0"
    content, rng = shard.read_bytes(), np.random.default_rng(5)
    for position in rng.integers(len(content), size=10):
        flip(shard, int(position))
        assert [damage.unit for damage in validate(damaged.path).damages] == ["00001-00000"]
        shard.write_bytes(content)


def myriad(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_the_command_ends_with_6_for_damage_and_0_once_it_is_repaired(
    world: World, damaged: Plan
) -> None:
    experiment = world.experiment("proved", **CHANGES, cluster={"kind": "in_process"})
    runs = damaged.path.parent.parent
    assert myriad("validate", damaged.path).exit_code == 0
    flip(damaged.path / "t850/c/1/0/0/0/0", 99)
    result = myriad("validate", damaged.path)
    assert result.exit_code == 6
    assert "1 damages in 1 units, the first is t850/c/1/0/0/0/0" in result.stderr
    assert myriad("validate", damaged.path, "--repair").exit_code == 2
    assert myriad("validate", experiment, "--runs", runs).exit_code == 6
    result = myriad("validate", experiment, "--runs", runs, "--repair")
    assert result.exit_code == 0, result.output
    assert "whole; 6 of 6 units finished" in result.stdout
    assert myriad("validate", runs / "none.zarr").exit_code == 4


def test_damage_to_another_experiments_dates_is_refused_by_name(
    world: World, damaged: Plan
) -> None:
    flip(damaged.path / "t850/c/1/0/0/0/0", 99)
    before = digests(damaged.path)
    changes = CHANGES | {"init_times": ["2006-01-02T00"]}
    plan = make_plan(read_experiment(world.experiment("first", **changes)), damaged.path)
    with pytest.raises(StoreError, match="00001-00000 is damaged and none of this experiment's"):
        repair(plan, validate(damaged.path), InProcess(), quiet=True)
    assert digests(damaged.path) == before
