"""Sums of a scoring run, filled block by block by position; labels come on at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from pipelines.verification import Block, Verification
from scoring.score import Summed
from scoring.sums import Sums, weighted_sum


@dataclass(frozen=True)
class Tally:
    """Sums by forecast, channel, region, init time and lead.

    Attributes
    ----------
    channels, regions : sequence of str
    init_times, lead_times : numpy.ndarray
    totals, weights : dict
        By statistic and forecast, (channel, region, init_time, lead_time, *labels), and without
        labels.
    settings : mapping of str to str
        Of the sums.
    """

    channels: Sequence[str]
    regions: Sequence[str]
    init_times: np.ndarray
    lead_times: np.ndarray
    totals: dict[tuple[Summed, str], np.ndarray] = field(default_factory=dict)
    weights: dict[tuple[Summed, str], np.ndarray] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, pair: Verification, regions: Sequence[str], settings: Mapping[str, str] | None = None
    ) -> Tally:
        """An empty one for a forecast."""
        times = pair.forecast.init_time.values, pair.forecast.lead_time.values
        return cls(pair.channels, regions, *times, settings=settings or {})

    def add_cells(
        self,
        forecast: str,
        block: Block,
        values: Mapping[Summed, np.ndarray],
        weights: np.ndarray,
        usable: np.ndarray | None = None,
    ) -> None:
        """Add values of cells.

        Parameters
        ----------
        forecast : str
            What was scored.
        block : Block
            Where it belongs.
        values : mapping of Summed to numpy.ndarray
            (lead_time, *cells, *labels)
        weights : numpy.ndarray
            (region, *cells)
        usable : numpy.ndarray, optional
            (lead_time, *cells) bool: samples that count; all by default, and then NaN spreads.
        """
        leads, regions = block.leads.size, len(self.regions)
        flat = weights.reshape(regions, -1)
        weight = np.broadcast_to(flat.sum(axis=1)[:, None], (regions, leads))
        if usable is not None:
            usable = usable.reshape(leads, -1)
            weight = weighted_sum(usable[..., None].astype(float), flat)[..., 0]
        for statistic, value in values.items():
            samples = value.reshape(leads, flat.shape[1], -1)
            if usable is not None:
                samples = np.where(usable[..., None], samples, 0.0)
            labels = [axis.size for axis in statistic.labels.values()]
            total = weighted_sum(samples, flat).reshape(regions, leads, *labels)
            self.add(forecast, block, statistic, total, weight)

    def add(
        self,
        forecast: str,
        block: Block,
        statistic: Summed,
        total: np.ndarray,
        weight: np.ndarray,
    ) -> None:
        """Add sums, (region, lead_time, *labels), and their weights, (region, lead_time)."""
        key = statistic, forecast
        if key not in self.totals:
            counts = [len(axis) for axis in (self.channels, self.regions)]
            shape = (*counts, self.init_times.size, self.lead_times.size)
            self.totals[key] = np.zeros((*shape, *total.shape[2:]))
            self.weights[key] = np.zeros(shape)
        channel = self.channels.index(block.channel)
        first, last = int(block.leads[0]), int(block.leads[-1]) + 1
        leads = slice(first, last) if last - first == block.leads.size else block.leads
        # Two steps: an index beside a list would move axes.
        self.totals[key][channel][:, block.init][:, leads] += total
        self.weights[key][channel][:, block.init][:, leads] += weight

    def sums(self) -> Sums:
        """All of it with labels; init times and leads without any weight are left out."""
        present = sum(weight.sum(axis=(0, 1)) for weight in self.weights.values()) > 0
        inits, leads = np.flatnonzero(present.any(axis=1)), np.flatnonzero(present.any(axis=0))
        labels = {
            "channel": list(self.channels),
            "region": list(self.regions),
            "init_time": self.init_times[inits],
            "lead_time": self.lead_times[leads],
        }
        totals, weights = {}, {}
        for statistic in dict.fromkeys(statistic for statistic, _ in self.totals):
            forecasts = [name for known, name in self.totals if known == statistic]
            known = {"forecast": forecasts} | labels | statistic.labels
            total, weight = [
                np.stack(
                    [source[statistic, name][:, :, inits][:, :, :, leads] for name in forecasts]
                )
                for source in (self.totals, self.weights)
            ]
            weight = weight.reshape(*weight.shape, *(1,) * (total.ndim - weight.ndim))
            totals[statistic.key] = xr.DataArray(total, known, tuple(known))
            weights[statistic.key] = xr.DataArray(
                np.broadcast_to(weight, total.shape), known, tuple(known)
            )
        return Sums(totals, weights, self.settings)
