"""A split that somebody gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.data.layouts import read_csv
from core.data.splits import EXTERNAL, PARTS, SplitError, check_share, validating
from core.data.store import Store
from registry import register, suggest

_NNUNET_VAL = 0.15


@register("split", "file")
class File:
    """A given list of cases: in a file (our own, nnU-Net's or a CSV), or written into the experiment.

    Our own file (YAML or JSON) maps train, val and test to lists of case ids; a run's ``split.json`` works too. A CSV
    has the columns ``id`` and ``part``. Of nnU-Net's ``splits_final.json``, `fold` picks one of its folds: its ``val``
    is what nnU-Net reports on, so here it *tests*, and a share of its ``train`` validates.

    Args:
        path: the file; null if the lists are given here.
        train: case ids.
        val: case ids; or the share of the training patients that validates, drawn as `stratified` draws, where the
            lists have no val. Null takes the lists as they are, and 0.15 with nnU-Net's file.
        test: case ids.
        fold: of nnU-Net's file, from 0.
        seed: of the draw.

    Raises ValueError if both or neither are given; SplitError if the file does not say what it should.

    Example: {name: file, train: [volume-4, volume-5], test: [volume-6]}
    """

    def __init__(
        self,
        store: Store,
        *,
        path: Path | None = None,
        train: list[str] | None = None,
        val: list[str] | float | None = None,
        test: list[str] | None = None,
        fold: int | None = None,
        seed: int = 0,
    ) -> None:
        ids = {"train": train, "val": val if isinstance(val, list) else None, "test": test}
        given = {name: cases for name, cases in ids.items() if cases is not None}
        if path is not None and given:
            raise ValueError(f"give either path or lists, not both ({', '.join(given)})")
        if path is None and not given:
            raise ValueError("give path, a file with the lists train, val and test, or the lists themselves")
        if path is None and fold is not None:
            raise ValueError("fold is for nnU-Net's splits_final.json, given as path")
        self._share = None if isinstance(val, list) else val
        if self._share is not None:
            check_share("val", self._share)
        self._store, self._path, self._given, self._fold, self._seed = store, path, given, fold, seed

    def parts(self) -> dict[str, list[str]]:
        """Case ids under train, val and test."""
        found: Mapping[str, Any] = self._given if self._path is None else self._read(self._path)
        parts = {name: [str(case) for case in found.get(name) or []] for name in PARTS}
        share = self._share
        if share is not None and parts["val"]:
            raise SplitError(
                f"{self._path or 'split'}: lists cases under val, so val cannot be a share of train as well"
            )
        if share:
            unknown = [case for case in parts["train"] if case not in self._store.cases]
            if not unknown:  # else the check of every split names them
                parts["val"], parts["train"] = validating(self._store, parts["train"], share, self._seed)
        return parts

    def _read(self, path: Path) -> Mapping[str, Any]:
        if path.suffix.lower() == ".csv":
            found: Any = _of_rows(path)
        else:
            found = _parsed(path)
        if isinstance(found, list):
            return self._fold_of(found, path)
        if self._fold is not None:
            raise SplitError(f"{path}: fold is for nnU-Net's splits_final.json; this file has no folds")
        if isinstance(found, dict) and isinstance(found.get("parts"), dict):
            found = found["parts"]
        if not isinstance(found, dict):
            raise SplitError(f"{path}: want lists of case ids under train, val and test")
        for name, cases in found.items():
            if name not in (*PARTS, EXTERNAL):
                raise SplitError(f"{path}: no such part '{name}'{suggest(str(name), PARTS)} Parts: train, val, test")
            _check_ids(cases, f"{path}: {name}")
        return found

    def _fold_of(self, folds: list[Any], path: Path) -> Mapping[str, Any]:
        if not all(isinstance(fold, dict) and set(fold) == {"train", "val"} for fold in folds):
            raise SplitError(f"{path}: want lists of case ids under train, val and test, or nnU-Net's list of folds")
        if self._fold is None or not 0 <= self._fold < len(folds):
            raise SplitError(
                f"{path}: nnU-Net's file has {len(folds)} folds; say with fold which one tests: 0 to {len(folds) - 1}, "
                f"got {self._fold}"
            )
        chosen = folds[self._fold]
        for name in ("train", "val"):
            _check_ids(chosen[name], f"{path}: fold {self._fold}: {name}")
        if self._share is None:
            self._share = _NNUNET_VAL
        return {"train": chosen["train"], "test": chosen["val"]}


def _parsed(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except FileNotFoundError:
        raise SplitError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SplitError(f"{path}: cannot be read: {error}") from error


def _of_rows(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in PARTS}
    try:
        for here, row in read_csv(path, ("id", "part"), ("id", "part")):
            if row["part"] not in PARTS:
                raise ValueError(
                    f"{here}: no such part '{row['part']}'{suggest(row['part'], PARTS)} Parts: train, val, test"
                )
            found[row["part"]].append(row["id"])
    except ValueError as error:
        raise SplitError(str(error)) from error
    return found


def _check_ids(cases: Any, where: str) -> None:
    if cases is not None and not (isinstance(cases, list) and all(isinstance(c, str | int) for c in cases)):
        raise SplitError(f"{where}: want a list of case ids")
