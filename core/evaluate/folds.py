"""A cross-validation pooled: the test cases of all folds, each once, summarised together and fold by fold."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from core.contracts import Metric, Rows
from core.data.store import natural
from core.errors import UserError
from core.evaluate import output
from core.evaluate.measuring import Recipe
from core.evaluate.parts import VIEWS
from core.experiment import load
from core.infer.evaluate import merge_tables, summarise
from core.infer.run import digest
from core.report import tables
from core.train import checkpoint as checkpoints

OWN = ("run", "split.fold", "train.seed")
"""What may differ between the folds of one cross-validation."""
_EVALUATION = "evaluation"
_FIGURES = {"mean", "mean_tumour_bearing", "global", "recall", "precision", "f1", "pq", "sq", "rq", "specificity"}

_DETAIL = re.compile(r"^error_analysis\.|\.by_size\.")
"""Parts of a data set that a single fold hardly has."""


@dataclass(frozen=True)
class Fold:
    """One evaluated run."""

    run: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    tables: Mapping[str, Rows]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Of its evaluation."""
        found: Mapping[str, Any] = self.summary["provenance"]
        return found

    @property
    def cases(self) -> list[str]:
        """Its test cases."""
        return list(dict.fromkeys(str(row["case"]) for row in self.tables.get("cases", [])))


def pool_folds(args: argparse.Namespace) -> int:
    """Pool the evaluations of the folds of one cross-validation.

    Args:
        args: of ``tools/evaluate.py``: folds, out.
    """
    runs: list[Path] = args.folds
    if args.target is not None or args.overrides or args.pred or args.ref:
        raise UserError("--folds takes evaluated runs and -o alone; give overrides when each of them is evaluated")
    if len(runs) < 2:
        raise UserError("--folds: want the runs of two folds or more")
    folds = [read_fold(run) for run in runs]
    refuse_differences(folds)
    folder: Path = args.out or runs[0].resolve().with_name(f"{runs[0].resolve().name}_folds")
    _refuse_other(folder)
    # As the folds were evaluated, which refuse_differences found alike.
    metrics = Recipe.of(load(runs[0], folds[0].provenance.get("overrides") or ()).metric).build()
    cases = sorted((case for fold in folds for case in fold.cases), key=natural)
    measured = merge_tables((fold.tables for fold in folds), order=cases)
    marks = _marks(folds, metrics, cases)
    print(f"{len(folds)} folds, {len(cases)} test cases, each once", flush=True)
    _copy_views(folds, folder)
    evaluation = output.Evaluation(
        folder=folder,
        title=f"{'PHANTOM  ' if marks['phantom'] else ''}{len(folds)} folds, {folder.name}",
        metrics=metrics,
        tables=measured,
        cases=cases,
        provenance=_provenance(folds, cases),
        marks=marks,
    )
    output.write(evaluation)
    print(f"folds: {spread_text(marks['folds'])}")
    return 0


