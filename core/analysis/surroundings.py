"""What a lesion looks like in its scan: contrast, noise, sharpness of its border, distance to the liver's border."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from core.measure.components import Box
from core.measure.lesions import Lesions
from core.measure.pair import CasePair
from core.measure.surface import edges
from core.values import LIVER

SHELL_MM = (2.0, 10.0)
"""Distance from the lesion of the parenchyma that it is compared with; the store's lesion table has the same."""
SHELL_VOXELS = 20
"""With fewer voxels of parenchyma around it a lesion has no contrast."""
VESSEL_SDS = 2.0
"""Voxels further than this many robust SDs from the shell's median are vessels, ducts or fat, and left out."""
_IQR = 1.349  # distance of a normal distribution's quartiles, in SDs
_BOX_VOXELS = 2_000_000  # of a box that is worked on at once
_REACH = 5  # voxels around a border that its smoothed normal depends on


@dataclass(frozen=True)
class Surroundings:
    """A reference lesion against the parenchyma around it; None where it cannot be measured.

    Attributes:
        contrast_hu: mean of the lesion less that of the parenchyma around it.
        noise_hu: robust SD of that parenchyma.
        border_hu_per_mm: how fast HU change along the normal where the lesion borders on parenchyma.
    """

    contrast_hu: float | None = None
    noise_hu: float | None = None
    border_hu_per_mm: float | None = None

    @property
    def cnr(self) -> float | None:
        """Contrast, whatever its sign, over noise."""
        if self.contrast_hu is None or not self.noise_hu:
            return None
        return abs(self.contrast_hu) / self.noise_hu


def surroundings(pair: CasePair, lesion: int) -> Surroundings:
    """Of one reference lesion, by its id; nothing without an image or where the spacing cannot be trusted.

    Only image and reference count, never the prediction: a lesion has the same features whatever finds it.
    """
    if pair.image is None or not pair.spacing_trusted:
        return Surroundings()
    lesions = pair.lesions("ref")
    around = _shell(pair.image, pair.reference, lesions, lesion, pair.spacing_mm)
    sharpness = _sharpness(pair.image, pair.reference, lesions, lesion, pair.spacing_mm)
    if len(around) < SHELL_VOXELS:
        return Surroundings(border_hu_per_mm=sharpness)
    median, noise = robust(around)
    box = lesions.boxes[lesion - 1]
    mean = float(pair.image[box][lesions.inside(box) == lesion].mean(dtype=np.float64))
    plain = around[np.abs(around - median) <= VESSEL_SDS * noise]
    return Surroundings(mean - float(plain.mean(dtype=np.float64)), noise, sharpness)


def robust(values: np.ndarray) -> tuple[float, float]:
    """Median and robust SD (the quartiles' distance over 1.349) of whole numbers.

    Each stands for the interval of 1 around it: plain quantiles would come in steps of a HU.
    """
    low, high = int(values.min()), int(values.max())
    counts = np.bincount(values.astype(np.int64) - low, minlength=high - low + 1)
    below = np.concatenate([[0], np.cumsum(counts)]) / len(values)
    q25, median, q75 = np.interp((0.25, 0.5, 0.75), below, np.arange(low, high + 2) - 0.5)
    return float(median), float(q75 - q25) / _IQR


