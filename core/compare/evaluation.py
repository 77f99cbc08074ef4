"""Evaluations as `tools/evaluate.py` wrote them, and whether they are of the same cases and references."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from core.contracts import Rows
from core.errors import UserError
from core.report.tables import read_csv

_SHOWN = 5  # cases named in a message


@dataclass(frozen=True)
class Evaluation:
    """One evaluation folder.

    Attributes:
        name: the run's or folder's, unlike that of the others.
        folder: where its files are.
        cases: ids, in the file's order.
        patients: whose each case is.
        rows: of ``cases.csv``, by case and structure.
        lesions: rows of ``lesions.csv``; None without that file.
        summary: ``summary.json``.
        config: of the run, flat (``train.seed``: 0); None where there is no run.
        looks: at this split, from ``looks.jsonl``; None without that file.
    """

    name: str
    folder: Path
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    rows: Mapping[tuple[str, str], Mapping[str, Any]]
    lesions: Rows | None
    summary: Mapping[str, Any]
    config: Mapping[str, Any] | None
    looks: int | None
    by_case: Mapping[str, Rows] = field(default_factory=dict)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the figures were made from; empty where that is not on record."""
        found = self.summary.get("provenance")
        return found if isinstance(found, Mapping) else {}

    def column(self, structure: str, column: str) -> list[Any]:
        """A column of ``cases.csv``, in the order of the cases."""
        return [self.rows.get((case, structure), {}).get(column) for case in self.cases]


def load(paths: Sequence[Path]) -> list[Evaluation]:
    """The evaluations of run directories or evaluation folders, in the same order of cases.

    Raises:
        UserError: for fewer than two, one named twice, one that is not evaluated, or evaluations that cannot be
            compared because their cases, references or settings differ.
    """
    if len(paths) < 2:
        raise UserError("a comparison takes two evaluations or more: python tools/compare.py RUN RUN ...")
    folders = [_find(path) for path in paths]
    for i, folder in enumerate(folders):
        if folder.resolve() in (other.resolve() for other in folders[:i]):
            raise UserError(f"{folder}: named twice; a comparison takes two different evaluations")
    out = [_read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    first = out[0]
    for other in out[1:]:
        _same_cases(first, other)
        _same_references(first, other)
        _same_settings(first, other)
    return [first, *(_in_order(other, first.cases) for other in out[1:])]


def _find(path: Path) -> Path:
    """The evaluation folder of what the user named."""
    if not path.exists():
        raise UserError(f"{path}: no such folder; name a run directory or an evaluation folder")
    if (path / "cases.csv").is_file():
        return path
    if (path / "evaluation" / "cases.csv").is_file():
        return path / "evaluation"
    others = sorted(found.parent for found in path.glob("evaluation_*/cases.csv"))
    if others:
        raise UserError(f"{path}: its test split is not evaluated; name what is: {', '.join(map(str, others))}")
    if (path / "config.yaml").is_file():
        raise UserError(f"{path}: this run is not evaluated; evaluate it first: python tools/evaluate.py {path}")
    raise UserError(f"{path}: neither a run directory nor an evaluation folder (it has no cases.csv)")


def _names(folders: Sequence[Path]) -> list[str]:
    """The ends of their paths, as much of them as makes them different; a test split goes by its run's name."""
    parts = []
    for folder in folders:
        whole = folder.resolve()
        parts.append((whole.parent if whole.name == "evaluation" else whole).parts)
    # An evaluation of another split needs its run's name beside it.
    lengths = [1 + (own[-1].startswith("evaluation_") and len(own) > 2) for own in parts]
    names = ["/".join(own[-length:]) for own, length in zip(parts, lengths, strict=True)]
    while len(set(names)) < len(names):
        lengths = [n + (names.count(name) > 1) for n, name in zip(lengths, names, strict=True)]
        names = ["/".join(own[-length:]).lstrip("/") for own, length in zip(parts, lengths, strict=True)]
    return names


def _read(folder: Path, name: str) -> Evaluation:
    table = read_csv(folder / "cases.csv")
    rows: dict[tuple[str, str], Mapping[str, Any]] = {}
    patients: dict[str, str] = {}
    for row in table:
        case, structure = row.get("case"), row.get("structure")
        if case is None or structure is None:
            raise UserError(f"{folder / 'cases.csv'}: every row needs a case and a structure; evaluate again")
        if (case, structure) in rows:
            raise UserError(f"{folder / 'cases.csv'}: case '{case}' has two rows for {structure}")
        rows[case, structure] = row
        patients.setdefault(case, str(row.get("patient") or case))
    if not rows:
        raise UserError(f"{folder / 'cases.csv'}: no case in it")
    lesions = read_csv(folder / "lesions.csv") if (folder / "lesions.csv").is_file() else None
    by_case: dict[str, Rows] = {case: [] for case in patients}
    for row in lesions or []:
        by_case.setdefault(str(row.get("case")), []).append(row)
    return Evaluation(
        name=name,
        folder=folder,
        cases=tuple(patients),
        patients=tuple(patients.values()),
        rows=rows,
        lesions=lesions,
        summary=_json(folder / "summary.json"),
        config=_config(folder.resolve().parent / "config.yaml"),
        looks=_lines(folder / "looks.jsonl"),
        by_case=by_case,
    )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; evaluate again, it is written last") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: no summary of an evaluation")
    return found


