"""Errors of volume per structure, and of tumour burden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.contracts import Rows
from core.measure import overlap
from core.measure.pair import CasePair
from core.measure.statistics import describe, ratio_interval
from registry import register

NAMES: tuple[overlap.Figure, ...] = ("voe", "rvd", "precision", "recall")


@register("metric", "volume")
class Volume:
    """VOE, RVD, precision and recall of voxels per structure, and the error of tumour burden.

    VOE = 1 - IoU; RVD = (P - R) / R, signed, and |RVD| (`rvd_abs`); precision I / P, recall I / R; P, R voxels of
    prediction and reference, I of both. A figure whose denominator is 0 is not a number; VOE of two empty masks follows
    `empty`. Burden is tumour voxels over liver voxels (labels 1 and 2); over the data set its root mean square and its
    greatest absolute error.

    Args:
        empty: what VOE is where both masks are empty. "lits" and "worst": 0; "nan": not a number.

    Tables: ``cases`` (one row a structure; burden_pred and burden_ref on the tumour's).
    Example: {name: volume, empty: lits, validate: false}
    """

    def __init__(self, *, empty: overlap.Empty = "lits") -> None:
        self.empty = overlap.check_empty(empty)

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """Rows of one case."""
        tables = overlap.measure(pair, NAMES, self.empty)
        liver, tumour = pair.counts("liver"), pair.counts("tumour")
        for row in tables["cases"]:
            if row["structure"] == "background":
                row.update(dict.fromkeys(NAMES))
            if row["structure"] == "tumour":
                row["burden_pred"] = tumour.pred / liver.pred if liver.pred else None
                row["burden_ref"] = tumour.ref / liver.ref if liver.ref else None
        return tables

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        """Figures over the data set."""
        out = overlap.summarise(tables, NAMES, self.empty)
        rows = [row for row in tables.get("cases", []) if row.get("voxels_ref") is not None]
        for structure in ("liver", "parenchyma", "tumour"):
            own = [row for row in rows if row["structure"] == structure]
            out[structure]["rvd_abs"] = describe(np.abs(overlap.values(own, "rvd")), overlap.patients(own))
        out["tumour_burden"] = _burden([row for row in rows if row["structure"] == "tumour"])
        return out


def _burden(rows: Rows) -> dict[str, Any]:
    error = overlap.values(rows, "burden_pred") - overlap.values(rows, "burden_ref")
    known = error[np.isfinite(error)]
    interval = ratio_interval(error**2, np.ones(len(error)), overlap.patients(rows)).ci95
    return {
        "rmse": float(np.sqrt(np.mean(known**2))) if len(known) else None,
        # The root of an interval of the mean square is one of the root.
        "rmse_ci95": None if interval is None else [float(np.sqrt(max(0.0, end))) for end in interval],
        "max_abs": float(np.abs(known).max()) if len(known) else None,
        "difference": describe(error, overlap.patients(rows)),
    }
