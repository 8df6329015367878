"""What a report says: its summary table and its figures, from scores and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from markupsafe import Markup

from pipelines.report.figures import (
    Line,
    coverage_panel,
    lead_panel,
    lead_unit,
    map_panels,
    rank_panel,
)
from pipelines.report.table import Table

# Forecasts as they are drawn, the most important last: role, dash, legend.
_FORECASTS = {
    "persistence": ("persistence", "dotted", "persistence, absolute error"),
    "climatology": ("climatology", "dashed", "climatology, {estimator} CRPS"),
    "control": ("control", "solid", "control, absolute error"),
    "ensemble": ("ensemble", "solid", "ensemble, {estimator} CRPS"),
}
# Forms of the spread-skill ratio in the same way.
_RATIOS = (
    ("spread_skill_area_mean", ("persistence", "dotted", "the first form, of area means")),
    ("spread_skill_unbiased", ("control", "dashed", "√(mean s² / mean[(x̄-y)² - s²/M])")),
    (
        "spread_skill",
        ("ensemble", "solid", "√((M+1)/M · mean s²) / RMSE of the mean (Fortin et al. 2014)"),
    ),
)
_DAYS = (1, 2, 3, 5, 7, 10, 15, 20, 30)
_ROWS = 6


@dataclass(frozen=True)
class Findings:
    """All that a report shows of one region.

    Attributes
    ----------
    scores : xarray.Dataset
        As in scores.zarr, with text labels and one region: (forecast, channel, lead_time, ...).
    coverage : xarray.Dataset or None
        `before` and `after` calibration on the same held-out dates, (channel, lead_time, level).
    crps_by_date : xarray.DataArray or None
        The ensemble's fair CRPS, (init_time, channel, lead_time).
    """

    scores: xr.Dataset
    coverage: xr.Dataset | None = None
    crps_by_date: xr.DataArray | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in the order of the scores."""
        return tuple(str(name) for name in self.scores.channel.values)

    @property
    def calibrated(self) -> tuple[str, ...]:
        """Those of the channels that were calibrated."""
        there = () if self.coverage is None else self.coverage.channel.values
        return tuple(name for name in self.channels if name in there)

    @property
    def lead_times(self) -> np.ndarray:
        """(lead_time,), timedelta64."""
        return self.scores.lead_time.values

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of the scores must know, one sentence each."""
        return tuple(self.scores.attrs.get("notes", ()))

    def units(self, channel: str) -> str:
        """Units of a channel; empty where the scores do not say."""
        if "units" not in self.scores.coords:
            return ""
        return raised(str(self.scores.units.sel(channel=channel).item()))

    def curve(self, score: str, forecast: str, channel: str) -> np.ndarray | None:
        """One score against lead time, (lead_time,); None where it does not exist."""
        if score not in self.scores or forecast not in self.scores.forecast:
            return None
        values = self.scores[score].sel(forecast=forecast, channel=channel).values
        return values if np.isfinite(values).any() else None

    def estimator(self, forecast: str) -> str:
        """Name of the estimator behind `crps`; empty for a forecast that was not scored."""
        if forecast not in self.scores.forecast:
            return ""
        return str(self.scores.crps_estimator.sel(forecast=forecast).item())

    def covered(self, stage: str, channel: str, level: float) -> np.ndarray | None:
        """Coverage of a central interval, (lead_time,); before calibration also without one.

        None where there is none: once something was calibrated, of what was not, as scores are of
        other dates.
        """
        if channel in self.calibrated:
            values = self.coverage[stage]
        elif self.coverage is not None:
            return None
        elif stage == "before" and "coverage" in self.scores and "ensemble" in self.scores.forecast:
            values = self.scores.coverage.sel(forecast="ensemble")
        else:
            return None
        values = values.reindex(level=[level], method="nearest", tolerance=1e-6)
        values = values.reindex(lead_time=self.lead_times).sel(channel=channel).squeeze("level")
        return values.values if values.notnull().any() else None


@dataclass(frozen=True)
class Panel:
    """One drawing with its heading."""

    svg: Markup
    heading: str = ""
    units: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence that says how to read what follows, and panels (none: absent).

    Attributes
    ----------
    name : str
        Identifies the section in the page.
    heading, text : str
        Shown above the panels.
    legend : tuple of (str, str, str)
        Role, dash and label of each kind of curve.
    panels : tuple of Panel
        The drawings.
    table : Table or None
        Shown before them.
    """

    name: str
    heading: str
    text: str
    legend: tuple[tuple[str, str, str], ...] = ()
    panels: tuple[Panel, ...] = ()
    table: Table | None = None


def raised(units: str) -> str:
    """Units with their exponents raised: ``m s-1`` becomes ``m s⁻¹``."""
    superscripts = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"(?<=[A-Za-z])-?\d+", lambda m: m[0].translate(superscripts), units)


def lead_labels(lead_times: np.ndarray) -> list[str]:
    """Lead times in words: ``day 5``, ``hour 36``."""
    name, unit = lead_unit(lead_times)
    return [f"{name} {lead / unit:g}" for lead in lead_times]


