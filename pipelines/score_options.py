"""The options of `myriad score` that say how to score, as one object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipelines.options import keep, kept

if TYPE_CHECKING:
    from pipelines.score import ScoreSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])

# Names alone: what they mean (`pipelines.families`) takes seconds to import.
FAMILIES = (
    "decomposition",
    "energy",
    "events",
    "extremes",
    "gaussian",
    "intervals",
    "members",
    "spectra",
)
_OPTIONS = (
    click.option(
        "--channel", multiple=True, expose_value=False, callback=keep,
        help="What to score, once for each; by default every variable of the forecast.",
    ),
    click.option(
        "--missing", type=click.Choice(["propagate", "omit"]), default="propagate",
        show_default=True, expose_value=False, callback=keep,
        help="Missing members or truth make a score missing, or are left out with true counts.",
    ),
    click.option(
        "--family", multiple=True, type=click.Choice(FAMILIES), expose_value=False, callback=keep,
        help="Scores beside the usual ones, once for each.",
    ),
    click.option(
        "--mask", metavar="FILE:VARIABLE", expose_value=False, callback=keep,
        help="Weights of cells beside their area, for example the share of land.",
    ),
    click.option(
        "--member-blocks", type=click.IntRange(128), expose_value=False, callback=keep,
        help="Hold only so many members in memory; the CRPS is then the mean over such blocks.",
    ),
    click.option(
        "--exchangeable", is_flag=True, expose_value=False, callback=keep,
        help="Declare that blocks may take members in their order, whatever their checkpoint.",
    ),
)  # fmt: skip


def score_options(command: _Command) -> _Command:
    """Give a command the options that `score_settings` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def score_settings(threads: int) -> ScoreSettings:
    """What the options of the command at work say.

    Raises
    ------
    InputError
        If there is no such mask.
    click.UsageError
        If members are declared exchangeable but not cut into blocks.
    """
    from pipelines.masks import open_mask
    from pipelines.members import ALL_MEMBERS, MemberBlocks
    from pipelines.score import ScoreSettings
    from scoring.statistic import OMIT, PROPAGATE

    names = ("channel", "family", "missing", "mask", "member_blocks", "exchangeable")
    channel, family, missing, mask, blocks, exchangeable = map(kept, names)
    if exchangeable and not blocks:
        raise click.UsageError("--exchangeable says how to cut --member-blocks, give both")
    return ScoreSettings(
        channels=channel,
        missing=OMIT if missing == "omit" else PROPAGATE,
        mask=open_mask(mask) if mask else None,
        members=MemberBlocks(blocks, exchangeable) if blocks else ALL_MEMBERS,
        threads=threads,
        families=tuple(dict.fromkeys(family)),
    )
