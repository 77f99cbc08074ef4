"""Calibration of the tumour's probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.contracts import Rows
from core.measure.calibration import Bins, count_bins
from core.measure.pair import CasePair
from core.measure.statistics import describe, ratio_interval
from core.values import TUMOUR
from registry import register

_SUMS = ("voxels", "predicted", "observed", "squares")


@register("metric", "calibration")
class Calibration:
    """Calibration of the tumour's probability inside the reference's liver: ECE and Brier score, pooled and per case.

    Of the network's probabilities, before post-processing, on the scan's own grid, over the voxels with label 1 or 2 in
    the reference: outside the liver nearly every voxel is an easy one, and would flatter both. Without probabilities
    (label files, validations) it is not available, and says so.

    Args:
        bins: of equal width, for the ECE and the reliability diagram. ECE depends on it, the Brier score does not.

    Tables: ``cases`` (``ece``, ``brier`` of the tumour), ``calibration`` (one row a case and bin with voxels).
    Source: Naeini et al., AAAI 2015 (ECE); Brier, Mon Weather Rev 78, 1950.
    Example: {name: calibration, bins: 15}
    """

    probabilities = True

    def __init__(self, *, bins: int = 15) -> None:
        if not 2 <= bins <= 1000:
            raise ValueError(f"bins must be from 2 to 1000, got {bins}")
        self.bins = bins

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """Rows of one case."""
        row: dict[str, Any] = {"case": pair.case, "structure": "tumour", "ece": None, "brier": None}
        rows: Rows = []
        if pair.probabilities is not None:
            liver, tumour = pair.structure("liver")[1], pair.structure("tumour")[1]
            found = count_bins(pair.crop(pair.probabilities[TUMOUR])[liver], tumour[liver], self.bins)
            row |= {"ece": found.ece(), "brier": found.brier()}
            for number in np.flatnonzero(found.voxels):
                sums = {name: float(getattr(found, name)[number]) for name in _SUMS}
                bounds = {"bin": int(number), "low": number / self.bins, "high": (number + 1) / self.bins}
                rows.append({"case": pair.case, **bounds, **sums, "voxels": int(sums["voxels"])})
        return {"cases": [row], "calibration": rows}

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        """Figures over the data set."""
        cases = [row for row in tables.get("cases", []) if "ece" in row]
        rows = sorted(tables.get("calibration", []), key=lambda row: (str(row["case"]), row["bin"]))
        about = {"inside": "liver of the reference", "of": "tumour", "bins": self.bins}
        if not rows:
            why = "no probabilities were kept: they are there when a run is evaluated, not for label files"
            return {"calibration": {"available": False, "why": why, **about}}
        pooled = self._pooled(rows)
        patients = [str(row.get("patient") or row["case"]) for row in cases]
        sums = np.array([[row["squares"], row["voxels"]] for row in rows], float)
        owner = {str(row["case"]): patient for row, patient in zip(cases, patients, strict=True)}
        brier = ratio_interval(sums[:, 0], sums[:, 1], [owner.get(str(r["case"]), str(r["case"])) for r in rows])
        reliability = [
            {
                "low": number / self.bins,
                "high": (number + 1) / self.bins,
                "voxels": int(pooled.voxels[number]),
                "predicted": float(pooled.predicted[number] / pooled.voxels[number]),
                "observed": float(pooled.observed[number] / pooled.voxels[number]),
            }
            for number in np.flatnonzero(pooled.voxels)
        ]
        per_case = {
            name: describe(np.array([np.nan if row[name] is None else row[name] for row in cases], float), patients)
            for name in ("ece", "brier")
        }
        return {
            "calibration": {
                "available": True,
                "why": None,
                **about,
                "ece": pooled.ece(),
                "brier": pooled.brier(),
                "brier_ci95": brier.ci95,
                "per_case": per_case,
                "reliability": reliability,
            }
        }

    def _pooled(self, rows: Rows) -> Bins:
        sums = np.zeros((len(_SUMS), self.bins))
        for row in rows:
            sums[:, row["bin"]] += [row[name] for name in _SUMS]
        return Bins(*sums)
