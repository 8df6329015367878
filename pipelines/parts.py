"""What some units of a run have added up, in files that are there whole or not at all.

Of each init time and checkpoint the parts are the nodes of a tree: its leaves are the units, in
order, and a node is what `FAN` nodes below it have added up, which are deleted when it is there.
The content of a node follows from its name alone, since everything in it merges exactly: to make
one twice, late, or at once on two workers changes nothing, and no unit can be counted twice,
because a node is made of all nodes below it or not at all. Which units are done is read off the
names of the files. At no time is there more than a few nodes for each level of the tree.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np

from data.errors import StoreError
from pipelines.shards import BLOSC, writing
from scoring.kept import Kept, merge
from scoring.sketch import Sketch, count_type

FAN = 4
_OF_SKETCH = ("counts", "smallest", "largest")
_OF_KEPT = ("smallest_number", "largest_number", "total", "squares", "apart")
_PLAIN = dict.fromkeys(("smallest", "largest", "smallest_number", "largest_number"), np.int32)
_PLAIN |= dict.fromkeys(("total", "squares", "apart"), np.int64)
_CONTENTS = "contents.json"
# What readers of zip files, JSON and arrays raise.
_OF_DAMAGE = (BadZipFile, KeyError, ValueError, RuntimeError, TypeError, EOFError, struct.error)


@dataclass(frozen=True)
class Shape:
    """Sizes of what is kept of an init time.

    Attributes
    ----------
    leads, channels, cells, bins : int
    thresholds : tuple of int
        How many each channel has.
    """

    leads: int
    channels: int
    cells: int
    bins: int
    thresholds: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """Whose fields are in a part.

    Attributes
    ----------
    members, pairs : int
        Members that have been added up, and complete pairs among them.
    control : bool
        Whether number 0 is among them; its fields are then kept as they are.
    diverged : tuple of int
        Numbers left out because a value of theirs is not finite.
    """

    members: int
    pairs: int
    control: bool
    diverged: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[Contents]) -> Contents:
        """Of all parts together."""
        return cls(
            sum(part.members for part in parts),
            sum(part.pairs for part in parts),
            any(part.control for part in parts),
            tuple(sorted(number for part in parts for number in part.diverged)),
        )


@dataclass(frozen=True)
class Lead:
    """What is kept at one lead: of each channel, and the control's values, (channel, cell)."""

    kept: tuple[Kept, ...]
    control: np.ndarray | None


class PartWriter:
    """Fills a part lead by lead, in order.

    Parameters
    ----------
    file : zipfile.ZipFile
        Where to.
    contents : Contents
    """

    def __init__(self, file: ZipFile, contents: Contents) -> None:
        self._file, self._leads = file, count()
        self._put(_CONTENTS, json.dumps(asdict(contents)).encode())

    def add(self, lead: Lead) -> None:
        """Add the next lead."""
        place = next(self._leads)
        for name, values in _arrays(lead).items():
            self._put(f"{place}/{name}", BLOSC.encode(np.ascontiguousarray(values)))

    def _put(self, name: str, content: bytes) -> None:
        self._file.writestr(ZipInfo(name), content)


def _arrays(lead: Lead) -> dict[str, np.ndarray]:
    """What is written of a lead."""
    sketches = [kept.sketch for kept in lead.kept]
    arrays = {
        name: np.stack([getattr(sketch, name) for sketch in sketches]) for name in _OF_SKETCH
    } | {name: np.stack([getattr(kept, name) for kept in lead.kept]) for name in _OF_KEPT}
    above = np.concatenate([kept.above for kept in lead.kept])
    if len(above):
        arrays["above"] = above
    if lead.control is not None:
        arrays["control"] = lead.control
    return arrays


@contextmanager
def part_written(path: Path, contents: Contents) -> Iterator[PartWriter]:
    """A new part: durable and in its place when the context ends, nothing if that fails.

    Raises
    ------
    StoreError
        If there is no room, or nothing may be written.
    """
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("xb") as file:
                with ZipFile(file, "w") as archive:
                    yield PartWriter(archive, contents)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


class Part:
    """A part that is there.

    Parameters
    ----------
    path : pathlib.Path
        Its name, for messages.
    file : zipfile.ZipFile
        What is in it.
    shape : Shape
    """

    def __init__(self, path: Path, file: ZipFile, shape: Shape) -> None:
        self._path, self._file, self._shape = path, file, shape
        content = json.loads(file.read(_CONTENTS))
        self.contents = Contents(**content | {"diverged": tuple(content["diverged"])})

    def at(self, lead: int) -> Lead:
        """What is kept at one lead.

        Raises
        ------
        StoreError
            If the part is damaged; it is removed.
        """
        shape, members = self._shape, self.contents.members
        plain = shape.channels, shape.cells
        with _undamaged(self._path):
            counts = self._read(lead, "counts", (*plain, shape.bins), count_type(members))
            arrays = {name: self._read(lead, name, plain, kind) for name, kind in _PLAIN.items()}
            above = np.zeros((0, shape.cells), np.int32)
            if any(shape.thresholds):
                above = self._read(lead, "above", (sum(shape.thresholds), shape.cells), np.int32)
            control = (
                self._read(lead, "control", plain, np.int32) if self.contents.control else None
            )
        above = np.split(above, np.cumsum(shape.thresholds)[:-1])
        kept = []
        for channel in range(shape.channels):
            own = {name: values[channel] for name, values in arrays.items()}
            sketch = Sketch(members, counts[channel], own.pop("smallest"), own.pop("largest"))
            kept.append(Kept(sketch=sketch, above=above[channel], **own))
        return Lead(tuple(kept), control)

    def _read(
        self, lead: int, name: str, shape: tuple[int, ...], kind: np.dtype | type
    ) -> np.ndarray:
        content = BLOSC.decode(self._file.read(f"{lead}/{name}"))
        return np.frombuffer(content, kind).reshape(shape)


