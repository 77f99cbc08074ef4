"""CC-Dice: Dice in the Voronoi region of each reference lesion; definitions in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from core.measure.lesions import Lesions, join, shift
from core.measure.nearest import nearest
from core.measure.surface import points

_DENSE = 30
"""One voxel in so many is where a transform of the whole box takes less time than the tree."""


def region_dice(ref: Lesions, pred: Lesions, spacing_mm: Sequence[float], overlap: np.ndarray) -> np.ndarray:
    """Dice of each reference lesion in its region, the voxels nearer in mm to it than to another (float64 ``[count]``).

    Every lesion of a case counts the same, however large (Jaus et al. 2024, arXiv:2410.18684). Only predicted voxels
    outside the reference have to be given to a region; the others lie in their own lesion's.

    Args:
        ref: lesions of the reference.
        pred: lesions of the prediction.
        spacing_mm: z, y, x.
        overlap: predicted voxels in each reference lesion ``[count]``.
    """
    strays = np.zeros(ref.count, np.int64)
    if ref.count == 1:
        strays[0] = pred.voxels.sum() - overlap[0]
    elif ref.count and pred.count:
        strays = np.bincount(owners(ref, pred, spacing_mm), minlength=ref.count + 1)[1:]
    return 2 * overlap / (ref.voxels[1:] + overlap + strays)


def owners(ref: Lesions, pred: Lesions, spacing_mm: Sequence[float]) -> np.ndarray:
    """Id of the reference lesion that is nearest in mm to each predicted voxel outside all of them, in scan order.

    Of two equally near, where they lie decides, never their ids.
    """
    outside = (pred.ids != 0) & (ref.inside(pred.box) == 0)
    at = np.flatnonzero(outside)
    if not len(at):
        return np.zeros(0, ref.ids.dtype)
    both = join(ref.box, pred.box)
    if len(at) * _DENSE > np.prod([s.stop - s.start for s in both]):
        ids = ref.inside(both)
        where = ndimage.distance_transform_edt(
            ids == 0, sampling=spacing_mm, return_distances=False, return_indices=True
        )
        within = (slice(None), *shift(pred.box, [-s.start for s in both]))
        return ids[tuple(where[within][:, outside])]
    queries = np.stack(np.unravel_index(at, outside.shape), axis=1) + [s.start for s in pred.box]
    # The nearest voxel of a lesion to one outside all of them has a face on the outside.
    border = points(ref.ids != 0, spacing_mm, "edge6").at
    ids = ref.ids[tuple(border.T)]
    return nearest(queries, border + [s.start for s in ref.box], spacing_mm, ids)[1]
