"""The lesions of one side of a case: connected components of its tumour mask, with a box each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.measure.components import Box, Connectivity, bounding_box, number_components


@dataclass(frozen=True)
class Lesions:
    """The lesions of one tumour mask.

    Attributes:
        box: the smallest box with all of them, in the whole volume.
        ids: ``[z, y, x]`` inside `box`: 1 to `count`, 0 where there is none.
        voxels: int64 by id; ``voxels[0]`` is 0.
        boxes: of lesion i at i - 1, in the whole volume.
        centroids: float64 ``[count, 3]``, mean z, y, x of lesion i at i - 1, in voxels of the whole volume.
    """

    box: Box
    ids: np.ndarray
    voxels: np.ndarray
    boxes: tuple[Box, ...]
    centroids: np.ndarray

    @property
    def count(self) -> int:
        """Number of lesions."""
        return len(self.boxes)

    def inside(self, box: Box) -> np.ndarray:
        """The ids in a box of the whole volume; a view where `box` lies in the lesions' own, else a copy."""
        if all(b.start >= own.start and b.stop <= own.stop for b, own in zip(box, self.box, strict=True)):
            return self.ids[shift(box, [-own.start for own in self.box])]
        out = np.zeros([b.stop - b.start for b in box], self.ids.dtype)
        both = meet(box, self.box)
        if both is not None:
            out[shift(both, [-b.start for b in box])] = self.ids[shift(both, [-own.start for own in self.box])]
        return out


def find_lesions(mask: np.ndarray, connectivity: Connectivity = 26, corner: Sequence[int] = (0, 0, 0)) -> Lesions:
    """The lesions of a tumour mask ``[z, y, x]``.

    Args:
        mask: may be a part of the volume.
        connectivity: neighbours that make one lesion: 6 faces, 18 with edges, 26 with corners. The ids of a reference
            at 26 are those of the store.
        corner: where ``mask[0, 0, 0]`` lies in the whole volume.
    """
    own = bounding_box(mask, mask.shape)
    box, inside = shift(own, corner), mask[own]
    if not inside.size:
        return Lesions(box, np.zeros((0, 0, 0), np.uint16), np.zeros(1, np.int64), (), np.zeros((0, 3)))
    ids, count = number_components(inside, connectivity)
    if count < 1 << 16:
        ids = ids.astype(np.uint16, copy=False)
    # From the tumour's voxels alone: tumours fill little of the box around all of them.
    at = np.flatnonzero(inside)
    own_id = ids.ravel()[at]
    order = np.argsort(own_id, kind="stable")
    voxels = np.bincount(own_id, minlength=count + 1)
    first = np.concatenate([[0], np.cumsum(voxels[1:-1])])
    start = np.array([s.start for s in box])
    axes = [where[order] for where in np.unravel_index(at, inside.shape)]
    low = np.stack([np.minimum.reduceat(where, first) for where in axes], axis=1) + start
    high = np.stack([np.maximum.reduceat(where, first) for where in axes], axis=1) + start + 1
    sums = np.stack([np.add.reduceat(where, first) for where in axes], axis=1)
    boxes = tuple(
        (slice(a, b), slice(c, d), slice(e, f))
        for (a, c, e), (b, d, f) in zip(low.tolist(), high.tolist(), strict=True)
    )
    return Lesions(box, ids, voxels.astype(np.int64), boxes, sums / voxels[1:, None] + start)


def diameter_mm(volume_ml: float | None) -> float | None:
    """Equivalent diameter, (6V / pi)^(1/3)."""
    return None if volume_ml is None else (6000 * volume_ml / math.pi) ** (1 / 3)


def shift(box: Sequence[slice], by: Sequence[int]) -> Box:
    """A box moved by z, y, x voxels."""
    z, y, x = (slice(int(s.start + n), int(s.stop + n)) for s, n in zip(box, by, strict=True))
    return z, y, x


def meet(a: Box, b: Box) -> Box | None:
    """The box that two boxes have in common, if any."""
    z, y, x = (slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return (z, y, x) if z.start < z.stop and y.start < y.stop and x.start < x.stop else None


def join(a: Box, b: Box) -> Box:
    """The smallest box that holds two boxes that are not empty."""
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x
