"""An evaluation as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from core.report import detection, findings, lists, lits, scores
from core.report.cells import number
from core.report.folder import Evaluation, read_evaluation
from core.report.tables import whole_file
from core.report.views import RANGE_HU, SIDE, SLICES, View

_HTML = Path(__file__).parent / "html"


def write_report(folder: Path) -> Path:
    """``report.html`` from an evaluation folder alone.

    Args:
        folder: as ``tools/evaluate.py`` left it: ``summary.json``, tables, ``views/``; all but the first may lack.

    Raises:
        UserError: if it holds no evaluation, or a file of it is broken.
    """
    text = page(read_evaluation(folder))
    path = folder / "report.html"
    with whole_file(path) as file:
        file.write(text.encode())
    return path


def page(e: Evaluation) -> str:
    """The HTML."""
    loader = jinja2.FileSystemLoader(_HTML)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    views, source = lists.shown_views(e), _source(e)
    dice = {row["case"]: row.get("dice") for row in e.structure("tumour")}
    cases = lists.case_rows(e)
    lesions, unlisted = lists.lesion_rows(e)
    model, no_model = findings.model(e)
    froc, no_froc = findings.froc(e)
    calibration, no_calibration = findings.calibration(e)
    return environment.get_template("page.html").render(
        css=_file("page.css"),
        scripts=[_file(name) for name in ("decode.js", "viewer.js", "page.js")],
        title=title(e),
        facts=_facts(e, source),
        phantom=bool(e.summary.get("phantom")),
        notes=_notes(e),
        provenance=list(_flat(source)),
        tiles=scores.tiles(e),
        headline=scores.headline(e),
        score_notes=scores.notes(e),
        lesion_table=detection.lesion_table(e),
        quality=detection.quality_table(e),
        sizes=detection.size_tables(e),
        froc=froc,
        no_froc=no_froc,
        calibration=calibration,
        no_calibration=no_calibration,
        probabilities=findings.probabilities(e),
        apart=scores.told_apart(e),
        distributions=findings.distributions(e),
        end_slices=findings.end_slices(e),
        strata=findings.strata(e),
        features=findings.features(e),
        model=model,
        no_model=no_model,
        false_positives=findings.false_positives(e),
        analysed=isinstance(e.of("error_analysis"), Mapping),
        free=detection.free_table(e),
        lits=lits.lits_table(e),
        folds=scores.fold_table(e),
        case_columns=lists.used(lists.CASE_COLUMNS, cases),
        cases=cases,
        lesion_columns=lists.used(lists.LESION_COLUMNS, lesions),
        lesions=lesions,
        unlisted=unlisted,
        chosen=[(rank, place) for rank, place in lists.chosen(e) if place in views],
        facts_of_views={str(place): _facts_of(view, dice.get(view.case)) for place, view in views.items()},
        views=[(place, _base64(view.image), _base64(view.labels)) for place, view in views.items()],
        views_missing=len(e.cases) - len(views),
        range_hu=RANGE_HU,
        side=SIDE,
        slices=SLICES,
    )


def title(e: Evaluation) -> str:
    """What was evaluated, in a few words."""
    source = _source(e)
    if isinstance(source.get("folds"), list):
        return f"{len(source['folds'])} folds, {e.folder.resolve().name}"
    if source.get("pred"):
        return f"{source['pred']} against {source.get('ref')}"
    name = str(source.get("run") or e.folder.resolve())
    return Path(name).name or name


def _source(e: Evaluation) -> Mapping[str, Any]:
    found = e.summary.get("provenance")
    return found if isinstance(found, Mapping) else {}


def _facts(e: Evaluation, source: Mapping[str, Any]) -> list[str]:
    count, bearing = len(e.cases), sum(bool(row.get("voxels_ref")) for row in e.structure("tumour"))
    facts = [f"{source['split']} split"] if source.get("split") else []
    facts.append(f"{count} case{'s' * (count != 1)} of {e.patients} patient{'s' * (e.patients != 1)}")
    if e.structure("tumour"):
        facts.append(f"{bearing} with tumour")
    if source.get("checkpoint"):
        averaged = ", averaged weights" if source.get("averaged_weights") else ""
        step = f" at step {source['step']}" if source.get("step") is not None else ""
        facts.append(f"checkpoint {source['checkpoint']}{step}{averaged}")
    if e.looks:
        facts.append(f"look {e.looks} at these cases")
    if source.get("time"):
        facts.append(f"measured {str(source['time'])[:16].replace('T', ' ')}")
    return facts


def _notes(e: Evaluation) -> list[str]:
    """What a reader has to know before any number."""
    notes = [value for value in e.summary.values() if isinstance(value, str)]  # what marks the whole evaluation
    source = _source(e)
    notes += [str(source["tuned"])] if source.get("tuned") else []
    notes += [f"Overridden on the command line: {_names(source['overrides'])}"] if source.get("overrides") else []
    listed = e.summary.get("notes")
    notes += [str(note) for note in listed] if isinstance(listed, list) else []
    models = len(e.of("folds", "runs") or [""])
    which = "one model" if models == 1 else f"{models} models, one a fold"
    claim = f"a claim about a method wants three seeds or more, and this page is of {which}."
    if e.cases and e.patients < scores.LEAST_PATIENTS:
        notes.append(
            f"No intervals: {e.patients} patient{'s' * (e.patients != 1)}. A bootstrap over fewer than "
            f"{scores.LEAST_PATIENTS} gives intervals that are far too narrow. {claim[0].upper()}{claim[1:]}"
        )
    elif e.cases:
        notes.append(
            f"Intervals: 95 %, bootstrap over {e.patients} patients. They do not contain the variance of training: "
            f"{claim} Where fewer than {scores.LEAST_PATIENTS} patients have a figure, it has no interval."
        )
    if not e.cases:
        notes.append("No table of cases: the metrics gave none.")
    return list(dict.fromkeys(notes))


def _names(names: Any) -> str:
    listed = [str(name) for name in names] if isinstance(names, (list, tuple)) else [str(names)]
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")


def _facts_of(view: View, dice: Any) -> dict[str, Any]:
    return {
        "case": view.case,
        "says": "" if dice is None else f"Dice {number(float(dice))}",
        "shape": view.shape,
        "mm": view.spacing_mm,
        "trusted": view.spacing_trusted,
        "corner": view.corner,
        "scale": view.scale,
        "z": view.z,
        "left": view.left_out,
        "frame": view.frame,
        "columns": view.columns,
        "image": bool(view.image),
    }


def _base64(data: bytes) -> Markup:
    return Markup(base64.b64encode(data).decode())  # its letters mean nothing in HTML


def _file(name: str) -> Markup:
    """A part of the page that we wrote."""
    return Markup((_HTML / name).read_text(encoding="utf-8"))


def _flat(nested: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for name, value in nested.items():
        label = f"{before}{str(name).replace('_', ' ')}"
        if isinstance(value, Mapping):
            out += _flat(value, f"{label}: ")
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            out += _flat({str(place): one for place, one in enumerate(value, 1)}, f"{label} ")
        elif value not in (None, [], ""):
            out.append((label, _names(value) if isinstance(value, list) else str(value)))
    return out
