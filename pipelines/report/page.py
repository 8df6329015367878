"""The report: one self-contained HTML file about one ensemble, for reading offline and printing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from data.errors import StoreError
from data.source import Source
from data.state import to_dataset
from pipelines.labels import open_labelled, replace_whole
from pipelines.report.calibration import model_section, where_section, width_section
from pipelines.report.families import family_sections
from pipelines.report.figures import lead_unit
from pipelines.report.sections import (
    Findings,
    Section,
    chosen_leads,
    coverage_section,
    crps_section,
    map_section,
    rank_section,
    ratio_section,
    spread_section,
)
from pipelines.report.summary import summary_table, tiles
from pipelines.score_table import headline
from scoring.sums import Sums

_MAP_CHANNELS = ("z500", "msl", "t850", "t2m")


def read_findings(scores: Path, coverage: Path | None = None) -> Findings:
    """What there is to report, of the first region, which is the largest.

    Parameters
    ----------
    scores : pathlib.Path
        Folder that `myriad score` wrote.
    coverage : pathlib.Path or None
        Store of coverage before and after calibration, where there is one.

    Raises
    ------
    StoreError
        If there are no scores.
    """
    table = open_labelled(scores / "scores.zarr").load()
    region = str(table.region.values[0])
    by_date = None
    if "ensemble" in table.forecast and (scores / "sums.zarr").exists():
        sums = Sums.load(scores / "sums.zarr")
        by_date = headline(sums).of(sums, over=())
        by_date = by_date.sel(forecast="ensemble", region=region)
    covered = None
    if coverage is not None and coverage.exists():
        covered = open_labelled(coverage).load()
    return Findings(table.sel(region=region), covered, by_date)


def write_report(
    target: Path,
    findings: Findings,
    forecast: xr.Dataset | None = None,
    truth: Source | None = None,
) -> Path:
    """Write the report; what is not given is shown as absent.

    Parameters
    ----------
    target : pathlib.Path
        The HTML file to write; one that is there is replaced.
    findings : Findings
        Scores and what goes with them.
    forecast : xarray.Dataset or None
        The forecast store, for the map and the provenance.
    truth : Source or None
        Where the truth comes from, for the map.

    Raises
    ------
    StoreError
        If the file cannot be written, or is a folder.
    """
    if target.is_dir():
        raise StoreError(f"{target}: is a folder, expected the name of a file to write")
    page = render(findings, forecast, truth)
    replace_whole(target, lambda draft: draft.write_text(page, encoding="utf-8"))
    return target


def render(findings: Findings, forecast: xr.Dataset | None, truth: Source | None) -> str:
    """The page as text; arguments as of `write_report`."""
    environment = Environment(
        loader=PackageLoader("pipelines.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    attributes = {} if forecast is None else forecast.attrs
    return environment.get_template("report.html.jinja").render(
        title=attributes.get("title", "Ensemble forecast"),
        lede=_lede(findings),
        facts=list(_facts(findings, forecast)),
        tiles=tiles(findings),
        summary=Section("summary", "Summary", _table_text(findings), table=summary_table(findings)),
        notes=findings.notes,
        sections=list(_sections(findings, forecast, truth)),
        provenance=list(_provenance(findings, attributes)),
        configuration=_configuration(attributes),
    )


def _sections(
    findings: Findings, forecast: xr.Dataset | None, truth: Source | None
) -> Iterator[Section]:
    yield crps_section(findings)
    yield spread_section(findings)
    yield ratio_section(findings)
    yield rank_section(findings)
    yield from family_sections(findings)
    yield coverage_section(findings)
    yield width_section(findings)
    yield where_section(findings)
    yield model_section(findings)
    yield _map(forecast, truth)


def _map(forecast: xr.Dataset | None, truth: Source | None) -> Section:
    """The first finished forecast at the middle one of a few leads."""
    members = None if forecast is None else _mapped(forecast)
    if members is None:
        return Section("map", "One forecast", "Absent: no finished forecast on a global grid.")
    return map_section(members, None if truth is None else _at_valid_time(truth, members))


def _mapped(forecast: xr.Dataset) -> xr.DataArray | None:
    """Members to draw, (number, latitude, longitude); None where there are none."""
    channels = [name for name, array in forecast.items() if "latitude" in array.dims]
    finished = np.flatnonzero(forecast.completed.all("number").values)
    if not channels or len(finished) == 0:
        return None
    name = next((name for name in _MAP_CHANNELS if name in channels), channels[0])
    leads = chosen_leads(forecast.lead_time.values, 3)
    return forecast[name].isel(init_time=finished[0], lead_time=leads[len(leads) // 2]).load()


def _at_valid_time(truth: Source, members: xr.DataArray) -> xr.DataArray | None:
    """The truth of a forecast field; None where there is none."""
    time = (members.init_time + members.lead_time).values.astype("datetime64[s]")
    if members.name not in truth.channels or time not in truth.times:
        return None
    field = to_dataset(truth.analysis(time, (members.name,)))[members.name].isel(number=0)
    if field.shape != members.shape[1:]:
        return None
    return members.isel(number=0, drop=True).copy(data=field.values)


def _lede(findings: Findings) -> str:
    """The report in one sentence."""
    name, unit = lead_unit(findings.lead_times)
    region = str(findings.scores.region.item()).replace("_", " ")
    where = {"globe": "over the globe", "all": "over all places"}.get(region, f"over the {region}")
    channels = _counted(len(findings.channels), "channel")
    dates = _counted(int(findings.scores.cases.max()), "initial date")
    span = _counted(int(findings.lead_times[-1] // unit), name)
    return f"Ensemble forecasts to {span} in {channels}, scored {where} on {dates}."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _facts(findings: Findings, forecast: xr.Dataset | None) -> Iterator[tuple[str, str]]:
    """What the ensemble is made of."""
    if forecast is None:
        if "members" in findings.scores.attrs:
            yield "Members", str(findings.scores.attrs["members"])
        return
    times = forecast.init_time.values.astype("datetime64[h]")
    span = f"{times[0]} to {times[-1]}" if len(times) > 1 else f"{times[0]}"
    yield "Initial dates", f"{len(times)}: {span.replace('T', ' ')} UTC"
    name, unit = lead_unit(forecast.lead_time.values)
    leads = forecast.lead_time.values / unit
    yield "Lead time", f"{leads[-1]:g} {name}s, {len(leads)} times"
    yield "Members", f"{forecast.sizes['number']}, number 0 is the control"
    for heading, coordinate in (("Checkpoints", "checkpoint"), ("Perturbation", "perturbation")):
        names = forecast[coordinate].attrs.get("flag_meanings", "").split()
        words = (name.replace("_", " ").replace("+", " + ") for name in names)
        named = [name for name in words if name not in ("none", "control")]
        if named:
            yield heading, ", ".join(named)
    experiment = json.loads(forecast.attrs.get("experiment", "{}"))
    if "seed" in experiment:
        yield "Seed", str(experiment["seed"])


def _provenance(findings: Findings, attributes: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is needed to make the forecast again."""
    identity = json.loads(attributes.get("identity", "{}"))
    for name, number in identity.get("versions", {"myriadcast": version("myriadcast")}).items():
        yield name, str(number)
    for number, digest in enumerate(identity.get("checkpoints", [])):
        yield f"checkpoint {number}", str(digest)
    if "fingerprint" in attributes:
        yield "fingerprint", str(attributes["fingerprint"])
    for forecast in findings.scores.forecast.values:
        yield f"CRPS of {forecast}", findings.estimator(str(forecast))
    if "weights" in findings.scores.attrs:
        yield "weights", str(findings.scores.attrs["weights"])


def _configuration(attributes: dict[str, Any]) -> str:
    """The resolved experiment as YAML; empty where the store does not hold it."""
    if "experiment" not in attributes:
        return ""
    content = json.loads(attributes["experiment"])
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _table_text(findings: Findings) -> str:
    """How to read the table."""
    text = "Area means over all initial dates."
    if "ensemble" not in findings.scores.forecast:
        return text
    return (
        f"{text} In bold: the ensemble's CRPS is below the error of every reference shown; a "
        "reference without members is judged by its mean absolute error, which is its CRPS. The "
        f"ensemble's estimator is {findings.estimator('ensemble')}."
    )
