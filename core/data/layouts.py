"""What sources (and splits) of several layouts share: dataset.json, CSV files, labels' names, leaving cases out."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.data.store import natural
from core.types import Case
from core.values import LIVER, TUMOUR
from registry import suggest

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_TUMOUR = ("tumour", "tumor", "cancer", "lesion", "metasta", "hcc")
_MAP_HELP = (
    "say which value means what with label_map, e.g. label_map: {1: 1, 2: 2} (value of the file: 1 liver, 2 tumour)"
)


def read_description(root: Path, help: str) -> dict[str, Any]:
    """The folder's ``dataset.json``.

    Raises:
        ValueError: if folder or file is missing or it is no JSON mapping.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder\n  {help}")
    file = root / "dataset.json"
    if not file.is_file():
        raise ValueError(f"{root}: no dataset.json in it\n  {help}")
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: want a mapping, got a {type(found).__name__}")
    return found


def label_map(given: Mapping[int, int] | None, named: Any, file: Path) -> tuple[tuple[int, int], ...]:
    """(value in the file, label) pairs: those `given`, else found by the labels' names.

    Args:
        given: value -> 0, 1 or 2; null finds them.
        named: ``labels`` of ``dataset.json``, value -> name (MSD, nnU-Net v1) or name -> value or values (v2: a region
            such as ``liver: [1, 2]`` holds several, and the tumour in it stays tumour).
        file: for messages.

    Raises:
        ValueError: if `given` has another label, or a name says neither liver nor tumour.
    """
    if given is not None:
        return check_label_map(given)
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{file}: want labels, a mapping of names and values\n  or {_MAP_HELP}")
    values: dict[str, list[int]] = {}
    for key, value in named.items():
        by_value = str(key).isdigit() and isinstance(value, str) and not value.isdigit()
        name, held = (value, [key]) if by_value else (key, value if isinstance(value, list) else [value])
        try:
            values.setdefault(str(name), []).extend(int(v) for v in held)
        except (TypeError, ValueError):
            raise ValueError(f"{file}: labels: want whole numbers for '{name}', got {held}") from None
    found: dict[int, int] = {}
    unclear = []
    for name, held in values.items():
        label = _meaning(name)
        if label is None:
            unclear.append(f"'{name}' ({', '.join(map(str, held))})")
        elif label:
            found |= {v: max(label, found.get(v, 0)) for v in held}
    if unclear:
        raise ValueError(f"{file}: is {' or '.join(unclear)} liver, tumour or background? {_MAP_HELP}")
    missing = [name for name, label in (("liver", LIVER), ("tumour", TUMOUR)) if label not in found.values()]
    if missing:
        raise ValueError(f"{file}: no label is called {' or '.join(missing)}; {_MAP_HELP}")
    # Without a mapping, a value that nobody named is refused; with one it would become background.
    return () if found == {LIVER: LIVER, TUMOUR: TUMOUR} else tuple(sorted(found.items()))


def check_label_map(given: Mapping[int, int] | None) -> tuple[tuple[int, int], ...]:
    """The mapping as pairs; values that are not named become background. None leaves 0, 1, 2 as they are.

    Raises:
        ValueError: for an empty one, or a label beside 0, 1 and 2.
    """
    if given is None:
        return ()
    if not any(given.values()) or not set(given.values()) <= {0, LIVER, TUMOUR}:
        raise ValueError(f"label_map: want a value of the file: 1 (liver), 2 (tumour) or 0, got {dict(given)}")
    return tuple(sorted(given.items()))


def _meaning(name: str) -> int | None:
    plain = re.sub(r"[^a-z]", "", name.lower())
    if any(word in plain for word in _TUMOUR):
        # Of another organ, a tumour is not this one.
        return TUMOUR if not re.search(r"kidney|renal|pancrea|colon|lung|spleen", plain) else None
    return {"background": 0, "liver": LIVER, "wholeliver": LIVER}.get(plain)


def bare(name: str) -> str:
    """A file's name without the ending of an image."""
    return next((name[: -len(e)] for e in ENDINGS if name.lower().endswith(e)), name)


def leave_out(cases: Sequence[Case], exclude: Sequence[str] | None, root: Path) -> list[Case]:
    """The cases less those that are excluded by id.

    Raises:
        ValueError: if one of them is not there.
    """
    known = sorted({case.id for case in cases}, key=natural)
    for case in exclude or []:
        if case not in known:
            raise ValueError(f"exclude: no case '{case}' below {root}{suggest(case, known)}")
    return [case for case in cases if case.id not in (exclude or [])]


def read_csv(file: Path, known: Sequence[str], required: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV file as (``file:line``, column -> text), the columns in `known` alone.

    Comma, semicolon or tab; a byte order mark, as spreadsheets write one, and columns beside `known` do no harm.

    Raises:
        ValueError: if it cannot be read, lacks a required column or value, has a column that looks like a misspelt one,
            or a row has another length than the header; with ``file:line``.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as UTF-8 text: {error}") from error
    first = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
    header = [column.strip().lower() for column in next(rows, [])]
    here = f"{file}:1"
    for column in header:
        if column not in known and (near := suggest(column, [k for k in known if k not in header])):
            raise ValueError(f"{here}: no such column '{column}'{near}")
    for column in required:
        if column not in header:
            raise ValueError(f"{here}: want a column '{column}' (it has: {', '.join(filter(None, header)) or 'none'})")
    doubled = sorted({column for column in header if column in known and header.count(column) > 1})
    if doubled:
        raise ValueError(f"{here}: the column '{doubled[0]}' is there twice")
    found = []
    for row in rows:
        here = f"{file}:{rows.line_num}"
        if not any(value.strip() for value in row):
            continue
        if len(row) != len(header):
            raise ValueError(f"{here}: {len(row)} values, but the header has {len(header)}")
        values = {column: value.strip() for column, value in zip(header, row, strict=True) if column in known}
        for column in required:
            if not values[column]:
                raise ValueError(f"{here}: {column} is empty")
        found.append((here, values))
    return found


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    """``patient_regex``, ready.

    Raises:
        ValueError: if it is no regular expression.
    """
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise ValueError(f"patient_regex: '{pattern}' is no regular expression: {error}") from error


def patient(pattern: re.Pattern[str], text: str) -> str:
    """What the pattern finds in the text: its first group, or all that it matches.

    Raises:
        ValueError: if that is nothing.
    """
    match = pattern.search(text)
    found = match and (match[1] if pattern.groups else match[0])
    if not found:
        raise ValueError(f"patient_regex: '{pattern.pattern}' finds nothing in '{text}'")
    return str(found)
