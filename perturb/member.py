"""Who the members of an ensemble are: identities that follow from the experiment alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from data.errors import ConfigurationError
from data.key import Key


class Pairing(StrEnum):
    """How often, and with which signs, one random draw is used.

    ``PAIRS``: twice, added and subtracted; ``SINGLES``: once, added; ``NONE``: members carry no
    perturbation of the analysis at all (they differ by their checkpoint or by a forecaster's own
    noise).
    """

    PAIRS = "pairs"
    SINGLES = "singles"
    NONE = "none"

    @property
    def signs(self) -> tuple[int, ...]:
        """Signs of the consecutive members that share a draw."""
        return {Pairing.PAIRS: (1, -1), Pairing.SINGLES: (1,), Pairing.NONE: (0,)}[self]


@dataclass(frozen=True, slots=True)
class Member:
    """The identity of one member, the same in whatever block and on whatever worker it runs.

    Attributes
    ----------
    number : int
        Its realization number; 0 is the unperturbed control.
    checkpoint : int
        Index of the checkpoint that forecasts it.
    perturbation : str
        Name of what perturbs its analysis; "control" for number 0.
    pair : int
        Identity of its pair over the whole ensemble; -1 if it belongs to none.
    sign : int
        +1 or -1: the perturbation is added or subtracted; 0: the analysis is left alone.
    seed : int
        Index of its draw among those of its checkpoint, shared within a pair; -1 for the control.
    """

    number: int
    checkpoint: int
    perturbation: str
    pair: int
    sign: int
    seed: int

    def draws_at(self, key: Key) -> Key:
        """Where this member's perturbation is drawn, below the key of the run and init time."""
        return key / "perturbation" / self.checkpoint / self.seed


CONTROL = Member(number=0, checkpoint=0, perturbation="control", pair=-1, sign=0, seed=-1)


def roster(
    members: int, checkpoints: int, pairing: Pairing, perturbation: str = "unperturbed"
) -> tuple[Member, ...]:
    """The members of an ensemble in order of their numbers: ``roster(...)[number]``.

    Number 0 is the control on checkpoint 0. The others are divided over the checkpoints in
    contiguous runs whose lengths differ by at most one, the longer runs first. Within a run,
    consecutive numbers share a draw as `pairing` says; a last one without a partner keeps its
    pair's identity and the sign +1.

    Parameters
    ----------
    members : int
        Size of the ensemble, the control included.
    checkpoints : int
        Number of checkpoints.
    pairing : Pairing
        How draws are shared.
    perturbation : str
        Name that the perturbed members carry.

    Raises
    ------
    ConfigurationError
        If there is no member or no checkpoint.
    """
    if members < 1 or checkpoints < 1:
        raise ConfigurationError(
            f"an ensemble needs at least one member and one checkpoint, not members: {members} "
            f"and checkpoints: {checkpoints}"
        )
    signs = pairing.signs
    everyone, next_pair = [CONTROL], 0
    shortest, longer = divmod(members - 1, checkpoints)
    for checkpoint in range(checkpoints):
        for position in range(shortest + (checkpoint < longer)):
            seed, place = divmod(position, len(signs))
            pair = next_pair + seed if pairing is Pairing.PAIRS else -1
            number = len(everyone)
            everyone.append(Member(number, checkpoint, perturbation, pair, signs[place], seed))
        next_pair = max(next_pair, everyone[-1].pair + 1)
    return tuple(everyone)


def group_by_checkpoint(members: Iterable[Member]) -> dict[int, tuple[Member, ...]]:
    """The members of each checkpoint, checkpoints and members in the order they come."""
    groups: dict[int, list[Member]] = {}
    for member in members:
        groups.setdefault(member.checkpoint, []).append(member)
    return {checkpoint: tuple(group) for checkpoint, group in groups.items()}
