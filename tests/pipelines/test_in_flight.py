"""Statistics kept in flight: those of the stored members, the same bytes whatever happens."""

import multiprocessing
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data.errors import ConfigurationError, DegradedError, RunError, StoreError
from data.key import Key
from pipelines import engine, in_flight
from pipelines.cli import main
from pipelines.clusters import InProcess, LocalProcesses
from pipelines.estimate import estimate
from pipelines.experiment import read_experiment
from pipelines.in_flight import InFlightTarget
from pipelines.job import Job
from pipelines.plan import Plan
from pipelines.replay import replay
from pipelines.score import score
from pipelines.statistics_store import damages_of, open_statistics, sketch_of
from pipelines.store import open_store, statistics_folder
from pipelines.validate import repair, validate
from scoring.quantiles import STANDARD_LEVELS, WEIBULL
from tests.conftest import World
from tests.pipelines.test_engine import digests, planned

WORKERS = LocalProcesses(2, memory=4 * 10**9)
KEPT = {"block": 1, "bins": 16, "exceedance": {"t850": [270.0, 275.3]}}
MEMBERS = 15
LEVELS = np.array(STANDARD_LEVELS)


def kept_plan(world: World, runs: str, **changes: object) -> Plan:
    changes = {
        "name": "kept", "members": MEMBERS, "in_flight": KEPT, "store": {"members": "none"},
    } | changes  # fmt: skip
    return planned(world, runs, **changes)


def statistics(plan: Plan) -> Path:
    return statistics_folder(plan.path)


def stores(plan: Plan) -> list[Path]:
    return sorted(statistics(plan).iterdir())


@pytest.fixture(scope="module")
def kept(world: World) -> Plan:
    """An undisturbed run that stores no member."""
    plan = kept_plan(world, "kept")
    done = engine.run(plan, InProcess(), quiet=True)
    assert (done.units, done.resumed, done.lost) == (18, 0, "")
    return plan


@pytest.fixture(scope="module")
def stored(world: World) -> Plan:
    """The same members, stored."""
    plan = planned(world, "stored", members=MEMBERS, name="stored")
    engine.run(plan, InProcess(), quiet=True)
    return plan


def test_nothing_else_is_left(kept: Plan) -> None:
    assert [path.name for path in stores(kept)] == [
        "2006-01-02T000000.zarr", "2006-01-02T120000.zarr",
    ]  # fmt: skip
    assert not kept.path.exists()
    assert [damages_of(path) for path in stores(kept)] == [[], []]


def test_partners_are_in_one_unit_and_checkpoints_apart(kept: Plan) -> None:
    blocks = [unit.numbers for unit in kept.units if unit.init == 0]
    assert blocks == [(0,), (1, 2), (3, 4), (5, 6), (7,), (8, 9), (10, 11), (12, 13), (14,)]


@pytest.mark.parametrize("init", [0, 1])
def test_they_are_those_of_the_stored_members(kept: Plan, stored: Plan, init: int) -> None:
    with open_statistics(stores(kept)[init]) as found, open_store(stored.path) as dataset:
        found, members = found.load(), dataset.isel(init_time=init).load()
    assert found.completed.values.all()
    for name in members.data_vars:
        values, own = members[name].values, found.sel(channel=name)
        mean, fine = values.mean(axis=0, dtype=float), float(own.quantum) * 2**-16
        np.testing.assert_allclose(own["mean"].values, mean, rtol=0, atol=fine)
        variance = values.astype(float).var(axis=0, ddof=1)
        np.testing.assert_allclose(own.variance.values, variance, rtol=1e-5, atol=1e-9)
        np.testing.assert_array_equal(own.minimum.values, values.min(axis=0))
        np.testing.assert_array_equal(own.maximum_number.values, values.argmax(axis=0))
        np.testing.assert_array_equal(own.control.values, values[0])
        sketch, quantum = sketch_of(own)
        exact = np.quantile(values.reshape(MEMBERS, -1), LEVELS, axis=0, method="weibull").T
        apart = np.abs(sketch.quantiles(LEVELS, WEIBULL) * quantum - exact)
        assert (apart <= sketch.resolution[:, None] * quantum + 1e-6).all()
        assert sketch.resolution.max() > 0
    above = members.t850.values[None] > np.array([270.0, 275.3])[:, None, None, None, None]
    np.testing.assert_array_equal(found.above.values, above.sum(axis=1))


