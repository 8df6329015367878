"""What all settings share, and those of what a run keeps: members in a store, and statistics."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from data.channel import channel
from data.errors import InputError

_UNITS = {"h": 1, "d": 24}
_LONGEST_HOURS = 24 * 3660
_ISO_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}(:\d{2}(:\d{2})?)?)?")


def _hours(text: Any) -> int:
    """Whole hours in a duration such as ``6h`` or ``10d``."""
    match = re.fullmatch(r"(\d+)\s*([hd])", str(text).strip())
    if not match or int(match[1]) == 0:
        raise ValueError(f"{text!r} is no duration, expected for example 6h or 10d")
    hours = int(match[1]) * _UNITS[match[2]]
    if hours > _LONGEST_HOURS:
        raise ValueError(f"{text!r} is longer than ten years")
    return hours


def time_of(value: Any) -> np.datetime64:
    """The time that a text or a time says.

    Raises
    ------
    ValueError
        If it says none.
    """
    text = str(value)
    try:
        if not isinstance(value, np.datetime64) and not _ISO_TIME.fullmatch(text):
            raise ValueError
        return np.datetime64(text.replace(" ", "T"), "s")
    except ValueError:
        raise ValueError(f"{value!r} is no time, expected for example 2006-01-05T00") from None


def _ascending(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values or list(values) != sorted(set(values)):
        raise ValueError("expected at least one, ascending and without duplicates")
    return values


Hours = Annotated[int, BeforeValidator(_hours)]
Time = Annotated[np.datetime64, BeforeValidator(time_of)]


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error that names the nearest."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    near = get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.0)
                    raise ValueError(f"unknown key {key!r}, the nearest known key is {near[0]!r}")
        return data


class Box(Settings):
    """Part of the globe, ends included; longitudes eastward from `west` to `east`, degrees."""

    south: float = Field(-90.0, ge=-90, le=90)
    north: float = Field(90.0, ge=-90, le=90)
    west: float = Field(-180.0, ge=-360, le=360)
    east: float = Field(180.0, ge=-360, le=360)

    @model_validator(mode="after")
    def _fit(self) -> Box:
        if self.south > self.north:
            raise ValueError(f"reaches from south to north, found {self.south} to {self.north}")
        return self


class StoreSettings(Settings):
    """What of the members is stored, and how.

    Attributes
    ----------
    block : int
        Members per unit of work, and per shard.
    lossless : bool
        Keep every bit instead of rounding to each channel's quantum.
    members : {"all", "none"} or tuple of int
        Numbers of the members to store; others than all need statistics in flight.
    channels : tuple of str
        Channels to store; all if empty.
    lead_times : tuple of int
        Leads to store, given as ``24h``, the initial state always; all if empty.
    region : Box or None
        Part of the globe to store.
    window_gb : float
        GB of a unit's fields, in all channels, that are written at a time: shards hold as many
        leads, if not all.
    """

    block: int = Field(8, ge=1)
    lossless: bool = False
    members: Literal["all", "none"] | tuple[int, ...] = "all"
    channels: tuple[str, ...] = ()
    lead_times: tuple[Hours, ...] = ()
    region: Box | None = None
    window_gb: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _fit(self) -> StoreSettings:
        if isinstance(self.members, tuple):
            _ascending(self.members)
            if self.members[0] < 0:
                raise ValueError(f"members are numbers from 0, found {self.members[0]}")
        if self.lead_times:
            _ascending(self.lead_times)
        return self


class InFlight(Settings):
    """What is kept of every member while the run goes on, whether or not it is stored.

    Attributes
    ----------
    block : int
        Members per unit of work, about: the partners of a pair stay together. Decides nothing
        about the values, unless members go through the network together (`micro_batch`).
    bins : int
        Bins of the sketch of each cell: more are larger, and closer to the members.
    exceedance : dict of str to tuple of float
        By channel, thresholds in its unit of which the members above them are counted.
    """

    block: int = Field(128, ge=1)
    bins: int = Field(128, ge=4, le=4096)
    exceedance: dict[str, tuple[float, ...]] = {}

    @model_validator(mode="after")
    def _fit(self) -> InFlight:
        for name, thresholds in self.exceedance.items():
            try:
                channel(name)
            except InputError as error:
                raise ValueError(f"exceedance: {error}") from None
            _ascending(thresholds)
        return self
