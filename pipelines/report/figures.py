"""The report's figures: each function draws one panel and returns it as inline SVG.

A panel carries no address and no fixed ink: the colours drawn here stand for custom properties of
the page's style sheet, so that one drawing serves a light page, a dark one and paper.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import xarray as xr
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

ROLES = (
    "ink",
    "rule",
    "ensemble",
    "control",
    "climatology",
    "persistence",
    "early",
    "middle",
    "late",
)
_COLOURS = {role: f"#a1000{index}" for index, role in enumerate(ROLES)}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "myriadcast",
    "font.size": 9,
    "axes.edgecolor": _COLOURS["rule"],
    "axes.labelcolor": _COLOURS["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 5),
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": _COLOURS["ink"],
    "grid.color": _COLOURS["rule"],
    "grid.linewidth": 0.5,
    "text.color": _COLOURS["ink"],
    "xtick.color": _COLOURS["rule"],
    "ytick.color": _COLOURS["rule"],
    "xtick.labelcolor": _COLOURS["ink"],
    "ytick.labelcolor": _COLOURS["ink"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_DASHES = {"solid": "-", "dashed": (0, (4, 2)), "dotted": (0, (1, 1.6))}
_PANEL_INCHES, _PANEL_AXES = (3.5, 2.1), (0.135, 0.19, 0.84, 0.76)


@dataclass(frozen=True)
class Line:
    """One curve of a panel.

    Attributes
    ----------
    role : str
        One of `ROLES`; the page's style sheet gives it a colour.
    values : numpy.ndarray
        (lead_time,) in the panel's units; NaN where there is none.
    dash : {"solid", "dashed", "dotted"}
        How it is drawn.
    band : tuple of numpy.ndarray or None
        Lower and upper edge of a shading around the curve, (lead_time,) each.
    """

    role: str
    values: np.ndarray
    dash: str = "solid"
    band: tuple[np.ndarray, np.ndarray] | None = None


def lead_unit(lead_times: np.ndarray) -> tuple[str, np.timedelta64]:
    """What lead times are counted in: days, or hours where the forecast is short.

    Parameters
    ----------
    lead_times : numpy.ndarray
        (lead_time,), timedelta64.

    Returns
    -------
    name : str
        ``day`` or ``hour``.
    unit : numpy.timedelta64
        Its length.
    """
    if lead_times.max() >= np.timedelta64(72, "h"):
        return "day", np.timedelta64(24, "h")
    return "hour", np.timedelta64(1, "h")


def lead_panel(
    lead_times: np.ndarray, lines: Sequence[Line], alt: str, level: float | None = None
) -> Markup:
    """Curves against lead time; the value axis starts at 0.

    Parameters
    ----------
    lead_times : numpy.ndarray
        (lead_time,), timedelta64.
    lines : sequence of Line
        What to draw, the most important last.
    alt : str
        What the panel shows, for those who cannot see it.
    level : float or None
        A value to mark by a horizontal line, such as a ratio of 1; three times it is the highest
        value shown.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        _draw_lines(axes, lead_times, lines)
        _from_zero(axes, level)
        return _svg(figure, alt)


def coverage_panel(
    lead_times: np.ndarray, lines: Sequence[Line], levels: Sequence[float], alt: str
) -> Markup:
    """Share of truths inside prediction intervals against lead time, with the levels promised."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        _draw_lines(axes, lead_times, lines)
        for level in levels:
            axes.axhline(100 * level, color=_COLOURS["ink"], linewidth=0.7)
        axes.set_ylim(min(40, 10 * np.floor(axes.get_ylim()[0] / 10)), 101)
        axes.set_yticks([100 * level for level in levels])
        axes.grid(visible=False, axis="y")
        axes.yaxis.set_major_formatter("{x:.0f}%")
        return _svg(figure, alt)


def level_panel(lead_times: np.ndarray, lines: Sequence[Line], alt: str, promised: float) -> Markup:
    """Percentages near a promised one against lead time."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        _draw_lines(axes, lead_times, lines)
        _mark_promised(axes, lines, promised)
        return _svg(figure, alt)


def date_panel(init_times: np.ndarray, lines: Sequence[Line], alt: str, promised: float) -> Markup:
    """Percentages near a promised one at each initial date, in the order of the dates."""
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        places = np.arange(len(init_times))
        for line in lines:
            axes.plot(places, line.values, color=_COLOURS[line.role],
                      linestyle=_DASHES[line.dash], linewidth=1.4)  # fmt: skip
        _mark_promised(axes, lines, promised)
        ends = [0, len(init_times) - 1] if len(init_times) > 1 else [0]
        days = [str(init_times[end].astype("datetime64[D]")) for end in ends]
        axes.set_xticks(ends, days)
        for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=False):
            label.set_horizontalalignment(side)
        return _svg(figure, alt)


