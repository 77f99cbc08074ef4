"""Keep the liver in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from core.measure.components import Connectivity, find_components
from core.values import BACKGROUND
from registry import register


@register("postprocess", "largest_component")
class LargestComponent:
    """Keep the largest connected component of the structure; everything else becomes background.

    The liver is labels 1 and 2 together, so a tumour goes with the component that it lies in. Of components of equal
    size the one that comes first in the order of the array (z, y, x) stays. Idempotent.

    Args:
        structure: what to keep in one piece.
        connectivity: neighbours of a voxel: 6 faces, 18 with edges, 26 with corners.

    Shape: labels [Z, Y, X] -> the same shape and dtype.
    Example: {name: largest_component, structure: liver, connectivity: 26}
    """

    def __init__(self, *, structure: Literal["liver"] = "liver", connectivity: Connectivity = 26) -> None:
        self.structure = structure
        self.connectivity = connectivity

    def __call__(self, labels: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        """Labels with one component."""
        found = find_components(labels != BACKGROUND, self.connectivity)
        out = labels.copy()
        if found.count > 1:
            largest = np.flatnonzero(found.sizes == found.sizes.max())
            # The numbering of components is the library's affair: ties are settled by place, not by number.
            keep = min(largest, key=lambda c: int((found.ids == c).argmax())) if len(largest) > 1 else largest[0]
            out[found.box][found.ids != keep] = BACKGROUND
        return out
