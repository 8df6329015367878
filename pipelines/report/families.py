"""What a report says of the families of scores that were asked for: nothing where none was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from pipelines.report.figures import Line, event_panel, label_panel
from pipelines.report.sections import Findings, Panel, Section, chosen_leads, lead_labels
from pipelines.report.summary import table_of
from pipelines.report.table import Column, Table
from scoring.labels import plain

_UPPER, _LOWER = {"climate_quantile": 0.9}, {"climate_quantile": 0.1}
_EVENTS = {0.1: "early", 0.5: "middle", 0.9: "late"}
_LEADS = ("early", "middle", "late")
_OF_DEGREES = {
    "power / power of the truth": {"power_ratio_mean": "dashed", "power_ratio_members": "solid"},
    "spread-skill by degree": {"spectral_spread_skill": "solid"},
}


def family_sections(findings: Findings) -> Iterator[Section]:
    """A section for each kind of family that was scored."""
    if "ensemble" not in findings.scores.forecast:
        return
    made = (_amounts, _events, _spectra, _single_members)
    yield from (section for section in (make(findings) for make in made) if section is not None)


def family_tables(findings: Findings) -> Iterator[tuple[str, Table]]:
    """What the sections' tables hold at the middle one of a few leads, by their headings."""
    if "ensemble" not in findings.scores.forecast:
        return
    lead = _middle(findings)
    label = lead_labels(findings.lead_times)[lead]
    for heading, columns in _COLUMNS.items():
        if shown := columns(findings):
            table = table_of(findings, shown, _never_best, np.array([lead]))
            yield f"{heading}, {label}", table


def _amount_columns(findings: Findings) -> tuple[Column, ...]:
    """Of scores in units beside the CRPS; none where there are none."""
    known = partial(_by_lead, findings)
    added = (
        Column("CRPS", "reliability (Hersbach)", known("crps_reliability")),
        Column("CRPS", "potential", known("crps_potential")),
        Column("CRPS", "of the Gaussian", known("crps_gaussian")),
        Column("CRPS", "above 0.9-quantile", known("crps_above_90", _UPPER)),
        Column("CRPS", "below 0.1-quantile", known("crps_below_10", _LOWER)),
        Column("WIS", "intervals", known("wis")),
        Column("Energy score", "of the field", known("energy_score")),
    )
    own = Column("CRPS", "ensemble", known("crps"), estimator=findings.estimator("ensemble"))
    return (own, *added) if _has_any(findings, added) else ()


def _amounts(findings: Findings) -> Section | None:
    """Scores in the channel's own units, beside the CRPS."""
    shown = _amount_columns(findings)
    if not shown:
        return None
    text = (
        "Of the ensemble, in the units of the channel; lower is better. Reliability is what "
        "calibration could take off the standard CRPS and potential what it would leave; a CRPS "
        "of the Gaussian below the ensemble's says that its shape does not help. The weighted "
        "CRPS counts only what lies beyond a quantile of the climatology."
    )
    return Section("more-scores", "More scores", text, table=table_of(findings, shown, _never_best))


def _event_columns(findings: Findings) -> tuple[Column, ...]:
    """Of events and extremes; none where there are none."""
    known = partial(_by_lead, findings)
    shown = (
        Column("Brier score", "fair", known("brier", _UPPER), 4),
        Column("MCB", "miscalibration", known("miscalibration", _UPPER), 4),
        Column("DSC", "discrimination", known("discrimination", _UPPER), 4),
        Column("UNC", "uncertainty", known("uncertainty", _UPPER), 4),
        Column("ROC area", "0.5 is no skill", known("roc_area", _UPPER), 3),
        Column("EFI", "mean, exact", known("efi"), 3),
        Column("SOT", "mean, upper tail", known("shift_of_tails"), 3),
    )
    return shown if _has_any(findings, shown) else ()


