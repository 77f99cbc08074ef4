"""One slice as a picture, made in milliseconds: CT, reference and prediction side by side."""

from __future__ import annotations

import numpy as np

from core.contracts import Example
from core.report.figures import PREDICTION, REFERENCE, WINDOW_HU
from core.values import BACKGROUND, TUMOUR

MARGIN = 4
FILL = 0.4


def side_by_side(example: Example) -> np.ndarray:
    """uint8 RGB ``[H, 3 W, 3]``: the CT, the CT with the reference, the CT with the prediction.

    Outlines of liver and tumour in the report's colours, the tumour filled. Cropped to what is not black, which depends
    on the scan alone, so that the pictures of one slice lie exactly over one another from validation to validation.
    """
    box = _body(example.image, example.reference)
    low, high = WINDOW_HU
    grey = np.clip((example.image[box].astype(np.float32) - low) / (high - low), 0, 1)
    ct = np.repeat(grey[..., None], 3, axis=-1)
    panels = [ct, _drawn(ct, example.reference[box], REFERENCE), _drawn(ct, example.pred[box], PREDICTION)]
    return np.rint(255 * np.concatenate(panels, axis=1)).astype(np.uint8)


def _drawn(ct: np.ndarray, labels: np.ndarray, colour: str) -> np.ndarray:
    out, tint = ct.copy(), np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)
    tumour = labels == TUMOUR
    out[tumour] = (1 - FILL) * out[tumour] + FILL * tint
    out[_outline(tumour) | _outline(labels != BACKGROUND)] = tint
    return out


def _outline(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask that touch its outside by an edge; the picture's border counts as inside."""
    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inside)


def _body(image: np.ndarray, reference: np.ndarray) -> tuple[slice, slice]:
    shown = (image > WINDOW_HU[0]) | (reference != BACKGROUND)
    if not shown.any():
        return slice(None), slice(None)
    out = []
    for axis in (1, 0):
        found = np.flatnonzero(shown.any(axis=axis))
        out.append(slice(max(int(found[0]) - MARGIN, 0), int(found[-1]) + 1 + MARGIN))
    return out[0], out[1]
