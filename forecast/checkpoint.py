"""Checkpoints: a directory with `weights.safetensors` and `checkpoint.json`.

Nothing in a checkpoint is ever executed or unpickled. The JSON file holds the SHA-256 of the
weights and of its own canonical content, so that one short hash names the whole forecaster.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from data.errors import CheckpointError, InputError
from data.grid import Grid
from forecast.dataset import Normalisation
from forecast.neural import NeuralForecaster
from forecast.sfno import SFNO, SFNOConfig

FORMAT_VERSION = 1
WEIGHTS = "weights.safetensors"
METADATA = "checkpoint.json"
_STATICS = "statics"


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


def save_checkpoint(
    path: Path, network: SFNO, statics: torch.Tensor, metadata: CheckpointMetadata
) -> CheckpointMetadata:
    """Write a checkpoint directory; the metadata as written, with its hashes.


    Parameters
    ----------
    path : pathlib.Path
        Directory, made if need be; a checkpoint in it is replaced.
    network : SFNO
    statics : torch.Tensor
        (static, latitude, longitude), normalised as the network takes them.
    metadata : CheckpointMetadata
        Its hashes are ignored and computed anew.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    tensors[_STATICS] = statics.float().contiguous()
    save_file(tensors, path / f"{WEIGHTS}.partial")
    digest = _file_sha256(path / f"{WEIGHTS}.partial")
    content = _to_json(replace(metadata, weights_sha256=digest))
    content["sha256"] = _canonical_sha256(content)
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    (path / f"{METADATA}.partial").write_text(text, encoding="utf-8")
    (path / f"{WEIGHTS}.partial").replace(path / WEIGHTS)
    (path / f"{METADATA}.partial").replace(path / METADATA)
    return read_metadata(path)


def read_metadata(path: Path) -> CheckpointMetadata:
    """The metadata of a checkpoint, its own hash verified; the weights are not read.

    Raises
    ------
    CheckpointError
        If the file is missing, is no checkpoint of a known version, or does not match its hash.
    """
    file = Path(path) / METADATA
    content = _read_json(file)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{file}: format version {version}, expected {FORMAT_VERSION}")
    found = content.pop("sha256", None)
    expected = _canonical_sha256(content)
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
        As `read_metadata`, and if the weights are missing or not those that were recorded.
    """
    metadata = read_metadata(path)
    _verify_weights(Path(path) / WEIGHTS, metadata.weights_sha256)
    return metadata.hash


def load_checkpoint(path: Path, micro_batch: int = 1, device: str = "cpu") -> NeuralForecaster:
    """The forecaster that a checkpoint holds, ready to step.

    Parameters
    ----------
    path : pathlib.Path
        Checkpoint directory.
    micro_batch : int
        Members per pass through the network. One is fastest on a CPU core, and makes a member's
        forecast the same, bit for bit, in any batch.
    device : str
        Where the network is to be, as torch names it.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated, of another version, does not match its hash, or holds
        tensors that do not fit the architecture; the message names file, expected and found.
    """
    metadata = read_metadata(path)
    network, _ = load_network(path, metadata)
    scales = (metadata.mean, metadata.std, metadata.tendency_std)
    return NeuralForecaster(
        network=network.requires_grad_(False).eval().to(device),
        normalisation=Normalisation(*(torch.tensor(scale, device=device) for scale in scales)),
        channels=metadata.channels,
        grid=metadata.grid,
        timestep=metadata.timestep,
        micro_batch=micro_batch,
    )


def load_network(path: Path, metadata: CheckpointMetadata) -> tuple[SFNO, torch.Tensor]:
    """The bare network of a checkpoint and its statics, (static, latitude, longitude).

    Raises
    ------
    CheckpointError
        As `load_checkpoint`.
    """
    file = Path(path) / WEIGHTS
    _verify_weights(file, metadata.weights_sha256)
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors: {error}") from error
    expected = (len(metadata.statics), *metadata.grid.shape)
    statics = tensors.pop(_STATICS, torch.empty(0))
    _check_shape(file, _STATICS, tuple(statics.shape), expected)
    network = SFNO(metadata.architecture, statics)
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else None
        _check_shape(file, name, found, tuple(wanted[name].shape) if name in wanted else None)
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    return network, statics


def _check_shape(
    file: Path, name: str, found: tuple[int, ...] | None, expected: tuple[int, ...] | None
) -> None:
    if found != expected:
        raise CheckpointError(
            f"{file}: tensor {name!r} has shape {found or 'none'}, "
            f"the architecture expects {expected or 'none'}"
        )


def _verify_weights(file: Path, expected: str) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file}: missing")
    found = _file_sha256(file)
    if found != expected:
        raise CheckpointError(f"{file}: SHA-256 is {found}, expected {expected}")


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _canonical_sha256(content: dict) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_json(file: Path) -> dict:
    if not file.is_file():
        raise CheckpointError(f"{file}: missing")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def _to_json(metadata: CheckpointMetadata) -> dict:
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
