"""CC-Dice: Dice in the Voronoi region of each reference lesion; definitions in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.measure.lesions import Lesions
from core.measure.nearest import nearest
from core.measure.surface import points


def region_dice(ref: Lesions, pred: Lesions, overlap: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Dice of each reference lesion in its region, the voxels nearer in mm to it than to another (float64 ``[count]``).

    Every lesion of a case counts the same, however large (Jaus et al. 2024, arXiv:2410.18684). Only predicted voxels
    outside the reference have to be given to a region; the others lie in their own lesion's.

    Args:
        ref: lesions of the reference.
        pred: lesions of the prediction.
        overlap: predicted voxels in each reference lesion ``[count]``.
        spacing_mm: z, y, x.
    """
    strays = np.zeros(ref.count, np.int64)
    if ref.count == 1:
        strays[0] = pred.voxels.sum() - overlap[0]
    elif ref.count:
        outside = (pred.ids != 0) & (ref.inside(pred.box) == 0)
        at = np.flatnonzero(outside)
        if len(at):
            queries = np.stack(np.unravel_index(at, outside.shape), axis=1) + [s.start for s in pred.box]
            # The nearest voxel of a lesion to one outside all of them has a face on the outside.
            border = points(ref.ids != 0, spacing_mm, "edge6").at
            owner = ref.ids[tuple(border.T)]
            border += [s.start for s in ref.box]
            strays = np.bincount(nearest(queries, border, spacing_mm, owner)[1], minlength=ref.count + 1)[1:]
    return 2 * overlap / (ref.voxels[1:] + overlap + strays)
