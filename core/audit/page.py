"""An audit as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from core.audit.result import Audit
from core.audit.rules import RULES, SEVERITIES, Finding
from core.audit.table import rows
from core.audit.thumbnails import LIVER_COLOUR, TUMOUR_COLOUR

_COLUMNS: tuple[tuple[str, bool, str], ...] = (
    ("case", True, ""),
    ("errors", False, "errors"),
    ("warnings", False, "warnings"),
    ("remarks", False, "remarks"),
    ("patient", True, ""),
    (
        "axes",
        True,
        "directions in which the file's axes grow: Left or Right, Anterior or Posterior, Superior or Inferior",
    ),
    ("size", False, "slices, rows, columns; sorted by the slices"),
    ("mm", False, "along z, y, x; sorted by the distance of the slices"),
    ("HU", False, "lowest and highest value, padding left out; sorted by the lowest"),
    ("padding", False, "values that stand for nothing measured"),
    ("body cm", False, "width of the body"),
    ("liver ml", False, "labels 1 and 2"),
    ("tumour ml", False, "label 2"),
    ("lesions", False, "connected components of label 2"),
    ("largest mm", False, "diameter of a ball of its volume"),
    ("median mm", False, "diameter of a ball of its volume"),
    ("liver HU", False, "median inside of the mask"),
)
"""Name, whether it is text, help."""


def page(audit: Audit) -> str:
    """The HTML."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined)
    cases = [_case(audit, i, row) for i, row in enumerate(rows(audit))]
    severities = {case["id"]: case["severities"] for case in cases}
    touched = {s: sum(s in found for found in severities.values()) for s in SEVERITIES}
    return environment.get_template("page.html").render(
        title=audit.title,
        source=audit.source,
        when=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        severities=SEVERITIES,
        counts={s: audit.count(s) for s in SEVERITIES},
        touched={**touched, "good": sum(not found for found in severities.values())},
        groups=_groups(audit.findings),
        columns=[{"name": name, "text": text, "help": about} for name, text, about in _COLUMNS],
        cases=cases,
        anchors={case["id"]: case["anchor"] for case in reversed(cases)},
        liver_colour=LIVER_COLOUR,
        tumour_colour=TUMOUR_COLOUR,
    )


def _groups(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    out = []
    for rule in dict.fromkeys(f.rule for f in findings):
        same = [f for f in findings if f.rule == rule]
        cases = len({case for f in same for case in f.cases})
        out.append({"rule": rule, "findings": same, "cases": cases, **vars(RULES[rule])})
    return out


def _case(audit: Audit, index: int, row: dict[str, Any]) -> dict[str, Any]:
    seen = audit.cases[index]
    found = audit.of_case(seen.case.id)
    return {
        "id": row["case"],
        "anchor": f"case-{index}",
        "severity": row["severity"],
        "severities": [s for s in SEVERITIES if row[f"{s}s"]],
        "rules": list(dict.fromkeys(f.rule for f in found)),
        "findings": [{"saw": f.saw, **vars(RULES[f.rule])} for f in found],
        "facts": _facts(row),
        "image": row["image"],
        "label": row["label"],
        "pictures": [{**vars(p), "data": base64.b64encode(p.data).decode()} for p in seen.pictures],
        "cells": _cells(row),
    }


def _cells(row: dict[str, Any]) -> list[dict[str, Any]]:
    known, width = row["axes"] is not None, row["body_width_mm"]
    size = " x ".join(str(row[f"size_{a}"]) for a in "zyx")
    spacing = " x ".join(f"{row[f'spacing_{a}_mm']:.3g}" for a in "zyx") if known else ""
    shown: dict[str, tuple[Any, str]] = {
        "size": (row["size_z"], size if known else ""),
        "mm": (row["spacing_z_mm"], spacing),
        "HU": (row["hu_low"], f"{row['hu_low']} to {row['hu_high']}" if known else ""),
        "body cm": (width, "" if width is None else f"{width / 10:.0f}"),
    }
    for name, _, _ in _COLUMNS:
        if name not in shown:
            value = row[name.replace(" ", "_").lower()]
            hidden = value is None or (name in ("errors", "warnings", "remarks") and not value)
            digits = 0 if name.endswith("ml") and (not value or value >= 10) else 1
            text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
            shown[name] = (value, "" if hidden else text)
    return [
        {"value": "" if shown[name][0] is None else shown[name][0], "shown": shown[name][1], "text": text}
        for name, text, _ in _COLUMNS
    ]


def _facts(row: dict[str, Any]) -> str:
    if row["axes"] is None:
        return ""
    spacing = " x ".join(f"{row[f'spacing_{a}_mm']:.3g}" for a in "zyx")
    parts = [
        f"{row['size_z']} slices of {row['size_y']} x {row['size_x']}",
        f"{spacing} mm" + ("" if row["spacing_trusted"] else " (not to be trusted)"),
        row["axes"],
    ]
    if row["liver_ml"] is not None:
        parts.append(f"liver {row['liver_ml']:.0f} ml")
    if row["lesions"] is not None:
        parts.append(f"{row['lesions']} lesion{'s' * (row['lesions'] != 1)}")
    return ", ".join(parts)
