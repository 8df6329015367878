"""The forecast store: its layout, its markers, and who may open it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data.channel import channel
from data.errors import StoreError
from data.grid import Grid
from data.key import Key
from perturb.member import Pairing, roster
from pipelines.layout import Layout, member_coordinates
from pipelines.shards import checksum
from pipelines.store import Marker, Store, open_store, unit_name

GRID = Grid("legendre-gauss", 8, 16)
CHANNELS = ("z500", "t850")
MEMBERS, BLOCK, LEADS = 5, 2, 3


def layout(fingerprint: str = "one", lossless: bool = False) -> Layout:
    init_times = tuple(np.array(["2006-01-05", "2006-01-07"], dtype="datetime64[s]"))
    return Layout(
        channels=CHANNELS,
        grid=GRID,
        init_times=init_times,
        lead_times=np.arange(LEADS) * np.timedelta64(6, "h"),
        members=member_coordinates(roster(MEMBERS, 2, Pairing.PAIRS, "bred_vectors"), ("a", "b")),
        block=BLOCK,
        lossless=lossless,
        attributes={"fingerprint": fingerprint, "Conventions": "CF-1.11"},
    )


def fields(init: int, block: int) -> np.ndarray:
    count = min(BLOCK, MEMBERS - block * BLOCK)
    shape = (count, len(CHANNELS), LEADS, *GRID.shape)
    return 250 + 10 * (Key(1) / init / block).normal(shape)


def filled(path: Path, lossless: bool = False) -> Store:
    store = Store(path, layout(lossless=lossless))
    store.create()
    for init in range(2):
        for block in range(3):
            shards = store.write(init, block, fields(init, block))
            store.mark(Marker(unit_name(init, block), "digest", (), shards))
    store.complete()
    return store


def test_xarray_opens_the_store_without_options_and_finds_what_was_written(tmp_path: Path) -> None:
    filled(tmp_path / "a.zarr", lossless=True)
    with xr.open_zarr(tmp_path / "a.zarr", consolidated=False) as dataset:
        assert dataset.z500.dims == ("init_time", "number", "lead_time", "latitude", "longitude")
        assert dataset.lead_time.values[1] == np.timedelta64(6, "h")
        assert dataset.valid_time.values[1, 2] == np.datetime64("2006-01-07T12")
        assert dataset.z500.attrs["standard_name"] == "geopotential"
        found = dataset.t850.isel(init_time=1, number=slice(2, 4)).values
        np.testing.assert_array_equal(found, fields(1, 1)[:, 1])
        last = dataset.z500.isel(init_time=0, number=slice(4, 5)).values
        np.testing.assert_array_equal(last, fields(0, 2)[:, 0])


def test_plain_open_zarr_needs_no_option_at_all(tmp_path: Path) -> None:
    filled(tmp_path / "a.zarr")
    with xr.open_zarr(tmp_path / "a.zarr") as dataset:
        assert tuple(dataset.data_vars) == CHANNELS


def test_members_are_told_apart_by_coordinates_along_number(tmp_path: Path) -> None:
    filled(tmp_path / "a.zarr")
    with open_store(tmp_path / "a.zarr") as dataset:
        assert dataset.checkpoint.values.tolist() == [0, 0, 0, 1, 1]
        assert dataset.sign.values.tolist() == [0, 1, -1, 1, -1]
        assert dataset.pair.values.tolist() == [-1, 0, 0, 1, 1]
        assert dataset.checkpoint.attrs["flag_meanings"] == "a b"
        assert dataset.completed.values.all()


def test_values_are_rounded_to_the_quantum_that_the_attributes_name(tmp_path: Path) -> None:
    filled(tmp_path / "a.zarr")
    with open_store(tmp_path / "a.zarr") as dataset:
        for index, name in enumerate(CHANNELS):
            quantum = dataset[name].attrs["quantum"]
            assert quantum == channel(name).quantum
            steps = dataset[name].values / quantum
            np.testing.assert_array_equal(steps, np.round(steps))
            found = dataset[name].isel(init_time=0, number=slice(0, 2)).values
            assert np.abs(found - fields(0, 0)[:, index]).max() <= quantum / 2


def test_the_same_experiment_takes_the_store_up_again(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.zarr")
    before = open_store(store.path).load()
    store.create()
    xr.testing.assert_identical(open_store(store.path).load(), before)
    assert len(store.markers()) == 6


def test_another_experiments_store_is_left_untouched(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.zarr")
    before = open_store(store.path).load()
    with pytest.raises(StoreError, match="another experiment"):
        Store(store.path, layout("two")).create()
    xr.testing.assert_identical(open_store(store.path).load(), before)


def test_it_is_said_in_what_another_experiment_differs(tmp_path: Path) -> None:
    def of(step: str, members: int) -> Store:
        content = {"experiment": {"members": members}, "versions": {"network step": step}}
        identity = {"identity": json.dumps(content), "fingerprint": step + str(members)}
        return Store(tmp_path / "a.zarr", replace(layout(), attributes=identity))

    assert not of("C", 3).check()
    of("C", 3).create()
    assert of("C", 3).check()
    with pytest.raises(StoreError, match=r'versions\.network step is "C" there, "torch" here\)'):
        of("torch", 3).check()
    with pytest.raises(StoreError, match=r"\(experiment\.members is 3 there, 4 here\)"):
        of("C", 4).create()


def test_something_else_at_the_target_is_left_untouched(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="no forecast store"):
        Store(tmp_path / "a.zarr", layout()).create()
    assert (tmp_path / "a.zarr" / "thesis.txt").read_text() == "years of work"


def test_a_target_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "a.zarr", layout()).create()


def test_a_damaged_shard_is_replaced_and_litter_swept(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.zarr")
    before = open_store(store.path).load()
    shard = next(path for path in (store.path / "z500/c/0/1").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:50])
    litter = store.path / "completed/units/1234.partial"
    litter.write_bytes(b"half")
    store.create()
    store.write(0, 1, fields(0, 1))
    xr.testing.assert_identical(open_store(store.path).load(), before)
    assert not list(store.path.rglob("*.partial"))


def test_a_marker_names_its_unit_fingerprint_and_the_checksums_of_its_shards(
    tmp_path: Path,
) -> None:
    store = filled(tmp_path / "a.zarr")
    marker = json.loads((store.path / "completed/units/00001-00002.json").read_text())
    assert (marker["unit"], marker["fingerprint"]) == ("00001-00002", "digest")
    assert set(marker["shards"]) == {f"{name}/c/1/2/0/0/0" for name in CHANNELS}
    for name, expected in marker["shards"].items():
        assert checksum((store.path / name).read_bytes()) == expected


def test_no_store_is_said_to_be_there_when_none_is(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store is there"):
        open_store(tmp_path / "none.zarr")


def test_chunks_tile_large_globes_and_hold_all_members_of_a_unit() -> None:
    small = layout()
    assert small.chunk == (1, BLOCK, LEADS, *GRID.shape)
    large = Layout(
        CHANNELS, Grid("equiangular", 721, 1440), small.init_times, small.lead_times,
        small.members, 8, False, {},
    )  # fmt: skip
    chunk, shard = large.chunk, large.shard
    assert chunk[1] == 8
    assert 4 * np.prod(chunk) <= 2**19
    assert all(outer % inner == 0 for outer, inner in zip(shard, chunk, strict=True))
    assert shard[3] >= 721
    assert shard[4] >= 1440
