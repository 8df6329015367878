"""Addresses in the tree of random streams.

A draw depends only on the address it is made at, never on what was drawn before, on which
worker, in which batch or after which restart (counter-based generation: Salmon, Moraes, Dror and
Shaw, 2011, doi:10.1145/2063384.2063405).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

Step = str | int | np.datetime64


@dataclass(frozen=True)
class Key:
    """A base seed and a path: ``Key(7) / "noise" / 3``.

    Two keys with different paths give independent streams; equal keys give equal draws.

    Parameters
    ----------
    seed : int
        Base seed of the run.
    path : tuple of str or int
        Address below the seed; normally built with ``/``.
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def __truediv__(self, step: Step) -> Key:
        """The key one step further down; times are addressed by their ISO form."""
        if isinstance(step, np.datetime64):
            step = str(step.astype("datetime64[s]"))
        return Key(self.seed, (*self.path, step if isinstance(step, str) else int(step)))

    def generator(self) -> np.random.Generator:
        """A fresh generator at this address; calling it again starts the same stream again."""
        digest = hashlib.blake2b(digest_size=16)
        for step in (int(self.seed), *self.path):
            word = f"{type(step).__name__}:{step}".encode()
            digest.update(len(word).to_bytes(4, "little") + word)
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal draws, float32, of the given shape."""
        return self.generator().standard_normal(shape, dtype=np.float32)
