"""The figures of LiTS' public scorer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.contracts import Rows
from core.measure import lits
from core.measure.pair import CasePair
from core.measure.statistics import ratio_interval
from registry import register

_FIGURES = [field.name for field in dataclasses.fields(lits.Scores)]
_Summed = tuple[np.ndarray, np.ndarray]


@register("metric", "lits")
class Lits:
    """The LiTS challenge's own scores, to be set beside published tables: as its program runs, and as its text says.

    Lesions by 6-connectivity, merged where one prediction covers several or several cover one; detected at an overlap
    of more than 0 and more than 0.5; Dice, VOE, RVD and surface distances (edge18) over detected merged lesions alone,
    so that misses do not hurt them. ``lits_published`` repeats the program's defect: its "IoU" at 0.5 is the
    intersection over the reference, or over it and another lesion, unless ids happen to agree. ``lits_documented``
    takes the IoU.

    Tables: ``lits`` (one row a case), ``lits_lesions`` (one row a merged pair; scores where it is detected).
    Source: Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Med Image Anal 84, 2023, arXiv:1901.04056;
    github.com/PatrickChrist/lits-challenge-scoring.
    Example: {name: lits}
    """

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """Rows of one case."""
        pred, ref = lits.number(pair.lesions("pred", 6)), lits.number(pair.lesions("ref", 6))
        found = lits.detect(pred, ref)
        tumour, liver, there = pair.counts("tumour"), pair.counts("liver"), lits.has_liver(pair)
        row: dict[str, Any] = {
            "case": pair.case,
            "patient": pair.patient,
            "lesions_ref": ref.lesions.count,
            "lesions_pred": pred.lesions.count,
            "tp_greater_zero": found.true["published", 0.0],
            **{f"tp_{mode}": found.true[mode, 0.5] for mode in lits.MODES},
            "lesion_voxels_pred": tumour.pred,
            "lesion_voxels_ref": tumour.ref,
            "lesion_voxels_both": tumour.both,
            "liver_found": int(there),
            "liver_voxels_pred": liver.pred if there else 0,
            "liver_voxels_ref": liver.ref,
            "liver_voxels_both": liver.both if there else 0,
            **{f"liver_{name}": value for name, value in dataclasses.asdict(lits.score_liver(pair)).items()},
            "burden_error": lits.burden_error(pair),
        }
        lesions: Rows = []
        for merged in found.merged:
            scores = lits.score_lesion(merged, pred, ref, pair) if any(merged.detected.values()) else None
            lesions.append(
                {
                    "case": pair.case,
                    "patient": pair.patient,
                    "lesion": merged.lesion,
                    "references": len(merged.references),
                    "predictions": len(merged.predictions),
                    "iou": merged.iou,
                    **{mode: int(merged.detected[mode]) for mode in lits.MODES},
                    **(dict.fromkeys(_FIGURES) if scores is None else dataclasses.asdict(scores)),
                }
            )
        return {"lits": [row], "lits_lesions": lesions}

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        """Figures over the data set."""
        rows = sorted(tables.get("lits", []), key=lambda row: str(row["case"]))
        lesions = sorted(tables.get("lits_lesions", []), key=lambda row: (str(row["case"]), row["lesion"]))
        return {f"lits_{mode}": _mode(mode, rows, lesions) for mode in lits.MODES} if rows else {}


def _mode(mode: lits.Mode, rows: Rows, lesions: Rows) -> dict[str, Any]:
    # The program passes over a case's lesions if its detections are not more than 0, merges counted off.
    skipped = {row["case"] for row in rows if mode == "published" and row["tp_published"] <= 0}
    detected = [row for row in lesions if row[mode] and row["case"] not in skipped]
    errors = _column(rows, "burden_error")
    errors = errors[np.isfinite(errors)]
    return {
        "cases": len(rows),
        "tumour_free": sum(row["lesions_ref"] == 0 for row in rows),
        "lesion": {
            **_detection(rows, f"tp_{mode}", ""),
            **_detection(rows, "tp_greater_zero", "_greater_zero"),
            **(_means(detected, "") if detected else dataclasses.asdict(lits.nothing())),
            "detected": len(detected),
            "detected_mm": int(np.isfinite(_column(detected, "assd_mm")).sum()),
            **_ratio(rows, "dice_per_case", _dice_per_case(rows)),
            **_ratio(rows, "dice_global", _dice_global(rows, "lesion")),
        },
        "liver": {
            **_means(rows, "liver_"),
            "absent": sum(not row["liver_found"] for row in rows),
            "n_mm": int(np.isfinite(_column(rows, "liver_assd_mm")).sum()),
            **_ratio(rows, "dice_per_case", (_column(rows, "liver_dice"), np.ones(len(rows)))),
            **_ratio(rows, "dice_global", _dice_global(rows, "liver")),
        },
        "tumour_burden": {
            "rmse": math.sqrt(float(np.mean(errors**2))) if len(errors) else None,
            "max": float(errors.max()) if len(errors) else None,
            "n": len(errors),
        },
    }


def _detection(rows: Rows, column: str, suffix: str) -> dict[str, Any]:
    true, pred, ref = (_column(rows, name) for name in (column, "lesions_pred", "lesions_ref"))
    out: dict[str, Any] = {}
    for name, found in (("tp", true), ("fp", pred - true), ("fn", ref - true)):
        out[f"{name}{suffix}"] = int(found.sum())
    # TP + FP are the predicted lesions and TP + FN the reference's, whatever TP is.
    for name, of in (("precision", pred), ("recall", ref)):
        found_ratio = _ratio(rows, f"{name}{suffix}", (true, of))
        out |= {f"{name}{suffix}": 0.0} if not of.sum() else found_ratio
    return out


def _dice_per_case(rows: Rows) -> _Summed:
    pred, ref, both = (_column(rows, f"lesion_voxels_{side}") for side in ("pred", "ref", "both"))
    empty = np.array([0.0 if row.get("missing") else 1.0 for row in rows])
    return np.where(pred + ref > 0, 2 * both / np.maximum(pred + ref, 1), empty), np.ones(len(rows))


def _dice_global(rows: Rows, structure: str) -> _Summed:
    pred, ref, both = (_column(rows, f"{structure}_voxels_{side}") for side in ("pred", "ref", "both"))
    return 2 * both, pred + ref


def _ratio(rows: Rows, name: str, of: _Summed) -> dict[str, Any]:
    numerator, denominator = of
    total = float(denominator.sum())
    return {
        name: float(numerator.sum()) / total if total else None,
        f"{name}_ci95": ratio_interval(numerator, denominator, _patients(rows)).ci95,
    }


def _means(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Any]:
    """Each score's mean over what has one, and its interval; None without any."""
    out: dict[str, Any] = {}
    for name in _FIGURES:
        numbers = _column(rows, f"{prefix}{name}")
        known = numbers[np.isfinite(numbers)]
        out[name] = float(known.mean()) if len(known) else None
        out[f"{name}_ci95"] = ratio_interval(numbers, np.ones(len(numbers)), _patients(rows)).ci95
    return out


def _patients(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(row.get("patient") or row["case"]) for row in rows]


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if row[name] is None else float(row[name]) for row in rows], np.float64)
