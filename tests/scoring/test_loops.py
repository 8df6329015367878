"""Sums over blocks: compiled and by NumPy, the same to the last bit."""

import numpy as np
import pytest

from scoring import cut
from scoring.cut import block_prefix, block_sums
from scoring.loops import library


def sums_of(cells: int, blocks: int, length: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Values, (cell, block * length), and sums of their blocks."""
    rng = np.random.default_rng([cells, blocks])
    values = np.sort(rng.normal(5, 60, (cells, blocks * length)), axis=1).astype(dtype)
    values[cells // 2] = np.nan
    sums = np.empty((cells, blocks, 2), dtype)
    block_sums(values.reshape(-1, length), sums.reshape(-1, 2))
    return values, sums


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("cells", "blocks"), [(1, 1), (3, 7), (8, 2), (65, 32), (1024, 5)])
def test_prefixes_are_sums_of_the_values_before(cells, blocks, dtype):
    length = 16
    size = blocks * length - 3
    values, sums = sums_of(cells, blocks, length, dtype)
    found = block_prefix(sums, length, size)
    weights = 2 * np.arange(1, blocks * length + 1) - size - 1
    for number in range(blocks + 1):
        before = slice(number * length)
        plain = values[:, before].sum(axis=1, dtype=float)
        ranked = (values[:, before].astype(float) * weights[before]).sum(axis=1)
        digits = {"rtol": 1e-5, "atol": 1e-2} if dtype is np.float32 else {"rtol": 1e-10}
        np.testing.assert_allclose(found[number], [plain, ranked], **digits)
    assert np.isnan(found[1:, :, cells // 2]).all()


@pytest.mark.skipif(library() is None, reason="not compiled")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cells", [1, 7, 8, 100])
def test_the_loop_gives_the_numbers_of_numpy(cells, dtype):
    _, sums = sums_of(cells, 33, 32, dtype)
    arguments = sums, 32, 33 * 32 - 5
    np.testing.assert_array_equal(
        cut._prefix_by_library(*arguments), cut._prefix_by_numpy(*arguments)
    )
    turned = np.asfortranarray(sums), *arguments[1:]
    np.testing.assert_array_equal(cut._prefix_by_library(*turned), cut._prefix_by_numpy(*arguments))
