"""IoU per case, macro and global."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.contracts import Rows
from core.measure import overlap
from core.measure.pair import CasePair
from registry import register


@register("metric", "iou")
class IoU:
    """IoU, I / (P + R - I), of liver, parenchyma and tumour: per case, macro over classes, global over voxels.

    On whole volumes on the scan's own grid; P, R voxels of prediction and reference, I of both. The tumour's mean is
    given over all cases and over tumour-bearing cases; cases without a tumour are reported apart.

    Args:
        empty: what empty masks score. "lits" and "worst": both empty 1, one empty 0; "nan": both empty is not a number
            and left out of means, with the count of left-out cases.

    Tables: ``cases`` (one row a structure), ``slices`` (one row a slice that has the structure in either mask).
    Example: {name: iou, empty: lits}
    """

    def __init__(self, *, empty: overlap.Empty = "lits") -> None:
        self.empty = overlap.check_empty(empty)

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """Rows of one case."""
        return overlap.measure(pair, ["iou"], self.empty)

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        """Figures over the data set."""
        return overlap.summarise(tables, ["iou"], self.empty)
