"""Shards: zarr reads what is encoded here, and finds what is not there."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from pipelines.shards import COMPRESSOR, encoded

SHAPES = {
    "leads": ((2, 8, 5, 4, 8), (1, 4, 2, 4, 8), (1, 4, 6, 4, 8)),
    "windows": ((2, 8, 5, 4, 8), (1, 4, 1, 4, 8), (1, 4, 2, 4, 8)),
    "tiles": ((2, 8, 5, 7, 10), (1, 4, 1, 4, 4), (1, 4, 5, 8, 12)),
    "members": ((2, 7, 5, 4, 8), (1, 2, 5, 4, 8), (1, 4, 5, 4, 8)),
}


def array(folder: Path, shape: str) -> zarr.Array:
    """An empty array on disk."""
    whole, chunk, shard = SHAPES[shape]
    return zarr.create_array(
        folder, shape=whole, chunks=chunk, shards=shard, dtype="float32", fill_value=np.nan,
        compressors=COMPRESSOR,
    )  # fmt: skip


def written(folder: Path, shape: str, values: np.ndarray, place: tuple[int, int, int]) -> list[str]:
    """The names of the shards, which are in their places."""
    shards = encoded(values, place, *SHAPES[shape][1:])
    for name, content in shards.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return sorted(shards)


@pytest.mark.parametrize("shape", SHAPES)
def test_zarr_reads_the_values_at_their_place_and_nothing_elsewhere(
    tmp_path: Path, shape: str
) -> None:
    found = array(tmp_path, shape)
    expected = np.full(found.shape, np.nan, np.float32)
    rng = np.random.default_rng(1)
    expected[1, 4:] = rng.standard_normal(expected[1, 4:].shape)
    written(tmp_path, shape, expected[1, 4:], (1, 4, 0))
    np.testing.assert_array_equal(found[:], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_files_are_as_long_as_those_that_zarr_writes(tmp_path: Path, shape: str) -> None:
    theirs = array(tmp_path / "theirs", shape)
    values = np.random.default_rng(2).standard_normal(theirs.shape[1:]).astype(np.float32)
    theirs[0, :4] = values[:4]
    names = written(tmp_path / "ours", shape, values[:4], (0, 0, 0))
    files = [file for file in (tmp_path / "theirs" / "c").rglob("*") if file.is_file()]
    assert sorted(file.relative_to(tmp_path / "theirs").as_posix() for file in files) == names
    for name in names:
        sizes = [(tmp_path / who / name).stat().st_size for who in ("ours", "theirs")]
        assert sizes[0] == sizes[1]


def test_later_leads_are_windows_of_their_own(tmp_path: Path) -> None:
    found = array(tmp_path, "windows")
    values = np.random.default_rng(3).standard_normal((4, 5, 4, 8)).astype(np.float32)
    assert written(tmp_path, "windows", values[:, :2], (0, 4, 0)) == ["c/0/1/0/0/0"]
    assert written(tmp_path, "windows", values[:, 2:], (0, 4, 2)) == ["c/0/1/1/0/0", "c/0/1/2/0/0"]
    np.testing.assert_array_equal(found[0, 4:], values)


def test_what_is_not_a_number_takes_no_bytes(tmp_path: Path) -> None:
    found = array(tmp_path, "windows")
    values = np.full((4, 5, 4, 8), np.nan, np.float32)
    values[:, 1] = 1.0
    values[2, 4, 1, 1] = np.inf
    assert written(tmp_path, "windows", values, (0, 0, 0)) == ["c/0/0/0/0/0", "c/0/0/2/0/0"]
    np.testing.assert_array_equal(found[0, :4], values)
    assert encoded(values[:, 2:4], (0, 0, 2), *SHAPES["windows"][1:]) == {}
