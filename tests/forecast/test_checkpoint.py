"""Checkpoints come back as they were, and damage is named."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import CheckpointError
from data.key import Key
from forecast.checkpoint import load_checkpoint, save_checkpoint
from forecast.metadata import canonical_sha256, checkpoint_hash, file_sha256, read_metadata
from tests.forecast.conftest import CHANNELS, GRID, metadata_of, state_of, statics


def rewrite(path, **changes):
    """Change entries of the JSON file and make its own hash right again."""
    file = path / "checkpoint.json"
    content = json.loads(file.read_text())
    del content["sha256"]
    content |= changes
    content["sha256"] = canonical_sha256(content)
    file.write_text(json.dumps(content))


def replace_weights(path, change):
    """Change the tensors and record the new file's hash as the right one."""
    file = path / "weights.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    rewrite(path, weights_sha256=file_sha256(file))


def test_loaded_forecaster_steps_exactly_as_the_saved_one(checkpoint, forecaster):
    state = state_of((0, 1))
    found = load_checkpoint(checkpoint).step(state, Key(1)).fields
    assert torch.equal(found, forecaster.step(state, Key(1)).fields)


def test_stochastic_checkpoint_comes_back(tmp_path, stochastic_network, stochastic):
    save_checkpoint(tmp_path, stochastic_network, statics(), metadata_of(stochastic_network))
    state = state_of((0, 1))
    assert read_metadata(tmp_path).stochastic
    found = load_checkpoint(tmp_path).step(state, Key(1)).fields
    assert torch.equal(found, stochastic.step(state, Key(1)).fields)


def test_metadata_come_back_as_they_were_written(checkpoint, network):
    found, written = read_metadata(checkpoint), metadata_of(network)
    for name in ("architecture", "channels", "grid", "timestep", "mean", "rmse_48h", "provenance"):
        assert getattr(found, name) == getattr(written, name), name
    assert (found.channels, found.grid, found.stochastic) == (CHANNELS, GRID, False)


def test_hash_names_weights_and_metadata(checkpoint, network, tmp_path):
    first = checkpoint_hash(checkpoint)
    assert first == read_metadata(checkpoint).hash == checkpoint_hash(checkpoint)
    rewrite(checkpoint, rmse_48h=[3.0, 1.6])
    assert checkpoint_hash(checkpoint) != first
    with torch.no_grad():
        network.decoder.bias[0] += 1
    save_checkpoint(tmp_path / "other", network, statics(), metadata_of(network))
    assert checkpoint_hash(tmp_path / "other") != first


@pytest.mark.parametrize("name", ["checkpoint.json", "weights.safetensors"])
def test_missing_file_is_named(checkpoint, name):
    (checkpoint / name).unlink()
    for read in (checkpoint_hash, load_checkpoint):
        with pytest.raises(CheckpointError, match=rf"{re.escape(name)}: missing"):
            read(checkpoint)


def test_truncated_weights_are_refused(checkpoint):
    file = checkpoint / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    for read in (checkpoint_hash, load_checkpoint):
        with pytest.raises(CheckpointError, match=r"weights.safetensors: SHA-256 is .*, expected"):
            read(checkpoint)


def test_one_flipped_bit_is_refused(checkpoint):
    file = checkpoint / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_checkpoint(checkpoint)


def test_truncated_metadata_are_refused(checkpoint):
    file = checkpoint / "checkpoint.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(CheckpointError, match=r"checkpoint.json: cannot be read as JSON"):
        load_checkpoint(checkpoint)


def test_changed_metadata_are_refused(checkpoint):
    file = checkpoint / "checkpoint.json"
    file.write_text(file.read_text().replace("270.0", "271.0"))
    with pytest.raises(CheckpointError, match=r"checkpoint.json: content has SHA-256"):
        read_metadata(checkpoint)


def test_unknown_format_version_is_refused(checkpoint):
    rewrite(checkpoint, format_version=99)
    with pytest.raises(CheckpointError, match="format version 99, expected 1"):
        read_metadata(checkpoint)


def test_missing_metadata_are_refused(checkpoint):
    rewrite(checkpoint, grid={"kind": "legendre-gauss"})
    with pytest.raises(CheckpointError, match="incomplete or wrong"):
        read_metadata(checkpoint)


def test_weights_that_do_not_fit_are_refused(checkpoint):
    replace_weights(checkpoint, lambda t: t.update({"decoder.bias": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"'decoder.bias' has shape \(3,\).*expects \(2,\)"):
        load_checkpoint(checkpoint)


def test_missing_weights_are_refused(checkpoint):
    replace_weights(checkpoint, lambda t: t.pop("encoder.weight"))
    with pytest.raises(CheckpointError, match=r"'encoder.weight' has shape none"):
        load_checkpoint(checkpoint)


def test_statics_that_do_not_fit_are_refused(checkpoint):
    replace_weights(checkpoint, lambda t: t.update({"statics": torch.zeros(1, 3, 4)}))
    with pytest.raises(CheckpointError, match=r"'statics' has shape \(1, 3, 4\)"):
        load_checkpoint(checkpoint)


def test_file_that_is_no_safetensors_is_refused_even_with_a_matching_hash(checkpoint):
    file = checkpoint / "weights.safetensors"
    file.write_bytes(b"not tensors at all")
    rewrite(checkpoint, weights_sha256=file_sha256(file))
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_checkpoint(checkpoint)


def test_what_cannot_be_read_is_named(checkpoint, monkeypatch):
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: cannot be read"):
        read_metadata(checkpoint / ("a" * 300))

    def refused(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("forecast.metadata.file_sha256", refused)
    file = checkpoint / "weights.safetensors"
    with pytest.raises(CheckpointError, match=f"^{file}: cannot be read: Permission denied$"):
        checkpoint_hash(checkpoint)
