"""Who gets which unit and when a worker is given up, on a clock of the test's own."""

from collections.abc import Iterator

import pytest

from pipelines.lanes import WINDOW, Lanes, Outcome, Patience
from pipelines.plan import Unit

PATIENCE = Patience(attempts=3, factor=10.0, least=100.0, first=1000.0)


def units(count: int, checkpoints: int = 1) -> list[Unit]:
    return [Unit(0, block, (block,), block % checkpoints, "") for block in range(count)]


def given(lanes: Lanes, now: float = 0.0) -> dict[str, list[tuple[str, Unit]]]:
    """What each worker is given, in order."""
    found: dict[str, list[tuple[str, Unit]]] = {}
    for worker, key, unit in lanes.assign(now):
        found.setdefault(worker, []).append((key, unit))
    return found


def done(lanes: Lanes) -> list[Outcome]:
    return list(lanes.decided())


@pytest.fixture
def two() -> Iterator[Lanes]:
    lanes = Lanes(units(10), PATIENCE)
    lanes.note({"a", "b"})
    return lanes


def test_each_worker_has_a_window_and_gets_one_for_each_that_ends(two: Lanes) -> None:
    first = given(two)
    assert {worker: len(keys) for worker, keys in first.items()} == {"a": WINDOW, "b": WINDOW}
    assert given(two) == {}
    key, unit = first["a"][0]
    two.finish("a", key, 5.0)
    assert done(two) == [Outcome(unit)]
    assert [worker for worker, *_ in two.assign(5.0)] == ["a"]


def test_the_last_units_are_not_queued_behind_one_another() -> None:
    lanes = Lanes(units(2), PATIENCE)
    lanes.note({"a", "b"})
    assert {worker: len(keys) for worker, keys in given(lanes).items()} == {"a": 1, "b": 1}
    lanes = Lanes(units(5), PATIENCE)
    lanes.note({"a", "b"})
    [(key, _), (last, _)] = given(lanes)["a"]
    lanes.finish("a", key, 1.0)
    assert given(lanes, 1.0) == {}  # the fifth waits for whoever is idle first
    lanes.finish("a", last, 2.0)
    assert list(given(lanes, 2.0)) == ["a"]


def test_a_worker_takes_the_checkpoint_with_the_most_units_for_each_that_is_at_it() -> None:
    many, few = [Unit(0, n, (n,), 0, "") for n in range(6)], [Unit(0, 9, (9,), 1, "")] * 4
    lanes = Lanes([*many, *few], PATIENCE)
    lanes.note({"a", "b"})
    found = {worker: [unit.checkpoint for _, unit in got] for worker, got in given(lanes).items()}
    assert found == {"a": [0, 0], "b": [1, 1]}


def test_a_fast_unit_makes_nobody_less_patient(two: Lanes) -> None:
    [(slow, _), (fast, _)] = given(two)["a"]
    two.finish("a", slow, 50.0)
    two.finish("a", fast, 51.0)
    given(two, 51.0)
    assert two.give_up_hung(400.0) == []


def test_of_two_units_on_a_worker_that_died_each_is_tried_alone() -> None:
    lanes = Lanes(units(10), Patience(attempts=1))
    lanes.note({"a"})
    [(_, sound), (_, poison)] = given(lanes)["a"]
    lanes.note({"b"})
    assert done(lanes) == []  # either may have killed it
    found, ends, now = set(), [], 0.0
    keys = given(lanes)["b"]
    while lanes.working:
        now += 1
        key, unit = keys.pop(0)
        if unit == poison:
            assert not keys  # with nothing beside it
            lanes.note({"c"})
            lanes.note({"b"})
        else:
            lanes.finish("b", key, now)
        ends += done(lanes)
        keys += given(lanes, now).get("b", [])
        found |= {unit for _, unit in keys}
    assert sound in found
    assert [outcome for outcome in ends if outcome.failure] == [
        Outcome(poison, "its worker died (1 times tried)")
    ]
    assert {outcome.unit for outcome in ends} == set(units(10))


