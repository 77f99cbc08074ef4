"""Overlap of two masks from their voxel counts, per case and over the data set; definitions in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from core.contracts import Rows
from core.measure.pair import CLASSES, STRUCTURES, CasePair, Counts

Empty = Literal["lits", "nan", "worst"]
"""What an empty mask scores: ``lits`` and ``worst``: both empty 1, one empty 0; ``nan``: both empty is no number."""

Ratio = Callable[[Counts], "float | None"]


def dice(counts: Counts, empty: Empty = "lits") -> float | None:
    """2I / (P + R); None is not a number."""
    if counts.pred + counts.ref == 0:
        return None if empty == "nan" else 1.0
    return 2 * counts.both / (counts.pred + counts.ref)


def iou(counts: Counts, empty: Empty = "lits") -> float | None:
    """I / (P + R - I); None is not a number."""
    if counts.pred + counts.ref == 0:
        return None if empty == "nan" else 1.0
    return counts.both / (counts.pred + counts.ref - counts.both)


def measure(pair: CasePair, column: str, ratio: Ratio) -> dict[str, Rows]:
    """The rows of one overlap metric: ``cases``, one a structure, and ``slices``, one a slice that has it.

    Background has a row in ``cases`` so that macro figures can be recomputed from the file. The voxel counts are in the
    rows because pooled (global) figures and their bootstrap need them.
    """
    cases: Rows = []
    slices: Rows = []
    for structure in CLASSES:
        counts = pair.counts(structure)
        ml = pair.voxel_ml if structure != "background" else None
        cases.append(
            {
                "case": pair.case,
                "structure": structure,
                column: ratio(counts),
                "volume_ml_pred": None if ml is None else counts.pred * ml,
                "volume_ml_ref": None if ml is None else counts.ref * ml,
                "voxels_pred": counts.pred,
                "voxels_ref": counts.ref,
                "voxels_both": counts.both,
            }
        )
    for structure in STRUCTURES:
        per_slice = pair.slice_counts(structure)
        for z in np.flatnonzero(per_slice[:, :2].any(axis=1)):
            in_slice = Counts(*(int(n) for n in per_slice[z]))
            slices.append({"case": pair.case, "z": int(z), "structure": structure, column: ratio(in_slice)})
    return {"cases": cases, "slices": slices}


def summarise(tables: Mapping[str, Rows], column: str, ratio: Ratio, empty: Empty) -> dict[str, Any]:
    """Figures over the data set from the rows of `measure`, nested as in ``summary.json``."""
    rows = [row for row in tables.get("cases", []) if column in row]
    by_structure = {s: [row for row in rows if row["structure"] == s] for s in CLASSES}
    bearing = {row["case"] for row in by_structure["tumour"] if row["voxels_ref"] > 0}
    out: dict[str, Any] = {}
    for structure in STRUCTURES:
        own = by_structure[structure]
        figures = describe(values(own, column))
        figures["global"] = _pooled(own, ratio)
        if structure == "tumour":
            with_tumour = describe(values([row for row in own if row["case"] in bearing], column))
            figures["mean_tumour_bearing"] = with_tumour["mean"]
            figures["median_tumour_bearing"] = with_tumour["median"]
            figures["n_tumour_bearing"] = with_tumour["n"]
        figures["empty"] = empty
        figures["both_empty"] = sum(row["voxels_pred"] == row["voxels_ref"] == 0 for row in own)
        figures["one_empty"] = sum((row["voxels_pred"] == 0) != (row["voxels_ref"] == 0) for row in own)
        out[structure] = {column: figures}
    foreground = [by_structure["parenchyma"], by_structure["tumour"]]
    out[f"{column}_macro"] = describe(_macro([by_structure["background"], *foreground], column))
    out[f"{column}_macro_foreground"] = describe(_macro(foreground, column))
    out["tumour_free"] = tumour_free(by_structure["tumour"])
    return out


def tumour_free(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cases without a tumour in the reference, from the tumour's rows: specificity and false-positive volume."""
    free = [row for row in rows if row["voxels_ref"] == 0]
    flagged = sum(row["voxels_pred"] > 0 for row in free)
    return {
        "n": len(free),
        "false_positive_cases": flagged,
        "specificity": 1 - flagged / len(free) if free else None,
        "false_positive_volume_ml": describe(values(free, "volume_ml_pred")),
    }


def values(rows: Sequence[Mapping[str, Any]], column: str) -> np.ndarray:
    """A column as float64, NaN where it is empty."""
    return np.array([np.nan if row.get(column) is None else float(row[column]) for row in rows], np.float64)


def describe(numbers: np.ndarray) -> dict[str, Any]:
    """Mean, median, quartiles, least and greatest of what is a number; `n` of these, and how many were left out."""
    kept = numbers[np.isfinite(numbers)]
    out: dict[str, Any] = dict.fromkeys(("mean", "median", "q25", "q75", "min", "max"))
    if len(kept):
        q25, median, q75 = (float(q) for q in np.quantile(kept, (0.25, 0.5, 0.75)))
        out.update(mean=float(kept.mean()), median=median, q25=q25, q75=q75)
        out.update(min=float(kept.min()), max=float(kept.max()))
    return {**out, "n": len(kept), "left_out": len(numbers) - len(kept)}


def _pooled(rows: Sequence[Mapping[str, Any]], ratio: Ratio) -> float | None:
    pred, ref, both = (sum(row[f"voxels_{side}"] for row in rows) for side in ("pred", "ref", "both"))
    # No voxel in the whole data set: a policy for empty masks does not make that a score.
    return ratio(Counts(pred, ref, both)) if pred + ref else None


def _macro(structures: Sequence[Sequence[Mapping[str, Any]]], column: str) -> np.ndarray:
    """Classes within a case first (those that are numbers), then one value a case."""
    by_case: dict[str, list[float]] = {}
    for rows in structures:
        for row, value in zip(rows, values(rows, column), strict=True):
            by_case.setdefault(row["case"], []).extend([float(value)] if np.isfinite(value) else [])
    return np.array([np.mean(numbers) if numbers else np.nan for numbers in by_case.values()], np.float64)
