"""What a report says of calibration, beside coverage by lead: where, when, how wide, how sharp."""

from __future__ import annotations

import numpy as np
import xarray as xr

from pipelines.report.figures import Line, date_panel, lead_panel, level_panel, reliability_panel
from pipelines.report.sections import Findings, Panel, Section
from scoring.significance import FEW_DATES

_LEVEL = 0.9
_STAGES = (("before", "control", "dashed"), ("after", "ensemble", "solid"))
_LEGEND = (("control", "dashed", "raw ensemble"), ("ensemble", "solid", "calibrated"))
# Of all models and what is made of them, those that are drawn, the most important last.
_COMBINATIONS = {
    "best single model": ("persistence", "dotted"),
    "linear pool": ("climatology", "dashed"),
    "median": ("control", "dotted"),
    "mean": ("control", "dashed"),
    "aggregation": ("ensemble", "solid"),
}
_REGION_ROLES = ("early", "middle", "late", "climatology", "persistence")


def width_section(findings: Findings) -> Section:
    """How wide the intervals are before and after calibration, and the score of the quantiles."""
    heading = f"Width of the {_LEVEL:.0%} interval"
    if findings.coverage is None or "width_after" not in findings.coverage:
        return Section("width", heading, "Absent: this ensemble has not been calibrated.")
    found = findings.coverage.sel(level=_LEVEL, method="nearest")
    leads = findings.coverage.lead_time.values
    panels = []
    for name in findings.calibrated:
        lines = [
            Line(role, found[f"width_{stage}"].sel(channel=name).values, dash)
            for stage, role, dash in _STAGES
        ]
        ends = ", ".join(
            f"{label} {line.values[-1]:.3g}"
            for line, (_, _, label) in zip(lines, _LEGEND, strict=True)
        )
        alt = f"Width of the interval of {name} against lead time: at the last lead {ends}"
        panels.append(Panel(lead_panel(leads, lines, alt), name, findings.units(name)))
    score = [found[f"score_{stage}"] for stage in ("before", "after")]
    change = score[1] / score[0].where(score[0] > 0) - 1
    words = ", ".join(
        f"{name} {100 * float(change.sel(channel=name).mean()):+.1f} %"
        for name in findings.calibrated
    )
    text = (
        "Narrow is good where coverage is what is promised. The weighted interval score of all "
        "quantiles judges both at once, and lower is better. Calibration changes it, on average "
        f"over leads, by: {words}."
    )
    return Section("width", heading, text, _LEGEND, tuple(panels))


def model_section(findings: Findings) -> Section:
    """Weighted interval scores of models, and of one forecast made of them."""
    heading = "WIS by model"
    if findings.coverage is None or "model_score" not in findings.coverage:
        return Section("models", heading, "Absent: no models have been combined.")
    score = findings.coverage["model_score"]
    leads, panels = findings.coverage.lead_time.values, []
    legend = tuple((*drawn, name) for name, drawn in _COMBINATIONS.items())
    for name in findings.calibrated:
        own = score.sel(channel=name)
        lines = [
            Line(role, own.sel(combination=model).values, dash)
            for model, (role, dash) in _COMBINATIONS.items()
        ]
        alt = f"Weighted interval score of {name} against lead time: " + _ranked(own)
        panels.append(Panel(lead_panel(leads, lines, alt), name, findings.units(name)))
    words = "; ".join(f"{name}: {_ranked(score.sel(channel=name))}" for name in findings.calibrated)
    text = "On the last quarter of the dates, by what was known before them. "
    if (dates := score.attrs.get("init_times", FEW_DATES)) < FEW_DATES:
        text += (
            f"That is {dates} init times: with fewer than {FEW_DATES} only large differences are "
            "more than chance, so read no order into neighbours. "
        )
    text += (
        "Relative to the mean of the models' quantiles, on average over leads, the best first: "
        f"{words}."
    )
    return Section("models", heading, text, legend, tuple(panels))


def _ranked(score: xr.DataArray) -> str:
    """All forecasts by their score, (combination, lead_time), relative to the mean's."""
    relative = (score / score.sel(combination="mean")).mean("lead_time").sortby(lambda one: one)
    names = relative.dropna("combination")["combination"].values
    return ", ".join(f"{name} {float(relative.sel(combination=name)):.3f}" for name in names)


def where_section(findings: Findings) -> Section:
    """Coverage in parts of the globe and in time, and the reliability of every quantile."""
    heading = "Calibration in detail"
    coverage = findings.coverage
    if coverage is None or "below_after" not in coverage:
        return Section("calibration", heading, "Absent: this ensemble has not been calibrated.")
    panels = [
        _reliability(coverage),
        _in_time(coverage),
        *(_by_region(coverage, stage) for stage in ("before", "after")),
    ]
    regions = [str(name).replace("_", " ") for name in coverage.region.values]
    named = zip(_REGION_ROLES, regions, strict=False)
    legend = (*_LEGEND, *((role, "solid", f"{name} (by region)") for role, name in named))
    text = (
        "All channels together, on dates held out from calibration. Reliability: the share of "
        "truths that are not above each quantile, which is the quantile's level where it is "
        "reliable; the steps between are the histogram of the probability integral transform. "
        f"In time and by region: coverage of the {_LEVEL:.0%} interval. No method can promise it "
        "for every single date."
    )
    return Section("calibration", heading, text, legend, tuple(panels))


def _reliability(coverage: xr.Dataset) -> Panel:
    levels = coverage["quantile"].values
    shares = [
        (role, dash, coverage[f"below_{stage}"].mean(("channel", "lead_time")).values)
        for stage, role, dash in _STAGES
    ]
    worst = [float(np.nanmax(np.abs(values - levels))) for _, _, values in shares]
    alt = (
        f"Reliability of quantiles: farthest from its level {worst[0]:.1%} before and "
        f"{worst[1]:.1%} after calibration"
    )
    return Panel(reliability_panel(levels, shares, alt), "reliability of quantiles")


def _in_time(coverage: xr.Dataset) -> Panel:
    found = coverage.sel(level=_LEVEL, method="nearest")
    lines = [
        Line(role, 100 * found[f"date_{stage}"].mean("channel").values, dash)
        for stage, role, dash in _STAGES
    ]
    low, high = np.nanmin(lines[-1].values), np.nanmax(lines[-1].values)
    alt = f"Coverage by initial date: {low:.0f} to {high:.0f} % after calibration"
    svg = date_panel(coverage.init_time.values, lines, alt, 100 * _LEVEL)
    return Panel(svg, f"{_LEVEL:.0%} interval by initial date", "%")


def _by_region(coverage: xr.Dataset, stage: str) -> Panel:
    found = coverage[f"region_{stage}"].sel(level=_LEVEL, method="nearest").mean("channel")
    regions = found.region.values[: len(_REGION_ROLES)]
    lines = [
        Line(role, 100 * found.sel(region=name).values)
        for role, name in zip(_REGION_ROLES, regions, strict=False)
    ]
    means = ", ".join(
        f"{name} {np.nanmean(line.values):.0f} %" for name, line in zip(regions, lines, strict=True)
    )
    alt = f"Coverage by region {stage} calibration, mean over lead times: {means}"
    svg = level_panel(coverage.lead_time.values, lines, alt, 100 * _LEVEL)
    return Panel(svg, f"{_LEVEL:.0%} interval by region, {stage} calibration", "%")