def chosen_leads(lead_times: np.ndarray, wanted: int = _ROWS) -> np.ndarray:
    """Positions of a few leads worth a row: certain whole days, or evenly spaced short leads."""
    name, unit = lead_unit(lead_times)
    leads = lead_times / unit
    if name == "day":
        candidates = np.flatnonzero(np.isin(leads, _DAYS))
    else:
        candidates = np.flatnonzero(leads > 0)
    if len(candidates) == 0:
        candidates = np.arange(len(leads))
    places = np.linspace(0, len(candidates) - 1, min(wanted, len(candidates)))
    return candidates[np.unique(np.round(places).astype(int))]


def crps_section(findings: Findings) -> Section:
    """CRPS against lead time of the ensemble and of what it must beat."""
    scores = findings.scores
    present = [name for name in _FORECASTS if name in scores.forecast]
    legend = []
    for name in reversed(present):
        role, dash, label = _FORECASTS[name]
        legend.append((role, dash, label.format(estimator=findings.estimator(name))))
    if findings.crps_by_date is not None:
        legend.append(("ensemble", "band", "lowest to highest initial date"))
    panels = []
    for channel in findings.channels:
        lines = []
        for name in present:
            values = findings.curve("crps", name, channel)
            if values is not None:
                role, dash, _ = _FORECASTS[name]
                band = _range(findings, channel) if name == "ensemble" else None
                lines.append(Line(role, values, dash, band))
        alt = f"CRPS of {channel} against lead time: {_ends(findings, 'crps', present, channel)}"
        panels.append(_lead_panel(findings, channel, lines, alt))
    text = (
        "Area-mean continuous ranked probability score; lower is better. A forecast without "
        "members scores its mean absolute error, so an ensemble is worth having where it lies "
        "below its own control, and useful where it lies below climatology."
    )
    return Section("crps", "CRPS against lead time", text, tuple(legend), tuple(panels))


def spread_section(findings: Findings) -> Section:
    """Spread and the error of the mean against lead time."""
    panels = []
    for channel in findings.channels:
        error = findings.curve("rmse", "ensemble", channel)
        spread = findings.curve("spread", "ensemble", channel)
        if error is None or spread is None:
            continue
        lines = [Line("ink", error), Line("ensemble", spread, "dashed")]
        alt = (
            f"Spread and error of {channel} against lead time: at the last lead spread "
            f"{spread[-1]:.3g}, error of the mean {error[-1]:.3g} {findings.units(channel)}"
        )
        panels.append(_lead_panel(findings, channel, lines, alt))
    heading = "Spread and skill"
    if not panels:
        return Section("spread", heading, "Absent: one member has no spread.")
    legend = (
        ("ink", "solid", "RMSE of the ensemble mean"),
        ("ensemble", "dashed", "spread, square root of the mean variance (M - 1)"),
    )
    text = (
        "Members should stand as far from their mean as the truth does: spread below error is "
        "overconfidence, above it underconfidence."
    )
    return Section("spread", heading, text, legend, tuple(panels))


def ratio_section(findings: Findings) -> Section:
    """Spread-skill ratio against lead time, in every form that was scored."""
    panels = []
    for channel in findings.channels:
        curves = [(findings.curve(name, "ensemble", channel), *how[:2]) for name, how in _RATIOS]
        lines = [Line(role, values, dash) for values, role, dash in curves if values is not None]
        if lines:
            last = lines[-1].values[-1]
            alt = f"Spread-skill ratio of {channel} against lead time: {last:.2f} at the last lead"
            svg = lead_panel(findings.lead_times, lines, alt, level=1.0)
            panels.append(Panel(svg, channel))
    heading = "Spread-skill ratio"
    if not panels:
        return Section("ratio", heading, "Absent: one member has no spread.")
    legend = tuple(how for name, how in reversed(_RATIOS) if name in findings.scores)
    text = "Corrected for the number of members; 1 is a reliable ensemble, less is overconfident."
    return Section("ratio", heading, text, legend, tuple(panels))


def rank_section(findings: Findings) -> Section:
    """Rank histograms at an early, a middle and a late lead."""
    heading = "Rank histograms"
    if "rank_histogram" not in findings.scores or "ensemble" not in findings.scores.forecast:
        return Section("ranks", heading, "Absent: one member has no ranks.")
    histograms = findings.scores.rank_histogram.sel(forecast="ensemble")
    leads = chosen_leads(findings.lead_times, 3)
    labels = lead_labels(findings.lead_times[leads])
    roles = ("early", "middle", "late")[: len(leads)]
    names = dict(zip(roles, labels, strict=True))
    panels = []
    for channel in findings.channels:
        values = histograms.sel(channel=channel).isel(lead_time=leads)
        shares = values.transpose("lead_time", "bin").values
        drawn = [(r, s) for r, s in zip(roles, shares, strict=True) if np.isfinite(s).all()]
        if drawn:
            alt = f"Rank histogram of {channel}: {_outer(drawn, names)}"
            panels.append(Panel(rank_panel(drawn, alt), channel, "relative to a flat histogram"))
    if not panels:
        return Section("ranks", heading, "Absent: one member has no ranks.")
    legend = tuple((role, "solid", label) for role, label in names.items())
    text = (
        "Where the truth falls among the ordered members. Flat is calibrated; raised ends mean too "
        "little spread, a dome too much, a slope a bias."
    )
    return Section("ranks", heading, text, legend, tuple(panels))


