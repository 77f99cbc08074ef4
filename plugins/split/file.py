"""A split that somebody gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.data.splits import PARTS, SplitError
from registry import register, suggest


@register("split", "file")
class File:
    """A given list of cases: in a YAML or JSON file, or written into the experiment.

    The file maps train, val and test to lists of case ids; a run's ``split.json`` works too. Val and test may be
    empty or absent.

    Args:
        path: the file; null if the lists are given here.
        train: case ids.
        val: case ids.
        test: case ids.

    Raises ValueError if both or neither are given; SplitError if the file does not say what it should.

    Example: {name: file, train: [volume-4, volume-5], test: [volume-6]}
    """

    def __init__(
        self,
        *,
        path: Path | None = None,
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
    ) -> None:
        given = {name: cases for name, cases in (("train", train), ("val", val), ("test", test)) if cases is not None}
        if path is not None and given:
            raise ValueError(f"give either path or lists, not both ({', '.join(given)})")
        if path is None and not given:
            raise ValueError("give path, a file with the lists train, val and test, or the lists themselves")
        self._path, self._given = path, given

    def parts(self) -> dict[str, list[str]]:
        """Case ids under train, val and test."""
        found: Mapping[str, Any] = self._given if self._path is None else _read(self._path)
        return {name: [str(case) for case in found.get(name) or []] for name in PARTS}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())  # JSON is YAML
    except FileNotFoundError:
        raise SplitError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SplitError(f"{path}: cannot be read: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("parts"), dict):
        found = found["parts"]
    if not isinstance(found, dict):
        raise SplitError(f"{path}: want lists of case ids under train, val and test")
    for name, cases in found.items():
        if name not in PARTS:
            raise SplitError(f"{path}: no such part '{name}'{suggest(str(name), PARTS)} Parts: train, val, test")
        if cases is not None and not (isinstance(cases, list) and all(isinstance(c, str | int) for c in cases)):
            raise SplitError(f"{path}: {name}: want a list of case ids")
    return found
