"""Tumours and cysts: how many, how large, where, how they take up contrast, and how they are painted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from plugins.source.phantom.body import Tissue
from plugins.source.phantom.fields import F32, Canvas, Field, Point, Space
from plugins.source.phantom.liver import LiverShape, plain

SMALLEST_MM, LARGEST_MM = 3.0, 60.0


@dataclass(frozen=True)
class Lesion:
    """One tumour. `contrast_hu` is that of its solid part against the liver around it, before noise and blur."""

    id: int
    centre_mm: Point
    diameter_mm: float
    contrast_hu: float
    location: str  # deep, border
    look: str  # solid, rim, necrotic
    blur_mm: float
    stretch: Point
    roughness: float

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def draw_lesions(rng: np.random.Generator, shape: LiverShape, *, tumour_free: bool) -> list[Lesion]:
    """The tumours of one patient; most have a clear one over 15 mm, since scans are made and kept because of those."""
    if tumour_free:
        return []
    low, high = ((1, 1), (2, 2), (3, 5), (6, 12))[int(rng.choice(4, p=(0.26, 0.20, 0.33, 0.21)))]
    count = int(rng.integers(low, high + 1))
    bright = rng.random() < 0.06
    base = rng.uniform(32, 55) if bright else -rng.uniform(36, 66)
    blur = rng.uniform(1.2, 4.0)
    lesions: list[Lesion] = []
    for index in range(count):
        lead = index == 0 and rng.random() < 0.96
        size = rng.lognormal(np.log(36.0), 0.30) if lead else rng.lognormal(np.log(14.5), 0.5)
        diameter = float(np.clip(size, 20.0 if lead else SMALLEST_MM, LARGEST_MM))
        contrast = base * rng.uniform(0.85, 1.12)
        if not lead and rng.random() < 0.14:
            contrast = float(np.sign(base)) * rng.uniform(10, 16)
        elif not lead and rng.random() < 0.05:
            contrast = rng.uniform(15, 40)
        location, centre = place(rng, shape, diameter / 2, lesions)
        if centre is None:
            continue
        draw = rng.random()
        look = "solid"
        if diameter > 14 and contrast < 0 and draw < 0.45:
            look = "rim" if draw < 0.22 else "necrotic"
        low_contrast = min(abs(contrast), 70.0)
        lesions.append(
            Lesion(
                len(lesions) + 1,
                centre,
                round(diameter, 2),
                round(float(np.copysign(max(low_contrast, 10.0), contrast)), 2),
                location,
                look,
                round(float(min(blur * rng.uniform(0.7, 1.3), 0.3 * diameter)), 2),
                (rng.uniform(0.88, 1.15), rng.uniform(0.88, 1.15), rng.uniform(0.9, 1.1)),
                rng.uniform(0.05, 0.16),
            )
        )
    return lesions


def place(rng: np.random.Generator, shape: LiverShape, radius: float, others: list[Lesion]) -> tuple[str, Point | None]:
    """A free spot in the liver, wholly inside or reaching its border."""
    grid, coarse = shape.coarse_grid, shape.coarse
    location = "border" if rng.random() < 0.3 else "deep"
    for attempt in range(4):
        if attempt == 3:
            location = "border"
        fits = (
            (coarse < -0.55 * radius - 1) & (coarse > -0.95 * radius - 2)
            if location == "border"
            else coarse < -radius - 4
        )
        spots = np.argwhere(fits)
        if not len(spots):
            location = "border" if location == "deep" else "deep"
            continue
        for _ in range(25):
            k, j, i = spots[int(rng.integers(len(spots)))]
            jitter = rng.uniform(-2, 2, 3)
            centre = (float(grid.x[i] + jitter[0]), float(grid.y[j] + jitter[1]), float(grid.z[k] + jitter[2]))
            if all(np.linalg.norm(np.subtract(centre, o.centre_mm)) > radius + o.diameter_mm / 2 + 4 for o in others):
                return location, centre
    return location, None


def grown(rng: np.random.Generator, lesions: list[Lesion]) -> list[Lesion]:
    """The same tumours some months later."""
    trend = rng.uniform(0.75, 1.25)
    later = []
    for lesion in lesions:
        size = float(np.clip(lesion.diameter_mm * trend * rng.uniform(0.92, 1.08), SMALLEST_MM, LARGEST_MM))
        later.append(replace(lesion, diameter_mm=round(size, 2), blur_mm=round(min(lesion.blur_mm, 0.3 * size), 2)))
    return later


def paint_lesion(canvas: Canvas, shape: LiverShape, lesion: Lesion, liver: F32, labels: npt.NDArray[np.uint8]) -> None:
    """Paint one tumour and its label; a tumour at the border bulges a little over it."""
    build, grid = shape.build, canvas.grid
    radius = lesion.diameter_mm / 2
    x, y, z = lesion.centre_mm
    if lesion.diameter_mm < 1.5 * grid.spacing[0] + 3:
        # else a small one would fall between two slices and be in the list but not in the scan
        z = float(grid.z[int(np.abs(grid.z - z).argmin())])
        x = float(grid.x[int(np.abs(grid.x - x).argmin())])
        y = float(grid.y[int(np.abs(grid.y - y).argmin())])
    reach = 1.7 * radius + 4
    box = grid.box((x, y, z), (reach, reach, reach))
    space = plain(grid, canvas.space.crop(box))
    if 0 in liver[box].shape:
        return
    rng = build.rng(1000 + lesion.id)
    part = (grid.z[box[0]], grid.y[box[1]], grid.x[box[2]])
    lumps = Field(rng, float(max(lesion.diameter_mm * 0.38, 4.0)))(*part)
    along = zip(space[:3], (x, y, z), lesion.stretch, strict=True)
    away = np.sqrt(sum(((at - middle) / axis) ** 2 for at, middle, axis in along))
    body = (away - radius * (1 + lesion.roughness * np.clip(lumps, -2.5, 2.5))).astype(np.float32)
    body = np.maximum(body, liver[box] - min(0.12 * radius, 3.0))
    base = build.hu["liver"]
    solid = base + lesion.contrast_hu + 2.5 * lumps
    here = Space(*canvas.space.crop(box))
    canvas.paint(here, body, solid, None, lesion.blur_mm)
    if lesion.look == "rim":
        rim = np.abs(body + 1.8) - 1.3
        canvas.paint(here, rim, base + rng.uniform(8, 26), None, 2.0)
    elif lesion.look == "necrotic":
        core = body + radius * rng.uniform(0.35, 0.5) + 1.5 * lumps
        canvas.paint(here, core, min(base + lesion.contrast_hu - 6, rng.uniform(18, 36)), None, 3.0)
    inside = body < 0
    labels[box][inside] = 2
    canvas.tissue[box][inside] = Tissue.LESION


def paint_cysts(canvas: Canvas, shape: LiverShape, lesions: list[Lesion], liver: F32) -> None:
    """Simple cysts, sharp and of water, which are not tumour: only some livers have any."""
    rng = shape.build.rng(31)
    if rng.random() > 0.22:
        return
    for _ in range(int(rng.integers(1, 4))):
        radius = rng.uniform(3.0, 8.0)
        _, centre = place(rng, shape, radius, lesions)
        if centre is None:
            continue
        box = canvas.grid.box(centre, (radius + 4,) * 3)
        space = canvas.space.crop(box)
        along = zip(plain(canvas.grid, space)[:3], centre, strict=True)
        away = np.sqrt(sum((at - middle) ** 2 for at, middle in along))
        body = np.maximum((away - radius).astype(np.float32), liver[box] + 0.5)
        body = np.where(canvas.tissue[box] == Tissue.LESION, np.float32(9), body)
        canvas.paint(space, body, rng.uniform(2, 10), Tissue.CYST)
