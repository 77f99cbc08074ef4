"""Overlap of two masks from their voxel counts, per case and over the data set; definitions in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from core.contracts import Rows
from core.measure.pair import CLASSES, STRUCTURES, CasePair, Counts
from core.measure.statistics import describe, ratio_interval

Empty = Literal["lits", "nan", "worst"]
"""What an empty mask scores: ``lits`` and ``worst``: both empty 1, one empty 0; ``nan``: both empty is no number."""

Figure = Literal["dice", "iou", "voe", "rvd", "precision", "recall"]

_PARTS: dict[Figure, Callable[[Counts], tuple[int, int]]] = {
    "dice": lambda n: (2 * n.both, n.pred + n.ref),
    "iou": lambda n: (n.both, n.pred + n.ref - n.both),
    "voe": lambda n: (n.pred + n.ref - 2 * n.both, n.pred + n.ref - n.both),
    "rvd": lambda n: (n.pred - n.ref, n.ref),
    "precision": lambda n: (n.both, n.pred),
    "recall": lambda n: (n.both, n.ref),
}
"""Numerator and denominator."""
_BOTH_EMPTY: dict[Figure, float] = {"dice": 1.0, "iou": 1.0, "voe": 0.0}
"""What two empty masks score under ``lits`` and ``worst``; the other figures are no numbers then."""


def figure(name: Figure, counts: Counts, empty: Empty = "lits") -> float | None:
    """One figure of overlap, None where it is not a number.

    Dice 2I / (P + R), IoU I / (P + R - I), VOE 1 - IoU, RVD (P - R) / R, precision I / P, recall I / R; P, R voxels of
    prediction and reference, I of both.
    """
    numerator, denominator = _PARTS[name](counts)
    if denominator:
        return numerator / denominator
    return None if empty == "nan" else _BOTH_EMPTY.get(name)


def dice(counts: Counts, empty: Empty = "lits") -> float | None:
    """2I / (P + R); None is not a number."""
    return figure("dice", counts, empty)


def iou(counts: Counts, empty: Empty = "lits") -> float | None:
    """I / (P + R - I); None is not a number."""
    return figure("iou", counts, empty)


def check_empty(empty: Empty) -> Empty:
    """The policy itself.

    Raises:
        ValueError: if there is no such policy.
    """
    if empty not in get_args(Empty):
        raise ValueError(f"unknown policy for empty masks '{empty}', known: {', '.join(get_args(Empty))}")
    return empty


def measure(pair: CasePair, names: Sequence[Figure], empty: Empty = "lits") -> dict[str, Rows]:
    """The rows of overlap figures: ``cases``, one a structure; ``slices``, one a slice that has it, for Dice and IoU.

    Background has a row in ``cases`` so that macro figures can be recomputed from the file. The voxel counts are in the
    rows because pooled (global) figures and their bootstrap need them.
    """
    cases: Rows = []
    for structure in CLASSES:
        counts = pair.counts(structure)
        ml = pair.voxel_ml if structure != "background" else None
        cases.append(
            {
                "case": pair.case,
                "structure": structure,
                **{name: figure(name, counts, empty) for name in names},
                "volume_ml_pred": None if ml is None else counts.pred * ml,
                "volume_ml_ref": None if ml is None else counts.ref * ml,
                "voxels_pred": counts.pred,
                "voxels_ref": counts.ref,
                "voxels_both": counts.both,
            }
        )
    tables = {"cases": cases}
    sliced: list[Figure] = [name for name in names if name in ("dice", "iou")]
    if sliced:
        tables["slices"] = _slices(pair, sliced, empty)
    return tables


def summarise(tables: Mapping[str, Rows], names: Sequence[Figure], empty: Empty) -> dict[str, Any]:
    """Figures over the data set from the rows of `measure`, nested as in ``summary.json``."""
    rows = [row for row in tables.get("cases", []) if row.get("voxels_ref") is not None]
    of = {structure: [row for row in rows if row["structure"] == structure] for structure in CLASSES}
    bearing = [row for row in of["tumour"] if row["voxels_ref"] > 0]
    out: dict[str, Any] = {}
    for structure in STRUCTURES:
        own = of[structure]
        out[structure] = {}
        for name in names:
            figures = describe(values(own, name), patients(own))
            figures["global"], figures["global_ci95"] = _pooled(own, name)
            if structure == "tumour":
                with_tumour = describe(values(bearing, name), patients(bearing))
                for key in ("mean", "median", "q25", "q75", "n"):
                    figures[f"{key}_tumour_bearing"] = with_tumour[key]
                figures["mean_tumour_bearing_ci95"] = with_tumour["ci95"]
            figures["empty"] = empty
            given = [row for row in own if not row.get("missing")]  # no policy touches a prediction that is not there
            figures["both_empty"] = sum(row["voxels_pred"] == row["voxels_ref"] == 0 for row in given)
            figures["one_empty"] = sum((row["voxels_pred"] == 0) != (row["voxels_ref"] == 0) for row in given)
            figures["missing"] = len(own) - len(given)
            out[structure][name] = figures
    foreground = [of["parenchyma"], of["tumour"]]
    for name in names:
        if name in ("dice", "iou"):
            out[f"{name}_macro"] = _macro([of["background"], *foreground], name)
            out[f"{name}_macro_foreground"] = _macro(foreground, name)
    out["tumour_free"] = tumour_free(of["tumour"])
    return out


def tumour_free(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cases without a tumour in the reference, from the tumour's rows: specificity and false-positive volume.

    A missing prediction counts against the specificity, and has no volume.
    """
    free = [row for row in rows if row["voxels_ref"] == 0]
    given = [row for row in free if not row.get("missing")]
    clean = np.array([row["voxels_pred"] == 0 and not row.get("missing") for row in free], np.float64)
    return {
        "n": len(free),
        **({"missing": len(free) - len(given)} if len(free) > len(given) else {}),
        "false_positive_cases": sum(row["voxels_pred"] > 0 for row in given),
        "specificity": float(clean.mean()) if free else None,
        "specificity_ci95": ratio_interval(clean, np.ones(len(free)), patients(free)).ci95,
        "false_positive_volume_ml": describe(values(given, "volume_ml_pred"), patients(given)),
    }


