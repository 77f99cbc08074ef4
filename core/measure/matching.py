"""Which predicted lesion is which reference lesion; definitions in docs/metrics.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from core.measure.lesions import Lesions, meet

THRESHOLDS: dict[str, float] = {"any": 0.0, "iou_0.1": 0.1, "iou_0.5": 0.5}
"""By name: a pair may be matched if its IoU is greater."""


@dataclass(frozen=True)
class Overlaps:
    """Pairs of lesions that overlap.

    Attributes:
        ref: id in the reference, int64 ``[n]``.
        pred: id in the prediction ``[n]``.
        voxels: of both at once ``[n]``.
        iou: ``[n]``.
    """

    ref: np.ndarray
    pred: np.ndarray
    voxels: np.ndarray
    iou: np.ndarray


def overlaps(ref: Lesions, pred: Lesions) -> Overlaps:
    """All pairs of lesions that overlap, from one pass over the voxels that both sides have."""
    box = meet(ref.box, pred.box)
    if box is None:
        none = np.zeros(0, np.int64)
        return Overlaps(none, none, none, np.zeros(0))
    theirs, ours = ref.inside(box), pred.inside(box)
    both = np.flatnonzero((theirs != 0) & (ours != 0))
    width = pred.count + 1
    keys = theirs.ravel()[both].astype(np.int64) * width + ours.ravel()[both]
    found, voxels = np.unique(keys, return_counts=True)
    r, p = found // width, found % width
    return Overlaps(r, p, voxels, voxels / (ref.voxels[r] + pred.voxels[p] - voxels))


def match(ref: np.ndarray, pred: np.ndarray, score: np.ndarray) -> np.ndarray:
    """One to one, the greatest number of pairs, and among these the greatest sum of scores.

    The greatest sum alone can lose a detection. Solved apart for each group of lesions that hang together.

    Args:
        ref: ids ``[n]`` of the pairs that may be matched.
        pred: ids ``[n]``.
        score: above 0 and at most 1, ``[n]``.

    Returns:
        Positions of the chosen pairs, in rising order.
    """
    if not len(ref):
        return np.zeros(0, np.int64)
    _, r = np.unique(ref, return_inverse=True)
    _, p = np.unique(pred, return_inverse=True)
    refs, size = int(r.max()) + 1, int(r.max()) + 1 + int(p.max()) + 1
    graph = coo_array((np.ones(len(r)), (r, p + refs)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][r]
    order = np.argsort(group, kind="stable")
    chosen: list[int] = []
    for pairs in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(pairs) == 1:
            chosen.append(int(pairs[0]))
            continue
        rows, row = np.unique(r[pairs], return_inverse=True)
        columns, column = np.unique(p[pairs], return_inverse=True)
        if min(len(rows), len(columns)) == 1:
            chosen.append(int(pairs[score[pairs].argmax()]))
            continue
        gain = np.zeros((len(rows), len(columns)))
        # One more pair outweighs whatever the others lose by it.
        gain[row, column] = score[pairs] + min(gain.shape) + 1
        position = np.full(gain.shape, -1, np.int64)
        position[row, column] = pairs
        found = position[linear_sum_assignment(gain, maximize=True)]
        chosen += found[found >= 0].tolist()
    return np.sort(np.array(chosen, np.int64))


def match_at(found: Overlaps, threshold: float) -> np.ndarray:
    """Positions in `found` of the pairs matched among those of an IoU above `threshold`."""
    kept = np.flatnonzero(found.iou > threshold)
    return kept[match(found.ref[kept], found.pred[kept], found.iou[kept])]
