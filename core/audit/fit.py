"""Does a mask lie on the liver that the scan shows? Mirrored and shifted copies of it are tried in its place.

Everything is decided on a small copy of scan and mask, about 128 pixels wide, whose area means leave little noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy import ndimage

SIDE = 128
DEPTH = 200
LOW, HIGH = -250, 350
FAT, BONE = -50, 300
"""Liver, fatty or enhanced, lies in between; fat, lung and air lie below, bone and bowel contrast above."""
ODD = 0.05
"""Masks that fit have less than 0.01 of their inner voxels out of that range; another patient's 0.04 to 0.9."""
FLIP_MARGIN = 3.0
"""A mirroring is named if it brings the share down by this factor, and below `ODD`."""
SHIFT_MARGIN = 1.3
"""A shift is named if the scan's edges under the shifted outline are this many times stronger."""
SHIFT_ODD = 0.005
LEAST_SHIFT_MM = 3.0
ALONG = 0.85
"""Outlines that fit run along the scan's edges (mean cosine 0.91 to 0.97); another patient's reach 0.5 to 0.79."""
ASTRAY = ((0.12, 0.85), (0.03, 0.75))
"""A mask lies on no liver if more voxels are odd than the first, and it runs less along edges than the second."""
LEAST_VOXELS = 200
LEFT_SHARE = 0.05

_AIR = -150
_EDGE_HU = 5.0  # a voxel; flatter is noise
_POINTS = 2000
_REACH_MM = 24.0
_REACH_SLICES = 4
_AXES = ("z (head to foot)", "y (front to back)", "x (left to right)")
_Shift = tuple[int, int, int]


@dataclass(frozen=True)
class Small:
    """A scan and its mask, made small.

    Attributes:
        image: float32 HU ``[Z, Y, X]`` clipped to [-250, 350].
        mask: bool, labels 1 and 2.
        step: voxels of the scan along z, y, x to one of these.
        spacing_mm: of these voxels.
    """

    image: np.ndarray
    mask: np.ndarray
    step: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Fit:
    """How a mask lies on its scan.

    Attributes:
        odd: share of the mask's inner voxels below -50 HU or above 300 HU.
        median, low, high: median and quartiles of the inner HU.
        flip: axes to mirror along for a clearly better fit, as text, or empty.
        flip_odd: `odd` of the mask so mirrored.
        shift: voxels of the scan along z, y, x by which the mask should move, or None.
        shift_gain: how many times stronger the edges under the shifted outline are.
        misfit: it lies on no liver, and neither mirroring nor shifting helps.
    """

    odd: float
    median: float
    low: float
    high: float
    flip: str = ""
    flip_odd: float = math.nan
    shift: _Shift | None = None
    shift_gain: float = 1.0
    misfit: bool = False


