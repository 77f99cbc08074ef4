"""A folder that `core.data.export` wrote, read by the names that a store has."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.data.store import CaseInfo
from core.data.tables import LESION_DTYPE, SLICE_DTYPE
from registry import suggest


class Exported:
    """An exported folder, read by the names that a `Store` has.

    Args:
        root: the folder that `export` wrote.

    Raises:
        ValueError: if it is none, or was exported with a window.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if not (self.root / "index.csv").is_file():
            raise ValueError(f"{self.root}: no export here; write one with {_how(self.root)}")
        with open(self.root / "index.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._rows: dict[str, list[dict[str, str]]] = {}
        for row in rows:
            self._rows.setdefault(row["case"], []).append(row)
        self.cases = tuple(self._rows)
        self._notes: dict[str, dict[str, Any]] = {}

    def info(self, case: str) -> CaseInfo:
        """What is known of a case."""
        if case not in self._rows:
            hint = suggest(case, self.cases)
            raise ValueError(f"{self.root}: case '{case}' is not in this export{hint} Run {_how(self.root)}")
        if case not in self._notes:
            notes = json.loads((self.root / case / "case.json").read_text(encoding="utf-8"))
            if notes["window"] is not None:
                raise ValueError(
                    f"{self.root}: exported with --window, but samples are in HU (window: does the rest on the "
                    f"device); export without it"
                )
            listed, depth = len(self._rows[case]), notes["info"]["shape"][0]
            if [int(row["z"]) for row in self._rows[case]] != list(range(depth)):
                raise ValueError(f"{self.root}/index.csv: {listed} rows of case '{case}', which has {depth} slices")
            self._notes[case] = notes
        values: dict[str, Any] = self._notes[case]["info"]
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return CaseInfo(**values)

    def slices(self, case: str) -> np.ndarray:
        """As `Store.slices`."""
        self.info(case)
        table = np.zeros(len(self._rows[case]), SLICE_DTYPE)
        for name in ("z", "liver_voxels", "tumour_voxels"):
            table[name] = [int(row[name]) for row in self._rows[case]]
        table["lesions"] = [len(ids) for ids in self.slice_lesions(case)]
        return table

    def slice_lesions(self, case: str) -> list[tuple[int, ...]]:
        """As `Store.slice_lesions`."""
        self.info(case)
        return [tuple(int(i) for i in row["lesions"].split()) for row in self._rows[case]]

    def lesions(self, case: str) -> np.ndarray:
        """As `Store.lesions`."""
        self.info(case)
        rows = [tuple(float("nan") if v is None else v for v in row) for row in self._notes[case]["lesions"]]
        return np.array(rows, LESION_DTYPE)

    def image(self, case: str, zs: Sequence[int] | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """As `Store.image`."""
        return self._read(case, "image", zs, out)

    def label(self, case: str, zs: Sequence[int] | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """As `Store.label`."""
        return self._read(case, "mask", zs, out)

    def lesion(self, case: str, zs: Sequence[int] | None = None) -> np.ndarray:
        """As `Store.lesion`.

        Raises:
            ValueError: if lesion ids were not exported.
        """
        self.info(case)
        if not self._notes[case]["lesion_ids"]:
            raise ValueError(f"{self.root}: lesion ids were not exported; run {_how(self.root)} --lesions")
        return self._read(case, "lesion", zs).astype(np.int32)

    def _read(self, case: str, what: str, zs: Sequence[int] | None, out: np.ndarray | None = None) -> np.ndarray:
        depth, *plane = self.info(case).shape
        zs = range(depth) if zs is None else zs
        if out is None:
            kind = {"image": np.int16, "mask": np.uint8, "lesion": np.uint16}[what]
            out = np.empty((len(zs), *plane), kind)
        for i, z in enumerate(zs):
            out[i] = np.load(self.root / self._rows[case][z][what])
        return out


def _how(root: Path) -> str:
    return f"tools/prepare.py EXPERIMENT --export npy --out {root}"
