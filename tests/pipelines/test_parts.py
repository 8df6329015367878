"""The tree of parts: whatever the order, and however often, each unit counts once."""

from pathlib import Path

import numpy as np
import pytest

from data.errors import StoreError
from data.key import Key
from pipelines.parts import Contents, Lead, Node, Shape, Tree, merged, opened
from scoring.kept import Kept

SHAPE = Shape(leads=2, channels=2, cells=12, bins=8, thresholds=(1, 0))
UNITS, MEMBERS = 11, 3


def leads(unit: int) -> list[Lead]:
    """What is kept of three members, by lead."""
    numbers = np.arange(MEMBERS * unit, MEMBERS * (unit + 1), dtype=np.int32)
    rng = (Key(unit) / "part").generator()
    found = []
    for _ in range(SHAPE.leads):
        values = np.rint(rng.normal(0, 100, (2, MEMBERS, SHAPE.cells))).astype(np.int32)
        pairs = np.array([-1, unit, unit])
        kept = [
            Kept.of(own, numbers, pairs, SHAPE.bins, levels)
            for own, levels in zip(values, ((0.0,), ()), strict=True)
        ]
        found.append(Lead(tuple(kept), values[:, 0] if unit == 0 else None))
    return found


def put(tree: Tree, unit: int) -> None:
    lost = (100 + unit,) if unit % 4 == 1 else ()
    with tree.written(Node(0, 0, unit), Contents(MEMBERS, 1, unit == 0, lost)) as writer:
        for lead in leads(unit):
            writer.add(lead)


def content(tree: Tree) -> list[np.ndarray]:
    [paths] = tree.present()
    with opened(paths, tree.shape) as parts:
        contents = Contents.of([part.contents for part in parts])
        found = [np.array([contents.members, contents.pairs, *contents.diverged])]
        for number in range(SHAPE.leads):
            lead = merged(parts, number)
            found.append(lead.control)
            for kept in lead.kept:
                found += [kept.sketch.counts, kept.sketch.smallest, kept.sketch.largest]
                found += [kept.smallest_number, kept.largest_number, kept.total, kept.squares]
                found += [kept.apart, kept.above]
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    tree = Tree(tmp_path_factory.mktemp("tree"), (UNITS,), SHAPE)
    for unit in range(UNITS):
        put(tree, unit)
    assert tree.complete()
    assert len(list(tree.folder.iterdir())) == 1
    return content(tree)


@pytest.mark.parametrize("seed", range(2))
def test_any_order_and_repetition_come_to_the_same(
    expected: list[np.ndarray], tmp_path: Path, seed: int
) -> None:
    tree, rng = Tree(tmp_path, (UNITS,), SHAPE), (Key(seed) / "order").generator()
    done = set()
    for unit in rng.permutation(np.repeat(np.arange(UNITS), 2)).tolist():
        put(tree, unit)
        done.add(unit)
        with opened(tree.present()[0], SHAPE) as parts:
            assert sum(part.contents.members for part in parts) == MEMBERS * len(done)
        for other in range(UNITS):
            assert tree.has(Node(0, 0, other)) == (other in done)
    tree.resume()
    assert len(list(tree.folder.iterdir())) == 1
    for found, wanted in zip(content(tree), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_what_a_killed_worker_leaves_is_added_up_or_removed(
    expected: list[np.ndarray], tmp_path: Path
) -> None:
    tree, other = Tree(tmp_path / "a", (UNITS,), SHAPE), Tree(tmp_path / "b", (UNITS,), SHAPE)
    for unit in range(4):
        put(tree, unit)
    put(other, 2)
    leaf = Node(0, 0, 2).name
    (tree.folder / leaf).write_bytes((other.folder / leaf).read_bytes())  # parent made, not removed
    (tree.folder / f"{leaf}.x.partial").write_bytes(b"half")
    for unit in range(4, 11):
        put(other, unit)
    for file in other.folder.glob("*.zip"):
        if file.name != leaf:
            (tree.folder / file.name).write_bytes(file.read_bytes())
    tree.resume()
    assert [path.name for path in tree.folder.iterdir()] == [tree.roots()[0].name]
    for found, wanted in zip(content(tree), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_damaged_part_is_removed_and_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path, (UNITS,), SHAPE)
    for unit in range(3):
        put(tree, unit)
    damaged = tmp_path / Node(0, 0, 1).name
    damaged.write_bytes(damaged.read_bytes()[:-200])
    with pytest.raises(StoreError, match=r"00001\.zip: was damaged .* and is removed; run again"):
        put(tree, 3)
    assert not tree.has(Node(0, 0, 1))
    for unit in range(UNITS):
        if not tree.has(Node(0, 0, unit)):
            put(tree, unit)
    tree.resume()
    assert tree.complete()


def test_a_part_with_a_flipped_bit_is_removed_or_as_good_as_before(tmp_path: Path) -> None:
    tree = Tree(tmp_path, (UNITS,), SHAPE)
    put(tree, 0)
    [file] = tmp_path.iterdir()
    whole, expected = file.read_bytes(), content(tree)
    places = np.arange(0, len(whole), 13).tolist() + list(range(len(whole) - 22, len(whole)))
    for place in [*range(60), *places]:  # of headers each byte, of what is in them some
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        try:
            found = content(tree)
        except StoreError:
            assert not file.exists()
        else:  # in what nobody reads, such as the time of a file
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)
