"""The layout of a store that holds part of what is forecast."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data.errors import ConfigurationError
from data.grid import Grid
from pipelines.layout import Layout
from pipelines.settings import Box, InFlight, StoreSettings


@dataclass(frozen=True, eq=False)
class GridPart:
    """Some rows and columns of a grid.

    Attributes
    ----------
    latitude, longitude : numpy.ndarray
        Degrees, north to south and ascending.
    """

    latitude: np.ndarray
    longitude: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(latitudes, longitudes)."""
        return self.latitude.size, self.longitude.size


def selected(layout: Layout, settings: StoreSettings, block: int) -> Layout | None:
    """The layout of what is stored; None if nothing is.

    Parameters
    ----------
    layout : Layout
        Of all that is forecast.
    settings : StoreSettings
        What to store.
    block : int
        Members in a shard.

    Raises
    ------
    ConfigurationError
        If there is no such channel or lead.
    """
    if settings.members == "none":
        return None
    for name in settings.channels:
        if name not in layout.channels:
            raise ConfigurationError(
                f"store: channel {name!r} is not among {', '.join(layout.channels)}"
            )
    channels = tuple(n for n in layout.channels if not settings.channels or n in settings.channels)
    members = layout.members
    if settings.members != "all":
        members = members.isel(number=list(settings.members))
    stored = replace(
        layout,
        channels=channels,
        lead_times=_leads(layout, settings),
        grid=layout.grid if settings.region is None else _part(layout.grid, settings.region),
        members=members,
        block=block,
    )
    # A unit has so many of the members; how many exactly must not decide the layout.
    together = min(InFlight().block, members.sizes["number"])
    return stored.within(settings.window_gb, together)


def _leads(layout: Layout, settings: StoreSettings) -> np.ndarray:
    if not settings.lead_times:
        return layout.lead_times
    hours = layout.lead_times // np.timedelta64(1, "h")
    for lead in settings.lead_times:
        if lead not in hours:
            raise ConfigurationError(f"store: {lead} h is no lead time of the forecast")
    return layout.lead_times[np.isin(hours, (0, *settings.lead_times))]


def _part(grid: Grid, box: Box) -> GridPart:
    from scoring.regions import Box as Part  # with all of scoring, where a part is stored

    mask = Part(box.south, box.north, box.west, box.east).mask(grid)
    if not mask.any():
        raise ConfigurationError(f"store: the region holds no point of the grid {grid}")
    return GridPart(grid.latitude[mask.any(axis=1)], grid.longitude[mask.any(axis=0)])
