"""An evaluation folder read back: tables, summary, views; what is not there is empty."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.contracts import Rows
from core.errors import UserError
from core.report.tables import read_csv
from core.report.views import View, read_view

TABLES = ("cases", "lesions", "slices", "candidates")


@dataclass(frozen=True)
class Evaluation:
    """What ``tools/evaluate.py`` left.

    Attributes:
        folder: where.
        summary: ``summary.json``.
        tables: rows by table; empty where the file is not there.
        views: by case.
        looks: how often these cases were evaluated (``looks.jsonl``); 0 if that is not counted.
    """

    folder: Path
    summary: Mapping[str, Any]
    tables: Mapping[str, Rows]
    views: Mapping[str, View]
    looks: int = 0

    def of(self, *path: str) -> Any:
        """A figure of the summary; None where it is not there."""
        value: Any = self.summary
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def structure(self, name: str) -> Rows:
        """The rows of table ``cases`` of one structure, one a case."""
        return [row for row in self.tables["cases"] if row.get("structure") == name]

    def lesions(self, side: str) -> Rows:
        """The lesions of one side, without those too small to count."""
        return [row for row in self.tables["lesions"] if row.get("side") == side and not row.get("ignored")]

    @property
    def cases(self) -> list[str]:
        """All cases, in the order of the table."""
        return list(dict.fromkeys(row["case"] for row in self.tables["cases"]))

    @property
    def patients(self) -> int:
        """Of all cases; a case whose patient is not known is a patient of its own."""
        return len({row.get("patient") or row["case"] for row in self.tables["cases"]})


def read_evaluation(folder: Path) -> Evaluation:
    """Read an evaluation folder.

    Raises:
        UserError: if it holds no evaluation, or a file of it is broken.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise UserError(f"{folder}: no summary.json, so no evaluation; run tools/evaluate.py first")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; run tools/evaluate.py again") from error
    if not isinstance(summary, dict):
        raise UserError(f"{path}: not a summary of an evaluation; run tools/evaluate.py again")
    tables = {name: _rows(folder / f"{name}.csv") for name in TABLES}
    views = _views(folder / "views", {row["case"] for row in tables["cases"]})
    looks = folder / "looks.jsonl"
    count = len(looks.read_text(encoding="utf-8").splitlines()) if looks.is_file() else 0
    return Evaluation(folder, summary, tables, views, count)


def _rows(path: Path) -> Rows:
    if not path.is_file():
        return []
    rows = read_csv(path)
    if rows and "case" not in rows[0]:
        raise UserError(f"{path}: no column 'case'; it is no table of an evaluation, or was changed")
    return rows


def _views(folder: Path, cases: set[str]) -> dict[str, View]:
    found: dict[str, View] = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            view = read_view(path)
        except Exception as error:
            raise UserError(f"{path}: cannot be read as a view: {error}; remove it and evaluate again") from error
        if view.case in cases:
            found[view.case] = view
    return found
