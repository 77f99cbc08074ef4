"""Which lesions are missed and what goes with it; where false positives lie; whether Dice is bimodal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.analysis.associated import Thresholds
from core.analysis.rows import analyse
from core.analysis.summary import summarise
from core.contracts import Rows
from core.measure.pair import CasePair
from registry import register


@register("metric", "error_analysis")
class ErrorAnalysis:
    """Features of each reference lesion, found or missed, and of each false positive; what goes with misses.

    Recall and Dice by size, contrast, sharpness and more in fixed bins; a penalised logistic model of detection with
    intervals over patients; P(Dice = 0) and the distribution above 0 with a dip test, per case, lesion and slice.
    Definitions and traps in docs/error_analysis.md. These are associations, never causes. Nothing here looks at cases
    to choose a threshold; the thresholds are the arguments.

    Args:
        small_mm: lesions of a smaller diameter are small.
        low_contrast_hu: a contrast to the liver around it nearer to 0 is low.
        blurred_hu_per_mm: a border with less change of HU per mm is blurred.
        thick_slices_mm: slices further apart are thick.
        border_mm: what is no further than this from the liver's border lies at it.
        doubtful_voxels: a label of no more voxels is doubtful.
        doubtful_contrast_hu: so is one with a contrast nearer to 0.

    Tables: ``lesions`` (features of each lesion), ``slices``, ``cases`` (what strata need).
    Example: {name: error_analysis, small_mm: 10.0, low_contrast_hu: 20.0}
    """

    probabilities = True

    def __init__(
        self,
        *,
        small_mm: float = 10.0,
        low_contrast_hu: float = 20.0,
        blurred_hu_per_mm: float = 4.0,
        thick_slices_mm: float = 3.0,
        border_mm: float = 5.0,
        doubtful_voxels: int = 5,
        doubtful_contrast_hu: float = 5.0,
    ) -> None:
        self.limits = Thresholds(
            small_mm=small_mm,
            low_contrast_hu=low_contrast_hu,
            blurred_hu_per_mm=blurred_hu_per_mm,
            thick_slices_mm=thick_slices_mm,
            border_mm=border_mm,
            doubtful_voxels=doubtful_voxels,
            doubtful_contrast_hu=doubtful_contrast_hu,
        )

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """Rows of one case."""
        return analyse(pair, self.limits)

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        """Figures over the data set."""
        return {"error_analysis": summarise(tables, self.limits)}
