"""A scan in three small pictures, with the outlines of its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from core.report.figures import WINDOW_HU
from core.values import TUMOUR

SIDE = 232
"""Pixels of the longest side of the three; they are drawn to one scale."""
AIR_HU = -150
"""What is darker is left out around the body; scans that were cut at -160 HU have the same."""
LIMIT_BYTES = 36_000
"""Of all pictures of one case; the quality gives way."""
LIVER_COLOUR, TUMOUR_COLOUR = "#56B4E9", "#E69F00"
"""Sky blue and orange of Okabe and Ito, told apart by all kinds of colour vision."""

_WAYS = ((80, 1), (65, 1), (50, 1), (35, 1), (20, 1), (20, 2), (5, 3))
"""Quality, and by how much the picture is made smaller; the last is far below the limit even for noise."""


@dataclass(frozen=True)
class Picture:
    """One plane.

    Attributes:
        plane: ``axial``, ``coronal`` or ``sagittal``.
        place: where it was cut, as text.
        sides: letters at its left and right edge.
        width, height: pixels to show it in.
        data: WebP.
    """

    plane: str
    place: str
    sides: tuple[str, str]
    width: int
    height: int
    data: bytes


def draw(
    image: np.ndarray,
    label: np.ndarray | None,
    centre: Sequence[int],
    spacing_mm: Sequence[float],
    window: tuple[float, float] = WINDOW_HU,
) -> tuple[Picture, ...]:
    """The three planes through `centre`, in mm, head and front on top; outlines of liver and tumour.

    Args:
        image: int16 HU ``[Z, Y, X]``, LPS.
        label: uint8 of the same shape, or None.
        centre: ``(z, y, x)``.
        spacing_mm: along z, y, x.
        window: HU that become black and white.
    """
    z, y, x = centre
    dz, dy, dx = spacing_mm
    rows, columns = _shown(image[z], label)
    near = (slice(None), rows, columns)
    image, label = image[near], None if label is None else label[near]
    scale = SIDE / max(n * mm for n, mm in zip(image.shape, spacing_mm, strict=True))
    row, column = y - rows.start, x - columns.start
    cuts: list[tuple[str, str, tuple[str, str], Any, float, float]] = [
        ("axial", f"slice {z}", ("R", "L"), (z,), dy, dx),
        ("coronal", f"row {y}", ("R", "L"), (slice(None, None, -1), row), dz, dx),
        ("sagittal", f"column {x}", ("A", "P"), (slice(None, None, -1), slice(None), column), dz, dy),
    ]
    drawn = [
        (
            *(plane, place, sides),
            _paint(image[cut], None if label is None else label[cut], down * scale, across * scale, window),
        )
        for plane, place, sides, cut, down, across in cuts
    ]
    for quality, smaller in _WAYS:
        made = [
            Picture(plane, place, sides, pixels.shape[1], pixels.shape[0], _encode(pixels, quality, smaller))
            for plane, place, sides, pixels in drawn
        ]
        if sum(len(p.data) for p in made) <= LIMIT_BYTES:
            break
    return tuple(made)


def _shown(plane: np.ndarray, label: np.ndarray | None) -> tuple[slice, slice]:
    """Rows and columns of the body, and of the whole label where there is one, with a margin."""
    shown = plane > AIR_HU
    if label is not None:
        shown = shown | label.any(axis=0)
    box = []
    for axis, size in ((1, plane.shape[0]), (0, plane.shape[1])):
        # A body has many such pixels in a row; the noise of the air a few.
        found = np.flatnonzero(shown.mean(axis=axis) > 0.01)
        margin = size // 40 + 1
        box.append(
            slice(max(0, found[0] - margin), min(size, found[-1] + 1 + margin)) if len(found) else slice(0, size)
        )
    return box[0], box[1]


def _paint(
    image: np.ndarray, mask: np.ndarray | None, down: float, across: float, window: tuple[float, float]
) -> np.ndarray:
    """uint8 BGR; `down` and `across` are pixels a voxel."""
    size = (max(8, round(image.shape[1] * across)), max(8, round(image.shape[0] * down)))
    low, high = window
    grey = np.clip((image.astype(np.float32) - low) * (255 / max(high - low, 1)), 0, 255)
    # Area means where pixels are joined; where they are drawn apart, cubic looks like a viewer's picture.
    if size[0] < image.shape[1]:
        grey = cv2.resize(grey, (size[0], image.shape[0]), interpolation=cv2.INTER_AREA)
    if size[1] < image.shape[0]:
        grey = cv2.resize(grey, (grey.shape[1], size[1]), interpolation=cv2.INTER_AREA)
    grey = np.clip(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC), 0, 255)
    out = cv2.cvtColor(grey.astype(np.uint8), cv2.COLOR_GRAY2BGR)
    if mask is not None:
        for region, colour in ((mask > 0, LIVER_COLOUR), (mask == TUMOUR, TUMOUR_COLOUR)):
            if region.any():
                _outline(out, region, colour)
    return out


def _outline(out: np.ndarray, region: np.ndarray, colour: str) -> None:
    size = (out.shape[1], out.shape[0])
    # Of a tiny lesion the mean would fall below a half everywhere, and it would not be drawn.
    fine = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    if region.shape[0] > size[1] or region.shape[1] > size[0]:
        rows, columns = np.nonzero(region)
        fine[rows * size[1] // region.shape[0], columns * size[0] // region.shape[1]] = True
    lines, _ = cv2.findContours(fine.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, lines, -1, tuple(int(colour[i : i + 2], 16) for i in (5, 3, 1)), 1)


def _encode(pixels: np.ndarray, quality: int, smaller: int) -> bytes:
    if smaller > 1:
        pixels = cv2.resize(pixels, None, fx=1 / smaller, fy=1 / smaller, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV cannot write WebP")
    return bytes(data)
