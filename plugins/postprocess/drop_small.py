"""Drop what is too small to be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from core.measure.components import Connectivity, find_components
from core.values import BACKGROUND, LIVER, TUMOUR
from registry import register


@register("postprocess", "drop_small")
class DropSmall:
    """Drop connected components below a least size: a small tumour becomes liver, a small liver background.

    The liver is labels 1 and 2 together. In ml the size follows the scan's header, also where that spacing is known to
    be false; in voxels it does not. Idempotent.

    Args:
        structure: whose components are looked at.
        min_ml: components of less volume are dropped, in ml.
        min_voxels: components of fewer voxels are dropped. Give either this or min_ml.
        connectivity: neighbours of a voxel: 6 faces, 18 with edges, 26 with corners.

    Raises:
        ValueError: if neither or both sizes are given, or the size is not positive.

    Shape: labels [Z, Y, X] -> the same shape and dtype.
    Example: {name: drop_small, structure: tumour, min_ml: 0.05}
    """

    def __init__(
        self,
        *,
        structure: Literal["tumour", "liver"] = "tumour",
        min_ml: float | None = None,
        min_voxels: int | None = None,
        connectivity: Connectivity = 26,
    ) -> None:
        if (min_ml is None) == (min_voxels is None):
            raise ValueError(f"give either min_ml or min_voxels, got min_ml={min_ml} and min_voxels={min_voxels}")
        for name, value in (("min_ml", min_ml), ("min_voxels", min_voxels)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, got {value}")
        self.structure = structure
        self.min_ml = min_ml
        self.min_voxels = min_voxels
        self.connectivity = connectivity

    def __call__(self, labels: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        """Labels without the small components."""
        mask = labels == TUMOUR if self.structure == "tumour" else labels != BACKGROUND
        found = find_components(mask, self.connectivity)
        small = found.sizes < self._least_voxels(spacing_mm)
        small[0] = False  # what lies outside the structure is not a component of it
        out = labels.copy()
        if small.any():
            out[found.box][small[found.ids]] = LIVER if self.structure == "tumour" else BACKGROUND
        return out

    def _least_voxels(self, spacing_mm: Sequence[float]) -> int:
        if self.min_voxels is not None:
            return self.min_voxels
        assert self.min_ml is not None  # held by __init__
        # A component of exactly min_ml stays, whatever the rounding of the spacing's product.
        return math.ceil(self.min_ml * 1000 / math.prod(spacing_mm) - 1e-6)
