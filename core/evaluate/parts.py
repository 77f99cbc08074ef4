"""What an interrupted evaluation has measured so far, so that the same command goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import registry
from core.contracts import Rows
from core.evaluate.measuring import Recipe
from core.report.tables import whole_file

FOLDER = ".parts"
VIEWS = "views"
_ROOT = Path(__file__).resolve().parents[2]
_DECIDE = ("core/measure", "core/analysis", "core/infer", "core/data", "core/report/views.py", "plugins")


class Parts:
    """The measured cases of one evaluation in its folder's ``.parts``; none counts under another key.

    Args:
        folder: the evaluation's.
        common: all that decides the figures of every case: checkpoint, configuration, metrics.
    """

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self.folder, self.out = folder / FOLDER, folder
        self._common = json.dumps(common, sort_keys=True, default=str)

    def read(self, case: str, content: str) -> dict[str, Rows] | None:
        """The tables of a case that was measured with the same key; None if it was not, or not to its end.

        Args:
            case: the case's id.
            content: what tells the case's own data from other data of that name.
        """
        try:
            found = json.loads((self.folder / f"{case}.json").read_text(encoding="utf-8"))
            whole = found["key"] == self._key(case, content) and self.view(case).is_file()
            tables: dict[str, Rows] | None = found["tables"] if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return tables

    def read_note(self, case: str) -> dict[str, Any]:
        """What was kept beside the tables."""
        found = json.loads((self.folder / f"{case}.json").read_text(encoding="utf-8"))
        return dict(found["note"])

    def write(self, case: str, content: str, tables: Mapping[str, Rows], note: Mapping[str, Any] | None = None) -> None:
        """Keep a case's tables, and what else is to be known of it; the last thing that is written of a case."""
        held = {"key": self._key(case, content), "note": note or {}, "tables": tables}
        text = json.dumps(held, default=_scalar)
        with whole_file(self.folder / f"{case}.json") as file:
            file.write(text.encode())

    def view(self, case: str) -> Path:
        """Where a case's view is kept meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{case}.view.npz"

    def write_arrays(self, case: str, arrays: Mapping[str, Any]) -> None:
        """Keep further arrays of a case."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.folder / f"{case}.npz") as file:
            np.savez_compressed(file, **arrays)

    def read_arrays(self, case: str) -> dict[str, np.ndarray] | None:
        """The further arrays of a case, or None."""
        try:
            with np.load(self.folder / f"{case}.npz", allow_pickle=False) as held:
                return dict(held)
        except (OSError, ValueError):
            return None

    def finish(self, cases: Iterable[str]) -> None:
        """The evaluation is complete: its views take the place of older ones, and the parts go."""
        views = self.out / VIEWS
        views.mkdir(parents=True, exist_ok=True)
        kept = set()
        for case in cases:
            os.replace(self.view(case), views / f"{case}.npz")
            kept.add(f"{case}.npz")
        for old in views.glob("*.npz"):
            if old.name not in kept:
                old.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _key(self, case: str, content: str) -> str:
        return hashlib.sha256("\n".join((self._common, case, content)).encode()).hexdigest()


def code_hash(recipe: Recipe) -> str:
    """Of all code that may decide a figure, and of the files from elsewhere that metrics come from."""
    sha = hashlib.sha256()
    files = [file for part in _DECIDE for file in _python(_ROOT / part)]
    own = (Path(registry.get(plan.kind, plan.name).file) for plan in recipe.plans)
    for file in dict.fromkeys([*files, *(file for file in own if file.is_file())]):
        sha.update(file.read_bytes())
    return sha.hexdigest()


def _python(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _scalar(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()  # numpy scalars of third-party metrics
    raise TypeError(f"a row of a metric holds a {type(value).__name__}, {value!r}: want numbers, text, None")
