"""Two folders of label files by anybody's model: predictions and references."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

import registry
from core import config
from core.build import Plan, convert, plain
from core.contracts import Rows
from core.document import ConfigError, Node, wrap
from core.errors import UserError
from core.evaluate import output
from core.evaluate.measuring import Recipe, choose_workers, measure_case
from core.evaluate.pairing import CaseFiles, Pairs, pair_files
from core.evaluate.parts import Parts, code_hash
from core.evaluate.reading import ALLOW, Rules, parse_labels, read_pair
from core.experiment import Experiment, load
from core.infer.evaluate import merge_tables
from core.parallel import map_cases
from core.report import figures
from core.report.tables import make_folder

NO_IMAGES = "no scans (--images): contrast, noise and border sharpness of lesions are empty"


@dataclass(frozen=True)
class Outcome:
    """What came of one case; `tables` is empty if it was only checked, or has problems."""

    tables: dict[str, Rows] = dataclasses.field(default_factory=dict)
    problems: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    doubt: str = ""
    windowed: bool = False


def evaluate_folders(args: argparse.Namespace) -> int:
    """Evaluate label files against label files.

    Args:
        args: of ``tools/evaluate.py``: pred, ref, images, out, target, overrides, labels, pred_labels, patients, allow,
            workers.
    """
    if args.pred is None or args.ref is None:
        raise UserError("want both --pred FOLDER (predictions) and --ref FOLDER (references)")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("two folders are measured by worker processes (--workers): start this without torchrun")
    rules, plans = _rules(args), read_metrics(args.target, args.overrides)
    pairs = pair_files(args.pred, args.ref, args.images, args.patients)
    folder = _folder(args, pairs)
    recipe = Recipe.of(plans)
    make_folder(folder, "name another folder with -o")
    print(_head(args, pairs), flush=True)
    problems = [*pairs.problems, *_extra(pairs, rules)]
    missing = [] if "missing" in rules.allow else [files for files in pairs.cases if files.pred is None]
    decide = {**plain(rules), "allow": sorted(rules.allow - {"missing", "extra"})}
    common = {"rules": decide, "metrics": plain(plans), "code": code_hash(recipe), "versions": output.versions()}
    parts = Parts(folder, common)
    outcomes = _measure(pairs.cases, rules, recipe, parts, args.workers, check_only=bool(problems or missing))
    problems += [text for outcome in outcomes.values() for text in outcome.problems]
    if problems:
        raise UserError(_listed(problems, args))
    _write(args, folder, plans, pairs, rules, outcomes, parts)
    return 0


def read_metrics(target: str | None, overrides: Sequence[str]) -> list[Plan]:
    """The plans of the metrics of an experiment or a run, or without one those that every experiment begins with.

    Raises:
        ConfigError: with every problem that was found.
    """
    if target is not None:
        return load(target, overrides).metric
    fields = {field.name: field.metadata.get("node") for field in dataclasses.fields(Experiment)}
    root = Node({name: wrap(fields[name]) for name in ("metric", "plugins")}, config.COMMAND_LINE)
    problems: list[str] = []
    config.override(root, overrides, problems)
    for name in root.value.keys() - {"metric", "plugins"}:
        problems.append(f"{name}: without an experiment file only metric= and plugins= can be given")
    references = root.value["plugins"].plain()
    for reference in references if isinstance(references, list) else [references]:
        try:
            registry.load(str(reference))
        except registry.RegistryError as error:
            problems.append(f"plugins: {error}")
    plans = convert(root.value["metric"], list[Annotated[Plan, "metric"]], "metric", problems)
    if problems:
        raise ConfigError(problems)
    checked: list[Plan] = plans
    return checked


def measure_files(
    files: CaseFiles, rules: Rules, recipe: Recipe, views: Mapping[str, Path], check_only: bool
) -> Outcome:
    """Read, check and measure one case; in a worker process."""
    checked = read_pair(files, rules)
    lists = (tuple(checked.problems), tuple(checked.repairs), tuple(checked.allowed))
    found = Outcome({}, *lists, checked.doubt, checked.windowed)
    if checked.pair is None or check_only:
        return found
    tables = measure_case(checked.pair, recipe.build(), views[files.case], missing=files.pred is None)
    return dataclasses.replace(found, tables=tables)


def _measure(
    cases: Sequence[CaseFiles], rules: Rules, recipe: Recipe, parts: Parts, workers: int | None, *, check_only: bool
) -> dict[str, Outcome]:
    out: dict[str, Outcome] = {}
    for files in cases:
        if files.pred is None and "missing" not in rules.allow:
            continue
        if (held := parts.read(files.case, _content(files))) is not None:
            note = parts.read_note(files.case)
            lists = (tuple(note["repairs"]), tuple(note["allowed"]))
            out[files.case] = Outcome(held, (), *lists, note["doubt"], note["windowed"])
    todo = [files for files in cases if files.case not in out]
    if out and not check_only:
        print(f"{len(out)} of {len(cases)} cases measured before", flush=True)
    views = {files.case: parts.view(files.case) for files in todo}
    one = functools.partial(measure_files, rules=rules, recipe=recipe, views=views, check_only=check_only)
    count = choose_workers(workers, len(todo), all_cores=True)
    description = "checking" if check_only else "evaluating"
    for files, result in map_cases(one, todo, workers=count, description=description):
        if isinstance(result, UserError):
            result = Outcome(problems=(f"case '{files.case}': {result}",))
        if isinstance(result, Exception):
            raise result
        if result.tables:
            note = {key: getattr(result, key) for key in ("repairs", "allowed", "doubt", "windowed")}
            parts.write(files.case, _content(files), result.tables, note)
        out[files.case] = result
    return {files.case: out[files.case] for files in cases}


def _write(
    args: argparse.Namespace,
    folder: Path,
    plans: Sequence[Plan],
    pairs: Pairs,
    rules: Rules,
    outcomes: Mapping[str, Outcome],
    parts: Parts,
) -> None:
    cases = list(outcomes)
    measured = merge_tables((outcome.tables for outcome in outcomes.values()), order=cases)
    allowed = {kind: [case for case in cases if kind in outcomes[case].allowed] for kind in sorted(rules.allow)}
    if "extra" in allowed:
        allowed["extra"] = [str(path) for path in pairs.extra]
    doubts = {case: outcome.doubt for case, outcome in outcomes.items() if outcome.doubt}
    repairs = {case: list(outcome.repairs) for case, outcome in outcomes.items() if outcome.repairs}
    source = {
        **output.provenance(),
        "pred": str(args.pred),
        "ref": str(args.ref),
        "images": None if args.images is None else str(args.images),
        "patients": None if args.patients is None else str(args.patients),
        "cases": len(cases),
        "labels": {"pred": dict(rules.pred_labels), "ref": dict(rules.ref_labels)},
        "metric": plain(list(plans)),
        "config_hash": hashlib.sha256(json.dumps(plain(list(plans)), sort_keys=True).encode()).hexdigest(),
        "overrides": list(args.overrides),
        "spacing_not_trusted": [] if "spacing" in rules.allow else list(doubts),
        "repairs": repairs,
        "origin": ["LiTS"] if pairs.lits else [],
    }
    notes = [f"--allow {kind}: {_some(names)} ({ALLOW[kind]})" for kind, names in allowed.items() if names]
    if source["spacing_not_trusted"]:
        notes.append(output.left_out(source["spacing_not_trusted"], len(cases), doubts))
    windowed = [case for case in cases if outcomes[case].windowed]
    notes += [output.windowed(windowed, len(cases))] if windowed else []
    notes += [f"{case}: repaired: {', '.join(texts)}" for case, texts in repairs.items()]
    notes += [NO_IMAGES] if args.images is None else []
    notes += _no_tumour(measured)
    chosen = figures.choose_cases(measured.get("cases", []))
    files = {item.case: item for item in pairs.cases}
    output.write(
        output.Evaluation(
            folder=folder,
            title=args.pred.resolve().name,
            metrics=Recipe.of(plans).build(),
            tables=measured,
            cases=cases,
            provenance=source,
            marks={"phantom": False, "allowed": allowed, "notes": notes},
            shown=[(rank, _panel(files[case], rules)) for rank, case in chosen],
            look={key: source[key] for key in ("time", "command", "pred", "ref", "overrides", "cases")},
            looked_at="these references",
        ),
        parts,
    )


def _panel(files: CaseFiles, rules: Rules) -> figures.Panel:
    pair = read_pair(files, rules).pair
    assert pair is not None
    image = np.zeros(pair.pred.shape, np.int16) if pair.image is None else pair.image
    return figures.make_panel(pair.case, image, pair.pred, pair.reference, pair.spacing_mm)


def _rules(args: argparse.Namespace) -> Rules:
    allow = frozenset(kind.strip() for text in args.allow or () for kind in text.split(","))
    for kind in sorted(allow - ALLOW.keys()):
        known = "\n".join(f"  {name:<8} {what}" for name, what in ALLOW.items())
        raise UserError(f"--allow {kind}: no such thing{registry.suggest(kind, ALLOW)}\n{known}")
    labels = {} if args.labels is None else parse_labels(args.labels)
    pred = labels if args.pred_labels is None else parse_labels(args.pred_labels)
    return Rules(allow, pred, labels, args.images is not None)


def _folder(args: argparse.Namespace, pairs: Pairs) -> Path:
    """Where to write: nothing but an evaluation of the same two folders is written over."""
    pred = args.pred.resolve()
    folder: Path = args.out or args.pred.with_name(f"{pred.name}_evaluation")
    if not folder.is_dir() or not any(folder.iterdir()):
        return folder
    inside = {path.name for path in folder.iterdir()}
    try:
        source = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["provenance"]
        before = [Path(source[side]).resolve() for side in ("pred", "ref")]
    except (OSError, ValueError, KeyError, TypeError):
        if inside == {".parts"}:
            return folder
        raise UserError(
            f"{folder}: it holds other files ({_some(sorted(inside))}); name another folder with -o"
        ) from None
    if before != [pred, args.ref.resolve()]:
        raise UserError(f"{folder}: it holds the evaluation of {before[0]} on {before[1]}; name another folder with -o")
    return folder


def _extra(pairs: Pairs, rules: Rules) -> list[str]:
    if "extra" in rules.allow:
        return []
    return [f"{path} has no reference; take it out, or leave it aside with --allow extra" for path in pairs.extra]


def _head(args: argparse.Namespace, pairs: Pairs) -> str:
    text = f"{len(pairs.cases)} references of {args.ref}, predictions of {args.pred}"
    if pairs.lits:
        text += f"\nnote: {pairs.lits} references are LiTS' by their names: its patients and repairs are taken as known"
    return text


def _listed(problems: Sequence[str], args: argparse.Namespace) -> str:
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    return "\n".join([f"{count} with {args.pred} and {args.ref}", *(f"  {text}" for text in problems)])


def _no_tumour(tables: Mapping[str, Rows]) -> list[str]:
    rows = [row for row in tables.get("cases", []) if row.get("structure") == "tumour" and "voxels_pred" in row]
    some = any(row["voxels_ref"] for row in rows) and not any(row["voxels_pred"] for row in rows)
    return ["no prediction has any voxel of label 2 (tumour): is that so, or are --pred-labels wanted?"] if some else []


def _content(files: CaseFiles) -> str:
    """The files by their paths, sizes and times; reading them would take as long as measuring."""
    known: list[Any] = [files.patient, files.repairs, files.doubt]
    for path in (files.ref, files.pred, files.image):
        stat = None if path is None or not path.exists() else path.stat()
        known.append(None if stat is None else (str(path), stat.st_size, stat.st_mtime_ns))
    return json.dumps(known)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)}: {', '.join(names[:5])}{more}"
