"""Smooth random functions of position in mm, implicit shapes, and the canvas that tissues are painted on.

Patient axes: x to the patient's left, y to the back, z to the head, all in mm with the origin in the body's middle.
Shapes are functions that are negative inside and roughly the distance in mm near their surface. Everything is tied to
mm and never to a voxel grid, so that two scans of one patient show one anatomy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Point = tuple[float, float, float]  # x, y, z in mm

LOW = (-260.0, -260.0, -320.0)  # z, y, x: no scan reaches beyond
HIGH = (260.0, 260.0, 320.0)
WARP_REACH = 16.0  # mm that the warp may carry a shape out of its box


def _upsample(values: F32, axis: int, position: F32) -> F32:
    """Cubic B-spline along one axis; written without BLAS, whose bits depend on the number of threads."""
    first = np.clip(np.floor(position).astype(np.intp), 0, values.shape[axis] - 4)
    u = (position - first).astype(np.float32)
    weights = ((1 - u) ** 3 / 6, (3 * u**3 - 6 * u**2 + 4) / 6, (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6, u**3 / 6)
    shape = [1] * values.ndim
    shape[axis] = -1
    total: F32 | None = None
    for tap, weight in enumerate(weights):
        term = np.take(values, first + tap, axis=axis)
        term *= weight.reshape(shape)
        total = term if total is None else np.add(total, term, out=total)
    assert total is not None
    return total


def single(values: npt.NDArray[np.floating]) -> F32:
    """As float32, without a copy where it is already."""
    return values.astype(np.float32, copy=False)


class Field:
    """A smooth random function of position: zero mean, standard deviation about 1, features of about `scale_mm`."""

    def __init__(self, rng: np.random.Generator, scale_mm: float) -> None:
        self.scale = scale_mm
        counts = [int((high - low) / scale_mm) + 4 for low, high in zip(LOW, HIGH, strict=True)]
        self.knots: F32 = 3.0 * rng.standard_normal(counts, dtype=np.float32)

    def __call__(self, z: F32, y: F32, x: F32) -> F32:
        """The values [Z, Y, X] on the grid that three vectors span."""
        values = self.knots
        for axis, (at, low) in enumerate(zip((z, y, x), LOW, strict=True)):
            values = _upsample(values, axis, (at.ravel() - low) / np.float32(self.scale))
        return values


class Warp:
    """The displacement that turns a textbook's ellipsoids into one person's organs."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.coarse = [Field(rng, 62.0) for _ in range(3)]
        self.fine = [Field(rng, 24.0) for _ in range(3)]
        self.size = rng.uniform(0.8, 1.2)

    def __call__(self, z: F32, y: F32, x: F32) -> tuple[F32, F32, F32]:
        """Warped (x, y, z) on the grid that three vectors span."""
        plain = (x[None, None, :], y[None, :, None], z[:, None, None])
        moved = []
        for at, coarse, fine in zip(plain, self.coarse, self.fine, strict=True):
            shift = self.size * (3.6 * coarse(z, y, x) + 1.1 * fine(z, y, x))
            moved.append(np.add(np.clip(shift, -WARP_REACH, WARP_REACH), at, dtype=np.float32))
        return moved[0], moved[1], moved[2]


class Space(NamedTuple):
    """Coordinate arrays x, y, z [Z, Y, X] of a box of the grid, and where that box lies."""

    x: F32
    y: F32
    z: F32
    box: tuple[slice, slice, slice]

    def crop(self, box: tuple[slice, slice, slice]) -> Space:
        """The part within a box of the whole grid."""
        return Space(self.x[box], self.y[box], self.z[box], box)


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm along each axis."""

    z: F32
    y: F32
    x: F32

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Mm along z, y, x."""
        z, y, x = ((axis[-1] - axis[0]) / (len(axis) - 1) for axis in (self.z, self.y, self.x))
        return float(z), float(y), float(x)

    def box(self, centre: Point, reach: Point) -> tuple[slice, slice, slice]:
        """The part of the grid within `reach` of `centre` along each axis, both as x, y, z in mm."""
        spans = []
        for axis, middle, extent in zip((self.z, self.y, self.x), centre[::-1], reach[::-1], strict=True):
            low, high = np.searchsorted(axis, (middle - extent, middle + extent))
            spans.append(slice(int(low), int(high)))
        return spans[0], spans[1], spans[2]


