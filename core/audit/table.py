"""An audit as a table: on the terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from core.audit.result import Audit
from core.audit.rules import RULES, SEVERITIES

COLUMNS = (
    *("case", "patient", "origin", "severity", "errors", "warnings", "remarks", "axes", "size_z", "size_y", "size_x"),
    *("spacing_z_mm", "spacing_y_mm", "spacing_x_mm", "spacing_trusted", "hu_low", "hu_high", "padding", "hu_trusted"),
    *("body_width_mm", "liver_ml", "tumour_ml", "lesions", "largest_mm", "median_mm", "liver_hu", "liver_voxels"),
    *("tumour_voxels", "dtype", "slope", "intercept", "image", "label", "notes"),
)
"""Of ``audit.csv``."""


def rows(audit: Audit) -> list[dict[str, Any]]:
    """One row a case, as in ``audit.csv``; None is blank."""
    out = []
    for seen in audit.cases:
        found = audit.of_case(seen.case.id)
        counts = {f"{s}s": sum(RULES[f.rule].severity == s for f in found) for s in SEVERITIES}
        own: dict[str, Any] = {
            "case": seen.case.id,
            "patient": seen.case.patient,
            "origin": seen.case.origin,
            "severity": audit.worst(seen.case.id),
            **counts,
            **seen.row,
            "image": str(seen.case.image),
            "label": str(seen.case.label) if seen.case.label is not None else None,
            "notes": "; ".join(f"{RULES[f.rule].title}: {f.saw}" for f in found) or None,
        }
        out.append({column: own.get(column) for column in COLUMNS})
    return out


def as_csv(audit: Audit) -> str:
    """The text of ``audit.csv``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows(audit))
    return text.getvalue()


def as_json(audit: Audit) -> str:
    """The text of ``audit.json``: the rows, the findings, and what each rule means."""
    findings = [{**vars(f), "cases": list(f.cases), "severity": RULES[f.rule].severity} for f in audit.findings]
    meaning = {rule: vars(RULES[rule]) for rule in dict.fromkeys(f.rule for f in audit.findings)}
    whole = {"title": audit.title, "source": audit.source, "cases": rows(audit), "findings": findings, "rules": meaning}
    return json.dumps(whole, indent=1) + "\n"


def as_text(audit: Audit) -> str:
    """A table of the cases and the findings by rule, for the terminal."""
    lines = [_aligned(("case", "axes", "size", "mm", "HU", "liver ml", "lesions", "found"), _short(audit))]
    for rule in dict.fromkeys(f.rule for f in audit.findings):
        meaning = RULES[rule]
        lines.append(f"{meaning.severity}: {meaning.title}")
        for finding in (f for f in audit.findings if f.rule == rule):
            names = ", ".join(finding.cases[:6]) + (f" and {len(finding.cases) - 6} more" if finding.cases[6:] else "")
            lines.append(f"  {names}: {finding.saw}" if names else f"  {finding.saw}")
        lines.append(f"  what to do: {meaning.todo}")
    counts = ", ".join(f"{audit.count(s)} {s}{'s' * (audit.count(s) != 1)}" for s in SEVERITIES)
    return "\n".join([*lines, f"{len(audit.cases)} cases: {counts}"])


def _short(audit: Audit) -> list[tuple[str, ...]]:
    out: list[tuple[str, ...]] = []
    for row in rows(audit):
        known = row["axes"] is not None
        spacing = " x ".join(f"{row[f'spacing_{a}_mm']:.3g}" for a in "zyx") if known else ""
        size = " x ".join(str(row[f"size_{a}"]) for a in "zyx") if known else ""
        hu = f"{row['hu_low']} to {row['hu_high']}" if known else ""
        found = ", ".join(f"{row[f'{s}s']} {s}{'s' * (row[f'{s}s'] != 1)}" for s in SEVERITIES if row[f"{s}s"])
        ml = "" if row["liver_ml"] is None else f"{row['liver_ml']:.0f}"
        lesions = "" if row["lesions"] is None else str(row["lesions"])
        out.append((row["case"], row["axes"] or "", size, spacing, hu, ml, lesions, found))
    return out


def _aligned(heads: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[i]) for line in [heads, *body]) for i in range(len(heads))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in [heads, *body]
    )
