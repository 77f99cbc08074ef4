"""What an evaluation writes into its folder, and what it prints."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.contracts import Metric, Rows
from core.evaluate.parts import Parts
from core.infer.evaluate import summarise
from core.measure.statistics import LEAST_PATIENTS
from core.report import figures, tables
from core.report.page import write_report
from core.report.terminal import terminal

WINDOWED = "were windowed before"
VERSIONS = ("torch", "numpy", "scipy", "nibabel", "connected-components-3d", "segmentation_models_pytorch")


@dataclass(frozen=True)
class Evaluation:
    """All of an evaluation but its files.

    Attributes:
        folder: where it is written.
        title: of the figures.
        metrics: whose `summarise` gives the figures.
        tables: of all cases.
        cases: their ids, in order.
        provenance: what was evaluated, with what.
        marks: further top-level keys of the summary: ``phantom``, ``cropped``, ``selected``, ``allowed``, ``notes``.
        shown: slices for the overlays, each with its rank.
        look: what is appended to ``looks.jsonl``; None appends nothing.
        looked_at: what the looks are at.
    """

    folder: Path
    title: str
    metrics: Sequence[Metric]
    tables: Mapping[str, Rows]
    cases: Sequence[str]
    provenance: Mapping[str, Any]
    marks: Mapping[str, Any] = field(default_factory=dict)
    shown: Sequence[tuple[str, figures.Panel]] = ()
    look: Mapping[str, Any] | None = None
    looked_at: str = ""


def write(evaluation: Evaluation, parts: Parts | None = None) -> dict[str, Any]:
    """Write tables, summary, figures and report, print the table; returns the summary.

    Args:
        evaluation: what to write.
        parts: whose views are taken over, and which end with this.
    """
    folder, found = evaluation.folder, evaluation.tables
    folder.mkdir(parents=True, exist_ok=True)
    summary = {**summarise(evaluation.metrics, found), **evaluation.marks}
    kept = [name for name, rows in found.items() if rows or name in tables.COLUMNS]
    for name in set(_tables_before(folder)) - set(kept):
        (folder / f"{name}.csv").unlink(missing_ok=True)
    for name in kept:
        tables.write_csv(folder / f"{name}.csv", name, found[name])
    tables.write_json(folder / "summary.json", {**summary, "tables": kept, "provenance": evaluation.provenance})
    written = [f"{name}.csv" for name in kept] + ["summary.json"]
    if evaluation.look is not None:
        dice = {name: summary.get(name, {}).get("dice", {}).get("mean") for name in ("liver", "tumour")}
        tables.append_line(folder / "looks.jsonl", {**evaluation.look, "dice": dice})
    written += _draw(evaluation)
    if parts is not None:
        parts.finish(evaluation.cases)
    print(f"\n{terminal(summary)}\n", flush=True)
    written.append(write_report(folder).name)
    for note in [*evaluation.marks.get("notes", []), *_too_few(found)]:
        print(f"note: {note}")
    print(f"written to {folder}: {', '.join(written)}")
    if evaluation.look is not None:
        with open(folder / "looks.jsonl", encoding="utf-8") as file:
            print(f"look {sum(1 for _ in file)} at {evaluation.looked_at} (looks.jsonl)")
    return summary


def _draw(evaluation: Evaluation) -> list[str]:
    rows, folder = evaluation.tables.get("cases", []), evaluation.folder
    if not figures.choose_cases(rows):
        print("no metric gives 'dice', so there is no dice.png and no overlays.png")
        return []
    count = f"{len(evaluation.cases)} case{'s' if len(evaluation.cases) != 1 else ''}"
    figures.dice_distribution(folder / "dice.png", evaluation.tables, title=f"{evaluation.title}, {count}")
    if not evaluation.shown:
        return ["dice.png"]
    figures.overlays(folder / "overlays.png", evaluation.shown, rows, title=evaluation.title)
    return ["dice.png", "overlays.png"]


def _too_few(found: Mapping[str, Rows]) -> list[str]:
    patients = {row.get("patient") or row.get("case") for row in found.get("cases", [])}
    if len(patients) >= LEAST_PATIENTS:
        return []
    count = f"{len(patients)} patient{'s' if len(patients) != 1 else ''}"
    return [f"no intervals: {count}, and below {LEAST_PATIENTS} a bootstrap interval is too narrow"]


def _tables_before(folder: Path) -> list[str]:
    """The tables of the evaluation that is written over; other files are not ours."""
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["tables"]
        return [name for name in found if re.fullmatch(r"\w+", name)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def provenance() -> dict[str, Any]:
    """What any evaluation says of its circumstances."""
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": {"platform": platform.platform(), "device": platform.machine(), "cpus": os.cpu_count()},
    }


def versions() -> dict[str, str]:
    """Of the libraries that may change a figure."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def left_out(cases: Sequence[str], total: int, doubts: Mapping[str, str] | None = None) -> str:
    """What is said of cases whose spacing cannot be trusted, with the reason of the first."""
    some = ", ".join(cases[:8]) + (f" and {len(cases) - 8} more" if len(cases) > 8 else "")
    why = f" ({cases[0]}: {doubts[cases[0]]})" if doubts else ""
    return f"the spacing of {len(cases)} of {total} cases cannot be trusted, no mm or ml of {some}{why}"


def windowed(cases: Sequence[str], total: int) -> str:
    """What is said of scans whose intensities are not HU."""
    some = ", ".join(cases[:8]) + (f" and {len(cases) - 8} more" if len(cases) > 8 else "")
    return f"the intensities of {len(cases)} of {total} scans {WINDOWED}, so contrast is not in HU: {some}"
