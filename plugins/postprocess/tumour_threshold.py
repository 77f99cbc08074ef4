"""Call tumour what is probable enough, instead of what is likeliest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.values import BACKGROUND, LIVER, TUMOUR
from registry import register


@register("postprocess", "tumour_threshold")
class TumourThreshold:
    """Inside the liver, voxels whose tumour probability reaches a threshold become tumour, all others liver.

    The liver is labels 1 and 2 together as they come in: what is background stays background, however probable a tumour
    is there. Without this step a voxel is tumour where that is the likeliest of the three classes, which mostly is a
    threshold near 0.5; a lower one finds more and fainter lesions, and more that are none. Put it before the steps that
    drop or join components: it decides anew where the tumours are. Probabilities are kept as float16, so close to 1 two
    thresholds less than 0.0005 apart are the same. Idempotent.

    Args:
        threshold: least probability of tumour, above 0 and at most 1.

    Raises:
        ValueError: for another threshold, or if there are no probabilities (labels from somebody else's files).

    Shape: labels [Z, Y, X], probabilities [K, Z, Y, X] -> labels of the same shape and dtype.
    Example: {name: tumour_threshold, threshold: 0.4}
    """

    def __init__(self, *, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
        self.threshold = threshold

    def __call__(self, labels: np.ndarray, spacing_mm: Sequence[float], probabilities: np.ndarray | None) -> np.ndarray:
        """Labels with the tumours of the threshold."""
        if probabilities is None:
            raise ValueError("tumour_threshold needs the network's probabilities, and there are none")
        out = labels.copy()
        # Slice by slice and inside the liver alone: a whole volume of comparisons in float16 is slow.
        for into, within, soft in zip(out, labels != BACKGROUND, probabilities[TUMOUR], strict=True):
            if within.any():
                into[within] = np.where(soft[within].astype(np.float32) >= np.float32(self.threshold), TUMOUR, LIVER)
        return out
