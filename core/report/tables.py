"""Rows and summaries as files and as a table in the terminal."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from core.contracts import Rows
from core.measure.pair import STRUCTURES

COLUMNS: dict[str, tuple[str, ...]] = {
    "cases": (
        *("case", "structure", "dice", "iou", "voe", "rvd", "precision", "recall", "volume_ml_pred", "volume_ml_ref"),
        *("assd_mm", "rmsd_mm", "hd_mm", "hd95_mm", "nsd_1mm", "nsd_2mm", "nsd_3mm"),
    ),
    "slices": ("case", "z", "structure", "dice", "iou"),
    "lesions": ("case", "lesion", "side", "volume_ml", "diameter_mm", "matched", "iou", "dice"),
}
"""The order of a table's columns; other columns follow as the metrics give them."""


_MACRO = {"_macro": "macro", "_macro_foreground": "macro, without background"}


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name only when it is complete and on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_csv(path: Path, table: str, rows: Rows) -> None:
    """One table; an empty field is not a number."""
    given = dict.fromkeys(name for row in rows for name in row)
    first = [name for name in COLUMNS.get(table, ()) if name in given]
    columns = first + [name for name in given if name not in first]
    with whole_file(path) as file:
        # csv wants text and os.fsync bytes; an own wrapper keeps the newline and the encoding ours.
        out = _Utf8(file)
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_field(row.get(name)) for name in columns] for row in rows)


def write_json(path: Path, value: Any) -> None:
    """A nested dict; what is not a finite number becomes null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with whole_file(path) as file:
        file.write((text + "\n").encode())


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """One line of JSON at the end of a file."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)
    with open(path, "a", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def terminal(summary: Mapping[str, Any]) -> str:
    """The figures of a summary as a table, one block a metric."""
    lines: list[str] = []
    label: str
    for name in _metric_names(summary):
        heading = {"dice": "Dice", "iou": "IoU"}.get(name, name)
        lines.append(f"{heading:<30}{'mean':>8}{'median':>8}{'global':>8}{'n':>6}")
        for structure in STRUCTURES:
            figures = summary.get(structure, {}).get(name)
            if not isinstance(figures, Mapping):
                continue
            label = structure
            if "mean_tumour_bearing" in figures:
                label = f"{structure}, all cases"
            lines.append(_line(label, figures, _empty_note(figures)))
            if "mean_tumour_bearing" in figures:
                keys = ("mean", "median", "n")
                bearing = {key: figures.get(f"{key}_tumour_bearing") for key in keys}
                lines.append(_line(f"{structure}, cases that have one", bearing))
        for suffix, label in _MACRO.items():
            if isinstance(summary.get(f"{name}{suffix}"), Mapping):
                lines.append(_line(label, summary[f"{name}{suffix}"]))
        lines.append("")
    others = _others(summary)
    lines += [*others, ""] if others else []
    free = summary.get("tumour_free")
    if isinstance(free, Mapping) and free.get("n"):
        lines.append(_tumour_free(free))
    return "\n".join(lines).rstrip()


def _metric_names(summary: Mapping[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for structure in STRUCTURES:
        for name, figures in summary.get(structure, {}).items():
            if isinstance(figures, Mapping) and "mean" in figures:
                found[name] = None
    return list(found)


def _others(summary: Mapping[str, Any]) -> list[str]:
    """Top-level figures of metrics that this table does not know: numbers, and what has a mean."""
    own = {"tumour_free", *(f"{name}{suffix}" for name in _metric_names(summary) for suffix in _MACRO)}
    lines = []
    for name, value in summary.items():
        if name in own:
            continue
        if isinstance(value, Mapping) and "mean" in value:
            lines.append(_line(name, value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            lines.append(_line(name, {"mean": float(value)}))
    return lines


def _line(label: str, figures: Mapping[str, Any], note: str = "") -> str:
    numbers = "".join(f"{number(figures.get(key)):>8}" for key in ("mean", "median", "global"))
    return f"  {label:<28}{numbers}{figures.get('n', ''):>6}{note}".rstrip()


def _empty_note(figures: Mapping[str, Any]) -> str:
    if figures.get("left_out"):
        return f"   ({figures['left_out']} without any voxel left out, policy '{figures.get('empty')}')"
    if figures.get("both_empty"):
        return f"   ({figures['both_empty']} empty on both sides count 1, policy '{figures.get('empty')}')"
    return ""


def _tumour_free(free: Mapping[str, Any]) -> str:
    clean = free["n"] - free["false_positive_cases"]
    text = f"Tumour-free cases: {free['n']}, {clean} without false tumour (specificity {number(free['specificity'])})"
    volume = free.get("false_positive_volume_ml", {})
    if volume.get("n"):
        text += f"; false tumour {volume['mean']:.2f} ml a case, at most {volume['max']:.2f} ml"
        if volume["left_out"]:
            text += f" (over {volume['n']}; the spacing of {volume['left_out']} cannot be trusted)"
    elif volume:
        text += "; no volumes, since the spacing cannot be trusted"
    return text


def number(value: Any) -> str:
    """Three decimals, a dash where there is no number."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return f"{value:.3f}"


class _Utf8:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write(text.encode())


def _field(value: Any) -> str:
    if value is None:
        return ""
    if hasattr(value, "item"):
        value = value.item()  # numpy scalars of third-party metrics
    if isinstance(value, float):
        return f"{value:.8g}" if math.isfinite(value) else ""
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
