"""``store.json``: what a store as a whole was made from, and who may work on it now."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.data.casefile import SCHEMA, StoreError, case_files
from core.settings import PrepareSettings

NAME = "store.json"


def read(root: Path) -> dict[str, Any]:
    """The store's summary; empty if there is none."""
    try:
        found = json.loads((root / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(root: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary, whole or not at all."""
    partial = root / f".{NAME}.{os.getpid()}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1, default=str)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, root / NAME)


def is_complete(root: Path) -> bool:
    """Whether a `prepare` of this store came to its end."""
    summary = read(Path(root))
    return summary.get("schema") == SCHEMA and bool(summary.get("complete", True))


def excluded(root: Path) -> list[str]:
    """The cases that were taken out by hand and stay out."""
    return list(read(root).get("excluded", []))


def differs(root: Path, source_config: Mapping[str, Any]) -> list[str]:
    """In which arguments the source that a store was prepared from differs from the experiment's, as text."""
    before, now = _flat(read(root).get("source") or {}), _flat(source_config)
    keys = sorted({*before, *now})
    return [f"{k} {before.get(k)!r} -> {now.get(k)!r}" for k in keys if before.get(k) != now.get(k)]


def grid_key(settings: PrepareSettings) -> dict[str, Any]:
    """What of the ``prepare:`` section decides the stored grid."""
    spacing = settings.spacing
    return {
        "spacing": None if spacing is None or set(spacing) == {None} else list(spacing),
        "crop": settings.crop,
        "margin_mm": None if settings.crop == "none" else settings.margin_mm,
    }


def check_grid(root: Path, settings: PrepareSettings) -> None:
    """Refuse a store whose scans lie on another grid than the experiment wants.

    Raises:
        StoreError: with both grids and what to do.
    """
    summary = read(Path(root))
    before, now = summary.get("grid") or grid_key(PrepareSettings()), grid_key(settings)
    if summary and before != now and case_files(Path(root)):
        raise StoreError(
            f"{root}: this store was prepared with {_words(before)}; the experiment's prepare: says {_words(now)}. "
            f"Give it a store of its own with store=..., or delete the folder"
        )


def check_owner(root: Path, source_config: Mapping[str, Any]) -> None:
    """Refuse a store that was prepared from another source.

    Raises:
        StoreError: with both sources and what to do.
    """
    before, now = (read(root).get("source") or {}).get("name"), source_config.get("name")
    if before is not None and now is not None and before != now:
        raise StoreError(
            f"{root}: this store was prepared from source '{before}', not '{now}'; "
            f"name another with store=data/{now}, or delete the folder"
        )


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the store alone; others wait."""
    with open(root / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"{root}: another process is preparing this store; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _flat(node: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in node.items():
        out |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return out


def _words(grid: Mapping[str, Any]) -> str:
    spacing = "null" if grid["spacing"] is None else f"[{', '.join(_word(s) for s in grid['spacing'])}]"
    margin = "" if grid["margin_mm"] is None else f", margin_mm {grid['margin_mm']:g}"
    return f"spacing {spacing}, crop {grid['crop']}{margin}"


def _word(spacing: float | None) -> str:
    return "null" if spacing is None else f"{spacing:g}"