@contextmanager
def opened(paths: Sequence[Path], shape: Shape) -> Iterator[list[Part]]:
    """Parts to read from.

    Raises
    ------
    StoreError
        If one is damaged; it is removed, so that its units are computed again.
    FileNotFoundError
        If one is not there.
    """
    with ExitStack() as stack:
        parts = []
        for path in paths:
            with _undamaged(path):
                parts.append(Part(path, stack.enter_context(ZipFile(path)), shape))
        yield parts


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (*_OF_DAMAGE, OSError) as error:
        # A flipped bit in a zip file's last lines has its reader seek to before its beginning.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        path.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: was damaged ({type(error).__name__}: {error}) and is removed; run again to "
            "compute its units again"
        ) from None


def merged(parts: Sequence[Part], lead: int) -> Lead:
    """What is kept at one lead of the members of all parts."""
    leads = [part.at(lead) for part in parts if part.contents.members]
    kept = zip(*(one.kept for one in leads), strict=True)
    control = next((one.control for one in leads if one.control is not None), None)
    return Lead(tuple(merge(own) for own in kept), control)


@dataclass(frozen=True)
class Node:
    """A node of the tree of one checkpoint: `FAN ** level` units from `index` times as many on."""

    checkpoint: int
    level: int
    index: int

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.checkpoint:03d}-{self.level}-{self.index:05d}.zip"

    @property
    def parent(self) -> Node:
        """What it becomes part of."""
        return Node(self.checkpoint, self.level + 1, self.index // FAN)


@dataclass(frozen=True)
class Tree:
    """The parts of one init time on a disk.

    Attributes
    ----------
    folder : pathlib.Path
        Where they are.
    units : tuple of int
        How many units each checkpoint has.
    shape : Shape
    """

    folder: Path
    units: tuple[int, ...]
    shape: Shape

    def roots(self) -> list[Node]:
        """The node of each checkpoint that has all of its units."""
        return [
            Node(checkpoint, _height(units), 0)
            for checkpoint, units in enumerate(self.units)
            if units
        ]

    def has(self, node: Node) -> bool:
        """Whether a node, or one that it is part of, is there."""
        while node.level <= _height(self.units[node.checkpoint]):
            if self._path(node).is_file():
                return True
            node = node.parent
        return False

    def complete(self) -> bool:
        """Whether all units have been added up."""
        return all(self._path(root).is_file() for root in self.roots())

    @contextmanager
    def written(self, node: Node, contents: Contents) -> Iterator[PartWriter]:
        """A leaf to be filled; then what it completes is added up."""
        with part_written(self._path(node), contents) as writer:
            yield writer
        self._collapse(node)

    def _collapse(self, node: Node) -> None:
        """Add up what is complete, from a node upwards."""
        while node.level < _height(self.units[node.checkpoint]):
            parent, children = node.parent, self._children(node.parent)
            paths = [self._path(child) for child in children]
            if not self.has(parent):
                try:
                    self._add_up(parent, paths)
                except FileNotFoundError:  # not all there yet, or added up by another worker
                    return
            for path in paths:
                path.unlink(missing_ok=True)
            node = parent

    def _add_up(self, node: Node, paths: Sequence[Path]) -> None:
        with opened(paths, self.shape) as parts:
            contents = Contents.of([part.contents for part in parts])
            with part_written(self._path(node), contents) as writer:
                if contents.members:
                    for lead in range(self.shape.leads):
                        writer.add(merged(parts, lead))

    def _children(self, node: Node) -> list[Node]:
        below = FAN ** (node.level - 1)
        count = -(-self.units[node.checkpoint] // below)
        places = range(node.index * FAN, min((node.index + 1) * FAN, count))
        return [Node(node.checkpoint, node.level - 1, place) for place in places]

    def present(self) -> list[list[Path]]:
        """Of each checkpoint, nodes that together hold every unit that is done, once."""
        return [list(self._highest(root)) for root in self.roots()]

    def _highest(self, node: Node) -> Iterator[Path]:
        if self._path(node).is_file():
            yield self._path(node)
        elif node.level:
            for child in self._children(node):
                yield from self._highest(child)

    def resume(self) -> None:
        """Remove what killed workers have left, and add up what they had not."""
        for litter in self.folder.glob("*.partial"):
            litter.unlink(missing_ok=True)
        for file in sorted(self.folder.glob("*.zip")):
            node = Node(*(int(text) for text in file.stem.split("-")))
            if file.is_file():
                self._collapse(node)

    def _path(self, node: Node) -> Path:
        return self.folder / node.name


def _height(units: int) -> int:
    """Levels above the leaves."""
    height = 0
    while FAN**height < units:
        height += 1
    return height
