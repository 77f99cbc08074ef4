"""FROC: recall of lesions against false positives a case, from probabilities; definitions in docs/metrics.md."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.contracts import Rows
from core.measure.components import Connectivity
from core.measure.lesions import diameter_mm, find_lesions, meet
from core.measure.pair import CasePair
from core.values import TUMOUR

THRESHOLD = 0.1
"""Tumour probability above which a voxel belongs to a candidate."""
RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a case at which recall is read off."""
_POINTS = 200


def candidates(pair: CasePair, connectivity: Connectivity = 26, min_lesion_ml: float = 0.0) -> Rows:
    """One row a candidate: a component of tumour probability above 0.1, scored by its mean and greatest probability.

    `hits` names the reference lesions it touches; `ignored` says that it touches none and is below `min_lesion_ml`.
    """
    if pair.probabilities is None:
        return []
    tumour = pair.probabilities[TUMOUR]
    mask = np.empty(tumour.shape, bool)
    for z, plane in enumerate(tumour):  # a float16 volume compared at once is one of float32 in between
        np.greater(plane, np.float32(THRESHOLD), out=mask[z])
    found, ref = find_lesions(mask, connectivity), pair.lesions("ref", connectivity)
    inside = np.flatnonzero(found.ids)
    ids, scores = found.ids.ravel()[inside], tumour[found.box].ravel()[inside].astype(np.float64)
    sums = np.bincount(ids, weights=scores, minlength=found.count + 1)
    best = np.zeros(found.count + 1)
    np.maximum.at(best, ids, scores)
    hits: dict[int, list[int]] = {}
    box = meet(found.box, ref.box)
    if box is not None:
        ours, theirs = found.inside(box).ravel(), ref.inside(box).ravel()
        both = np.flatnonzero((ours != 0) & (theirs != 0))
        for key in np.unique(ours[both].astype(np.int64) * (ref.count + 1) + theirs[both]).tolist():
            hits.setdefault(key // (ref.count + 1), []).append(key % (ref.count + 1))
    rows: Rows = []
    for i in range(1, found.count + 1):
        ml = None if pair.voxel_ml is None else float(found.voxels[i]) * pair.voxel_ml
        rows.append(
            {
                "case": pair.case,
                "candidate": i,
                "score_mean": float(sums[i] / found.voxels[i]),
                "score_max": float(best[i]),
                "diameter_mm": diameter_mm(ml),
                "hits": ";".join(str(j) for j in hits.get(i, [])),
                "ignored": int(i not in hits and ml is not None and ml < min_lesion_ml),
            }
        )
    return rows


def froc(
    rows: Sequence[Mapping[str, Any]], lesions: Mapping[str, int], counted: set[tuple[str, int]], score: str
) -> dict[str, Any]:
    """Recall at fixed false positives a case, and the curve ``[[false positives a case, recall], ...]``.

    Args:
        rows: of `candidates`, over all cases.
        lesions: reference lesions that count, by case; cases without any are named too.
        counted: these lesions, (case, id): a candidate that touches only others is neither right nor wrong.
        score: column to rank candidates by.
    """
    total, cases = sum(lesions.values()), len(lesions)
    if not total or not cases:
        return {"recall_at": dict.fromkeys(f"{rate:g}" for rate in RATES), "curve": []}
    ranked = sorted(rows, key=lambda row: -row[score])
    seen: set[tuple[str, int]] = set()
    wrong = 0
    curve = [(0.0, 0.0)]
    for place, row in enumerate(ranked):
        touched = [(row["case"], int(j)) for j in str(row["hits"] or "").split(";") if j]
        seen.update(lesion for lesion in touched if lesion in counted)
        wrong += not touched and not row["ignored"]
        # Candidates of one score are taken together: no threshold is between them.
        if place + 1 == len(ranked) or ranked[place + 1][score] != row[score]:
            curve.append((wrong / cases, len(seen) / total))
    recall_at = {f"{rate:g}": max(recall for rate_here, recall in curve if rate_here <= rate) for rate in RATES}
    return {"recall_at": recall_at, "curve": [list(point) for point in _thin(curve)]}


def _thin(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most 200 points: where recall rises, and the last; of too many, every n-th."""
    best: dict[float, float] = {}
    for rate, recall in curve:
        best[rate] = max(recall, best.get(rate, 0.0))
    points = list(best.items())
    points = [points[0], *(b for a, b in itertools.pairwise(points) if b[1] > a[1]), points[-1]]
    step = math.ceil((len(points) - 1) / (_POINTS - 1)) if len(points) > _POINTS else 1
    return list(dict.fromkeys([*points[:-1:step], points[-1]]))
