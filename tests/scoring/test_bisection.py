"""Searches in many rows at once: compiled and by NumPy, beside numpy.searchsorted."""

import numpy as np
import pytest

from scoring import bisection
from scoring.bisection import count_not_above
from scoring.loops import library

SEARCHES = {
    "numpy": bisection._searched_by_numpy,
    "compiled": pytest.param(
        bisection._searched_by_library,
        marks=pytest.mark.skipif(library() is None, reason="not compiled"),
    ),
}
search_by = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


def drawn(rows, width, each, dtype, seed=3):
    """Rows that ascend with many ties, and values of which many are entries."""
    generator = np.random.default_rng(seed)
    ascending = np.sort(generator.integers(-9, 9, (rows, width)), axis=1).astype(dtype)
    values = generator.integers(-11, 11, (rows, each)).astype(dtype)
    return ascending, values + generator.choice([0, 0.5], values.shape).astype(dtype)


@search_by
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rows", "width", "each"), [(1, 1, 1), (7, 3, 500), (300, 64, 1), (70, 101, 5), (40, 1000, 101)]
)
def test_counts_are_those_of_searchsorted(search, dtype, rows, width, each):
    ascending, values = drawn(rows, width, each, dtype)
    for entries in {1, width // 2, width - 1, width} - {0}:
        expected = [
            np.searchsorted(row[:entries], wanted, side="right")
            for row, wanted in zip(ascending, values, strict=True)
        ]
        found = search(ascending, values, entries)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int32


@search_by
def test_infinities_lie_at_the_ends(search):
    ascending = np.array([[-np.inf, 0, 1, np.inf]])
    values = np.array([[-np.inf, np.nextafter(0, -1), 0, 5, np.inf]])
    np.testing.assert_array_equal(search(ascending, values, 4), [[1, 1, 2, 3, 4]])


@search_by
def test_rows_so_long_that_a_batch_of_places_would_pass_32_bits(search, tmp_path):
    shape = (130, 2**25)
    zeros = np.memmap(tmp_path / "sparse", np.float32, "w+", shape=shape)  # takes no space
    values = np.tile(np.array([[-1], [0]], np.float32), (shape[0] // 2, 1))
    np.testing.assert_array_equal(search(zeros, values, 3), np.where(values < 0, 0, 3))


def test_any_shape_of_values_and_any_strides():
    ascending, values = drawn(24, 30, 6, np.float32)
    expected = count_not_above(ascending, values, 30)
    turned = np.asfortranarray(ascending)
    found = count_not_above(turned, values.reshape(24, 2, 3)[:, ::-1], 30)
    np.testing.assert_array_equal(found[:, ::-1].reshape(24, 6), expected)


def test_no_value_and_no_row():
    ascending = np.zeros((4, 3))
    assert count_not_above(ascending, np.zeros((4, 0)), 3).shape == (4, 0)
    assert count_not_above(ascending[:0], np.zeros((0, 2)), 3).shape == (0, 2)


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="cannot be searched for"):
        count_not_above(np.zeros((1, 3), dtype), np.zeros((1, 1), dtype), 3)
    with pytest.raises(TypeError, match="rows of float64 cannot be searched for float32"):
        count_not_above(np.zeros((1, 3)), np.zeros((1, 1), np.float32), 3)


@pytest.mark.parametrize(
    ("shape", "rows", "entries"), [((2, 3), 2, 4), ((2, 3), 3, 3), ((2, 0), 2, 0), ((2, 3), 2, 0)]
)
def test_what_lies_outside_is_not_read(shape, rows, entries):
    with pytest.raises(ValueError, match=f"{entries} entries of rows"):
        count_not_above(np.zeros(shape), np.zeros((rows, 1)), entries)
