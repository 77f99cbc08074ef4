"""The report's lists of cases and lesions, and which cases its viewers show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.contracts import Rows
from core.report.cells import number
from core.report.figures import choose_cases
from core.report.findings import PLACES
from core.report.folder import Evaluation
from core.report.views import View

VIEW_BYTES = 36_000_000
"""Of all views in a page together: in base64, 48 MB."""
LISTED = 2000
"""Lesions in the list, at most; missed ones first."""

CASE_COLUMNS: tuple[tuple[str, bool, str], ...] = (
    ("case", True, ""),
    ("patient", True, ""),
    (
        "tumour Dice",
        False,
        "1 if there is a tumour on neither side, 0 if on one only, unless the policy says otherwise",
    ),
    ("liver Dice", False, ""),
    ("lesions", False, "in the reference"),
    ("found", False, "at any overlap"),
    ("missed", False, "at any overlap"),
    ("false", False, "predicted lesions without a partner"),
    ("tumour ml", False, "in the reference"),
    ("predicted ml", False, "predicted tumour"),
    ("NSD 2 mm", False, "of the tumour"),
    ("HD95 mm", False, "of the tumour, where there is one on both sides"),
    ("ASSD liver", False, "mm"),
)
"""Name, whether it is text, help."""
LESION_COLUMNS: tuple[tuple[str, bool, str], ...] = (
    ("lesion", True, ""),
    ("is", True, "found: it has a partner at any overlap; false: predicted without one"),
    ("mm", False, "diameter of a ball of its volume"),
    ("Dice", False, "with its partner"),
    ("CNR", False, "contrast to the liver around it over its noise"),
    ("HU", False, "contrast to the liver around it; of false ones: the mean inside"),
    ("edge", False, "sharpness of its border, HU/mm"),
    ("prob.", False, "mean predicted tumour probability in it"),
    ("slice", False, "that of its centre, from the feet"),
    (
        "associated with",
        True,
        "what it has in common with lesions that are hard to find, or where it lies; none is called the cause",
    ),
)
_ORDER = {"missed": 0, "false": 1, "found": 2}
_COLUMN_KEYS = {
    "NSD 2 mm": "nsd_2mm",
    "HD95 mm": "hd95_mm",
    "tumour ml": "volume_ml_ref",
    "predicted ml": "volume_ml_pred",
}


def used(columns: Sequence[tuple[str, bool, str]], rows: list[dict[str, Any]]) -> list[tuple[str, bool, str]]:
    """The columns that hold anything; cells of the others are taken out of the rows."""
    kept = [i for i, _ in enumerate(columns) if any(row["cells"][i]["value"] != "" for row in rows)]
    for row in rows:
        row["cells"] = [row["cells"][i] for i in kept]
    return [columns[i] for i in kept]


def case_rows(e: Evaluation) -> list[dict[str, Any]]:
    """One a case: where it stands in the table, cells, and the words to filter by."""
    tumour = {row["case"]: row for row in e.structure("tumour")}
    liver = {row["case"]: row for row in e.structure("liver")}
    counted = _counted(e)
    out = []
    for index, case in enumerate(e.cases):
        one, other = tumour.get(case, {}), liver.get(case, {})
        found, missed, false = counted.get(case, (None, None, None))
        values: dict[str, Any] = {
            "case": case,
            "patient": one.get("patient") or other.get("patient") or case,
            "tumour Dice": one.get("dice"),
            "liver Dice": other.get("dice"),
            "lesions": None if found is None or missed is None else found + missed,
            **{"found": found, "missed": missed, "false": false},
            **{name: one.get(key) for name, key in _COLUMN_KEYS.items()},
            "ASSD liver": other.get("assd_mm"),
        }
        kinds = ["missed"] * bool(missed) + ["false"] * bool(false)
        kinds.append("free" if one.get("voxels_ref") == 0 else "bearing")
        cells = [_cell(name, values[name], text) for name, text, _ in CASE_COLUMNS]
        out.append({"index": index, "case": case, "kinds": kinds, "cells": cells})
    return out


def lesion_rows(e: Evaluation) -> tuple[list[dict[str, Any]], int]:
    """Missed lesions first, then false and found ones, the large before the small; and how many were left out."""
    index = {case: place for place, case in enumerate(e.cases)}
    rows = [(kind_of(row), row) for row in (*e.lesions("ref"), *e.lesions("pred"))]
    kept = [(kind, row) for kind, row in rows if kind and row["case"] in index]
    kept.sort(key=lambda pair: (_ORDER[pair[0]], -(pair[1].get("voxels") or 0)))
    out = []
    for kind, row in kept[:LISTED]:
        says = [PLACES.get(row.get("place") or "", "")] if kind == "false" else []
        says += [name.replace("_", " ") for name in str(row.get("features") or "").split(";")]
        name = f"{row['case']}\u00a0/\u00a0{'p' if row['side'] == 'pred' else ''}{row['lesion']}"
        values = {
            "lesion": name,
            "is": kind,
            "mm": row.get("diameter_mm"),
            "Dice": row.get("dice"),
            "CNR": row.get("cnr"),
            "HU": row.get("mean_hu") if kind == "false" else row.get("contrast_hu"),
            "edge": row.get("border_hu_per_mm"),
            "prob.": row.get("probability"),
            "slice": row.get("z"),
            "associated with": ", ".join(word for word in says if word),
        }
        cells = [_cell(column, values[column], text) for column, text, _ in LESION_COLUMNS]
        at = {key: row.get(key) for key in ("z", "y", "x", "z_first", "z_last", "diameter_mm")}
        title = f"{kind} lesion {row['lesion']}"
        if row.get("diameter_mm") is not None:
            title += f", {row['diameter_mm']:.1f} mm"
        out.append({"index": index[row["case"]], "kind": kind, "at": at, "cells": cells, "title": title})
    return out, len(kept) - len(out)


def kind_of(row: Mapping[str, Any]) -> str:
    """``found``, ``missed`` or ``false``; empty for the predicted side of a found lesion."""
    if row.get("side") == "ref":
        return "missed" if row.get("matched") is None else "found"
    return "false" if row.get("matched") is None else ""


def chosen(e: Evaluation) -> list[tuple[str, int]]:
    """Best, median and worst case that have a view: what it is, and its place in the list of cases."""
    index = {case: place for place, case in enumerate(e.cases)}
    rows = [row for row in e.tables["cases"] if row["case"] in e.views]
    if not any("dice" in row for row in rows):
        return []
    return [(rank, index[case]) for rank, case in choose_cases(rows)]


def shown_views(e: Evaluation, limit: int = VIEW_BYTES) -> dict[int, View]:
    """The views that fit into a page, by the case's place: the chosen ones, those with missed lesions, the worst."""
    first = {place for _, place in chosen(e)}
    counted = _counted(e)
    dice = {row["case"]: row.get("dice") for row in e.structure("tumour")}

    def rank(item: tuple[int, str]) -> tuple[Any, ...]:
        place, case = item
        missed, score = counted.get(case, (0, 0, 0))[1], dice.get(case)
        return (place not in first, -missed, 1.0 if score is None else score)

    out: dict[int, View] = {}
    for place, case in sorted(enumerate(e.cases), key=rank):
        view = e.views.get(case)
        if view is not None:
            limit -= len(view.image) + len(view.labels)
            if limit < 0:
                break
            out[place] = view
    return dict(sorted(out.items()))


