"""Reference lesions slice by slice: how much of each slice's part is found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.measure.components import Box
from core.measure.lesion_rows import lesion_overlaps
from core.measure.lesions import join
from core.measure.pair import CasePair


@dataclass(frozen=True)
class LesionSlices:
    """Voxels by slice, int64; column 0 means nothing.

    Attributes:
        first: the volume's slice that row 0 is.
        ref: of each reference lesion, ``[Z, refs + 1]``.
        both: the same, those that are predicted tumour.
        free: of each predicted lesion, those on no reference lesion, ``[Z, preds + 1]``.
        touching: which lesions share a voxel, reference and prediction, ``[K, 2]``.
    """

    first: int
    ref: np.ndarray
    both: np.ndarray
    free: np.ndarray
    touching: np.ndarray

    def dice(self, lesion: int, z_first: int, z_last: int) -> np.ndarray:
        """Dice of a reference lesion on each of its slices.

        Against the predicted lesions that touch it anywhere, without their voxels on other reference lesions: a
        prediction over two lesions is no fault of either.
        """
        rows = slice(z_first - self.first, z_last + 1 - self.first)
        partners = self.touching[self.touching[:, 0] == lesion, 1]
        ref, both = self.ref[rows, lesion], self.both[rows, lesion]
        dice: np.ndarray = 2 * both / (ref + both + self.free[rows][:, partners].sum(axis=1))
        return dice


def lesion_slices(pair: CasePair) -> LesionSlices:
    """Of a case, computed once, in one pass over its slices with tumour."""
    return pair.cached("lesion slices", lambda: _count(pair))


def _count(pair: CasePair) -> LesionSlices:
    ref, pred = pair.lesions("ref"), pair.lesions("pred")
    box = _both(ref.box if ref.count else None, pred.box if pred.count else None)
    depth = box[0].stop - box[0].start
    in_ref, in_both = (np.zeros((depth, ref.count + 1), np.int64) for _ in range(2))
    free = np.zeros((depth, pred.count + 1), np.int64)
    for row, z in enumerate(range(box[0].start, box[0].stop)):
        plane = (slice(z, z + 1), box[1], box[2])
        r, p = ref.inside(plane).ravel(), pred.inside(plane).ravel()
        in_ref[row] = np.bincount(r, minlength=ref.count + 1)
        free[row] = np.bincount(p[r == 0], minlength=pred.count + 1)
        in_both[row] = np.bincount(r[p > 0], minlength=ref.count + 1)
    found = lesion_overlaps(pair)
    return LesionSlices(box[0].start, in_ref, in_both, free, np.stack([found.ref, found.pred], axis=1))


def _both(a: Box | None, b: Box | None) -> Box:
    if a is None or b is None:
        return a or b or (slice(0, 0),) * 3
    return join(a, b)