def test_a_unit_that_raises_is_tried_elsewhere_and_given_up_at_last() -> None:
    lanes = Lanes(units(1), PATIENCE)
    lanes.note({"a", "b"})
    before = None
    for _ in range(3):
        [(worker, key, unit)] = lanes.assign(0.0)
        assert worker != before
        lanes.fail(worker, key, "ArithmeticError: no", 1.0)
        before = worker
    assert done(lanes) == [Outcome(unit, "ArithmeticError: no (3 times tried)")]
    assert not lanes.working


def test_a_worker_hangs_when_it_takes_ten_times_as_long_as_the_slowest(two: Lanes) -> None:
    first = given(two)
    assert two.give_up_hung(999.0) == []
    two.finish("a", first["a"][0][0], 50.0)
    assert two.give_up_hung(500.0) == []
    assert two.give_up_hung(501.0) == ["b"]
    two.note({"a", "b"})
    assert two.workers == 1
    two.finish("b", first["b"][0][0], 502.0)  # it wakes, and is not heard
    assert [outcome.unit for outcome in done(two)] == [first["a"][0][1]]
    two.note({"a"})
    two.note({"a", "b"})
    assert two.workers == 2


def test_a_unit_withdrawn_counts_no_failure() -> None:
    lanes = Lanes(units(1), Patience(attempts=1))
    lanes.note({"a"})
    [(worker, key, unit)] = lanes.assign(0.0)
    lanes.withdraw(worker, key, 1.0)
    assert done(lanes) == []
    [(_, again, same)] = lanes.assign(1.0)
    assert same == unit
    assert again != key


def test_what_takes_long_at_the_end_is_begun_by_an_idle_worker_too() -> None:
    lanes = Lanes(units(2), PATIENCE)
    lanes.note({"a", "b"})
    first = given(lanes)
    [(slow, unit)] = first["b"]
    lanes.finish("a", first["a"][0][0], 10.0)
    assert given(lanes, 14.0) == {}
    [(twin, same)] = given(lanes, 16.0)["a"]
    assert same == unit
    lanes.note({"a", "b", "c"})
    assert given(lanes, 17.0) == {}  # no triplets
    lanes.finish("a", twin, 25.0)
    assert [outcome.unit.block for outcome in done(lanes)] == [1, 0]
    assert not lanes.working
    lanes.finish("b", slow, 30.0)
    assert done(lanes) == []


def test_what_waits_behind_a_unit_that_hangs_is_begun_elsewhere() -> None:
    lanes = Lanes(units(5), PATIENCE)
    lanes.note({"a", "b"})
    keys = {worker: [key for key, _ in found] for worker, found in given(lanes).items()}
    for now in (10.0, 20.0, 30.0):
        lanes.finish("a", keys["a"].pop(0), now)
        keys["a"] += [key for key, _ in given(lanes, now).get("a", [])]
    assert {outcome.unit.block for outcome in done(lanes)} == {0, 2, 4}
    lanes.finish("a", keys["a"].pop(0), 40.0)
    [(key, unit)] = given(lanes, 40.0)["a"]
    lanes.finish("a", key, 50.0)
    assert {outcome.unit.block for outcome in done(lanes)} == {1, 3}
    assert unit.block in (1, 3)
    assert not lanes.working


@pytest.mark.parametrize("loser", ["a", "b"])
def test_of_twins_one_may_be_lost(loser: str) -> None:
    lanes = Lanes(units(2), Patience(attempts=1))
    lanes.note({"a", "b"})
    first = given(lanes)
    lanes.finish("a", first["a"][0][0], 10.0)
    [(twin, _)] = given(lanes, 16.0)["a"]
    lanes.lose(loser, "it died")
    assert given(lanes, 17.0) == {}
    assert lanes.working
    winner, key = ("b", first["b"][0][0]) if loser == "a" else ("a", twin)
    lanes.finish(winner, key, 20.0)
    assert {outcome.unit for outcome in done(lanes)} == set(units(2))
    assert not lanes.working