def coverage_section(findings: Findings) -> Section:
    """Coverage of central intervals before and after calibration."""
    heading = "Coverage before and after calibration"
    if findings.coverage is None:
        return Section("coverage", heading, "Absent: this ensemble has not been calibrated.")
    levels = [float(level) for level in findings.coverage.level.values]
    panels = []
    for channel in findings.calibrated:
        lines, means = [], []
        for stage, role, dash in (("before", "control", "dashed"), ("after", "ensemble", "solid")):
            for level in levels:
                values = findings.coverage[stage].sel(channel=channel, level=level).values
                lines.append(Line(role, 100 * values, dash))
                means.append(f"{level:.0%} interval {stage} {np.nanmean(values):.0%}")
        alt = f"Coverage of {channel}, mean over lead times: {', '.join(means)}"
        svg = coverage_panel(findings.coverage.lead_time.values, lines, levels, alt)
        panels.append(Panel(svg, channel))
    legend = (
        ("ink", "solid", "promised"),
        ("control", "dashed", "raw ensemble"),
        ("ensemble", "solid", "calibrated"),
    )
    text = (
        "Share of truths inside the central prediction intervals of "
        f"{', '.join(f'{level:.0%}' for level in levels)}, on dates held out from calibration; "
        "every curve should lie on its own straight line. "
        + " ".join(findings.coverage.attrs.get("notes", ())[:1])
    )
    return Section("coverage", heading, text, legend, tuple(panels))


def map_section(members: xr.DataArray, truth: xr.DataArray | None) -> Section:
    """One forecast on the map: its mean and spread, beside the truth and the mean's error.

    Parameters
    ----------
    members : xarray.DataArray
        (number, latitude, longitude) of one channel, with scalar `init_time` and `lead_time`.
    truth : xarray.DataArray or None
        (latitude, longitude) at the valid time.
    """
    mean = members.mean("number")
    spread = members.std("number", ddof=1) if members.sizes["number"] > 1 else None
    fields = [("Ensemble mean", mean, "value")]
    if truth is not None:
        fields.append(("Truth", truth, "value"))
    if spread is not None:
        fields.append(("Spread (standard deviation)", spread, "error"))
    if truth is not None:
        fields.append(("Absolute error of the mean", abs(mean - truth), "error"))
    (lead,) = lead_labels(np.atleast_1d(members.lead_time.values))
    date = str(members.init_time.values.astype("datetime64[h]")).replace("T", " ")
    units = raised(members.attrs.get("units", "1"))
    alt = (
        f"Maps of {members.name} from {date} UTC at {lead}: mean {float(mean.min()):.4g} to "
        f"{float(mean.max()):.4g} {units}"
    )
    if spread is not None:
        alt += f", spread {float(spread.min()):.3g} to {float(spread.max()):.3g} {units}"
    text = (
        f"{members.attrs.get('long_name', members.name)} ({members.name}, {units}) at {lead} of "
        f"the forecast from {date} UTC; where the spread is large the mean may be wrong, and where "
        "it is small it should not be."
    )
    return Section("map", "One forecast", text, panels=(Panel(map_panels(fields, alt)),))


def _lead_panel(findings: Findings, channel: str, lines: Sequence[Line], alt: str) -> Panel:
    svg = lead_panel(findings.lead_times, lines, alt)
    return Panel(svg, channel, findings.units(channel))


def _range(findings: Findings, channel: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest score of any initial date, (lead_time,) each."""
    if findings.crps_by_date is None:
        return None
    values = findings.crps_by_date.sel(channel=channel).transpose("init_time", "lead_time")
    seen = values.isel(lead_time=values.notnull().any("init_time").values)
    return tuple(
        edge.reindex(lead_time=findings.lead_times).values
        for edge in (seen.min("init_time"), seen.max("init_time"))
    )


def _ends(findings: Findings, score: str, forecasts: Sequence[str], channel: str) -> str:
    """A score of each forecast at the last lead, in words."""
    words = []
    for name in reversed(forecasts):
        values = findings.curve(score, name, channel)
        if values is not None:
            words.append(f"{name} {values[-1]:.3g}")
    label = lead_labels(findings.lead_times[-1:])[0]
    return f"at {label} {', '.join(words) or 'none'} {findings.units(channel)}".rstrip()


def _outer(drawn: Sequence[tuple[str, np.ndarray]], labels: dict[str, str]) -> str:
    """Share of truths in the two outermost bins, relative to a flat histogram, in words."""
    words = []
    for role, share in drawn:
        relative = (share[0] + share[-1]) / share.sum() * len(share) / 2
        words.append(f"{relative:.2g} times at {labels[role]}")
    return f"the two ends hold, relative to a flat histogram, {', '.join(words)}"
