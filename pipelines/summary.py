"""The table that ends `myriad score` and `myriad all`: the report's summary without a browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

import xarray as xr

from pipelines.report.families import family_tables
from pipelines.report.sections import Findings
from pipelines.report.summary import summary_table
from pipelines.report.table import Column, Table

_NARROW = 9


def summary_text(findings: Findings) -> str:
    """Channel by lead: the columns and rows of the report's table, aligned, about 100 characters
    wide; those of families at one lead; and the notes below."""
    return "\n".join([*_lines(findings)])


def _lines(findings: Findings) -> Iterator[str]:
    yield from _aligned(summary_table(findings))
    for heading, table in family_tables(findings):
        yield f"\n{heading}"
        yield from _aligned(table, [])
    yield ""
    yield from _facts(findings.scores)
    yield from findings.notes


def _facts(scores: xr.Dataset) -> Iterator[str]:
    """Of what the table is, and which families were asked for."""
    region = str(scores.region.item()).replace("_", " ")
    yield f"Region: {region}. Init times: {int(scores.cases.max())}."
    known = zip(scores.forecast.values, scores.crps_estimator.values, strict=True)
    yield f"CRPS: {'; '.join(f'{name} {estimator}' for name, estimator in known)}."
    if families := scores.attrs.get("families"):
        yield f"Families: {', '.join(families)}."


def _aligned(table: Table, lead: Sequence[str] = ("lead",)) -> Iterator[str]:
    """Headings over as many lines as they need, and the rows; with their lead if it is headed."""
    heads = [["channel"], *([head] for head in lead), *map(_heading, table.columns)]
    height = max(map(len, heads))
    above = [[""] * (height - len(head)) + head for head in heads]
    lines = [list(line) for line in zip(*above, strict=True)]
    for group in table.groups:
        name = ", ".join(filter(None, (group.channel, group.units)))
        for place, row in enumerate(group.rows):
            label = [row.lead for _ in lead]
            cells = [cell.text for cell in row.cells]
            lines.append([name if place == 0 else "", *label, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *texts in lines:
        numbers = (text.rjust(width) for text, width in zip(texts, widths[1:], strict=True))
        yield "  ".join((name.ljust(widths[0]), *numbers)).rstrip()


def _heading(column: Column) -> list[str]:
    """Heading and note of a column in lines no wider than its longest word, or its numbers."""
    text = f"{column.heading} {column.note}".replace(",", "").replace("-", " ")
    words = wrap(text, 1, break_long_words=False)
    return wrap(text, max(_NARROW, *map(len, words)))