def _mark_promised(axes: Axes, lines: Sequence[Line], promised: float) -> None:
    axes.axhline(promised, color=_COLOURS["ink"], linewidth=0.9)
    values = np.concatenate([line.values for line in lines])
    lowest = np.nanmin(values) if np.isfinite(values).any() else promised
    axes.set_ylim(min(5 * np.floor(lowest / 5), promised - 10), 101)


def reliability_panel(
    levels: np.ndarray, shares: Sequence[tuple[str, str, np.ndarray]], alt: str
) -> Markup:
    """Share of truths not above each quantile against its level, with the diagonal.

    Parameters
    ----------
    levels : numpy.ndarray
        (quantile,)
    shares : sequence of (str, str, numpy.ndarray)
        Role, dash and share, (quantile,).
    alt : str
        What the panel shows.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        axes.plot([0, 1], [0, 1], color=_COLOURS["ink"], linewidth=0.9)
        for role, dash, share in shares:
            axes.plot(levels, share, color=_COLOURS[role], linestyle=_DASHES[dash],
                      linewidth=1.7, marker="o", markersize=3)  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("level of the quantile")
        return _svg(figure, alt)


def event_panel(
    probabilities: np.ndarray, events: Sequence[tuple[str, np.ndarray, np.ndarray]], alt: str
) -> Markup:
    """How often events happened when each probability was forecast, with the diagonal.

    Parameters
    ----------
    probabilities : numpy.ndarray
        (probability,)
    events : sequence of (str, numpy.ndarray, numpy.ndarray)
        Role, share of cases with the event and share of all cases that had this forecast,
        (probability,) each; NaN where a probability was never forecast. The area of a point is
        its share of the cases.
    alt : str
        What the panel shows.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        axes.plot([0, 1], [0, 1], color=_COLOURS["ink"], linewidth=0.9)
        for role, observed, frequency in events:
            there = np.isfinite(observed)
            places, shares = probabilities[there], observed[there]
            axes.plot(places, shares, color=_COLOURS[role], linewidth=1.4)
            axes.scatter(places, shares, 3 + 150 * frequency[there], color=_COLOURS[role],
                         alpha=0.55, linewidths=0, clip_on=False)  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("probability forecast")
        return _svg(figure, alt)


def label_panel(
    name: str, labels: np.ndarray, lines: Sequence[Line], alt: str, level: float | None = None
) -> Markup:
    """Curves against something other than lead time, on a logarithmic axis; values start at 0.

    Parameters
    ----------
    name : str
        What the labels are, written below them.
    labels : numpy.ndarray
        (label,), positive.
    lines : sequence of Line
        Their values are (label,).
    alt : str
        What the panel shows.
    level : float or None
        As of `lead_panel`.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        marker = "o" if len(labels) <= 12 else None
        for line in lines:
            axes.plot(labels, line.values, color=_COLOURS[line.role], marker=marker, markersize=3,
                      linestyle=_DASHES[line.dash], linewidth=1.7)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
        if marker:
            axes.set_xticks(labels)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(name)
        _from_zero(axes, level)
        return _svg(figure, alt)


def rank_panel(shares: Sequence[tuple[str, np.ndarray]], alt: str) -> Markup:
    """Rank histograms as outlines, each relative to a flat one.

    Parameters
    ----------
    shares : sequence of (str, numpy.ndarray)
        Role, and share of truths in each bin, (bin,).
    alt : str
        What the panel shows.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _panel()
        for role, share in shares:
            edges = np.linspace(0, 1, len(share) + 1)
            axes.stairs(
                share * len(share), edges, color=_COLOURS[role], linewidth=1.5, baseline=None
            )
        axes.axhline(1, color=_COLOURS["ink"], linewidth=0.9)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0, top=max(2.0, axes.get_ylim()[1]))
        axes.set_xticks([0, 0.5, 1], ["lowest", "rank of the truth", "highest"])
        for label, side in zip(axes.get_xticklabels(), ("left", "center", "right"), strict=True):
            label.set_horizontalalignment(side)
        return _svg(figure, alt)