def _counted(e: Evaluation) -> dict[str, tuple[int, int, int]]:
    """Found, missed, false; empty without lesions measured."""
    if not e.tables["lesions"] and not any("lesions_ref" in row for row in e.structure("tumour")):
        return {}
    out = {case: [0, 0, 0] for case in e.cases}
    lesions: Sequence[Rows] = (e.lesions("ref"), e.lesions("pred"))
    for row in (*lesions[0], *lesions[1]):
        kind = kind_of(row)
        if kind and row["case"] in out:
            out[row["case"]][("found", "missed", "false").index(kind)] += 1
    return {case: (found, missed, false) for case, (found, missed, false) in out.items()}


_DIGITS = {
    **dict.fromkeys(("tumour Dice", "liver Dice", "Dice", "NSD 2 mm"), 3),
    **dict.fromkeys(("prob.", "ASSD liver"), 2),
    **dict.fromkeys(("mm", "CNR", "edge", "HD95 mm", "tumour ml", "predicted ml"), 1),
    "HU": 0,
}


def _cell(name: str, value: Any, text: bool) -> dict[str, Any]:
    shown = "" if value is None else str(value)
    if name in _DIGITS and value is not None:
        shown = number(float(value), _DIGITS[name])
    bar = value if name.endswith("Dice") and value is not None else None
    return {"value": "" if value is None else value, "shown": shown, "text": text, "bar": bar}
