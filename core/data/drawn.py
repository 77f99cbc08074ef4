"""What a sampler drew, in figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from core.contracts import Record

SIZE_BINS_MM = (10.0, 20.0)
"""Bounds of the lesion sizes that are told apart (equivalent diameter)."""


def bin_names(bounds: Sequence[float] = SIZE_BINS_MM) -> list[str]:
    """Names of the size bins, and of the one for lesions whose size is not known: ``0_10mm ... 20mm_up unknown``."""
    edges = [0.0, *bounds]
    inner = [f"{low:g}_{high:g}mm" for low, high in pairwise(edges)]
    return [*inner, f"{edges[-1]:g}mm_up", "unknown"]


def size_bin(diameter_mm: float, bounds: Sequence[float] = SIZE_BINS_MM) -> int:
    """Position in `bin_names` of a lesion's size; not a number is unknown."""
    return len(bounds) + 1 if math.isnan(diameter_mm) else int(np.searchsorted(bounds, diameter_mm, side="right"))


def statistics(records: Sequence[Record], order: Sequence[int]) -> dict[str, float]:
    """Figures of an order, for the log.

    ``tumour``, ``liver`` and ``empty`` are shares of the samples (with tumour, with liver but no tumour, with
    neither); ``cases`` and ``lesions`` count different ones; ``lesion_<bin>`` are shares of the lesions drawn, each
    counted as often as a sample showed it, by `bin_names`.
    """
    if not order:
        return {}
    shown = [records[i] for i in order]
    tumour = sum(r.tumour_voxels > 0 for r in shown)
    liver = sum(r.liver_voxels > 0 and r.tumour_voxels == 0 for r in shown)
    names = bin_names()
    counts = [0] * len(names)
    for record in shown:
        sizes = record.diameters_mm or (math.nan,) * len(record.lesions)
        for diameter in sizes:
            counts[size_bin(diameter)] += 1
    return {
        "tumour": tumour / len(shown),
        "liver": liver / len(shown),
        "empty": (len(shown) - tumour - liver) / len(shown),
        "cases": float(len({r.case for r in shown})),
        "lesions": float(len({(r.case, lesion) for r in shown for lesion in r.lesions})),
        **{f"lesion_{name}": n / max(sum(counts), 1) for name, n in zip(names, counts, strict=True)},
    }
