import os
from pathlib import Path

import pytest
import xarray as xr

from data.errors import StoreError
from pipelines.labels import SOURCE, open_labelled, replace_whole, write_labelled


def ours(value: float) -> xr.Dataset:
    return xr.Dataset(
        {"x": ("name", [value])}, {"name": ["with a blank"]}, attrs={"source": SOURCE}
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(target: Path, write, message: str) -> None:
    """The target cannot be replaced, and nothing changes."""
    before = contents(target.parent)
    with pytest.raises(StoreError, match=message):
        replace_whole(target, write)
    assert contents(target.parent) == before


def as_text(text: str):
    return lambda draft: draft.write_text(text)


def as_folder(draft: Path) -> None:
    ours(3.0).drop_vars("name").to_zarr(draft, zarr_format=3, consolidated=False)


def test_what_we_wrote_is_replaced_and_nothing_else_is_left(tmp_path):
    for value in (1.0, 2.0):
        write_labelled(ours(value), tmp_path / "a.zarr")
        replace_whole(tmp_path / "a.csv", as_text(f"column\n{value}\n"))
    assert open_labelled(tmp_path / "a.zarr").x.item() == 2.0
    assert open_labelled(tmp_path / "a.zarr").name.item() == "with a blank"
    assert (tmp_path / "a.csv").read_text() == "column\n2.0\n"
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.zarr"]


def test_a_folder_of_others_is_never_removed(tmp_path):
    target = tmp_path / "scores.zarr"
    target.mkdir()
    (target / "thesis.txt").write_text("the only copy")
    refused(target, as_folder, "scores.zarr: was not written by myriadcast, nothing was changed")
    foreign = tmp_path / "other.zarr"
    ours(1.0).drop_vars("name").drop_attrs().to_zarr(foreign, zarr_format=3, consolidated=False)
    refused(foreign, as_folder, "other.zarr: was not written by myriadcast")


def test_a_file_of_others_is_never_replaced(tmp_path):
    target = tmp_path / "scores.csv"
    target.write_text("my own notes\n")
    refused(target, as_text("score,value\n"), "is another file than myriadcast writes")
    refused(target, as_folder, "is another file than myriadcast writes")


def test_a_file_does_not_replace_a_folder_nor_what_a_link_points_to(tmp_path):
    write_labelled(ours(1.0), tmp_path / "a.zarr")
    refused(tmp_path / "a.zarr", as_text("text"), "is a folder, expected a file")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    refused(tmp_path / "link.zarr", as_folder, "was not written by myriadcast")


@pytest.mark.parametrize("below", ["file/scores.zarr", "file/deeper/scores.zarr"])
def test_a_parent_that_is_a_file_is_one_clear_error(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="cannot be written"):
        replace_whole(tmp_path / below, as_folder)
    assert contents(tmp_path) == {"file": b"mine"}


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    replace_whole(tmp_path / "a.csv", as_text("column\n1\n"))

    def fail(draft: Path) -> None:
        draft.write_text("column\nhalf")
        raise OSError("disk full")

    refused(tmp_path / "a.csv", fail, "cannot be written: disk full")
