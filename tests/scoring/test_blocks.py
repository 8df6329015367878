"""Blocks of members against the whole ensemble, which fits into memory here."""

import numpy as np
import pytest
import xarray as xr

from data.errors import InputError, StoreError
from scoring.blocks import EXCHANGEABLE, BlockScores, Strata, stratified_blocks
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED, AlmostFair, SubEnsemble
from scoring.moments import (
    AbsoluteError,
    EnsembleMean,
    ExpectedSquaredError,
    MeanError,
    SquaredError,
    UnbiasedSquaredError,
    Variance,
)
from scoring.statistic import OMIT, evaluate_arrays
from scoring.tile import Structure

MEMBERS, CELLS = 1024, (5, 40)
GROUPS = np.repeat([0, 1, 2, 3], MEMBERS // 4)
STRUCTURE = Structure(GROUPS, np.arange(MEMBERS) // 2)
EXACT = (
    EnsembleMean(), MeanError(), AbsoluteError(), SquaredError(), Variance(),
    ExpectedSquaredError(), UnbiasedSquaredError(),
)  # fmt: skip


def ensemble() -> tuple[np.ndarray, np.ndarray]:
    """Checkpoints with offsets, each with +- pairs, far from 0, (member, *cells); and truth."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(MEMBERS // 2, *CELLS))
    signed = np.stack([draws, -draws], axis=1).reshape(MEMBERS, *CELLS)
    offsets = rng.normal(0.0, 1.0, (4, *CELLS))
    return 54_000 + 60 * (signed + offsets[GROUPS]), 54_000 + 60 * rng.normal(0.0, 1.4, CELLS)


def blocks_of(places: list[np.ndarray], strata: Strata) -> list[BlockScores]:
    members, truth = ensemble()
    return [
        BlockScores.of(
            members[place],
            truth,
            Structure(STRUCTURE.groups[place], STRUCTURE.pairs[place]),
            strata,
        )
        for place in places
    ]


def merged(parts: list[BlockScores]) -> BlockScores:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def test_every_member_is_dealt_once_and_every_checkpoint_in_its_share():
    for groups in (GROUPS, np.repeat([7, 3, 5], (300, 501, 223)), np.zeros(130, int)):
        places = stratified_blocks(groups)
        assert min(place.size for place in places) >= 126
        np.testing.assert_array_equal(np.sort(np.concatenate(places)), np.arange(groups.size))
        for place in places:
            Strata.of(groups).check(groups[place])


def test_checkpoints_give_their_surplus_to_different_blocks():
    places = stratified_blocks(np.repeat([0, 1], 129))
    assert [place.size for place in places] == [129, 129]


@pytest.mark.parametrize(("own", "fair"), [(32, True), (33, True), (34, False), (30, False)])
def test_a_block_may_have_one_member_more_or_less_or_a_twentieth(own, fair):
    few = np.repeat([0, 1], [own, 128 - own])  # a twentieth of 32 is 1.6
    many = np.repeat([0, 1], [10 * own, 1280 - 10 * own])  # and of 320 is 16
    for groups in (few, many):
        if fair:
            Strata({0: 0.25, 1: 0.75}).check(groups)
        else:
            with pytest.raises(InputError, match="its share of the ensemble"):
                Strata({0: 0.25, 1: 0.75}).check(groups)
    Strata({0: 0.05, 1: 0.95}).check(np.repeat([0, 1], [5, 95]))
    Strata({0: 0.05, 1: 0.95}).check(np.repeat([0, 1], [6, 94]))


def test_a_small_ensemble_is_one_block_and_small_blocks_are_refused():
    [place] = stratified_blocks(GROUPS[::64])
    np.testing.assert_array_equal(place, np.arange(16))
    with pytest.raises(InputError, match="at least 128 members, found 100"):
        stratified_blocks(GROUPS, 100)


def test_moments_of_the_whole_ensemble_are_exact_in_any_order_and_grouping():
    members, truth = ensemble()
    expected = evaluate_arrays(EXACT, members, truth)
    # In natural order, so that means of blocks differ.
    parts = blocks_of(list(np.arange(MEMBERS).reshape(8, 128)), EXCHANGEABLE)
    orders = [np.arange(8), np.random.default_rng(1).permutation(8)]
    totals = [merged([parts[place] for place in order]) for order in orders]
    totals.append(merged(parts[:3]) + (parts[3] + merged(parts[4:])))
    for total in totals:
        assert total.members == MEMBERS
        for statistic in EXACT:
            found = total.statistics()[statistic]
            np.testing.assert_allclose(found, expected[statistic], rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("estimator", [STRATIFIED, FAIR, STANDARD, AlmostFair(), SubEnsemble(10)])
def test_crps_over_blocks_is_that_of_the_ensemble(estimator):
    members, truth = ensemble()
    score = CRPS(estimator)
    exact = evaluate_arrays((score,), members, truth, structure=STRUCTURE)[score]
    total = merged(blocks_of(stratified_blocks(GROUPS), Strata.of(GROUPS)))
    found = total.statistics((estimator,))[score]
    assert found.mean() == pytest.approx(exact.mean(), rel=5e-4)
    assert abs(found - exact).max() < 0.05 * exact.mean()


@pytest.mark.parametrize(
    "structure",
    [STRUCTURE, Structure.independent(MEMBERS), Structure(GROUPS, np.full(MEMBERS, -1))],
    ids=["both", "independent", "checkpoints"],
)
def test_one_block_of_all_members_is_exact(structure):
    members, truth = ensemble()
    scores = [CRPS(estimator) for estimator in (STRATIFIED, FAIR, STANDARD, SubEnsemble(10))]
    exact = evaluate_arrays(scores, members, truth, structure=structure)
    block = BlockScores.of(members, truth, structure, EXCHANGEABLE)
    for score in scores:
        np.testing.assert_allclose(block.crps(score.estimator), exact[score], rtol=1e-9)


def test_partners_have_the_share_that_they_have_in_the_ensemble():
    """A mean of the blocks' own fair scores counts them 8 times too often."""
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(MEMBERS // 2, 5000))
    members = np.stack([draws, -draws], axis=1).reshape(MEMBERS, 5000)
    pairs, truth = np.arange(MEMBERS) // 2, np.zeros(5000)
    exact = evaluate_arrays((CRPS(FAIR),), members, truth)[CRPS(FAIR)].mean()
    places = np.arange(MEMBERS).reshape(8, 128)
    total, naive = [], []
    for place in places:
        structure = Structure(np.zeros(128, int), pairs[place])
        total.append(BlockScores.of(members[place], truth, structure, EXCHANGEABLE))
        naive.append(total[-1].crps(FAIR).mean())
    assert merged(total).crps(FAIR).mean() == pytest.approx(exact, rel=1e-4)
    assert abs(np.mean(naive) / exact - 1) > 5e-3


def test_blocks_in_the_order_of_checkpoints_are_refused_unless_declared_exchangeable():
    natural = list(np.arange(MEMBERS).reshape(8, 128))
    message = "has 128 of checkpoint 0, expected 32, its share"
    with pytest.raises(InputError, match=message):
        blocks_of(natural, Strata.of(GROUPS))
    members, truth = ensemble()
    exact = evaluate_arrays((CRPS(FAIR),), members, truth)[CRPS(FAIR)].mean()
    wrong = merged(blocks_of(natural, EXCHANGEABLE)).statistics()[CRPS(FAIR)].mean()
    assert wrong > 1.1 * exact  # why they are refused


def test_missing_members_cannot_be_left_out():
    members, truth = ensemble()
    with pytest.raises(InputError, match="omit needs all members"):
        BlockScores.of(members, truth, STRUCTURE, EXCHANGEABLE, missing=OMIT)


def test_blocks_with_a_missing_truth_merge():
    members, truth = ensemble()
    truth[2, 3] = np.nan
    one, two = (
        BlockScores.of(members[some], truth, Structure.independent(512), EXCHANGEABLE)
        for some in (slice(512), slice(512, None))
    )
    assert np.argwhere(np.isnan((one + two).crps(FAIR))).tolist() == [[2, 3]]


def test_blocks_of_another_truth_do_not_merge():
    members, truth = ensemble()
    first = BlockScores.of(members, truth, STRUCTURE, EXCHANGEABLE)
    other = BlockScores.of(members, truth + 1, STRUCTURE, EXCHANGEABLE)
    with pytest.raises(InputError, match="different truths"):
        first + other


def test_scores_of_blocks_survive_a_save_and_load(tmp_path):
    parts = blocks_of(stratified_blocks(GROUPS), Strata.of(GROUPS))
    merged(parts[:3]).save(tmp_path / "blocks.zarr")
    total = BlockScores.load(tmp_path / "blocks.zarr") + merged(parts[3:])
    expected = merged(parts).statistics((FAIR, STRATIFIED))
    assert total.members == MEMBERS
    for statistic, found in total.statistics((FAIR, STRATIFIED)).items():
        np.testing.assert_allclose(found, expected[statistic], rtol=1e-12)
    with pytest.raises(StoreError, match="no scores of blocks"):
        BlockScores.load(tmp_path / "nothing.zarr")
    xr.Dataset({"x": 1.0}).to_zarr(tmp_path / "x.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(StoreError, match="no scores of blocks"):
        BlockScores.load(tmp_path / "x.zarr")
