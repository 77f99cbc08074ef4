"""Where predicted lesions lie that overlap no reference lesion, and what they look like."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from core.analysis.surroundings import LiverBorder, enlarged, grown, robust
from core.measure.components import Box
from core.measure.pair import CasePair
from core.values import LIVER

Place = Literal["gallbladder_like", "outside_liver", "vessel_like", "liver_border", "inside"]

FLUID_HU = (0.0, 25.0)
"""Mean HU of what may be bile or another fluid."""
FLUID_VOXELS = 10
"""With fewer voxels nothing can be said to be homogeneous."""
HOMOGENEOUS_SDS = 1.5
"""Robust SD of a homogeneous region, at most, in SDs of the case's parenchyma."""
VESSEL_HU = 10.0
"""A vessel is at least so much brighter than the median of the case's parenchyma."""
VESSEL_ELONGATION = 2.0
"""and its longest principal axis is at least so many times the second one."""
_SAMPLE = 5_000_000  # voxels that parenchyma is looked for in


def false_positive(pair: CasePair, lesion: int, border_mm: float) -> dict[str, Any]:
    """Columns of one predicted lesion that overlaps no reference lesion.

    `place` is the first that holds of:

    - ``gallbladder_like``: `FLUID_HU` on average, homogeneous, within `border_mm` of the liver's border on either side
    - ``outside_liver``: most of its voxels are outside the reference liver
    - ``vessel_like``: brighter than parenchyma and elongated
    - ``liver_border``: within `border_mm` of the liver's border
    - ``inside``: none of these

    Without an image nothing is like a gallbladder or a vessel. Where the spacing cannot be trusted the border is near
    if it is touched, and nothing is like a vessel.

    Args:
        pair: the case.
        lesion: id of the predicted lesion.
        border_mm: what is near the border.
    """
    lesions = pair.lesions("pred")
    box = lesions.boxes[lesion - 1]
    mask = lesions.inside(box) == lesion
    values = None if pair.image is None else pair.image[box][mask].astype(np.float64)
    distance = LiverBorder.of(pair).distance(lesions, lesion) if pair.spacing_trusted else None
    near = _touches(pair, box, lesion) if distance is None else distance <= border_mm
    return {
        "mean_hu": None if values is None else float(values.mean()),
        "border_distance_mm": distance,
        "place": _place(pair, box, mask, values, near),
    }


def _place(pair: CasePair, box: Box, mask: np.ndarray, values: np.ndarray | None, near: bool) -> Place:
    median, sd = _parenchyma(pair)
    if near and values is not None and sd is not None and _fluid(values, sd):
        return "gallbladder_like"
    if np.count_nonzero(pair.reference[box][mask]) * 2 < np.count_nonzero(mask):
        return "outside_liver"
    bright = values is not None and median is not None and values.mean() >= median + VESSEL_HU
    if bright and pair.spacing_trusted and elongation(mask, pair.spacing_mm) >= VESSEL_ELONGATION:
        return "vessel_like"
    return "liver_border" if near else "inside"


def _fluid(values: np.ndarray, sd: float) -> bool:
    if len(values) < FLUID_VOXELS or not FLUID_HU[0] <= values.mean() <= FLUID_HU[1]:
        return False
    return robust(values)[1] <= HOMOGENEOUS_SDS * sd


def elongation(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Longest over second principal axis of a mask ``[z, y, x]``: 1 for a ball or a plate, large for a tube."""
    at = np.argwhere(mask) * np.array(spacing_mm, np.float64)
    at -= at.mean(axis=0)
    spread = at.T @ at / len(at) + np.diag(np.square(spacing_mm)) / 12  # a voxel is a box, not a point
    axes = np.linalg.eigvalsh(spread)
    return math.sqrt(axes[2] / axes[1])


def _parenchyma(pair: CasePair) -> tuple[float | None, float | None]:
    """Median and robust SD of the case's parenchyma, from a part of its voxels."""

    def compute() -> tuple[float | None, float | None]:
        if pair.image is None:
            return None, None
        thin = max(1, math.ceil(math.sqrt(pair.reference.size / _SAMPLE)))
        values = pair.image[:, ::thin, ::thin][pair.reference[:, ::thin, ::thin] == LIVER]
        return robust(values) if len(values) else (None, None)

    return pair.cached("parenchyma HU", compute)


def _touches(pair: CasePair, box: Box, lesion: int) -> bool:
    region = enlarged(box, (1, 1, 1), pair.reference.shape)
    mask = grown(pair.lesions("pred").inside(region) == lesion)
    return bool((pair.reference[region][mask] == 0).any())
