"""Volumes to another number of voxels over the same extent, a slice at a time.

Along an axis that shrinks, each new voxel is the mean of what it covers; along one that grows, values are interpolated
linearly. Averaging first keeps fine structure from turning into false coarse structure (aliasing; Cardoso et al. 2015,
MICCAI, "Scale Factor Point Spread Function Matching: Beyond Aliasing in Image Resampling"). A box and not a Gaussian,
since a CT voxel is itself a mean over its thickness and area: the mean of several is what a coarser scan would have
measured. Neither way overshoots, as cubic interpolation does at metal and at air, so no HU appears that was not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from core.values import LIVER, TUMOUR

_TIE = 1e-5


def image_planes(array: np.ndarray, shape: Sequence[int]) -> Iterator[np.ndarray]:
    """A volume ``[Z, Y, X]`` as float32 planes ``[Y', X']`` of a volume of `shape`."""
    return _planes(lambda z: _resize(array[z].astype(np.float32), shape[1:], grows="linear"), len(array), shape[0])


def probability_planes(array: np.ndarray, shape: Sequence[int]) -> Iterator[np.ndarray]:
    """Probabilities ``[K, Z, Y, X]`` as float32 planes ``[K, Y', X']`` of a volume of `shape`."""

    def plane(z: int) -> np.ndarray:
        return np.stack([_resize(part.astype(np.float32), shape[1:], grows="linear") for part in array[:, z]])

    return _planes(plane, array.shape[1], shape[0])


def label_planes(label: np.ndarray, shape: Sequence[int], *, smooth: bool = False) -> Iterator[np.ndarray]:
    """Labels ``[Z, Y, X]`` as uint8 planes ``[Y', X']``: what fills most of the new voxel, at a tie the higher label.

    Along an axis that grows, labels are repeated (a mask interpolated there would lose its smallest parts), or
    interpolated if `smooth`.
    """
    grows = "linear" if smooth else "nearest"

    def plane(z: int) -> np.ndarray | None:
        if not label[z].any():
            return None
        parts = [(label[z] == value).astype(np.float32) for value in (LIVER, TUMOUR)]
        return np.stack([_resize(part, shape[1:], grows=grows) for part in parts])

    for part in _planes(plane, len(label), shape[0], grows=grows):
        if part is None:
            yield np.zeros(tuple(shape[1:]), np.uint8)
            continue
        liver, tumour = part
        none = 1 - liver - tumour
        out = np.where(liver >= none - _TIE, np.uint8(LIVER), np.uint8(0))
        out[tumour >= np.maximum(none, liver) - _TIE] = TUMOUR
        yield out


def containing(count: int, new: int) -> np.ndarray:
    """Which of `new` voxels over the same extent holds the centre of each of `count` voxels along an axis."""
    return np.minimum(((np.arange(count) + 0.5) * new / count).astype(np.int64), new - 1)


def _planes(
    plane: Callable[[int], np.ndarray | None], depth: int, new: int, *, grows: str = "linear"
) -> Iterator[np.ndarray]:
    """Weighted sums along z of planes that are each computed once; None stands for a plane of zeros."""
    kept: dict[int, np.ndarray | None] = {}
    for z in range(new):
        first, weights = _weights(z, depth, new, grows)
        for old in [k for k in kept if k < first]:
            del kept[old]
        total: np.ndarray | None = None
        for k, weight in enumerate(weights, first):
            if k not in kept:
                kept[k] = plane(k)
            part = kept[k]
            if part is not None:
                total = part * np.float32(weight) if total is None else total + part * np.float32(weight)
        yield total  # type: ignore[misc]  # None only where a plane may be None


def _weights(i: int, count: int, new: int, grows: str) -> tuple[int, list[float]]:
    """The first voxel that new voxel `i` along an axis is made of, and the weights from there on."""
    if count == new:
        return i, [1.0]
    scale = count / new
    if new < count:
        low, high = i * scale, (i + 1) * scale
        first, last = math.floor(low + 1e-9), min(math.ceil(high - 1e-9), count)
        return first, [(min(high, k + 1) - max(low, k)) / scale for k in range(first, last)]
    centre = (i + 0.5) * scale - 0.5
    if grows == "nearest":
        return min(max(math.floor(centre + 0.5), 0), count - 1), [1.0]
    centre = min(max(centre, 0.0), count - 1.0)
    first = min(math.floor(centre), max(count - 2, 0))
    return first, [1 - (centre - first), centre - first][: count - first]


def _resize(plane: np.ndarray, shape: Sequence[int], *, grows: str) -> np.ndarray:
    height, width = int(shape[0]), int(shape[1])
    # An axis at a time where one shrinks and the other grows: OpenCV averages only where neither grows.
    for target in ((min(height, plane.shape[0]), min(width, plane.shape[1])), (height, width)):
        if target != plane.shape:
            shrinks = target[0] <= plane.shape[0] and target[1] <= plane.shape[1]
            growing = cv2.INTER_LINEAR if grows == "linear" else cv2.INTER_NEAREST_EXACT
            plane = cv2.resize(plane, (target[1], target[0]), interpolation=cv2.INTER_AREA if shrinks else growing)
    return plane
