"""Lesions found, invented and missed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.contracts import Rows
from core.measure import surface as geometry
from core.measure.components import Connectivity
from core.measure.froc import candidates
from core.measure.lesion_rows import case_row, lesion_rows
from core.measure.lesion_summary import summarise
from core.measure.pair import CasePair
from registry import register


@register("metric", "lesions")
class Lesions:
    """Recall, precision and F1 of lesions at three thresholds, by size; PQ, CC-Dice, boundaries and FROC.

    A lesion is a connected component of the tumour. Pairs that overlap at all, by an IoU above 0.1 or above 0.5 are
    matched one to one: the greatest number of pairs, among these the greatest sum of IoU. Counts are pooled over all
    lesions. CC-Dice: Jaus et al. 2024, arXiv:2410.18684; PQ: Kirillov et al. 2019, arXiv:1801.00868. FROC needs
    probabilities.

    Args:
        connectivity: neighbours that make one lesion: 6 faces, 18 with edges, 26 with corners.
        size_bins_mm: edges between bins of equivalent diameter.
        min_lesion_ml: lesions below it, on either side, count neither as right nor as wrong; applied after matching.
        tolerances_mm: of the surface Dice of a matched pair.
        surface: its definition, as in metric `surface`.

    Tables: ``lesions`` (one row a lesion of either side), ``cases`` (counts on the tumour's row), ``candidates`` (with
    probabilities, one row a candidate).
    Example: {name: lesions, size_bins_mm: [10, 20], min_lesion_ml: 0}
    """

    probabilities = True

    def __init__(
        self,
        *,
        connectivity: Connectivity = 26,
        size_bins_mm: tuple[float, ...] = (10.0, 20.0),
        min_lesion_ml: float = 0.0,
        tolerances_mm: tuple[float, ...] = (1.0, 2.0, 3.0),
        surface: geometry.Surface = "edge6",
    ) -> None:
        if connectivity not in (6, 18, 26):
            raise ValueError(f"connectivity must be 6, 18 or 26, got {connectivity}")
        edges = [float(edge) for edge in size_bins_mm]
        if not all(np.isfinite(edge) and edge > 0 for edge in edges) or sorted(set(edges)) != edges:
            raise ValueError(f"size_bins_mm must be rising numbers above 0, got {list(size_bins_mm)}")
        if not np.isfinite(min_lesion_ml) or min_lesion_ml < 0:
            raise ValueError(f"min_lesion_ml must be 0 or more, got {min_lesion_ml}")
        self.connectivity, self.size_bins_mm, self.min_lesion_ml = connectivity, tuple(edges), float(min_lesion_ml)
        self.tolerances_mm = geometry.check_tolerances(tolerances_mm)
        self.surface = geometry.check_surface(surface)

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """Rows of one case."""
        rows = lesion_rows(
            pair,
            connectivity=self.connectivity,
            min_lesion_ml=self.min_lesion_ml,
            tolerances_mm=self.tolerances_mm,
            definition=self.surface,
        )
        row = case_row(pair, rows)
        tables = {"lesions": rows, "cases": [row]}
        if pair.probabilities is not None:
            tables["candidates"] = candidates(pair, self.connectivity, self.min_lesion_ml)
            row["candidates"] = len(tables["candidates"])
        return tables

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        """Figures over the data set."""
        return summarise(
            tables,
            size_bins_mm=self.size_bins_mm,
            min_lesion_ml=self.min_lesion_ml,
            tolerances_mm=self.tolerances_mm,
        )