def test_workers_of_a_cluster_write_the_same_bytes(world: World, kept: Plan) -> None:
    plan = kept_plan(world, "kept-workers")
    engine.run(plan, WORKERS, quiet=True)
    assert digests(statistics(plan)) == digests(statistics(kept))


def test_order_twins_and_resume_write_the_same_bytes(world: World, kept: Plan) -> None:
    plan = kept_plan(world, "kept-order")
    target = InFlightTarget(plan)
    target.create()
    task = engine.UnitTask(plan.ensemble, plan.layout, target.sink)
    order = (Key(3) / "order").generator().permutation(len(plan.units))
    for place in order[:7]:
        task(plan.units[place])
    assert len(target.pending()) == 11
    assert engine.run(plan, InProcess(), quiet=True).resumed == 7
    late = plan.units[order[2]]  # a worker that was given up wakes
    init_time = plan.layout.init_times[late.init]
    target.sink.take(late, lambda numbers: forecasts(plan, init_time, numbers))
    assert engine.run(plan, InProcess(), quiet=True).resumed == 18
    assert digests(statistics(plan)) == digests(statistics(kept))


def forecasts(plan: Plan, init_time: np.datetime64, numbers: tuple[int, ...]) -> list[np.ndarray]:
    fields = engine.unit_fields(plan, init_time, numbers)
    return [fields[:, :, lead] for lead in range(fields.shape[2])]


def test_another_block_gives_the_same_values(world: World, kept: Plan) -> None:
    plan = kept_plan(world, "kept-block", in_flight=KEPT | {"block": 5})
    engine.run(plan, InProcess(), quiet=True)
    expected, found = digests(statistics(kept)), digests(statistics(plan))
    # The group's attributes hold the experiment, block and all.
    metadata = {name for name in expected if Path(name).name in ("zarr.json", "checksums.json")}
    assert expected.keys() == found.keys()
    assert {name for name in expected if found[name] != expected[name]} <= metadata


def _myriad(experiment: Path, runs: Path) -> None:
    with (runs / "errors").open("w") as sys.stderr:
        main(["run", str(experiment), "--runs", str(runs)])


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(8))])
def test_kill_9_of_the_whole_run(world: World, kept: Plan, tmp_path: Path, seed: int) -> None:
    experiment = world.experiment(
        "kept", members=MEMBERS, in_flight=KEPT, store={"members": "none"},
        cluster={"kind": "in_process"},
    )  # fmt: skip
    plan = Job.read(experiment, tmp_path).plan()
    rng = (Key(2026) / "in flight" / seed).generator()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.job", "tests.pipelines.test_in_flight"])
    process = context.Process(target=_myriad, args=(experiment, tmp_path))
    process.start()
    wanted = int(rng.integers(1, 9))
    seen: set[str] = set()
    while process.is_alive() and len(seen) < wanted:
        seen |= {path.name for path in statistics(plan).rglob("*.zip")}
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.1))
    process.kill()
    process.join()
    engine.run(plan, InProcess(), quiet=True)
    found, expected = digests(statistics(plan)), digests(statistics(kept))
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} == set()


def test_scores_are_those_of_the_stored_members_within_the_bound(
    world: World, kept: Plan, stored: Plan, tmp_path: Path
) -> None:
    truth, analysis = world.folder / "truth.zarr", world.folder / "analysis.zarr"
    exact = score(stored.path, truth, tmp_path / "stored", analysis=analysis).scores
    found = score(statistics(kept), truth, tmp_path / "kept", analysis=analysis).scores
    assert found.crps_estimator.values[0].endswith(", from sketches of 16 bins")
    bound = found.crps_bound.sel(forecast="ensemble")
    assert 0 < float(bound.max()) < 3000
    for name in ("crps_fair", "crps_stratified", "crps_standard"):
        apart = np.abs(found[name] - exact[name]).sel(forecast="ensemble")
        assert (apart <= 1.2 * bound + 1e-6).all()
    for name in ("rmse", "bias", "mae", "spread", "spread_skill", "outlier_rate"):
        np.testing.assert_allclose(found[name].values, exact[name].values, rtol=1e-5, atol=1e-5)
    for name in ("control", "persistence"):
        np.testing.assert_allclose(
            found.crps.sel(forecast=name), exact.crps.sel(forecast=name), rtol=1e-6
        )
    assert "spread_skill_area_mean" not in found