class Canvas:
    """The scan being made: true HU, which tissue each voxel is, and the warped coordinates to evaluate shapes at."""

    def __init__(self, grid: Grid, warp: Warp) -> None:
        self.grid = grid
        self.hu: F32 = np.full(grid.shape, -1000.0, np.float32)
        self.tissue = np.zeros(grid.shape, np.uint8)
        everything = (slice(None), slice(None), slice(None))
        self.space = Space(*warp(grid.z, grid.y, grid.x), everything)
        self.edge = float(grid.spacing[2])

    def near(self, centre: Point, reach: Sequence[float]) -> Space:
        """Warped coordinates within `reach` mm of a point, with room for the warp."""
        x, y, z = (extent + WARP_REACH for extent in reach)
        return self.space.crop(self.grid.box(centre, (x, y, z)))

    def paint(self, space: Space, shape: F32, hu: float | F32, tissue: int | None, blur_mm: float = 0.0) -> F32:
        """Lay a tissue over what is there, mixing over a voxel's width at its edge; returns the share laid on."""
        share = np.clip(0.5 - shape / max(self.edge, blur_mm), 0.0, 1.0).astype(np.float32, copy=False)
        under = self.hu[space.box]
        under += share * (hu - under)
        if tissue is not None:
            self.tissue[space.box][share > 0.5] = tissue
        return share


def turned(
    space: Space, centre: Point, axial: float = 0.0, coronal: float = 0.0, sagittal: float = 0.0
) -> tuple[F32, F32, F32]:
    """Coordinates about `centre`, turned by angles in radians within the three planes."""
    x, y, z = (at - np.float32(middle) for at, middle in zip(space[:3], centre, strict=True))
    if axial:
        c, s = math.cos(axial), math.sin(axial)
        x, y = c * x + s * y, c * y - s * x
    if coronal:
        c, s = math.cos(coronal), math.sin(coronal)
        x, z = c * x + s * z, c * z - s * x
    if sagittal:
        c, s = math.cos(sagittal), math.sin(sagittal)
        y, z = c * y + s * z, c * z - s * y
    return x, y, z


def ellipsoid(
    space: Space, centre: Point, radii: Point, axial: float = 0.0, coronal: float = 0.0, sagittal: float = 0.0
) -> F32:
    """An ellipsoid; near its surface the value is the distance in mm."""
    x, y, z = turned(space, centre, axial, coronal, sagittal)
    inside: F32 | float = 0.0
    slope: F32 | float = 1e-12
    for at, radius in zip((x, y, z), radii, strict=True):
        # in place, since turned() gave arrays of our own: memory traffic is what making a case costs
        at *= np.float32(1 / radius)
        at *= at
        inside = at + inside
        at *= np.float32(1 / radius**2)
        slope = at + slope
    inside, slope = np.sqrt(inside), np.sqrt(slope)
    shape = inside - np.float32(1)
    shape *= inside
    shape /= slope
    return shape


def capsule(space: Space, start: Point, end: Point, radius_start: float, radius_end: float) -> F32:
    """A straight piece of tube."""
    along = [float(b - a) for a, b in zip(start, end, strict=True)]
    x, y, z = (at - np.float32(first) for at, first in zip(space[:3], start, strict=True))
    length2 = max(sum(step * step for step in along), 1e-6)
    t = np.clip((x * along[0] + y * along[1] + z * along[2]) / length2, 0, 1)
    away = np.sqrt((x - t * along[0]) ** 2 + (y - t * along[1]) ** 2 + (z - t * along[2]) ** 2)
    return (away - (radius_start + t * (radius_end - radius_start))).astype(np.float32, copy=False)


def union(a: F32, b: F32, rounding: float) -> F32:
    """Both shapes, the crease between them filled over `rounding` mm."""
    h = np.maximum(rounding - np.abs(a - b), 0) / rounding
    return np.minimum(a, b) - h * h * (rounding / 4)


def common(a: F32, b: F32, rounding: float) -> F32:
    """What both shapes share, its edge rounded over `rounding` mm."""
    h = np.maximum(rounding - np.abs(a - b), 0) / rounding
    return np.maximum(a, b) + h * h * (rounding / 4)
