"""Sub-voxel surface elements: the piece of surface between each 2 x 2 x 2 voxels, and its area.

A neighbour code has one bit a voxel of such a cube, so there are 256 pieces. Their areas are derived here: the contour
through the middles of the cube's edges is traced over its faces, and each closed loop filled with triangles. Two
choices are free, and are made so that areas agree with those of DeepMind's surface-distance (Nikolov et al. 2018,
arXiv:1809.04430; marching cubes: Lorensen and Cline 1987): where a face is ambiguous, the rarer kind of voxel is cut
off; a loop that is not flat is filled with the triangles that have the greatest area in a unit cube.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

_CORNERS = list(itertools.product((0, 1), repeat=3))
"""Of the cube, z, y, x; corner i is bit i of a code."""
_Edge = frozenset[int]
_Triangle = tuple[int, int, int]


def neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """Codes uint8 ``[z + 1, y + 1, x + 1]`` of the cubes around each corner of a mask ``[z, y, x]``; outside is 0.

    Cube ``[0, 0, 0]`` has the mask's first voxel as its last.
    """
    voxels = mask.view(np.uint8) if mask.dtype == bool else mask.astype(bool).view(np.uint8)
    # Two voxels along each axis in turn are one code of 1, 2 and 3 bits more: three passes in place of eight.
    for axis, bits in ((2, 1), (1, 2), (0, 4)):
        first = (slice(None),) * axis
        wider = np.zeros([n + (a == axis) for a, n in enumerate(voxels.shape)], np.uint8)
        wider[(*first, slice(1, None))] = voxels
        wider[(*first, slice(None, -1))] |= voxels << bits
        voxels = wider
    return voxels


def element_areas(spacing_mm: Sequence[float]) -> np.ndarray:
    """Area in mm2 of the surface in a cube, float64 ``[256]`` by code; 0 where all its voxels are of one kind."""
    z, y, x = spacing_mm
    normals, code = _normals()
    areas = np.linalg.norm(normals * (y * x, z * x, z * y), axis=1)
    return np.bincount(code, weights=areas, minlength=256)


@lru_cache(maxsize=1)
def _normals() -> tuple[np.ndarray, np.ndarray]:
    """All triangles of all codes: area vectors ``[n, 3]`` in a unit cube (z, y, x), and the code of each."""
    normals, codes = [], []
    for code in range(1, 255):
        # The rarer kind is cut off; a code and its complement have the same surface.
        inside = [bool(code >> i & 1) for i in range(8)]
        if sum(inside) > 4:
            inside = [not i for i in inside]
        for loop in _loops(inside):
            found = _fill(np.array([np.mean([_CORNERS[i] for i in edge], axis=0) for edge in loop]))
            normals.append(found)
            codes += [code] * len(found)
    return np.concatenate(normals), np.array(codes)


def _loops(inside: Sequence[bool]) -> Iterator[list[_Edge]]:
    """Closed loops over the cube's cut edges."""
    across: dict[_Edge, list[_Edge]] = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        face = [i for i, corner in enumerate(_CORNERS) if corner[axis] == side]
        around = [face[0], face[1], face[3], face[2]]
        edges = [frozenset((around[i - 1], around[i])) for i in range(4)]
        cut = [inside[around[i - 1]] != inside[around[i]] for i in range(4)]
        if sum(cut) == 2:
            ends = [[edge for edge, c in zip(edges, cut, strict=True) if c]]
        else:  # none or all four: the corners inside are cut off one by one
            ends = [[edges[i], edges[(i + 1) % 4]] for i in range(4) if all(cut) and inside[around[i]]]
        for a, b in ends:
            across.setdefault(a, []).append(b)
            across.setdefault(b, []).append(a)
    left = dict.fromkeys(across)
    while left:
        loop = [next(iter(left))]
        while True:
            del left[loop[-1]]
            ahead = [edge for edge in across[loop[-1]] if edge in left]
            if not ahead:
                break
            loop.append(ahead[0])
        yield loop


def _fill(points: np.ndarray) -> np.ndarray:
    """Area vectors ``[n, 3]`` of the triangles of greatest area that fill a loop of points ``[n + 2, 3]``."""
    filled = []
    for triangles in _triangulations(0, len(points) - 1):
        corners = points[np.array(triangles)]
        filled.append(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2)
    return max(filled, key=lambda normals: float(np.linalg.norm(normals, axis=1).sum()))


def _triangulations(first: int, last: int) -> list[list[_Triangle]]:
    """All ways to fill the polygon of points `first` to `last` with triangles."""
    if last - first < 2:
        return [[]]
    return [
        [*before, (first, middle, last), *after]
        for middle in range(first + 1, last)
        for before in _triangulations(first, middle)
        for after in _triangulations(middle, last)
    ]
