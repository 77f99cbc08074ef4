"""A comparison as files in a folder, replacing an earlier comparison of the same evaluations and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.compare import words
from core.compare.groups import differing, seed
from core.compare.page import page
from core.compare.result import Comparison
from core.compare.tables import case_rows, difference_row, lesion_rows
from core.errors import UserError
from core.report.tables import make_folder, whole_file, write_csv, write_json

FILES = ("comparison.json", "comparison.csv", "comparison_cases.csv", "comparison_lesions.csv", "comparison.html")
MADE_BY = "Hepar tools/compare.py"


def default_folder(comparison: Comparison) -> Path:
    """Beside the first run: ``compare_A_vs_B``."""
    first = comparison.evaluations[0].folder.resolve()
    beside = first.parent.parent if (first.parent / "config.yaml").is_file() else first.parent
    names = [evaluation.name.replace("/", "_") for evaluation in comparison.evaluations]
    shown = names if len(names) <= 3 else [names[0], f"{len(names) - 1}_others"]
    return beside / f"compare_{'_vs_'.join(shown)}"


def check_folder(folder: Path, comparison: Comparison) -> bool:
    """Whether an earlier comparison of the same evaluations is there, which will be replaced.

    Raises:
        UserError: if files of these names are there that are no such comparison.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file; name a folder with -o")
    there = [name for name in FILES if (folder / name).exists()]
    if not there:
        return False
    try:
        known = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
        theirs = [row["folder"] for row in known["evaluations"] if known["made_by"] == MADE_BY]
    except (OSError, ValueError, KeyError, TypeError):
        theirs = []
    if not theirs:
        raise UserError(f"{folder / there[0]}: is there and not by this tool; name another folder with -o")
    if theirs != [str(evaluation.folder.resolve()) for evaluation in comparison.evaluations]:
        raise UserError(f"{folder}: holds the comparison of {' and '.join(theirs)}; name another folder with -o")
    return True


def write(folder: Path, comparison: Comparison, *, when: str, command: str) -> None:
    """All files, each whole or not at all; first the one that says whose the others are."""
    make_folder(folder, "name another folder with -o")
    rows = [difference_row(comparison, row) for row in (*comparison.differences, *comparison.by_stratum)]
    write_json(folder / FILES[0], record(comparison, when, command))
    write_csv(folder / FILES[1], "comparison", rows)
    write_csv(folder / FILES[2], "comparison_cases", case_rows(comparison))
    write_csv(folder / FILES[3], "comparison_lesions", lesion_rows(comparison))
    with whole_file(folder / FILES[4]) as file:
        file.write(page(comparison, when).encode())


def record(comparison: Comparison, when: str, command: str) -> dict[str, Any]:
    """What ``comparison.json`` holds."""
    runs = [
        {
            "name": evaluation.name,
            "folder": str(evaluation.folder.resolve()),
            "seed": seed(evaluation),
            "looks": evaluation.looks,
            "values": {m.name: values[i] for m, values in zip(comparison.metrics, comparison.values, strict=True)},
            "provenance": dict(evaluation.provenance),
        }
        for i, evaluation in enumerate(comparison.evaluations)
    ]
    return {
        "made_by": MADE_BY,
        "time": when,
        "command": command,
        "phantom": comparison.phantom,
        "evaluations": runs,
        "metrics": [metric.name for metric in comparison.metrics],
        "predeclared": comparison.declared,
        "notes": list(comparison.notes),
        "configurations_differ": dict(differing(comparison.evaluations)),
        "groups": [
            {"runs": [runs[i]["name"] for i in group.members], "seeds": list(group.seeds)}
            for group in comparison.groups
        ],
        "conclusions": [words.conclusion(row, comparison) for row in comparison.differences],
        "trainings": words.trainings(comparison),
        "differences": [difference_row(comparison, row) for row in comparison.differences],
        "strata": [difference_row(comparison, row) for row in comparison.by_stratum],
        "found_at": comparison.threshold,
        "lesions": [{**vars(row), "a": runs[row.a]["name"], "b": runs[row.b]["name"]} for row in comparison.found],
    }
