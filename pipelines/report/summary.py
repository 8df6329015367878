"""The report's summary: a table of scores by channel and lead, and a few figures above it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.channel import channel as channel_named
from data.errors import InputError
from pipelines.report.sections import Findings, chosen_leads, lead_labels

_INTERVAL = 0.9
_REFERENCES = ("climatology", "control", "persistence")


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes
    ----------
    heading, note : str
        What it holds, and of which forecast or by which estimator.
    curve : callable
        From a channel's name to values, (lead_time,), or None where there are none.
    decimals : int or None
        Digits after the point; None takes what the channel's CRPS asks for.
    """

    heading: str
    note: str
    curve: Callable[[str], np.ndarray | None]
    decimals: int | None = None


@dataclass(frozen=True)
class Cell:
    """A number as printed, and in full."""

    text: str
    value: float


@dataclass(frozen=True)
class Row:
    """The cells of one lead; `best` where the ensemble's CRPS is below all references'."""

    lead: str
    cells: tuple[Cell, ...]
    best: bool


@dataclass(frozen=True)
class Group:
    """The rows of one channel."""

    channel: str
    long_name: str
    units: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Tile:
    """One figure worth reading first."""

    value: str
    label: str


def columns(findings: Findings) -> tuple[Column, ...]:
    """The table's columns; those that no channel has are left out."""

    def score(name: str, forecast: str) -> Callable[[str], np.ndarray | None]:
        return lambda channel: findings.curve(name, forecast, channel)

    def covered(stage: str) -> Callable[[str], np.ndarray | None]:
        return lambda channel: findings.covered(stage, channel, _INTERVAL)

    interval = f"{_INTERVAL:.0%} interval"
    table = (
        Column("CRPS", f"ensemble, {findings.estimator('ensemble')}", score("crps", "ensemble")),
        Column("CRPS", f"climatology, {findings.estimator('climatology')}",
               score("crps", "climatology")),
        Column("MAE", "control", score("crps", "control")),
        Column("MAE", "persistence", score("crps", "persistence")),
        Column("Spread / skill", "corrected for size", score("spread_skill", "ensemble"), 2),
        Column(interval, "covers, raw", covered("before"), 2),
        Column(interval, "covers, calibrated", covered("after"), 2),
    )  # fmt: skip
    channels = findings.channels
    return tuple(column for column in table if any(column.curve(c) is not None for c in channels))


def groups(findings: Findings, table: tuple[Column, ...]) -> tuple[Group, ...]:
    """The table's rows, a few leads of every channel."""
    leads = chosen_leads(findings.lead_times)
    labels = lead_labels(findings.lead_times[leads])
    found = []
    for name in findings.channels:
        curves = [column.curve(name) for column in table]
        decimals = _decimals(next((one for one in curves if one is not None), None), leads)
        rows = []
        for lead, label in zip(leads, labels, strict=True):
            best = _beats_all(findings, name, lead)
            cells = [
                _cell(curve, lead, decimals if column.decimals is None else column.decimals)
                for column, curve in zip(table, curves, strict=True)
            ]
            rows.append(Row(label, tuple(cells), best))
        found.append(Group(name, _long_name(name), findings.units(name), tuple(rows)))
    return tuple(found)


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


def _cell(curve: np.ndarray | None, lead: int, decimals: int) -> Cell:
    value = np.nan if curve is None else float(curve[lead])
    return Cell(f"{value:,.{decimals}f}" if np.isfinite(value) else "–", value)


def _decimals(curve: np.ndarray | None, leads: np.ndarray) -> int:
    """Digits after the point that show the smallest value with two or three digits."""
    values = np.array([]) if curve is None else np.abs(curve[leads])
    values = values[np.isfinite(values) & (values > 0)]
    return 2 if len(values) == 0 else int(np.clip(2 - np.floor(np.log10(values.max())), 0, 9))


def _span(values: list[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _long_name(channel: str) -> str:
    """What the channel table calls it; empty for a variable of another's store."""
    try:
        return channel_named(channel).long_name
    except InputError:
        return ""


def table_text(findings: Findings) -> str:
    """The table for a terminal: one line for each channel and lead."""
    table = columns(findings)
    lines = [
        ["channel", *(column.heading for column in table)],
        ["and lead", *(column.note for column in table)],
    ]
    for group in groups(findings, table):
        lines.append([f"{group.channel} {group.units}", *("" for _ in table)])
        lines += [[f"  {row.lead}", *(cell.text for cell in row.cells)] for row in group.rows]
    widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )
