"""Two components in a single file, as somebody outside the repository writes them."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from core.dist import sum_over_ranks
from core.values import BACKGROUND, IGNORE, LIVER
from registry import register


@register("loss", "soft_iou")
class SoftIoU:
    """Soft intersection over union of the foreground classes.

    Args:
        smooth: added to numerator and denominator, in voxels.

    Example: {name: soft_iou, smooth: 1.0}
    """

    def __init__(self, classes: int, *, smooth: float = 1.0) -> None:
        self.classes = classes
        self.smooth = smooth

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        valid = target != IGNORE
        probability = logits.float().softmax(1)
        terms = []
        for label in range(1, self.classes):
            p, g = probability[:, label] * valid, (target == label).float()
            both, either = sum_over_ranks(torch.stack([(p * g).sum(), (p + g - p * g).sum()]))
            terms.append(1 - (both + self.smooth) / (either + self.smooth))
        return torch.stack(terms).mean()


@register("postprocess", "fill_holes")
class FillHoles:
    """Fill background that the liver encloses in a slice. Idempotent.

    Args:
        max_voxels: larger holes stay; null fills all.

    Example: {name: fill_holes, max_voxels: null}
    """

    def __init__(self, *, max_voxels: int | None = None) -> None:
        self.max_voxels = max_voxels

    def __call__(self, labels: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        out = labels.copy()
        for plane in out:
            holes, count = ndimage.label(ndimage.binary_fill_holes(plane != BACKGROUND) & (plane == BACKGROUND))
            for hole in range(1, count + 1):
                if self.max_voxels is None or (holes == hole).sum() <= self.max_voxels:
                    plane[holes == hole] = LIVER
        return out