class LiverBorder:
    """Distances to the border of the reference liver (labels 1 and 2): to the centre of the nearest voxel outside it.

    The end of the scan is no border; a hole in the label is one.
    """

    def __init__(self, pair: CasePair) -> None:
        self._spacing = np.array(pair.spacing_mm)
        at = outside_neighbours(pair)
        # Deep points see much of the border equally far away: large leaves, compared at once, take a third of the time.
        self._tree = KDTree(at * self._spacing, leafsize=128, balanced_tree=False) if len(at) else None

    @classmethod
    def of(cls, pair: CasePair) -> LiverBorder:
        """That of a case, found once."""
        return pair.cached("liver border", lambda: cls(pair))

    def distance(self, lesions: Lesions, lesion: int) -> float | None:
        """From a lesion's nearest voxel, in mm; None if the liver has no border."""
        if self._tree is None:
            return None
        box = lesions.boxes[lesion - 1]
        points = (np.argwhere(edges(lesions.inside(box) == lesion)) + [s.start for s in box]) * self._spacing
        # A few points give a bound, which spares the others most of the search.
        nearest = np.min(self._tree.query(points[:: max(1, len(points) // 64)])[0])
        if nearest > 0:
            nearest = min(nearest, np.min(self._tree.query(points, distance_upper_bound=nearest)[0]))
        return float(nearest)


def outside_neighbours(pair: CasePair) -> np.ndarray:
    """Voxels outside the reference liver that share a face with it, int64 ``[N, 3]`` in the whole volume."""
    liver = pair.structure("liver")[1]
    if not liver.any():
        return np.zeros((0, 3), np.int64)
    padded = np.pad(liver, 1)
    near = grown(padded)
    near &= ~padded
    at = np.argwhere(near) + [s.start - 1 for s in pair.box]
    return at[((at >= 0) & (at < pair.reference.shape)).all(axis=1)]


def grown(mask: np.ndarray) -> np.ndarray:
    """A mask and the voxels that share a face with it."""
    out = mask.copy()
    for axis in range(mask.ndim):
        this, other = np.moveaxis(out, axis, 0), np.moveaxis(mask, axis, 0)
        this[1:] |= other[:-1]
        this[:-1] |= other[1:]
    return out


def enlarged(box: Box, by: Sequence[int], shape: Sequence[int]) -> Box:
    """A box with a margin of voxels, as far as the volume goes."""
    z, y, x = (slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, by, shape, strict=True))
    return z, y, x


def _shell(
    image: np.ndarray, reference: np.ndarray, lesions: Lesions, lesion: int, spacing_mm: Sequence[float]
) -> np.ndarray:
    """HU float32 ``[N]`` of the parenchyma around a lesion; of a large box, thinned out in the plane."""
    box = enlarged(lesions.boxes[lesion - 1], [math.ceil(SHELL_MM[1] / s) for s in spacing_mm], image.shape)
    voxels = math.prod(s.stop - s.start for s in box)
    thin = max(1, math.ceil(math.sqrt(voxels / _BOX_VOXELS)))
    view = (box[0], *(slice(s.start, s.stop, thin) for s in box[1:]))
    outside = lesions.inside(box)[:, ::thin, ::thin] != lesion
    if outside.all():
        return np.zeros(0, np.float32)
    sampling = [s * t for s, t in zip(spacing_mm, (1, thin, thin), strict=True)]
    distance = ndimage.distance_transform_edt(outside, sampling=sampling)
    shell = (distance >= SHELL_MM[0]) & (distance <= SHELL_MM[1]) & (reference[view] == LIVER)
    return image[view][shell].astype(np.float32)


def _sharpness(
    image: np.ndarray, reference: np.ndarray, lesions: Lesions, lesion: int, spacing_mm: Sequence[float]
) -> float | None:
    """Mean derivative of HU along the border's normal, without its sign; None if no parenchyma borders on the lesion.

    The mean is taken before the sign is dropped: the mean of magnitudes would grow with noise.
    """
    total, count = 0.0, 0
    for region, inner in _slabs(enlarged(lesions.boxes[lesion - 1], (1, 1, 1), image.shape), image.shape):
        mask = lesions.inside(region) == lesion
        outer = grown(mask)
        outer &= reference[region] == LIVER
        border = grown(outer)
        border &= mask
        border |= outer
        at = np.argwhere(border)
        at = at[(at[:, 0] >= inner.start) & (at[:, 0] < inner.stop)]
        if not len(at):
            continue
        smooth = ndimage.gaussian_filter(mask.astype(np.float32), 1.0, truncate=3.0, mode="nearest")
        normal = _gradient(smooth, at, spacing_mm)
        length = np.sqrt((normal**2).sum(axis=1))
        known = length > 0
        along = (_gradient(image[region], at, spacing_mm)[known] * normal[known]).sum(axis=1) / length[known]
        total, count = total + float(along.sum()), count + len(along)
    return abs(total) / count if count else None


def _slabs(box: Box, shape: Sequence[int]) -> Iterator[tuple[Box, slice]]:
    """Parts of a box along z, each with the voxels around it, and which of its slices are its own."""
    region = enlarged(box, (0, _REACH, _REACH), shape)
    depth = max(1, _BOX_VOXELS // math.prod(s.stop - s.start for s in region[1:]))
    for start in range(box[0].start, box[0].stop, depth):
        stop = min(start + depth, box[0].stop)
        first = max(0, start - _REACH)
        yield (slice(first, min(shape[0], stop + _REACH)), *region[1:]), slice(start - first, stop - first)


def _gradient(values: np.ndarray, at: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Central differences per mm ``[N, 3]`` at voxels ``[N, 3]``; one-sided at the array's ends."""
    out = np.zeros(at.shape, np.float64)
    for axis, spacing in enumerate(spacing_mm):
        low, high = at.copy(), at.copy()
        np.maximum(at[:, axis] - 1, 0, out=low[:, axis])
        np.minimum(at[:, axis] + 1, values.shape[axis] - 1, out=high[:, axis])
        steps = np.maximum(high[:, axis] - low[:, axis], 1)
        rise = values[tuple(high.T)].astype(np.float64) - values[tuple(low.T)]
        out[:, axis] = rise / (steps * spacing)
    return out
