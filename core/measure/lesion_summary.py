"""Figures of lesions over the data set, from the rows of tables ``lesions``, ``cases`` and ``candidates``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.contracts import Rows
from core.measure.froc import froc
from core.measure.lesion_rows import column, is_false, is_hit
from core.measure.matching import THRESHOLDS
from core.measure.overlap import patients, values
from core.measure.statistics import describe, ratio_interval
from core.measure.surface import nsd_column


class Tally:
    """Lesions found, invented and missed, with the patient of each: pooled ratios and their intervals.

    Args:
        hits: rows of reference lesions that were found.
        false: rows of predicted lesions that are none.
        misses: rows of reference lesions that were not found.
    """

    def __init__(self, hits: Rows, false: Rows, misses: Rows) -> None:
        self.tp, self.fp, self.fn = len(hits), len(false), len(misses)
        whose = [patients(rows) for rows in (hits, false, misses)]
        self.patients = sorted({name for names in whose for name in names})
        place = {name: i for i, name in enumerate(self.patients)}
        self._counts = [
            np.bincount([place[name] for name in names], minlength=len(place)).astype(np.float64) for names in whose
        ]

    def figures(self) -> dict[str, Any]:
        """Recall TP / (TP + FN), precision TP / (TP + FP), F1 = 2 TP / (2 TP + FP + FN), and the counts."""
        tp, fp, fn = self._counts
        out: dict[str, Any] = {"tp": self.tp, "fp": self.fp, "fn": self.fn}
        out.update(share("recall", tp, tp + fn, self.patients))
        out.update(share("precision", tp, tp + fp, self.patients))
        out.update(share("f1", 2 * tp, 2 * tp + fp + fn, self.patients))
        return out

    def panoptic(self, iou: Sequence[float], rows: Rows) -> dict[str, Any]:
        """PQ = SQ * RQ: SQ the mean IoU of the matched, RQ = TP / (TP + FP / 2 + FN / 2) (Kirillov et al. 2019).

        Args:
            iou: of the hits.
            rows: the hits.
        """
        tp, fp, fn = self._counts
        place = {name: i for i, name in enumerate(self.patients)}
        total = np.bincount([place[p] for p in patients(rows)], weights=iou, minlength=len(place)).astype(np.float64)
        out = share("pq", total, tp + fp / 2 + fn / 2, self.patients)
        out.update(share("sq", total, tp, self.patients))
        out.update(share("rq", tp, tp + fp / 2 + fn / 2, self.patients))
        return out


def share(name: str, numerator: np.ndarray, denominator: np.ndarray, whose: Sequence[str]) -> dict[str, Any]:
    """A ratio of sums and its interval; None where the denominator is 0."""
    bottom = float(denominator.sum())
    value = float(numerator.sum()) / bottom if bottom else None
    return {name: value, f"{name}_ci95": ratio_interval(numerator, denominator, whose).ci95}


def summarise(
    tables: Mapping[str, Rows],
    *,
    size_bins_mm: Sequence[float] = (10.0, 20.0),
    min_lesion_ml: float = 0.0,
    tolerances_mm: Sequence[float] = (1.0, 2.0, 3.0),
) -> dict[str, Any]:
    """The figures under ``lesions`` of ``summary.json``, and false-positive lesions of tumour-free cases.

    Args:
        tables: of all cases.
        size_bins_mm: edges between the bins of diameter.
        min_lesion_ml: what the rows were made with.
        tolerances_mm: the same.
    """
    rows = [row for row in tables.get("lesions", []) if "touches" in row]
    cases = [row for row in tables.get("cases", []) if row.get("lesions_ref") is not None]
    refs = [row for row in rows if row["side"] == "ref" and not row["ignored"]]
    out: dict[str, Any] = {name: tally(rows, name).figures() for name in THRESHOLDS}
    out["coverage"] = _coverage(refs)
    out["by_size"] = {name: _by_size(rows, name, size_bins_mm) for name in THRESHOLDS}
    out["without_size"] = sum(row["diameter_mm"] is None for row in rows)
    out["per_case"] = _per_case(cases)
    out["false_positives_per_case"] = describe(values(cases, "fp_any"), patients(cases))
    out["merges"] = sum(row["side"] == "pred" and row["touches"] > 1 for row in rows)
    out["splits"] = sum(row["side"] == "ref" and row["touches"] > 1 for row in rows)
    matched = [row for row in refs if row[column("iou_0.5")] is not None]
    out["pq"] = tally(rows, "iou_0.5").panoptic([row["iou_at_0.5"] for row in matched], matched)
    out["cc_dice"] = _case_means(refs, "cc_dice")
    out["dice_detected"] = describe(values(refs, "dice"), patients(refs))
    out["dice_with_misses"] = describe(np.nan_to_num(values(refs, "dice")), patients(refs))
    names = ["assd_mm", "hd_mm", "hd95_mm", *(nsd_column(tolerance) for tolerance in tolerances_mm)]
    out["boundary"] = {name: describe(values(refs, name), patients(refs)) for name in names}
    out["froc"] = _froc(tables.get("candidates", []), cases, refs)
    out["min_lesion_ml"] = min_lesion_ml
    out["ignored"] = sum(row["ignored"] for row in rows)
    free = [row for row in cases if row["voxels_ref"] == 0 and not row.get("missing")]
    return {
        "lesions": out,
        "tumour_free": {"false_positive_lesions": describe(values(free, "fp_any"), patients(free))},
    }


def tally(rows: Rows, threshold: str) -> Tally:
    """Lesions found, invented and missed at a threshold; ignored ones, and those matched with such, are none of it."""
    hits = [row for row in rows if is_hit(row, threshold)]
    misses = [row for row in rows if row["side"] == "ref" and not row["ignored"] and row[column(threshold)] is None]
    return Tally(hits, [row for row in rows if is_false(row, threshold)], misses)


def bin_names(edges_mm: Sequence[float]) -> list[tuple[str, float, float]]:
    """Name, lower and upper end of each bin of diameter, in mm."""
    ends = [0.0, *edges_mm, math.inf]
    return [(f"[{low:g},{high:g})", low, high) for low, high in itertools.pairwise(ends)]


def _by_size(rows: Rows, threshold: str, edges_mm: Sequence[float]) -> dict[str, Any]:
    """References by their own diameter, false positives by theirs; Dice with misses as 0."""
    out = {}
    for name, low, high in bin_names(edges_mm):
        own = [row for row in rows if row["diameter_mm"] is not None and low <= row["diameter_mm"] < high]
        refs = [row for row in own if row["side"] == "ref" and not row["ignored"]]
        found = np.array([row[column(threshold)] is not None for row in refs], bool)
        dice = np.where(found, np.nan_to_num(values(refs, "dice")), 0.0)
        out[name] = {**tally(own, threshold).figures(), "dice": describe(dice, patients(refs))}
    return out


def _coverage(refs: Rows) -> dict[str, Any]:
    found = np.array([row["covered"] for row in refs], np.float64)
    counts = {"found": int(found.sum()), "missed": int((found == 0).sum())}
    return {**counts, **share("recall", found, np.ones(len(refs)), patients(refs))}


def _per_case(cases: Rows) -> dict[str, Any]:
    """Recall, precision and F1 of each case at any overlap; a case whose denominator is 0 is left out."""
    tp, fp, ref = (values(cases, name) for name in ("tp_any", "fp_any", "lesions_ref"))
    with np.errstate(invalid="ignore"):
        found = {"recall": tp / ref, "precision": tp / (tp + fp), "f1": 2 * tp / (tp + fp + ref)}
    return {name: describe(numbers, patients(cases)) for name, numbers in found.items()}


def _case_means(refs: Rows, name: str) -> dict[str, Any]:
    """Mean over a case's lesions, then over cases."""
    by_case: dict[str, list[float]] = {}
    for row, value in zip(refs, values(refs, name), strict=True):
        by_case.setdefault(row["case"], []).append(float(value))
    whose = {row["case"]: patient for row, patient in zip(refs, patients(refs), strict=True)}
    means = np.array([np.mean(numbers) for numbers in by_case.values()], np.float64)
    return describe(means, [whose[case] for case in by_case])


def _froc(candidates: Rows, cases: Rows, refs: Rows) -> dict[str, Any]:
    without = [row["case"] for row in cases if row["candidates"] is None]
    why = None
    if without:
        why = f"no probabilities for {len(without)} of {len(cases)} cases, such as '{min(without)}'"
    elif not refs:
        why = "no reference lesion"
    counted = {(row["case"], int(row["lesion"])) for row in refs}
    totals = {row["case"]: 0 for row in cases}
    for case, _ in counted:
        totals[case] += 1
    best = {
        score: froc([] if why else candidates, {} if why else totals, counted, score)
        for score in ("score_mean", "score_max")
    }
    return {"available": why is None, "why": why, **best["score_mean"], "by_max": best["score_max"]}
