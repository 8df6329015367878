"""What settings are called: names made of values, so that two settings never share one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from hashlib import blake2b

import numpy as np

_LONGEST_KEY = 80
_QUOTES = {"'", '"'}


def key_of(parameters: object) -> str:
    """Name made of the class of a dataclass and of all its fields, fit for a variable of a store;
    of an array a digest of its values.

    Names beyond 80 characters end in a digest of what they stand for, and so do those that would
    be read in two ways: of ``("a_b",)``, which is not ``("a", "b")``. A field must not hold now a
    string and now something else that is written alike.
    """
    words = _words(parameters)
    if len(words) <= _LONGEST_KEY and not _QUOTES & set(words):
        return words
    digest = blake2b(words.encode(), digest_size=4).hexdigest()
    return f"{_snake(type(parameters).__name__)}_{digest}"


def make_floats(parameters: object, *names: str) -> None:
    """Make some fields of a frozen dataclass plain floats, or tuples of them, while it is
    constructed: parameters that are equal, such as 1, 1.0 and numpy's, then have equal names."""
    for name in names:
        value = getattr(parameters, name)
        plain = float(value) if np.ndim(value) == 0 else tuple(float(one) for one in value)
        object.__setattr__(parameters, name, plain)


def _words(value: object) -> str:
    """A readable name of a parameter, different for different values; what would be read in two
    ways is in quotes."""
    if isinstance(value, np.generic):
        value = value.item()
    if is_dataclass(value):
        words = [_snake(type(value).__name__)]
        marks = [f"_{field.name}" for field in fields(value)]
        for field in fields(value):
            parameter = getattr(value, field.name)
            named = [] if is_dataclass(parameter) else [field.name]
            found = _words(parameter)
            words += [*named, _apart(found, marks) if isinstance(parameter, str) else found]
        return "_".join(words)
    if isinstance(value, tuple):
        return "_".join(_apart(_words(item), ["_"]) for item in value)
    if isinstance(value, np.ndarray):
        content = str(value.shape).encode() + (value.astype(float) + 0.0).tobytes()
        return blake2b(content, digest_size=8).hexdigest()
    if isinstance(value, float):
        value += 0.0  # -0.0 equals 0.0
    return value if isinstance(value, str) else repr(value)


def _apart(words: str, marks: Sequence[str]) -> str:
    """One of several words, in quotes where it has quotes or what stands between them."""
    clear = words and repr(words) == f"'{words}'" and '"' not in words
    return words if clear and not any(mark in words for mark in marks) else repr(words)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