def test_score_report_validate_and_member_work_without_a_stored_member(
    world: World, kept: Plan, stored: Plan, tmp_path: Path
) -> None:
    experiment = world.folder / "kept.yaml"
    kept_plan(world, "none")  # writes the file anew
    job = replace(Job.read(experiment, world.runs), folder=kept.path.parent)
    assert job.score().scores.sizes["lead_time"] == 5
    assert job.report().stat().st_size > 10_000
    [validation] = job.validate()
    assert validation.damages == ()
    assert (validation.units, validation.finished) == (2, 2)
    with pytest.raises(StoreError, match="needs members, and the experiment stores none"):
        job.calibrate()
    with open_statistics(stores(kept)[0]) as found:
        number = int(found.maximum_number.sel(channel="t850")[-1, 3, 5])
        largest = float(found.maximum.sel(channel="t850")[-1, 3, 5])
    settings = read_experiment(experiment)
    member = replay(settings, settings.init_times[0], number, tmp_path / "member.nc")
    assert float(member.t850[-1, 3, 5]) == largest


def test_a_flipped_byte_is_found_and_repaired(world: World, kept: Plan) -> None:
    plan = kept_plan(world, "kept-flipped")
    shutil.copytree(statistics(kept), statistics(plan))
    shard = next(path for path in sorted(stores(plan)[1].rglob("c/0/0/*/*/*")) if path.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 16
    shard.write_bytes(content)
    found = validate(statistics(plan))
    assert [damage.unit for damage in found.damages] == [stores(plan)[1].name]
    again = repair(plan, found, InProcess(), quiet=True)
    assert again.damages == ()
    assert digests(statistics(plan)) == digests(statistics(kept))


def test_part_of_what_is_forecast_can_be_stored(world: World, kept: Plan, stored: Plan) -> None:
    store = {
        "members": [0, 5, 14], "channels": ["t850", "u500"], "lead_times": ["12h"],
        "region": {"south": 0, "north": 60, "west": -30, "east": 40},
    }  # fmt: skip
    plan = kept_plan(world, "part", name="part", store=store)
    engine.run(plan, InProcess(), quiet=True)
    with open_store(plan.path) as part, open_store(stored.path) as whole:
        assert dict(part.sizes) == {
            "init_time": 2, "number": 3, "lead_time": 2, "latitude": 3, "longitude": 3,
        }  # fmt: skip
        assert part.completed.values.all()
        for name in ("t850", "u500"):
            np.testing.assert_array_equal(
                part[name].values, whole[name].sel(part[name].indexes).values
            )
    assert validate(plan.path).damages == ()
    (plan.path / "completed/units/00001-00002.json").unlink()
    before = digests(statistics(plan))
    assert engine.run(plan, InProcess(), quiet=True).resumed == 17
    with open_store(plan.path) as part:
        assert part.completed.values.all()
    assert digests(statistics(plan)) == before


def test_members_that_diverge_are_left_out_at_all_leads_and_named(world: World) -> None:
    """Noise beyond what float32 holds: all but the control and one more diverge."""
    noise = {"kind": "correlated_noise", "amplitude": 1e38, "paired": False}
    changes = {"name": "lost", "members": 4, "perturbations": [noise], "min_members": 1}
    plan = kept_plan(world, "lost", **changes)
    done = engine.run(plan, InProcess(), quiet=True)
    with pytest.raises(DegradedError, match="not finite, and kept out of scores: member 1 from"):
        done.check()
    with open_statistics(stores(plan)[0]) as found:
        assert found.completed.values.tolist() == [True, False, False, False]
        np.testing.assert_array_equal(found.control.values, found.minimum.values)
        assert (found["count"].sum("bin") == 1).all()
    assert engine.run(plan, InProcess(), quiet=True).resumed == 8


def test_a_run_of_which_no_member_is_finite_has_failed_and_stays_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "LARGEST_VALUE", 1)
    plan = kept_plan(world, "none-finite", name="none-finite", members=4)
    for resumed in (0, 6):  # nothing is computed again
        assert estimate(plan).pending == 6 - resumed
        with pytest.raises(RunError, match=r"member 0 from .* and 3 more; 0 members of an init"):
            engine.run(plan, InProcess(), quiet=True)
    assert not any(path.suffix == ".zarr" for path in stores(plan))


