"""What every perturbation is: something that turns one analysis into many members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from data.channel import channel
from data.errors import InputError
from data.key import Key
from data.state import State
from perturb.member import Member

POSITIVE = frozenset(
    {
        "specific_humidity",
        "precipitation_amount",
        "atmosphere_mass_content_of_water_vapor",
        "wind_speed",
    }
)


class Perturbation(Protocol):
    """Turns the analysis of an init time into the initial states of members; pure.

    A new one defines `increments` and inherits `perturb`.
    """

    def increments(self, state: State, key: Key, members: Sequence[Member]) -> torch.Tensor:
        """What is added to the analysis, before the sign.

        Parameters
        ----------
        state : State
            The analysis: one member.
        key : Key
            Key of the run and init time; a member draws at ``member.draws_at(key)`` and below.
        members : sequence of Member
            Members with a sign; partners of a pair have equal rows.

        Returns
        -------
        torch.Tensor
            (member, channel, latitude, longitude), physical units. A row depends on `state`,
            `key` and its own member only, bit for bit.
        """
        ...

    def perturb(self, state: State, key: Key, members: Sequence[Member]) -> State:
        """The initial states of these members, in this order, at the analysis time.

        Members of sign 0 (the control among them) get the analysis untouched. Parameters as in
        `increments`. Channels that cannot be negative are clipped at zero after the sign.

        Raises
        ------
        InputError
            If `state` holds more than one member.
        """
        if len(state.numbers) != 1:
            raise InputError(
                f"analysis at {state.valid_time}: {len(state.numbers)} members, expected one"
            )
        fields = state.fields.repeat(len(members), 1, 1, 1)
        rows = [row for row, member in enumerate(members) if member.sign]
        if rows:
            moved = [members[row] for row in rows]
            increments = self.increments(state, key, moved)
            fields[rows] = _displaced(state, increments, [member.sign for member in moved])
        return state.with_members(fields, tuple(member.number for member in members))


class Unperturbed(Perturbation):
    """Leaves the analysis alone: members differ by checkpoint or by their forecaster's noise."""

    def increments(self, state: State, key: Key, members: Sequence[Member]) -> torch.Tensor:
        """Zeros."""
        return state.fields.new_zeros((len(members), *state.fields.shape[1:]))


@dataclass(frozen=True)
class Compose(Perturbation):
    """Several perturbations at once: the sum of their increments about the same analysis.

    Each part draws below its own place in the list, so that two of a kind are independent. The
    sign of a member turns all of them together, and clipping comes after the sum.

    Parameters
    ----------
    parts : tuple of Perturbation
    """

    parts: tuple[Perturbation, ...]

    def increments(self, state: State, key: Key, members: Sequence[Member]) -> torch.Tensor:
        """Sum over the parts, part i drawing below ``key / "part" / i``."""
        total = Unperturbed().increments(state, key, members)
        for place, part in enumerate(self.parts):
            total += part.increments(state, key / "part" / place, members)
        return total


def once_per_draw(
    members: Sequence[Member], draw: Callable[[Sequence[Member]], torch.Tensor]
) -> torch.Tensor:
    """One row per member from `draw`, which is asked for each draw once.

    Parameters
    ----------
    members : sequence of Member
    draw : callable
        Takes one member for each distinct (checkpoint, seed), gives as many rows.
    """
    identities = [(member.checkpoint, member.seed) for member in members]
    first = dict(zip(reversed(identities), reversed(members), strict=True))
    row = {identity: place for place, identity in enumerate(first)}
    return draw(list(first.values()))[[row[identity] for identity in identities]]


def _displaced(state: State, increments: torch.Tensor, signs: Sequence[int]) -> torch.Tensor:
    """Analysis plus signed increments, (member, channel, latitude, longitude), clipped at zero.

    Where the analysis itself is below zero (as packed archives are by a little), the analysis is
    the limit.
    """
    sign = torch.tensor(signs, dtype=state.fields.dtype, device=state.fields.device)
    fields = state.fields + sign[:, None, None, None] * increments
    for index, name in enumerate(state.channels):
        if channel(name).standard_name in POSITIVE:
            limit = state.fields[:, index].clamp(max=0.0)
            fields[:, index] = torch.maximum(fields[:, index], limit)
    return fields