def map_panels(fields: Sequence[tuple[str, xr.DataArray, str]], alt: str) -> Markup:
    """Maps of one size, two in a row; maps with the same scale are drawn with the same colours.

    Parameters
    ----------
    fields : sequence of (str, xarray.DataArray, str)
        Title, field (latitude, longitude), and the name of its scale: ``value`` or ``error``.
    alt : str
        What the maps show.
    """
    scales = {}
    for name in {scale for _, _, scale in fields}:
        values = [field.values for _, field, scale in fields if scale == name]
        low, high = np.nanpercentile(np.stack(values), [0.5, 99.5])
        scales[name] = (low if name == "value" else 0.0, high)
    with mpl.rc_context(_STYLE | {"axes.grid": False, "axes.spines.left": False}):
        rows = -(-len(fields) // 2)
        figure = Figure(figsize=(10.8, 0.35 + 2.65 * rows), layout="constrained")
        for axes, (title, field, scale) in zip(
            figure.subplots(rows, 2, squeeze=False).flat, fields, strict=False
        ):
            _draw_map(figure, axes, field, scales[scale], scale)
            axes.set_title(title)
        return _svg(figure, alt)


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_PANEL_INCHES)
    return figure, figure.add_axes(_PANEL_AXES)


def _draw_lines(axes: Axes, lead_times: np.ndarray, lines: Sequence[Line]) -> None:
    name, unit = lead_unit(lead_times)
    leads = lead_times / unit
    marker = "o" if len(leads) <= 12 else None
    for line in lines:
        colour = _COLOURS[line.role]
        axes.plot(leads, line.values, color=colour, linestyle=_DASHES[line.dash],
                  linewidth=1.7, marker=marker, markersize=3)  # fmt: skip
        if line.band is not None:
            axes.fill_between(leads, *line.band, color=colour, alpha=0.16, linewidth=0)
    axes.set_xlim(min(0.0, leads.min()), leads.max())
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"lead time ({name}s)")


def _from_zero(axes: Axes, level: float | None) -> None:
    """Values from 0 on; with a level marked, up to three times it."""
    highest = axes.get_ylim()[1]
    if level is not None:
        axes.axhline(level, color=_COLOURS["ink"], linewidth=0.9)
        highest = np.clip(highest, 1.5 * level, 3 * level)
    axes.set_ylim(0, highest)


def _draw_map(
    figure: Figure, axes: Axes, field: xr.DataArray, limits: tuple[float, float], scale: str
) -> None:
    field = field.transpose("latitude", "longitude")
    around = field.pad(longitude=(0, 1), mode="wrap")
    longitude = np.append(field.longitude, field.longitude[0] + 360)
    colours = {"value": "viridis", "error": "magma_r"}[scale]
    drawn = axes.pcolormesh(
        longitude, field.latitude, around.values,
        cmap=colours, vmin=limits[0], vmax=limits[1], shading="gouraud", rasterized=True,
    )  # fmt: skip
    axes.set_yticks([-60, -30, 0, 30, 60], ["60°S", "30°S", "0°", "30°N", "60°N"])
    axes.set_xticks([0, 90, 180, 270, 360], ["0°", "90°E", "180°", "90°W", "0°"])
    axes.set_aspect("auto")
    bar = figure.colorbar(drawn, ax=axes, pad=0.015, aspect=16)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()


def _own_ids(body: str, prefix: str) -> str:
    """The drawing with the ids that it refers to, made its own by a prefix, and no others."""
    used = set(re.findall(r"(?<=url\(#)[^)]+|(?<=href=\"#)[^\"]+", body))
    body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
    for name in used:
        body = re.sub(rf'(?<=[#"]){re.escape(name)}(?=[")])', f"i{prefix}-{name}", body)
    return body


def _svg(figure: Figure, alt: str) -> Markup:
    """The figure as an `svg` element for a page: named by `alt`, free of addresses."""
    with io.StringIO() as buffer:
        figure.savefig(buffer, format="svg", transparent=True, dpi=110, metadata={"Date": None})
        text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*(; )?", "", body).replace("xlink:href", "href")
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    for role, colour in _COLOURS.items():
        body = body.replace(colour, f"var(--{role})")
    body = _own_ids(body, hashlib.blake2b(alt.encode(), digest_size=4).hexdigest())
    width, height = figure.get_size_inches() * 72
    head = f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width:g} {height:g}">'
    return Markup(head + f"<title>{escape(alt)}</title>" + re.sub(r"\s*\n\s*", " ", body))
