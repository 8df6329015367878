"""Checkpoints: a directory with `weights.safetensors` and `checkpoint.json`.

Nothing in a checkpoint is ever executed or unpickled. The JSON file holds the SHA-256 of the
weights and of its own canonical content, so that one short hash names the whole forecaster.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from data.errors import CheckpointError
from forecast.dataset import Normalisation
from forecast.metadata import (
    METADATA,
    WEIGHTS,
    CheckpointMetadata,
    canonical_sha256,
    file_sha256,
    read_metadata,
    to_json,
    verify_weights,
)
from forecast.neural import NeuralForecaster
from forecast.sfno import SFNO

_STATICS = "statics"


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
    digest = file_sha256(path / f"{WEIGHTS}.partial")
    content = to_json(replace(metadata, weights_sha256=digest))
    content["sha256"] = canonical_sha256(content)
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    (path / f"{METADATA}.partial").write_text(text, encoding="utf-8")
    (path / f"{WEIGHTS}.partial").replace(path / WEIGHTS)
    (path / f"{METADATA}.partial").replace(path / METADATA)
    return read_metadata(path)


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
    verify_weights(file, metadata.weights_sha256)
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
