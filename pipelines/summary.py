"""The table that ends a run on the terminal: the report's summary, without the browser."""

from __future__ import annotations

from pipelines.report.sections import Findings
from pipelines.report.summary import summary_table


def summary_text(findings: Findings) -> str:
    """Channel by lead: the same columns and rows as the report's table, aligned."""
    table = summary_table(findings)
    lines = [
        ["", "", *(column.heading for column in table.columns)],
        ["channel", "lead", *(column.note for column in table.columns)],
    ]
    for group in table.groups:
        for place, row in enumerate(group.rows):
            name = f"{group.channel}, {group.units}" if place == 0 else ""
            lines.append([name, row.lead, *(cell.text for cell in row.cells)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    aligned = (
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    return "\n".join(line.rstrip() for line in aligned)
