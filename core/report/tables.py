"""Rows and summaries as files."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from core.contracts import Rows
from core.errors import UserError

COLUMNS: dict[str, tuple[str, ...]] = {
    "cases": (
        *("case", "structure", "dice", "iou", "voe", "rvd", "precision", "recall", "volume_ml_pred", "volume_ml_ref"),
        *("assd_mm", "rmsd_mm", "hd_mm", "hd95_mm", "nsd_1mm", "nsd_2mm", "nsd_3mm", "patient"),
    ),
    "slices": ("case", "z", "structure", "dice", "iou"),
    "lesions": ("case", "lesion", "side", "volume_ml", "diameter_mm", "matched", "iou", "dice", "patient"),
    "candidates": ("case", "patient", "candidate", "score_mean", "score_max", "diameter_mm", "hits"),
}
"""The order of a table's columns; other columns follow as the metrics give them."""
TEXT = frozenset(("case", "patient", "structure", "side", "features", "place", "hits"))
"""Columns that hold names, also where a name looks like a number."""


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name only when it is complete and on the disk.

    Raises:
        UserError: if it cannot be written: no permission, no room, a name that is too long.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def make_folder(path: Path, remedy: str = "") -> None:
    """A folder to write into, with those above it; one that is there stays as it is.

    Raises:
        UserError: if it cannot be made or written into; `remedy` says what to do.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(path, os.W_OK | os.X_OK) else "Permission denied"
    except OSError as error:
        why = error.strerror or str(error)
        why = "it is a file" if isinstance(error, FileExistsError) else why
    if why:
        raise UserError(f"{path}: cannot be written to: {why}{remedy and '; '}{remedy}")


def write_csv(path: Path, table: str, rows: Rows) -> None:
    """One table; an empty field is not a number.

    Raises:
        UserError: if its name, which a metric may have given, is no plain one, or it cannot be written.
    """
    if not re.fullmatch(r"\w+", table):
        raise UserError(f"a metric gives a table '{table}': want letters, digits and _ alone, since it names a file")
    given = dict.fromkeys(name for row in rows for name in row)
    first = [name for name in COLUMNS.get(table, ()) if name in given or not rows]
    columns = first + [name for name in given if name not in first]
    with whole_file(path) as file:
        # csv wants text and os.fsync bytes; an own wrapper keeps the newline and the encoding ours.
        out = _Utf8(file)
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_field(row.get(name)) for name in columns] for row in rows)


def read_csv(path: Path) -> Rows:
    """The rows of a table that `write_csv` wrote: numbers as numbers, an empty field as None, names as text.

    Raises:
        UserError: if it is not there, or is no table.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            rows = [{name: _value(name, row[name]) for name in columns} for row in reader]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a table: {error}") from error
    return rows


def write_json(path: Path, value: Any) -> None:
    """A nested dict; what is not a finite number becomes null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with whole_file(path) as file:
        file.write((text + "\n").encode())


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """One line of JSON at the end of a file."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


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
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.8g}" if math.isfinite(value) else ""
    return str(value)


def _value(column: str, text: str | None) -> Any:
    if column in TEXT:
        return text or ""
    if not text:
        return None
    for number_type in (int, float):
        try:
            return number_type(text)
        except ValueError:
            continue
    return text


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