def shrink(image: np.ndarray, label: np.ndarray | None, spacing_mm: Sequence[float]) -> Small:
    """The small copies of int16 HU ``[Z, Y, X]`` and of its label (None: an empty mask)."""
    depth, height, width = image.shape
    f, g = max(1, round(max(height, width) / SIDE)), max(1, round(depth / DEPTH))
    rows, columns, planes = max(height // f, 1), max(width // f, 1), max(depth // g, 1)
    out = np.zeros((planes, rows, columns), np.float32)
    inside = np.zeros_like(out)

    def means(plane: np.ndarray) -> np.ndarray:
        part = np.ascontiguousarray(plane[: rows * f, : columns * f], np.float32)
        return cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)

    for z in range(min(planes * g, depth)):
        out[z // g] += means(np.clip(image[z], LOW, HIGH))
        if label is not None and label[z].any():
            inside[z // g] += means(label[z] > 0)
    size = (spacing_mm[0] * g, spacing_mm[1] * f, spacing_mm[2] * f)
    return Small(out / g, inside > 0.5 * g, (g, f, f), size)


def fit(small: Small) -> Fit | None:
    """How the mask lies on the scan, or None for a mask too small to say."""
    if np.count_nonzero(small.mask) < LEAST_VOXELS:
        return None
    inner = np.argwhere(_inner(small.mask))
    values = small.image[tuple(inner.T)]
    low, median, high = (float(v) for v in np.percentile(values, (25, 50, 75)))
    found = Fit(_odd(values), median, low, high)
    outline = _Outline(small.image, small.mask)
    along = outline.along((0, 0, 0))
    if found.odd > ODD:
        axes, odd = _flip(small.image, inner)
        if odd * FLIP_MARGIN < found.odd and odd < ODD:
            turned = _Outline(small.image, np.flip(small.mask, axes)).along((0, 0, 0))
            if turned > max(along, ALONG):
                return replace(found, flip=" and ".join(_AXES[a] for a in axes), flip_odd=odd)
    shift, gain = _shift(small, outline)
    far = math.hypot(*(d * s for d, s in zip(shift, small.spacing_mm, strict=True))) >= LEAST_SHIFT_MM
    # A mask drawn too small can be pushed to an edge; one that is shifted also leaves the liver.
    leaves = found.odd > SHIFT_ODD and _odd_at(small.image, inner, shift) < min(ODD, found.odd / 2)
    if far and leaves and gain >= SHIFT_MARGIN and outline.along(shift) > ALONG:
        (z, y, x), (g, f, _) = shift, small.step
        return replace(found, shift=(z * g, y * f, x * f), shift_gain=gain)
    return replace(found, misfit=any(found.odd > odd and along < least for odd, least in ASTRAY))


def side(small: Small) -> float | None:
    """How far left of the body's middle the mask lies, as a share of the body's width; None: no mask or no body."""
    planes = small.mask.any(axis=(1, 2))
    body = (small.image[planes] > _AIR).sum(axis=(0, 1))
    across = np.flatnonzero(body > 0.05 * max(body.max(initial=0), 1))
    if not planes.any() or len(across) < 2:
        return None
    x = np.arange(small.image.shape[2])
    liver = small.mask.sum(axis=(0, 1))
    return float(((liver * x).sum() / liver.sum() - (body * x).sum() / body.sum()) / np.ptp(across))


def _odd(values: np.ndarray) -> float:
    return float(np.mean((values < FAT) | (values > BONE)))


def _odd_at(image: np.ndarray, inner: np.ndarray, shift: _Shift) -> float:
    moved = inner + shift
    there = ((moved >= 0) & (moved < image.shape)).all(axis=1)
    return _odd(image[tuple(moved[there].T)]) if there.any() else 1.0


def _inner(mask: np.ndarray) -> np.ndarray:
    """The mask without its rim, where the means mix liver with what is beside it."""
    cross = ndimage.generate_binary_structure(2, 1)[None]
    inner = ndimage.binary_erosion(mask, cross)
    return inner if np.count_nonzero(inner) >= LEAST_VOXELS // 4 else mask


def _flip(image: np.ndarray, inner: np.ndarray) -> tuple[tuple[int, ...], float]:
    """The axes of the mirroring whose mask has the least share of odd voxels, and that share."""
    best: tuple[int, ...] = (0,)
    least = math.inf
    ends = np.array(image.shape) - 1
    for axes in (a for count in (1, 2, 3) for a in itertools.combinations(range(3), count)):
        moved = inner.copy()
        for axis in axes:
            moved[:, axis] = ends[axis] - moved[:, axis]
        odd = _odd(image[tuple(moved.T)])
        if odd < least - 0.005:  # one axis more must be worth it
            best, least = axes, odd
    return best, least


class _Outline:
    """Points of a mask's outline, and the slopes of the scan that they may be laid on."""

    def __init__(self, image: np.ndarray, mask: np.ndarray) -> None:
        soft = ndimage.gaussian_filter(np.clip(image, -150, 250), (0.5, 1.0, 1.0))
        self.slopes = [ndimage.sobel(soft, axis=a) / 32 for a in range(3)]
        self.size = np.array(image.shape)[:, None]
        points = np.argwhere(mask & ~ndimage.binary_erosion(mask, border_value=1))
        if len(points) > _POINTS:
            points = points[np.random.default_rng(0).choice(len(points), _POINTS, replace=False)]
        self.points = points.T
        shape = ndimage.gaussian_filter(mask.astype(np.float32), 1)
        normals = np.stack([ndimage.sobel(shape, axis=a)[tuple(self.points)] for a in range(3)])
        self.normals = normals / np.maximum(np.sqrt((normals**2).sum(axis=0)), 1e-6)

    def strength(self, shift: _Shift) -> float:
        """Mean slope across the outline so shifted, HU a voxel; outside of the scan there is none."""
        if not self.points.size:  # the mask fills the scan
            return 0.0
        slopes, there = self._at(shift)
        return float((np.abs((slopes * self.normals).sum(axis=0)) * there).mean())

    def along(self, shift: _Shift) -> float:
        """Mean cosine between the outline's normals and the slopes, where the scan has an edge; 1 if it has none."""
        slopes, there = self._at(shift)
        steep = np.sqrt((slopes**2).sum(axis=0))
        edge = there & (steep > _EDGE_HU)
        if not edge.any():
            return 1.0
        return float((np.abs((slopes * self.normals).sum(axis=0))[edge] / steep[edge]).mean())

    def _at(self, shift: _Shift) -> tuple[np.ndarray, np.ndarray]:
        moved = self.points + np.array(shift)[:, None]
        there = ((moved >= 0) & (moved < self.size)).all(axis=0)
        index = tuple(np.clip(moved, 0, self.size - 1))
        return np.stack([slope[index] for slope in self.slopes]), there


def _shift(small: Small, outline: _Outline) -> tuple[_Shift, float]:
    """The shift that lays the mask's outline on the strongest edges, and how many times stronger they are there."""
    reach = [min(12, math.ceil(_REACH_MM / s)) for s in small.spacing_mm[1:]]
    tried: dict[_Shift, float] = {}

    def best_of(shifts: Iterable[_Shift]) -> _Shift:
        for shift in shifts:
            if shift not in tried:
                tried[shift] = outline.strength(shift)
        return max(tried, key=lambda s: tried[s])

    up, back, left = range(-_REACH_SLICES, _REACH_SLICES + 1), _sparse(reach[0]), _sparse(reach[1])
    z, y, x = best_of(itertools.product(up, back, left))
    near = itertools.product((z - 1, z, z + 1), (y - 1, y, y + 1), (x - 1, x, x + 1))
    best = best_of(s for s in near if abs(s[0]) <= _REACH_SLICES)
    return best, tried[best] / max(tried[0, 0, 0], 1e-6)


def _sparse(reach: int) -> list[int]:
    """Every second whole number up to `reach`, 0 among them."""
    return [*range(-(reach // 2) * 2, reach + 1, 2)]