def values(rows: Sequence[Mapping[str, Any]], column: str) -> np.ndarray:
    """A column as float64, NaN where it is empty."""
    return np.array([np.nan if row.get(column) is None else float(row[column]) for row in rows], np.float64)


def patients(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whose each row is; the case's id where that is not known."""
    return [str(row.get("patient") or row["case"]) for row in rows]


def _slices(pair: CasePair, names: Sequence[Figure], empty: Empty) -> Rows:
    rows: Rows = []
    for structure in STRUCTURES:
        per_slice = pair.slice_counts(structure)
        for z in np.flatnonzero(per_slice[:, :2].any(axis=1)).tolist():
            counts = Counts(*per_slice[z].tolist())
            scores: dict[str, Any] = {name: figure(name, counts, empty) for name in names}
            rows.append({"case": pair.case, "z": z, "structure": structure, **scores})
    return rows


def _pooled(rows: Sequence[Mapping[str, Any]], name: Figure) -> tuple[float | None, list[float] | None]:
    """The figure of all cases' voxels together, and its interval."""
    counts = [Counts(row["voxels_pred"], row["voxels_ref"], row["voxels_both"]) for row in rows]
    parts = np.array([_PARTS[name](n) for n in counts], np.float64).reshape(-1, 2)
    numerator, denominator = parts.sum(axis=0).tolist()
    # No voxel in the whole data set: a policy for empty masks does not make that a score.
    value = numerator / denominator if denominator else None
    return value, ratio_interval(parts[:, 0], parts[:, 1], patients(rows)).ci95


def _macro(structures: Sequence[Sequence[Mapping[str, Any]]], column: str) -> dict[str, Any]:
    """Classes within a case first (those that are numbers), then one value a case."""
    by_case: dict[str, list[float]] = {}
    whose: dict[str, str] = {}
    for rows in structures:
        for row, patient, value in zip(rows, patients(rows), values(rows, column), strict=True):
            by_case.setdefault(row["case"], []).extend([float(value)] if np.isfinite(value) else [])
            whose[row["case"]] = patient
    means = np.array([np.mean(numbers) if numbers else np.nan for numbers in by_case.values()], np.float64)
    return describe(means, [whose[case] for case in by_case])
