"""Distances between surfaces, in mm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.contracts import Rows
from core.measure import overlap
from core.measure import surface as geometry
from core.measure.pair import STRUCTURES, CasePair, Structure
from core.measure.statistics import describe
from registry import register


@register("metric", "surface")
class SurfaceDistances:
    """ASSD, RMSD, HD, HD95 and normalised surface Dice (NSD) of liver and tumour, in mm.

    Definitions of a surface differ between tools by far more than models do, so the one used is in the summary. NSD:
    Nikolov et al. 2018, arXiv:1809.04430. On the tumour's union mask a far false positive rules the distances: metric
    `lesions` has them per matched lesion. Cases whose spacing cannot be trusted are left out.

    Args:
        surface: "edge6", "edge18": voxels with one of 6 or 18 neighbours outside, distances between voxel centres;
            "element": sub-voxel surface elements weighted by area.
        tolerances_mm: of the NSD; one below a case's slice spacing is flagged in the summary.
        empty: one side empty: the NSD is 0 and distances are not numbers; under "worst" the volume's diagonal. Both
            empty: distances are not numbers, the NSD is 1 and under "nan" not a number.
        structures: of which; parenchyma's surface is the liver's and the tumours' together.

    Tables: ``cases`` (one row a structure).
    Example: {name: surface, surface: edge6, tolerances_mm: [1, 2, 3], validate: false}
    """

    def __init__(
        self,
        *,
        surface: geometry.Surface = "edge6",
        tolerances_mm: tuple[float, ...] = (1.0, 2.0, 3.0),
        empty: overlap.Empty = "lits",
        structures: tuple[Structure, ...] = ("liver", "tumour"),
    ) -> None:
        if not structures or not set(structures) <= set(STRUCTURES):
            raise ValueError(f"structures must be some of {', '.join(STRUCTURES)}, got {list(structures)}")
        self.surface = geometry.check_surface(surface)
        self.tolerances_mm = geometry.check_tolerances(tolerances_mm)
        self.empty, self.structures = overlap.check_empty(empty), structures

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """Rows of one case."""
        rows: Rows = []
        for structure in self.structures:
            found = geometry.figures(
                pair, structure, surface=self.surface, tolerances_mm=self.tolerances_mm, empty=self.empty
            )
            spacing = pair.spacing_mm[0] if pair.spacing_trusted else None
            rows.append({"case": pair.case, "structure": structure, **found, "slice_spacing_mm": spacing})
        return {"cases": rows}

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        """Figures over the data set."""
        rows = [row for row in tables.get("cases", []) if "assd_mm" in row]
        names = [*geometry.DISTANCES, *(geometry.nsd_column(t) for t in self.tolerances_mm)]
        out: dict[str, Any] = {}
        for structure in self.structures:
            own = [row for row in rows if row["structure"] == structure]
            out[structure] = {name: describe(overlap.values(own, name), overlap.patients(own)) for name in names}
        spacings = [row["slice_spacing_mm"] for row in rows if row["structure"] == self.structures[0]]
        out["surface"] = {
            "definition": self.surface,
            "empty": self.empty,
            "tolerances_mm": list(self.tolerances_mm),
            "spacing_not_trusted": sum(s is None for s in spacings),
            # Within a slice's thickness of a border, the next slice decides and not the model.
            "cases_with_slices_above_tolerance": {
                f"{t:g}": sum(s is not None and s > t for s in spacings) for t in self.tolerances_mm
            },
        }
        return out
