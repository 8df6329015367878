import numpy as np
import pytest
import xarray as xr

from scoring.crps import CRPS
from scoring.moments import Variance
from scoring.pieces import pieces
from scoring.statistic import evaluate

DIMS = ("init_time", "number", "lead_time", "latitude", "longitude")


def forecast(shape=(2, 40, 3, 8, 16)) -> xr.DataArray:
    rng = np.random.default_rng(0)
    return xr.DataArray(rng.standard_normal(shape).astype(np.float32), dims=DIMS)


@pytest.mark.parametrize("most", [1, 4 * 40, 4 * 40 * 16 * 3, 4 * 40 * 128, 10**9])
@pytest.mark.parametrize("chunks", [None, {"number": 8, "latitude": 3}, {"lead_time": 2}])
def test_pieces_cover_every_cell_once_and_stay_small(most, chunks):
    array = forecast() if chunks is None else forecast().chunk(chunks)
    covered = np.zeros((2, 3, 8, 16), int)
    for place in pieces(array, "number", most):
        assert "number" not in place
        assert array.isel(place).nbytes <= max(most, 4 * 40)
        covered[tuple(place.values())] += 1
    assert (covered == 1).all()


def test_a_cut_dimension_is_cut_at_its_chunks():
    array = forecast().chunk({"latitude": 3})
    starts = {place["latitude"].start for place in pieces(array, "number", 4 * 40 * 16 * 7)}
    assert starts == {0, 6}


def test_nothing_is_one_empty_piece():
    [place] = pieces(forecast((2, 40, 0, 8, 16)), "number")
    assert forecast((2, 40, 0, 8, 16)).isel(place).size == 0


@pytest.mark.parametrize("chunks", [{"number": 8}, {"number": 7, "lead_time": 1}])
@pytest.mark.parametrize("memory", [1, 4 * 40 * 16, 10**9])
def test_members_in_dask_chunks_are_evaluated_like_an_array(chunks, memory, monkeypatch):
    monkeypatch.setattr("scoring.statistic.PIECE_BYTES", memory)
    members, statistics = forecast(), (CRPS(), Variance())
    truth = members.isel(number=0, drop=True) + 0.1
    expected = evaluate(statistics, members, truth)
    members = members.assign_coords(checkpoint=("number", np.zeros(40, int)))  # in one chunk
    lazy = members.chunk(chunks), truth.chunk({"latitude": 2})
    found = evaluate(statistics, *lazy)
    xr.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_is_in_a_store_is_evaluated_like_an_array(tmp_path, monkeypatch):
    members = forecast().rename("z500")
    members.chunk({"number": 8}).to_zarr(tmp_path / "f.zarr", zarr_format=3, consolidated=False)
    truth = members.isel(number=0, drop=True) + 0.1
    stored = xr.open_zarr(tmp_path / "f.zarr", consolidated=False, chunks=None).z500
    expected = evaluate((CRPS(),), members, truth)
    monkeypatch.setattr("scoring.statistic.PIECE_BYTES", 4 * 40 * 16 * 3)
    xr.testing.assert_allclose(evaluate((CRPS(),), stored, truth), expected, rtol=1e-12)
