"""Parts of the cases that are looked at one by one, with the edges that the error analysis has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.analysis.strata import CASE_BINS
from core.compare.evaluation import Evaluation
from core.compare.metrics import level

TUMOUR_FREE = "tumour-free"


@dataclass(frozen=True)
class Stratum:
    """Some of the cases.

    Attributes:
        kind: what they are divided by.
        level: which of its parts this is.
        cases: bool ``[N]``.
    """

    kind: str
    level: str
    cases: np.ndarray


def strata(evaluations: Sequence[Evaluation]) -> list[Stratum]:
    """Those parts that hold some of the cases but not all; what is not known of a case leaves it out of the kind."""
    share = burden(evaluations[0])
    with_tumour = np.where(share > 0, share, np.nan)
    parts = [Stratum("tumour", "with tumour", share > 0), Stratum("tumour", TUMOUR_FREE, share == 0)]
    for kind, numbers, edges, times, unit in (
        ("tumour burden", with_tumour, CASE_BINS["burden"], 100, " %"),
        ("lesions", lesion_counts(evaluations[0]), CASE_BINS["lesion_count"], 1, ""),
        ("slice thickness", slice_thickness(evaluations), CASE_BINS["slice_thickness_mm"], 1, " mm"),
    ):
        for low, high in itertools.pairwise(edges):
            parts.append(Stratum(kind, level(low * times, high * times, unit), (numbers >= low) & (numbers < high)))
    return [part for part in parts if part.cases.any() and not part.cases.all()]


def burden(evaluation: Evaluation) -> np.ndarray:
    """Tumour voxels by liver voxels of the reference ``[N]``, NaN where that is not known."""
    tumour, liver = (
        np.array(evaluation.column(structure, "voxels_ref"), np.float64) for structure in ("tumour", "liver")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(tumour == 0, 0.0, tumour / liver)


def lesion_counts(evaluation: Evaluation) -> np.ndarray:
    """Lesions of the reference that count ``[N]``, NaN without ``lesions.csv``."""
    if evaluation.lesions is None:
        return np.full(len(evaluation.cases), np.nan)
    rows = (evaluation.by_case[case] for case in evaluation.cases)
    return np.array([sum(row["side"] == "ref" and not row.get("ignored") for row in own) for own in rows], np.float64)


def slice_thickness(evaluations: Sequence[Evaluation]) -> np.ndarray:
    """In mm ``[N]``, from the tumour's row or from the lesions; NaN where no evaluation knows it."""
    out = np.full(len(evaluations[0].cases), np.nan)
    for evaluation, (i, case) in itertools.product(evaluations, enumerate(evaluations[0].cases)):
        if math.isnan(out[i]):
            rows = [evaluation.rows.get((case, "tumour"), {}), *evaluation.by_case[case]]
            known = (row["slice_thickness_mm"] for row in rows if row.get("slice_thickness_mm") is not None)
            out[i] = next(known, math.nan)
    return out