def read_fold(run: Path) -> Fold:
    """A run's configuration and the tables of its evaluation.

    Raises:
        UserError: if it was not evaluated on its test split, or trained on since.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run}: not a run directory (it has no config.yaml)")
    folder = run / _EVALUATION
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        source = summary["provenance"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{run}: not evaluated yet; run python tools/evaluate.py {run} first") from None
    checkpoint = run / checkpoints.FOLDER / str(source.get("checkpoint"))
    if checkpoint.is_file() and digest(checkpoint) != source.get("checkpoint_hash"):
        raise UserError(f"{run}: {checkpoint.name} has changed since it was evaluated; evaluate it again")
    rows = {name: tables.read_csv(folder / f"{name}.csv") for name in summary.get("tables", [])}
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return Fold(run, config, summary, rows)


def refuse_differences(folds: Sequence[Fold]) -> None:
    """Refuse runs that are not the folds of one cross-validation.

    Raises:
        UserError: with every difference of configuration, and every case that two folds test.
    """
    problems = []
    first = folds[0]
    before = dict(_flat(first.config))
    for fold in folds[1:]:
        now = dict(_flat(fold.config))
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key) and key not in OWN:
                problems.append(f"{key}: {before.get(key)!r} in {first.run}, {now.get(key)!r} in {fold.run}")
        for name in ("overrides", "split"):
            one, other = first.provenance.get(name), fold.provenance.get(name)
            if one != other:
                problems.append(f"evaluated with {name} {one!r} in {first.run}, {other!r} in {fold.run}")
        if bool(first.provenance.get("tuned")) != bool(fold.provenance.get("tuned")):
            problems.append(f"post-processing chosen by tools/tune.py in one of {first.run} and {fold.run} alone")
    where: dict[str, Path] = {}
    for fold in folds:
        for case in fold.cases:
            if case in where:
                problems.append(f"case '{case}' is tested by {where[case]} and by {fold.run}")
            where.setdefault(case, fold.run)
    if problems:
        lines = "\n".join(f"  {text}" for text in problems)
        raise UserError(f"these are not the folds of one cross-validation\n{lines}")


def spread(folds: Sequence[Fold], metrics: Sequence[Metric]) -> dict[str, dict[str, Any]]:
    """Of each figure: its mean over folds, its SD (n - 1), and the folds' own values in their order."""
    values: dict[str, list[float | None]] = {}
    for place, fold in enumerate(folds):
        for key, value in _flat(summarise(metrics, fold.tables)):
            if key.rpartition(".")[2] in _FIGURES and not _DETAIL.search(key):
                values.setdefault(key, [None] * len(folds))[place] = value
    out = {}
    for key, found in values.items():
        known = [value for value in found if isinstance(value, (int, float))]
        if len(known) == len(folds):
            out[key] = {"mean": statistics.fmean(known), "sd": statistics.stdev(known), "values": known}
    return out


def spread_text(folds: Mapping[str, Any]) -> str:
    """The headline of the spread, as a sentence."""
    titles = {
        "tumour.dice.mean": "tumour Dice",
        "liver.dice.mean": "liver Dice",
        "lesions.any.f1": "lesion F1",
    }
    found = [
        f"{title} {tables.number(of['mean'])} (SD {tables.number(of['sd'])})"
        for key, title in titles.items()
        if (of := folds["spread"].get(key)) is not None
    ]
    return f"mean of {len(folds['runs'])} folds (SD between them): {', '.join(found) or 'no Dice was measured'}"


def _marks(folds: Sequence[Fold], metrics: Sequence[Metric], cases: Sequence[str]) -> dict[str, Any]:
    doubtful = _doubtful(folds)
    texts = dict.fromkeys(text for fold in folds for key in ("cropped", "selected") if (text := fold.summary.get(key)))
    hu = [text for fold in folds for text in fold.summary.get("notes") or [] if output.WINDOWED in text]
    notes = [*texts, *([output.left_out(doubtful, len(cases))] if doubtful else []), *hu]
    kept = {key: text for fold in folds for key in ("cropped", "selected") if (text := fold.summary.get(key))}
    return {
        "phantom": any(fold.summary.get("phantom") for fold in folds),
        **kept,
        "notes": notes,
        "folds": {
            "runs": [str(fold.run) for fold in folds],
            "cases": {str(fold.run): fold.cases for fold in folds},
            "spread": spread(folds, metrics),
        },
    }


def _provenance(folds: Sequence[Fold], cases: Sequence[str]) -> dict[str, Any]:
    origins = sorted({origin for fold in folds for origin in fold.provenance.get("origin", [])})
    return {
        **output.provenance(),
        "cases": len(cases),
        "spacing_not_trusted": _doubtful(folds),
        "origin": origins,
        "folds": [dict(fold.provenance) for fold in folds],
    }


def _doubtful(folds: Sequence[Fold]) -> list[str]:
    return [case for fold in folds for case in fold.provenance.get("spacing_not_trusted", [])]


def _copy_views(folds: Sequence[Fold], folder: Path) -> None:
    target = folder / VIEWS
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.npz"):
        old.unlink()
    for fold in folds:
        for case in fold.cases:
            view = fold.run / _EVALUATION / VIEWS / f"{case}.npz"
            if view.is_file():
                shutil.copyfile(view, target / view.name)


def _refuse_other(folder: Path) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        json.loads((folder / "summary.json").read_text(encoding="utf-8"))["folds"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder}: it holds other files; name another folder with -o") from None


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
        for place, item in enumerate(value):
            yield from _flat(item, f"{path}[{place}]")
    else:
        yield path, value