def _events(findings: Findings) -> Section | None:
    """Events beyond quantiles of the climatology, and how extreme the forecasts are."""
    shown = _event_columns(findings)
    if not shown:
        return None
    lead = _middle(findings)
    made = (_reliability, _economic_value)
    panels = [panel for make in made for name in findings.channels
              for panel in make(findings, name, lead)]  # fmt: skip
    legend = tuple(
        (role, "solid", f"above the {level:g}-quantile") for level, role in _EVENTS.items()
    )
    text = "EFI and SOT are means over cells and dates; an EFI of 0 is a forecast like the climate."
    if panels:
        text = (
            "The table is of the event to exceed the 0.9-quantile of the climatology. MCB is what "
            "calibration could take off the standard Brier score (the table has the fair one), DSC "
            "what the forecast knows beyond the base rate. Reliability at "
            f"{lead_labels(findings.lead_times)[lead]}: how often events happened by the "
            "probability forecast, isotonic fit (CORP); the area of a point is its share of the "
            "forecasts. Economic value: of what perfect forecasts would save, the "
            "share that these do, by the ratio of the cost of acting to the loss it prevents. "
            + (text if "efi" in findings.scores else "")
        )
    table = table_of(findings, shown, _never_best)
    return Section("events", "Events", text, legend if panels else (), tuple(panels), table)


def _reliability(findings: Findings, channel: str, lead: int) -> Iterator[Panel]:
    """The reliability diagram of a channel at one lead."""
    fits = _of_events(findings, channel, lead, "reliability_calibrated")
    shares = _of_events(findings, channel, lead, "reliability_frequency")
    if not fits:
        return
    probabilities = findings.scores.probability.values
    distance = {
        level: np.nansum(shares[level] * abs(fit - probabilities)) for level, fit in fits.items()
    }
    words = ", ".join(f"above the {level:g}-quantile {far:.1%}" for level, far in distance.items())
    label = lead_labels(findings.lead_times)[lead]
    alt = f"Reliability of {channel} at {label}: mean distance from the diagonal {words}"
    events = [(_EVENTS[level], fit, shares[level]) for level, fit in fits.items()]
    yield Panel(event_panel(probabilities, events, alt), channel, f"reliability at {label}")


def _economic_value(findings: Findings, channel: str, lead: int) -> Iterator[Panel]:
    """The economic value of a channel at one lead, by the ratio of cost and loss."""
    found = _of_events(findings, channel, lead, "relative_economic_value")
    if not found:
        return
    lines = [Line(_EVENTS[level], value) for level, value in found.items()]
    label = lead_labels(findings.lead_times)[lead]
    best = max(float(np.nanmax(value)) for value in found.values())
    alt = f"Relative economic value of {channel} at {label}: at most {best:.2f}"
    svg = label_panel("cost / loss", findings.scores.cost_loss_ratio.values, lines, alt)
    yield Panel(svg, channel, f"economic value at {label}")


def _of_events(findings: Findings, channel: str, lead: int, score: str) -> dict[float, np.ndarray]:
    """A score of each event that has one, by the level of the event."""
    found = {
        level: _at_lead(findings, lead, {"channel": channel, "climate_quantile": level}, score)
        for level in _EVENTS
    }
    return {level: values for level, values in found.items() if values is not None}


def _spectra(findings: Findings) -> Section | None:
    """Angular power relative to the truth's, and spread-skill, by degree."""
    panels = [
        panel
        for heading, scores in _OF_DEGREES.items()
        for name in findings.channels
        for panel in _by_label(findings, name, heading, "degree", scores)
    ]
    if not panels:
        return None
    legend = (
        *_lead_legend(findings),
        ("ink", "solid", "members, and spread-skill"),
        ("ink", "dashed", "ensemble mean"),
    )
    text = (
        "Members should keep the truth's power at every degree (1), small scales on the right; the "
        "mean loses it where scales have become unpredictable. Spread-skill is 1 at every degree "
        "where members stand as far from their mean as the truth does."
    )
    return Section("spectra", "Spectra", text, legend, tuple(panels))


def _member_columns(findings: Findings) -> tuple[Column, ...]:
    """Of single members; none where there are none."""
    if "gain" not in findings.scores:
        return ()
    sizes = findings.scores["size"].values
    known, most = partial(_by_lead, findings), int(sizes[-1])
    return (
        *(Column("Best member", f"error, of {size}", known("best_member_error", {"size": size}))
          for size in dict.fromkeys((int(sizes[0]), most))),
        Column("Outliers", f"of {most}, null value {2 / (most + 1):.2g}",
               known("expected_outlier", {"size": most}), 3),
        Column("Gain", "farthest member / spread", known("gain"), 2),
    )  # fmt: skip


