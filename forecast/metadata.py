"""What a checkpoint says of itself, read and verified without loading a network.

It needs no torch, which takes longer to import than all else that planning does.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.errors import CheckpointError, InputError
from data.grid import Grid
from forecast.architecture import SFNOConfig

FORMAT_VERSION = 1
WEIGHTS = "weights.safetensors"
METADATA = "checkpoint.json"


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says of itself; cheap to read, no weights are loaded.

    Attributes
    ----------
    architecture : SFNOConfig
        Sizes of the network.
    channels : tuple of str
    grid : Grid
    timestep : numpy.timedelta64
    mean, std, tendency_std : tuple of float
        Per channel, physical units.
    statics : tuple of str
        Names of the static inputs.
    rmse_48h : tuple of float
        Per channel, physical units: root-mean-square error of the unperturbed 48 h forecast on
        held-out dates.
    provenance : dict
        Where it comes from: data label, dates, seed, updates, versions.
    weights_sha256 : str
        Hex digest of the weights file.
    hash : str
        Hex digest of the canonical JSON content, which includes `weights_sha256`.
    """

    architecture: SFNOConfig
    channels: tuple[str, ...]
    grid: Grid
    timestep: np.timedelta64
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tendency_std: tuple[float, ...]
    statics: tuple[str, ...]
    rmse_48h: tuple[float, ...]
    provenance: dict[str, str | int | float]
    weights_sha256: str = ""
    hash: str = ""

    @property
    def stochastic(self) -> bool:
        """Whether its steps draw latent noise."""
        return self.architecture.latents > 0


def read_metadata(path: Path) -> CheckpointMetadata:
    """The metadata of a checkpoint, its own hash verified; the weights are not read.

    Raises
    ------
    CheckpointError
        If the file is missing, cannot be read, is no checkpoint of a known version, or does not
        match its hash.
    """
    file = Path(path) / METADATA
    content = _read_json(file)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{file}: format version {version}, expected {FORMAT_VERSION}")
    found = content.pop("sha256", None)
    expected = canonical_sha256(content)
    if found != expected:
        raise CheckpointError(f"{file}: content has SHA-256 {expected}, but records {found}")
    try:
        return _from_json(content, expected)
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise CheckpointError(f"{file}: metadata are incomplete or wrong: {error!r}") from error


def checkpoint_hash(path: Path) -> str:
    """One hex digest for the whole checkpoint: metadata and, through them, weights.

    Both files are hashed and verified; no tensor is built.

    Raises
    ------
    CheckpointError
        As `read_metadata`, and if the weights are missing, cannot be read, or are not those that
        were recorded.
    """
    metadata = read_metadata(path)
    verify_weights(Path(path) / WEIGHTS, metadata.weights_sha256)
    return metadata.hash


def verify_weights(file: Path, expected: str) -> None:
    """Raise CheckpointError unless the weights can be read, and are those that were recorded."""
    try:
        if not file.is_file():
            raise CheckpointError(f"{file}: missing")
        found = file_sha256(file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    if found != expected:
        raise CheckpointError(f"{file}: SHA-256 is {found}, expected {expected}")


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_sha256(content: dict) -> str:
    """SHA-256 of the canonical text of JSON content, hexadecimal."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_json(file: Path) -> dict:
    try:
        if not file.is_file():
            raise CheckpointError(f"{file}: missing")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def to_json(metadata: CheckpointMetadata) -> dict:
    """The metadata as JSON content, without its hash."""
    content = asdict(metadata)
    del content["hash"]
    content["timestep_hours"] = int(content.pop("timestep") / np.timedelta64(1, "h"))
    content["format_version"] = FORMAT_VERSION
    return json.loads(json.dumps(content))


def _from_json(content: dict, digest: str) -> CheckpointMetadata:
    sizes = dict(content["architecture"])
    sizes["latent_lengths_km"] = tuple(sizes["latent_lengths_km"])
    grids = {name: Grid(**sizes[name]) for name in ("grid", "inner_grid")}
    numbers = ("mean", "std", "tendency_std", "rmse_48h")
    return CheckpointMetadata(
        architecture=SFNOConfig(**sizes | grids),
        channels=tuple(content["channels"]),
        grid=Grid(**content["grid"]),
        timestep=np.timedelta64(int(content["timestep_hours"]), "h"),
        statics=tuple(content["statics"]),
        provenance=dict(content["provenance"]),
        weights_sha256=content["weights_sha256"],
        hash=digest,
        **{name: tuple(map(float, content[name])) for name in numbers},
    )
