"""Recall and Dice of lesions, and Dice of cases, in fixed bins of what they are like."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.contracts import Rows
from core.measure.overlap import values
from core.measure.statistics import describe, ratio_interval

LESION_BINS: dict[str, tuple[float, ...]] = {
    "diameter_mm": (0, 5, 10, 20, 30, 50, math.inf),
    "volume_ml": (0, 0.1, 0.5, 2, 10, 50, math.inf),
    "contrast_hu": (-math.inf, -60, -40, -20, -10, 10, math.inf),
    "cnr": (0, 0.5, 1, 2, 3, math.inf),
    "border_hu_per_mm": (0, 2, 4, 8, 12, 20, math.inf),
    "border_distance_mm": (0, 5, 10, 20, math.inf),
    "slice_thickness_mm": (0, 1.5, 3, 5, math.inf),
}
"""Edges of the bins, each with its lower and without its upper edge; fixed, so that two evaluations have the same."""
CASE_BINS: dict[str, tuple[float, ...]] = {
    "slice_thickness_mm": (0, 1.5, 3, 5, math.inf),
    "lesion_count": (1, 2, 4, 10, math.inf),
    "tumour_ml": (0, 1, 10, 50, 200, math.inf),
    "burden": (0, 0.01, 0.05, 0.25, math.inf),
}

Row = Mapping[str, Any]


def patient(row: Row) -> str:
    """Whose a row is."""
    return str(row.get("patient") or row["case"])


def found(row: Row) -> bool:
    """Whether a reference lesion is matched at any overlap."""
    return row.get("matched") is not None


def lesion_dice(row: Row) -> float:
    """Dice with the matched prediction, 0 for a miss."""
    return float(row["dice"]) if found(row) and row.get("dice") is not None else 0.0


def recall_by(lesions: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Recall with its interval over patients, and Dice (misses 0), by each column of `LESION_BINS`."""
    hits = np.array([found(row) for row in lesions], np.float64)
    dice = np.array([lesion_dice(row) for row in lesions])
    whose = np.array([patient(row) for row in lesions], object)
    out = {}
    for column, edges in LESION_BINS.items():
        numbers = values(lesions, column)
        out[column] = [
            {
                **_bounds(low, high),
                "n": int(own.sum()),
                "found": int(hits[own].sum()),
                **rate(hits[own], list(whose[own]), "recall"),
                "dice": describe(dice[own], list(whose[own])),
            }
            for low, high, own in _bins(numbers, edges)
        ]
    return out


def cases_by(cases: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Dice of tumour-bearing cases by each key of `CASE_BINS`.

    Args:
        cases: one a tumour-bearing case, with the keys of `CASE_BINS` and ``dice``.
    """
    dice = values(cases, "dice")
    whose = np.array([patient(row) for row in cases], object)
    return {
        column: [
            {**_bounds(low, high), "n": int(own.sum()), "dice": describe(dice[own], list(whose[own]))}
            for low, high, own in _bins(values(cases, column), edges)
        ]
        for column, edges in CASE_BINS.items()
    }


def bearing_cases(cases: Rows, lesions: Sequence[Row]) -> list[dict[str, Any]]:
    """One row a case whose reference has a tumour: Dice and what it may depend on."""
    counts: dict[str, int] = {}
    for row in lesions:
        counts[row["case"]] = counts.get(row["case"], 0) + 1
    livers = {row["case"]: row["voxels_ref"] for row in cases if row["structure"] == "liver"}
    return [
        {
            "case": row["case"],
            "patient": patient(row),
            "dice": 2 * row["voxels_both"] / (row["voxels_pred"] + row["voxels_ref"]),
            "slice_thickness_mm": row.get("slice_thickness_mm"),
            "lesion_count": counts.get(row["case"]),
            "tumour_ml": row.get("volume_ml_ref"),
            "burden": row["voxels_ref"] / livers[row["case"]] if livers.get(row["case"]) else None,
        }
        for row in cases
        if row["structure"] == "tumour" and row["voxels_ref"]
    ]


def rate(hits: np.ndarray, patients: Sequence[str], name: str, of: np.ndarray | None = None) -> dict[str, Any]:
    """A share and its interval over patients, under `name` and ``NAME_ci95``.

    Args:
        hits: ``[N]``, counts or booleans.
        patients: whose each is.
        name: of the figure.
        of: ``[N]``, out of how many; None: 1 each.
    """
    top = np.asarray(hits, np.float64)
    bottom = np.ones(len(top)) if of is None else of
    interval = ratio_interval(top, bottom, list(patients))
    return {name: float(top.sum() / bottom.sum()) if bottom.sum() else None, f"{name}_ci95": interval.ci95}


def _bins(numbers: np.ndarray, edges: Sequence[float]) -> list[tuple[float, float, np.ndarray]]:
    return [(low, high, (numbers >= low) & (numbers < high)) for low, high in itertools.pairwise(edges)]


def _bounds(low: float, high: float) -> dict[str, float | None]:
    return {"low": low if math.isfinite(low) else None, "high": high if math.isfinite(high) else None}
