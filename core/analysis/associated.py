"""Features of a reference lesion that may go with its being missed; several may apply, none is called the cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

FEATURES = (
    "small",
    "low_contrast",
    "blurred_border",
    "thick_slices",
    "at_liver_border",
    "merged",
    "doubtful_label",
)
NONE = "none"
"""Not a feature: lesions with none of them."""


@dataclass(frozen=True)
class Thresholds:
    """What counts as a feature: fixed numbers, never quantiles of the data shown.

    Attributes:
        small_mm: a smaller diameter is small.
        low_contrast_hu: a contrast nearer to 0 is low.
        blurred_hu_per_mm: a border with less change of HU per mm is blurred.
        thick_slices_mm: slices further apart than this are thick.
        border_mm: a lesion no further than this from the liver's border lies at it.
        doubtful_voxels: with no more voxels than this a label is doubtful.
        doubtful_contrast_hu: so is one with a contrast nearer to 0, which nobody can see.
    """

    small_mm: float = 10.0
    low_contrast_hu: float = 20.0
    blurred_hu_per_mm: float = 4.0
    thick_slices_mm: float = 3.0
    border_mm: float = 5.0
    doubtful_voxels: int = 5
    doubtful_contrast_hu: float = 5.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{one.name} must be a number of at least 0, got {value}")

    def titles(self) -> dict[str, str]:
        """What each feature means, with its threshold."""
        return {
            "small": f"diameter below {self.small_mm:g} mm",
            "low_contrast": f"contrast to the liver around it below {self.low_contrast_hu:g} HU",
            "blurred_border": f"border changes by less than {self.blurred_hu_per_mm:g} HU/mm",
            "thick_slices": f"slices more than {self.thick_slices_mm:g} mm apart",
            "at_liver_border": f"within {self.border_mm:g} mm of the liver's border",
            "merged": "a prediction that touches it touches other lesions too",
            "doubtful_label": f"label doubtful: on one slice only, at most {self.doubtful_voxels} voxels, "
            f"contrast below {self.doubtful_contrast_hu:g} HU or of the opposite sign to the case's other lesions",
            NONE: "none of these",
        }


_Row = Mapping[str, Any]
_JUDGED: dict[str, Callable[[_Row], bool]] = {
    "small": lambda row: row.get("diameter_mm") is not None,
    "low_contrast": lambda row: row.get("contrast_hu") is not None,
    "blurred_border": lambda row: row.get("border_hu_per_mm") is not None,
    "thick_slices": lambda row: row.get("slice_thickness_mm") is not None,
    "at_liver_border": lambda row: row.get("border_distance_mm") is not None,
}


def judged(row: _Row, feature: str) -> bool:
    """Whether a lesion's row has what the feature is judged by."""
    return _JUDGED[feature](row) if feature in _JUDGED else True


def associated(row: _Row, others: Sequence[float], limits: Thresholds) -> list[str]:
    """The features of a reference lesion, in the order of `FEATURES`.

    Args:
        row: of table ``lesions``, its other columns filled in.
        others: contrasts in HU of the case's other lesions.
        limits: what counts.
    """
    contrast = row.get("contrast_hu")
    found = {
        "small": judged(row, "small") and row["diameter_mm"] < limits.small_mm,
        "low_contrast": contrast is not None and abs(contrast) < limits.low_contrast_hu,
        "blurred_border": judged(row, "blurred_border") and row["border_hu_per_mm"] < limits.blurred_hu_per_mm,
        "thick_slices": judged(row, "thick_slices") and row["slice_thickness_mm"] > limits.thick_slices_mm,
        "at_liver_border": judged(row, "at_liver_border") and row["border_distance_mm"] <= limits.border_mm,
        "merged": bool(row.get("merged")),
        "doubtful_label": _doubtful(row, others, limits),
    }
    return [name for name in FEATURES if found[name]]


def _doubtful(row: _Row, others: Sequence[float], limits: Thresholds) -> bool:
    if row["slices"] == 1 or row["voxels"] <= limits.doubtful_voxels:
        return True
    contrast = row.get("contrast_hu")
    if contrast is None:
        return False
    if abs(contrast) < limits.doubtful_contrast_hu:
        return True
    # The usual sign of a case is only known where its other lesions stand out themselves.
    usual = float(np.median(others)) if len(others) else 0.0
    return abs(usual) >= limits.doubtful_contrast_hu and (usual < 0) != (contrast < 0)