def test_members_that_diverge_are_named_where_units_have_failed_too(world: World) -> None:
    noise = {"kind": "correlated_noise", "amplitude": 1e38, "paired": False}
    changes = {"name": "lost-too", "members": 4, "perturbations": [noise], "min_members": 1}
    plan = kept_plan(world, "lost-too", **changes)
    blocked = InFlightTarget(plan).sink.tree(0).folder / "000-0-00001.zip"
    blocked.mkdir(parents=True)  # a folder where a file must be
    (blocked / "x").touch()
    done = engine.run(plan, InProcess(), quiet=True)
    unit, member = r"the first is 00000-\d+", "member 3 from 2006-01-02T00"
    with pytest.raises(DegradedError, match=f"{unit}: .*not finite, .*{member}"):
        done.check()


def test_a_unit_that_keeps_failing_leaves_the_others(world: World, kept: Plan) -> None:
    plan = kept_plan(world, "kept-failing")
    target = InFlightTarget(plan)
    blocked = target.sink.tree(1).folder / "000-0-00002.zip"
    blocked.mkdir(parents=True)  # a folder where a file must be
    (blocked / "x").touch()
    with pytest.raises(RunError, match="1 of 18 units failed, the first is 00001-00002"):
        engine.run(plan, InProcess(), quiet=True)
    parts, whole = stores(plan)[1:]  # of the second init time: what it is made of stays for a rerun
    assert parts.suffix == ".parts"
    with open_statistics(whole) as found:
        assert found.completed.values.sum() == MEMBERS - 2
    shutil.rmtree(blocked)
    assert engine.run(plan, InProcess(), quiet=True).resumed == 17
    assert digests(statistics(plan)) == digests(statistics(kept))


def test_other_statistics_in_the_same_place_are_refused(world: World, kept: Plan) -> None:
    plan = kept_plan(world, "kept", in_flight=KEPT | {"bins": 17})
    before = digests(statistics(kept))
    with pytest.raises(StoreError, match="other statistics or another block; nothing was changed"):
        engine.run(plan, InProcess(), quiet=True)
    assert digests(statistics(kept)) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_flight": None}, "what is not stored is lost"),
        ({"in_flight": KEPT | {"bin": 3}}, "unknown key 'bin', the nearest known key is 'bins'"),
        ({"in_flight": {"exceedance": {"t85": [1]}}}, "exceedance of 't85', which is not among"),
        ({"in_flight": {"exceedance": {"t850": [2, 1]}}}, "ascending"),
        ({"store": {"members": [3, 99]}}, "99 is not among members 0 to 14"),
        ({"store": {"channels": ["t100"]}}, "'t100' is not among"),
        ({"store": {"lead_times": ["13h"]}}, "13 h is no lead time"),
        ({"store": {"region": {"south": 60, "north": 0}}}, "from south to north"),
        ({"in_flight": {"exceedance": {"t2m": [273.15]}}}, "'t2m', which is not among"),
    ],
)
def test_wrong_settings_are_one_clear_error(world: World, changes: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        estimate(kept_plan(world, "wrong", name="wrong", **changes))


def test_the_plan_knows_the_size(world: World, kept: Plan) -> None:
    fresh = estimate(kept_plan(world, "kept-planned"))
    size = sum(len(file) for path in stores(kept) for file in _shards(path))
    assert size < fresh.likely < fresh.most
    assert (fresh.units, fresh.pending, estimate(kept).pending) == (18, 18, 0)


def _shards(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in path.rglob("c/*/*/*/*") if file.is_file()]


def test_it_opens_as_it_is(kept: Plan) -> None:
    with xr.open_zarr(stores(kept)[0]) as dataset:  # a warning is an error
        assert dataset["mean"].dims == ("channel", "lead_time", "latitude", "longitude")
        assert dataset.lead_time.size == 5
