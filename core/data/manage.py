"""Cases taken out of a store by hand, and brought back; nothing is deleted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from core.data import summary as summaries
from core.data.casefile import SUFFIX, StoreError, case_files
from registry import suggest

REMOVED = "removed"
"""The folder of cases that were set aside."""


def remove(root: Path, cases: Sequence[str]) -> str:
    """Take cases out: their files are set aside, and later prepares leave them out.

    Returns:
        What was done, as text.

    Raises:
        StoreError: if the store has no such case; nothing is changed then.
    """
    root = _store(root)
    with summaries.locked(root):
        there, out = case_files(root), summaries.excluded(root)
        for case in cases:
            if case not in there and case in out:
                raise StoreError(f"{root}: case '{case}' is out already")
            if case not in there:
                raise StoreError(f"{root}: no case '{case}'{suggest(case, there)}")
        _exclude(root, sorted({*out, *cases}))
        moved = [set_aside(root, case) for case in dict.fromkeys(cases)]
        _exclude(root, sorted({*out, *cases}))
    return (
        f"store {root}: {len(there) - len(moved)} cases; out of it: {', '.join(dict.fromkeys(cases))}\n"
        f"  set aside: {', '.join(map(str, moved))}\n"
        f"  later prepares leave them out; --restore brings them back"
    )


def restore(root: Path, cases: Sequence[str]) -> str:
    """Bring cases back that were taken out by hand.

    Returns:
        What was done, as text; a case whose file is no longer set aside is stored by the next prepare.

    Raises:
        StoreError: if one was not taken out; nothing is changed then.
    """
    root = _store(root)
    lines = []
    with summaries.locked(root):
        out = summaries.excluded(root)
        for case in cases:
            if case not in out:
                raise StoreError(
                    f"{root}: case '{case}' was not taken out{suggest(case, out) if out else ''}; "
                    f"out are: {', '.join(out) or 'none'}"
                )
        for case in dict.fromkeys(cases):
            aside = _set_aside_files(root, case)
            if aside and not (root / f"{case}{SUFFIX}").exists():
                os.replace(aside[-1], root / f"{case}{SUFFIX}")
                lines.append(f"  {case}: back, as it was; the next prepare sees whether its scan has changed")
            else:
                lines.append(f"  {case}: no file is set aside; the next prepare stores it")
        _exclude(root, [case for case in out if case not in cases])
        count = len(case_files(root))
    return "\n".join([f"store {root}: {count} cases", *lines])


def set_aside(root: Path, case: str) -> Path:
    """Move a case's file to the folder of removed ones, beside whatever lies there already."""
    folder = root / REMOVED
    folder.mkdir(exist_ok=True)
    taken = _set_aside_files(root, case)
    number = 1 + max((_number(path) for path in taken), default=0)
    target = folder / (f"{case}{SUFFIX}" if number == 1 else f"{case}{SUFFIX}.{number}")
    os.replace(root / f"{case}{SUFFIX}", target)
    return target


def _set_aside_files(root: Path, case: str) -> list[Path]:
    """Those of a case, oldest first."""
    folder = root / REMOVED
    first = folder / f"{case}{SUFFIX}"
    more = [p for p in folder.glob(f"{case}{SUFFIX}.*") if p.suffix[1:].isdigit()]
    return sorted([*([first] if first.exists() else []), *more], key=_number)


def _number(path: Path) -> int:
    return int(path.suffix[1:]) if path.suffix != SUFFIX else 1


def _exclude(root: Path, cases: Sequence[str]) -> None:
    summaries.write(root, {**summaries.read(root), "excluded": list(cases), "cases": len(case_files(root))})


def _store(root: Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise StoreError(f"{root}: there is no store here; write one with tools/prepare.py EXPERIMENT")
    return root