def _single_members(findings: Findings) -> Section | None:
    """How outliers and the best member depend on the size of the ensemble."""
    if "gain" not in findings.scores:
        return None
    sizes = findings.scores["size"].values
    panels = [
        panel
        for name in findings.channels
        for panel in _by_label(
            findings, name, "outliers / null value by ensemble size", "size",
            {"expected_outlier": "solid"}, (sizes + 1) / 2,
        )
    ]  # fmt: skip
    text = (
        "How often the truth lies outside all of so many members, relative to 2/(M+1), how often "
        "it does when it is one more draw: 1 is reliable, more is too little spread or a bias. "
        f"Gain, how far the farthest member lies from the mean: "
        f"{findings.scores.gain.attrs['estimator']}."
    )
    table = table_of(findings, _member_columns(findings), _never_best)
    legend = _lead_legend(findings)
    return Section("members", "Single members", text, legend, tuple(panels), table)


def _by_label(
    findings: Findings,
    channel: str,
    heading: str,
    dim: str,
    scores: Mapping[str, str],
    factor: np.ndarray | float = 1.0,
) -> Iterator[Panel]:
    """A panel of scores against a label other than lead time, at a few leads; 1 is perfect.

    Parameters
    ----------
    findings : Findings
        With the scores.
    channel, heading : str
        What the panel is of.
    dim : str
        The label's dimension. A label of 0 is left out: the axis is logarithmic.
    scores : mapping of str to str
        Name to dash.
    factor : numpy.ndarray or float
        (label,): values are multiplied by it.
    """
    if dim not in findings.scores.dims:
        return
    labels = findings.scores[dim].values
    there = labels > 0
    lines = []
    for score, dash in scores.items():
        for role, lead in zip(_LEADS, chosen_leads(findings.lead_times, 3), strict=False):
            values = _at_lead(findings, int(lead), {"channel": channel}, score)
            if values is not None:
                lines.append(Line(role, (values * factor)[there], dash))
    if lines:
        last = f"{dim} {labels[-1]} at the last lead shown"
        alt = f"{heading} of {channel}: {lines[-1].values[-1]:.2f} at {last}"
        yield Panel(label_panel(dim, labels[there], lines, alt, level=1.0), channel, heading)


def _lead_legend(findings: Findings) -> tuple[tuple[str, str, str], ...]:
    leads = chosen_leads(findings.lead_times, 3)
    labels = lead_labels(findings.lead_times[leads])
    return tuple((role, "solid", label) for role, label in zip(_LEADS, labels, strict=False))


def _middle(findings: Findings) -> int:
    """The middle one of a few leads."""
    leads = chosen_leads(findings.lead_times, 3)
    return int(leads[len(leads) // 2])


def _by_lead(
    findings: Findings, score: str, labels: Mapping[str, float] | None = None
) -> Callable[[str], np.ndarray | None]:
    """From a channel's name to one score of the ensemble against lead time, at its own labels."""
    return lambda channel: _values(findings, score, {"channel": channel} | (labels or {}))


def _at_lead(
    findings: Findings, lead: int, labels: Mapping[str, str | float], score: str
) -> np.ndarray | None:
    """One score of the ensemble at the position of a lead, by the one label that is left."""
    time = findings.lead_times[lead]
    return _values(findings, score, {**labels, "lead_time": time})


def _values(findings: Findings, score: str, labels: Mapping[str, object]) -> np.ndarray | None:
    """A score of the ensemble at some labels; None where it was not asked for, or has no value."""
    if score not in findings.scores:
        return None
    values = plain(findings.scores[score]).sel({"forecast": "ensemble", **labels}).values
    return values if np.isfinite(values).any() else None


def _has_any(findings: Findings, columns: Sequence[Column]) -> bool:
    return any(one.curve(name) is not None for one in columns for name in findings.channels)


def _never_best(channel: str, lead: int) -> bool:
    """No row is marked: that is the summary's."""
    return False


_COLUMNS = {
    "More scores": _amount_columns,
    "Events": _event_columns,
    "Single members": _member_columns,
}
