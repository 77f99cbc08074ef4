"""The ``error_analysis`` part of ``summary.json``, from the tables of all cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.analysis.associated import FEATURES, NONE, Thresholds, judged
from core.analysis.detection import detection_model
from core.analysis.distribution import end_slices, hurdle
from core.analysis.strata import Row, bearing_cases, cases_by, found, lesion_dice, patient, rate, recall_by
from core.contracts import Rows
from core.measure.overlap import values
from core.measure.statistics import describe

PLACES = ("inside", "liver_border", "vessel_like", "gallbladder_like", "outside_liver")


def summarise(tables: Mapping[str, Rows], limits: Thresholds) -> dict[str, Any]:
    """Figures over the data set; lesions that another metric ignores are no part of them."""
    lesions = [row for row in tables.get("lesions", []) if not row.get("ignored")]
    ref = [row for row in lesions if row["side"] == "ref"]
    wrong = [row for row in lesions if row["side"] == "pred" and row.get("place")]
    cases = tables.get("cases", [])
    whose = {str(row["case"]): patient(row) for row in cases}
    bearing = bearing_cases(cases, ref)
    slices = [row for row in tables.get("slices", []) if row["structure"] == "tumour" and row.get("dice") is not None]
    missed = [row for row in ref if not found(row)]
    hit = [row for row in ref if found(row)]
    per_slice = hurdle(values(slices, "dice"), [whose.get(row["case"], str(row["case"])) for row in slices])
    per_slice["zero_without_reference"] = sum(row["dice"] == 0 and not row.get("in_reference", 1) for row in slices)
    return {
        "recall_by": recall_by(ref),
        "cases_by": cases_by(bearing),
        "detection_model": detection_model(ref),
        "features": _features(missed, hit, limits),
        "probability": {
            name: describe(values(rows, "probability"), [patient(row) for row in rows])
            for name, rows in (("missed", missed), ("found", hit))
        },
        "false_positives": _false_positives(wrong),
        "distribution": {
            "case": hurdle(values(bearing, "dice"), [patient(row) for row in bearing]),
            "lesion": hurdle(np.array([lesion_dice(row) for row in ref]), [patient(row) for row in ref]),
            "slice": per_slice,
            "end_slices": end_slices(ref, [patient(row) for row in ref]),
        },
    }


def _features(missed: Sequence[Row], hit: Sequence[Row], limits: Thresholds) -> list[dict[str, Any]]:
    """How often each feature goes with missed and with found lesions, of those that it can be judged on."""
    titles = limits.titles()
    out = []
    for name in (*FEATURES, NONE):
        entry: dict[str, Any] = {"name": name, "title": titles[name]}
        for side, rows in (("missed", missed), ("found", hit)):
            known = [row for row in rows if judged(row, name)]
            has = np.array([_has(row, name) for row in known], np.float64)
            entry[side], entry[f"{side}_n"] = int(has.sum()), len(known)
            entry[f"{side}_ci95"] = rate(has, [patient(row) for row in known], "share")["share_ci95"]
        out.append(entry)
    return out


def _has(row: Row, feature: str) -> bool:
    names = (row.get("features") or "").split(";")
    return names == [""] if feature == NONE else feature in names


def _false_positives(rows: Sequence[Row]) -> dict[str, Any]:
    by_place = []
    for place in PLACES:
        own = [row for row in rows if row["place"] == place]
        whose = [patient(row) for row in own]
        sizes = {column: describe(values(own, column), whose) for column in ("volume_ml", "mean_hu")}
        by_place.append({"place": place, "n": len(own), **sizes})
    return {"n": len(rows), "by_place": by_place}