def _config(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return flat(found)


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """A nested configuration by dotted paths."""
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}".lstrip(".")).items()}
    if isinstance(value, list) and value:
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f"{path}[{i}]").items()}
    return {path: value}


def _lines(path: Path) -> int | None:
    if not path.is_file():
        return None
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())


def _same_cases(a: Evaluation, b: Evaluation) -> None:
    lines = []
    for one, other in ((a, b), (b, a)):
        alone = [case for case in one.cases if case not in set(other.cases)]
        if alone:
            more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
            lines.append(f"  only in {one.folder}: {', '.join(alone[:_SHOWN])}{more}")
    if lines:
        raise UserError(
            "\n".join(["the evaluations do not have the same cases, so they cannot be compared:", *lines])
            + "\n  evaluate both on the same cases"
        )


def _same_references(a: Evaluation, b: Evaluation) -> None:
    theirs = dict(zip(b.cases, b.patients, strict=True))
    for case, patient in zip(a.cases, a.patients, strict=True):
        if patient != theirs[case]:
            raise UserError(f"case '{case}': of patient '{patient}' in {a.folder}, of '{theirs[case]}' in {b.folder}")
        for structure in ("liver", "tumour"):
            counts = [_count(evaluation.rows.get((case, structure), {})) for evaluation in (a, b)]
            if None not in counts and counts[0] != counts[1]:
                raise UserError(
                    f"case '{case}': its reference has {counts[0]} voxels of {structure} in {a.folder} and "
                    f"{counts[1]} in {b.folder}: these are figures against different references; evaluate one again"
                )
        ours = [sorted(_reference(evaluation.by_case.get(case, []))) for evaluation in (a, b)]
        if a.lesions is not None and b.lesions is not None and ours[0] != ours[1]:
            raise UserError(
                f"case '{case}': the lesions of its reference differ between {a.folder} ({len(ours[0])}) and "
                f"{b.folder} ({len(ours[1])}); evaluate both with the same connectivity and the same Hepar"
            )


def _reference(rows: Rows) -> list[tuple[Any, Any]]:
    return [(row.get("lesion"), row.get("voxels")) for row in rows if row.get("side") == "ref"]


def _count(row: Mapping[str, Any]) -> Any:
    return row.get("voxels_ref")


def _same_settings(a: Evaluation, b: Evaluation) -> None:
    for path, what in (
        (("tumour", "dice", "empty"), "policy for empty masks"),
        (("lesions", "min_lesion_ml"), "smallest lesion that counts"),
        (("surface", "definition"), "definition of a surface"),
        (("surface", "empty"), "policy for distances to empty masks"),
    ):
        values = []
        for evaluation in (a, b):
            found: Any = evaluation.summary
            for key in path:
                found = found.get(key) if isinstance(found, Mapping) else None
            values.append(found)
        if None not in values and values[0] != values[1]:
            raise UserError(
                f"the {what} is {values[0]} in {a.folder} and {values[1]} in {b.folder}; evaluate both alike"
            )


def _in_order(evaluation: Evaluation, cases: Sequence[str]) -> Evaluation:
    patients = dict(zip(evaluation.cases, evaluation.patients, strict=True))
    return dataclasses.replace(evaluation, cases=tuple(cases), patients=tuple(patients[case] for case in cases))
