"""The report's summary: a table of scores by channel and lead, and a few figures above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from data.channel import channel as channel_named
from data.errors import InputError
from pipelines.report.sections import Findings, chosen_leads, lead_labels
from pipelines.report.table import Column, Group, Row, Table, cell_of, fitting_decimals

_INTERVAL = 0.9
_REFERENCES = ("climatology", "control", "persistence")


@dataclass(frozen=True)
class Tile:
    """One figure worth reading first."""

    value: str
    label: str


def _columns(findings: Findings) -> tuple[Column, ...]:
    """The table's columns."""

    def score(name: str, forecast: str) -> Callable[[str], np.ndarray | None]:
        return lambda channel: findings.curve(name, forecast, channel)

    def covered(stage: str) -> Callable[[str], np.ndarray | None]:
        return lambda channel: findings.covered(stage, channel, _INTERVAL)

    interval = f"{_INTERVAL:.0%} interval"
    return (
        Column("CRPS", "ensemble", score("crps", "ensemble"),
               estimator=findings.estimator("ensemble")),
        Column("CRPS", "climatology", score("crps", "climatology"),
               estimator=findings.estimator("climatology")),
        Column("MAE", "control", score("crps", "control")),
        Column("MAE", "persistence", score("crps", "persistence")),
        Column("Spread / skill", "corrected for size", score("spread_skill", "ensemble"), 2),
        Column(interval, "covers, raw", covered("before"), 2),
        Column(interval, "covers, calibrated", covered("after"), 2),
    )  # fmt: skip


def summary_table(findings: Findings) -> Table:
    """The table; its best rows are those where the ensemble's CRPS is below all references'."""
    return table_of(findings, _columns(findings), partial(_beats_all, findings))


def table_of(
    findings: Findings,
    shown: Sequence[Column],
    best: Callable[[str, int], bool],
    leads: np.ndarray | None = None,
) -> Table:
    """Some leads of every channel.

    Parameters
    ----------
    findings : Findings
        With the channels, their units and the leads.
    shown : sequence of Column
        What to show; what no channel has is left out.
    best : callable
        From a channel's name and the position of a lead to whether its row is worth a mark.
    leads : numpy.ndarray, optional
        Positions of the leads, (lead_time,); by default a few that are worth a row.
    """
    channels = findings.channels
    leads = chosen_leads(findings.lead_times) if leads is None else leads
    shown = tuple(one for one in shown if any(one.curve(name) is not None for name in channels))
    labels = lead_labels(findings.lead_times[leads])
    found = []
    for name in channels:
        curves = [column.curve(name) for column in shown]
        digits = _digits(shown, curves, leads)
        rows = []
        for lead, label in zip(leads, labels, strict=True):
            cells = [cell_of(*each, lead) for each in zip(curves, digits, strict=True)]
            rows.append(Row(label, tuple(cells), best(name, lead)))
        found.append(Group(name, _long_name(name), findings.units(name), tuple(rows)))
    return Table(shown, tuple(found))


def _digits(
    shown: Sequence[Column], curves: Sequence[np.ndarray | None], leads: np.ndarray
) -> list[int]:
    """Digits after the point of each column."""
    fitting = [0 if curve is None else fitting_decimals(curve, leads) for curve in curves]
    first = next((fit for fit, curve in zip(fitting, curves, strict=True) if curve is not None), 0)
    return [
        max(first, fit) if column.decimals is None else column.decimals
        for column, fit in zip(shown, fitting, strict=True)
    ]


def tiles(findings: Findings) -> tuple[Tile, ...]:
    """A few figures over all channels: how far the forecast is useful, and how reliable it is."""
    leads = chosen_leads(findings.lead_times, 3)
    lead = leads[len(leads) // 2]
    label = lead_labels(findings.lead_times)[lead]
    found = [_useful_until(findings)]
    gains = _gains_on_control(findings, lead)
    if gains:
        text = f"less CRPS than its own control at {label}, worst to best channel"
        found.append(Tile(_span(gains, ".0%"), text))
    curves = [findings.curve("spread_skill", "ensemble", name) for name in findings.channels]
    ratios = [curve[lead] for curve in curves if curve is not None]
    if ratios:
        text = f"spread-skill ratio at {label}, lowest to highest channel; 1 is reliable"
        found.append(Tile(_span(ratios, ".2f"), text))
    covered = [findings.covered("after", name, _INTERVAL) for name in findings.channels]
    covered = [curve for curve in covered if curve is not None]
    if covered:
        text = f"of truths inside the calibrated {_INTERVAL:.0%} interval, all channels and leads"
        found.append(Tile(f"{np.nanmean(covered):.0%}", text))
    return tuple(tile for tile in found if tile is not None)


def _useful_until(findings: Findings) -> Tile | None:
    """Up to which lead every channel beats climatology; None without a climatology."""
    last = len(findings.lead_times)
    for name in findings.channels:
        ensemble = findings.curve("crps", "ensemble", name)
        climatology = findings.curve("crps", "climatology", name)
        if ensemble is None or climatology is None:
            return None
        lost = np.flatnonzero(ensemble >= climatology)
        last = min(last, lost[0] if len(lost) else last)
    if last == 0:
        return Tile("never", "better than climatology in every channel at once")
    label = lead_labels(findings.lead_times)[last - 1]
    end = ", the whole forecast" if last == len(findings.lead_times) else ""
    return Tile(label, f"until then better than climatology in every channel{end}")


def _gains_on_control(findings: Findings, lead: int) -> list[float]:
    """1 - CRPS / MAE of the control, of each channel that has both."""
    gains = []
    for name in findings.channels:
        ensemble = findings.curve("crps", "ensemble", name)
        control = findings.curve("crps", "control", name)
        if ensemble is not None and control is not None and control[lead] > 0:
            gains.append(1 - ensemble[lead] / control[lead])
    return gains


def _beats_all(findings: Findings, channel: str, lead: int) -> bool:
    """Whether the ensemble's CRPS is below that of every reference there is."""
    curves = [findings.curve("crps", name, channel) for name in ("ensemble", *_REFERENCES)]
    ensemble, *references = [np.nan if curve is None else curve[lead] for curve in curves]
    known = [value for value in references if np.isfinite(value)]
    return bool(known) and bool(ensemble < min(known))


def _span(values: list[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _long_name(channel: str) -> str:
    """What the channel table calls it; empty for a variable of another's store."""
    try:
        return channel_named(channel).long_name
    except InputError:
        return ""
