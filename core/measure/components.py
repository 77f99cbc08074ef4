"""Bounding boxes and connected components, without copies of the whole volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np

Box = tuple[slice, slice, slice]
Connectivity = Literal[6, 18, 26]


@dataclass(frozen=True)
class Components:
    """The connected components of a mask.

    Attributes:
        box: the smallest box that holds the mask, in the volume.
        ids: ``[z, y, x]`` inside the box: 1 to `count`, 0 outside the mask. Their order means nothing.
        sizes: voxels by id; ``sizes[0]`` is 0.
    """

    box: Box
    ids: np.ndarray
    sizes: np.ndarray

    @property
    def count(self) -> int:
        """Number of components."""
        return len(self.sizes) - 1


def find_components(mask: np.ndarray, connectivity: Connectivity = 26) -> Components:
    """The components of a mask ``[Z, Y, X]``; neighbours of a voxel: 6 faces, 18 with edges, 26 with corners."""
    box = bounding_box(mask, mask.shape)
    inside = mask[box]
    if not inside.size:
        return Components(box, np.zeros(inside.shape, np.uint16), np.zeros(1, np.int64))
    ids, count = number_components(inside, connectivity)
    sizes = np.asarray(cc3d.statistics(ids)["voxel_counts"], np.int64)[: count + 1].copy()
    sizes[0] = 0
    return Components(box, ids, sizes)


def number_components(mask: np.ndarray, connectivity: Connectivity = 26) -> tuple[np.ndarray, int]:
    """Ids ``[z, y, x]`` of a mask's components, 0 outside, and how many there are; the mask is looked at whole."""
    if sorted(mask.shape)[1] == 1:  # cc3d fails on some single rows of voxels; an empty row beside it changes nothing
        ids, count = cc3d.connected_components(np.pad(mask, ((0, 1),) * 3), connectivity=connectivity, return_N=True)
        return np.ascontiguousarray(ids[:-1, :-1, :-1]), int(count)
    ids, count = cc3d.connected_components(mask, connectivity=connectivity, return_N=True)
    return ids, int(count)


def bounding_box(planes: Iterable[np.ndarray], shape: Sequence[int]) -> Box:
    """The smallest box with all voxels that are not 0; empty if there are none.

    Args:
        planes: a volume, or its planes ``[Y, X]`` one after the other, which need not exist at once.
        shape: Z, Y, X.
    """
    z_hit, y_hit, x_hit = (np.zeros(n, bool) for n in shape)
    for z, plane in enumerate(planes):
        rows = plane.any(axis=1)
        if rows.any():
            z_hit[z] = True
            y_hit |= rows
            x_hit |= plane.any(axis=0)
    return _span(z_hit), _span(y_hit), _span(x_hit)


def _span(hit: np.ndarray) -> slice:
    return slice(int(hit.argmax()), len(hit) - int(hit[::-1].argmax())) if hit.any() else slice(0, 0)
