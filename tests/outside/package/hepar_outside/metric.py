"""A metric of the installed package."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.contracts import Rows
from core.measure.pair import CasePair
from registry import register


@register("metric", "voxel_excess")
class VoxelExcess:
    """Predicted less reference voxels of liver and tumour.

    Example: {name: voxel_excess}
    """

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        rows = []
        for structure in ("liver", "tumour"):
            pred, reference = pair.structure(structure)
            rows.append(
                {"case": pair.case, "structure": structure, "voxel_excess": int(pred.sum()) - int(reference.sum())}
            )
        return {"cases": rows}

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for structure in ("liver", "tumour"):
            values = [r["voxel_excess"] for r in tables.get("cases", []) if r["structure"] == structure]
            out[structure] = {"voxel_excess": {"mean": float(np.mean(values)) if values else None, "n": len(values)}}
        return out
