"""The roster: identities that follow from the experiment alone."""

from collections import Counter
from itertools import groupby, pairwise

import pytest

from data.errors import ConfigurationError
from data.key import Key
from perturb.member import CONTROL, Member, Pairing, group_by_checkpoint, roster

SHAPES = [(1, 1), (2, 1), (7, 2), (20, 3), (49, 3), (50, 3), (12, 29), (3712, 29), (10_000, 29)]
every_shape = pytest.mark.parametrize(("members", "checkpoints"), SHAPES)
every_pairing = pytest.mark.parametrize("pairing", Pairing)


def test_roster_of_eight_members_on_two_checkpoints():
    assert roster(8, 2, Pairing.PAIRS, "bred") == (
        CONTROL,
        Member(1, 0, "bred", 0, +1, 0),
        Member(2, 0, "bred", 0, -1, 0),
        Member(3, 0, "bred", 1, +1, 1),
        Member(4, 0, "bred", 1, -1, 1),
        Member(5, 1, "bred", 2, +1, 0),
        Member(6, 1, "bred", 2, -1, 0),
        Member(7, 1, "bred", 3, +1, 1),
    )


@every_pairing
@every_shape
def test_numbers_count_up_and_checkpoints_are_contiguous_and_even(members, checkpoints, pairing):
    everyone = roster(members, checkpoints, pairing)
    assert [member.number for member in everyone] == list(range(members))
    assert everyone[0] == CONTROL
    runs = [
        (checkpoint, len(list(run)))
        for checkpoint, run in groupby(everyone[1:], key=lambda member: member.checkpoint)
    ]
    assert [checkpoint for checkpoint, _ in runs] == list(range(min(checkpoints, members - 1)))
    sizes = [size for _, size in runs] + [0] * (checkpoints - len(runs))
    assert max(sizes) - min(sizes) <= 1


@every_shape
def test_pairs_share_their_draw_with_opposite_signs(members, checkpoints):
    pairs: dict[int, list[Member]] = {}
    for member in roster(members, checkpoints, Pairing.PAIRS)[1:]:
        pairs.setdefault(member.pair, []).append(member)
    assert list(pairs) == list(range(len(pairs)))
    for partners in pairs.values():
        assert [member.sign for member in partners] in ([1, -1], [1])
        assert len({(member.checkpoint, member.seed) for member in partners}) == 1
    lonely = Counter(one[0].checkpoint for one in pairs.values() if len(one) == 1)
    assert all(count == 1 for count in lonely.values())


@every_pairing
@every_shape
def test_no_two_pairs_or_singles_share_a_draw(members, checkpoints, pairing):
    others = roster(members, checkpoints, pairing)[1:]
    draws = Counter((member.checkpoint, member.seed) for member in others)
    assert all(count <= len(pairing.signs) for count in draws.values())
    for before, after in pairwise(others):
        if before.checkpoint == after.checkpoint:
            assert after.seed - before.seed in (0, 1)


@pytest.mark.parametrize("pairing", [Pairing.SINGLES, Pairing.NONE])
def test_only_pairs_have_a_pair(pairing):
    members = roster(9, 2, pairing)[1:]
    assert {member.pair for member in members} == {-1}
    assert {member.sign for member in members} == set(pairing.signs)
    assert [member.seed for member in members] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_larger_ensemble_of_one_checkpoint_keeps_the_members_of_a_smaller_one():
    large = roster(100, 1, Pairing.PAIRS, "bred")
    assert all(roster(size, 1, Pairing.PAIRS, "bred") == large[:size] for size in range(1, 100))


def test_partners_and_only_partners_draw_at_one_address():
    members = roster(30, 3, Pairing.PAIRS)[1:]
    addresses = {member.number: member.draws_at(Key(1)) for member in members}
    for one in members:
        for other in members:
            assert (addresses[one.number] == addresses[other.number]) == (one.pair == other.pair)


@pytest.mark.parametrize(("members", "checkpoints"), [(0, 1), (5, 0), (-3, 2)])
def test_an_empty_ensemble_is_refused(members, checkpoints):
    with pytest.raises(ConfigurationError, match="at least one member and one checkpoint"):
        roster(members, checkpoints, Pairing.PAIRS)


def test_grouping_keeps_the_order_and_loses_no_member():
    members = roster(20, 3, Pairing.PAIRS)[::-1]
    groups = group_by_checkpoint(members)
    assert list(groups) == [2, 1, 0]
    assert tuple(member for group in groups.values() for member in group) == members
    assert all(one.checkpoint == index for index, group in groups.items() for one in group)
