"""Configuration files: reading YAML, and saying what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError

from data.errors import CheckpointError, ConfigurationError, InputError


@contextmanager
def naming(file: Path | None) -> Iterator[None]:
    """What turns out to be wrong with an experiment after it was read is said of its file; of a
    path that is not there, where relative ones start."""
    try:
        yield
    except ConfigurationError as error:
        where = "" if file is None else f"{file}: "
        raise ConfigurationError(f"{where}{error}") from None
    except (InputError, CheckpointError) as error:
        named = Path(str(error).partition(": ")[0])
        if file is None or not named.is_absolute() or _may_be_there(named):
            raise
        hint = f"relative paths in {file} start at its own folder, {file.resolve().parent}"
        raise type(error)(f"{error}; {hint}") from None


def _may_be_there(path: Path) -> bool:
    """Whether a path is there, or cannot be looked at."""
    try:
        return path.exists()
    except OSError:
        return True


class _Loader(yaml.SafeLoader):
    """Plain values only: times stay text, so that a wrong one is reported with its key."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node; a key given twice is an error."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises
    ------
    ConfigurationError
        If the file cannot be read or holds no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        what = getattr(error, "problem", None) or "it cannot be parsed"
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigurationError(f"{path}{where}: is no YAML: {what}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path}: expected keys and values, found {type(content).__name__}"
        )
    return content


def explain(error: ValidationError) -> str:
    """The problems of a validation, each with the key it is about."""
    return "; ".join(map(explain_one, error.errors()))


def explain_one(problem: Mapping[str, Any]) -> str:
    """One problem of a validation, with the key it is about."""
    steps, context = [str(step) for step in problem["loc"]], problem.get("ctx", {})
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"].startswith("union_tag"):
        steps.append(context["discriminator"].strip("'"))
        message = "Field required"
        if "tag" in context:
            message = f"{context['tag']!r} is none of {context['expected_tags']}"
    return f"{'.'.join(steps)}: {message}" if steps else message
