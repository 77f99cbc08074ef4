"""The reference's lesions one by one: which run finds which."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.compare import metrics as of_metrics
from core.compare.evaluation import Evaluation
from core.compare.metrics import Bin

ALL_SIZES = "all sizes"


@dataclass(frozen=True)
class Found:
    """How many reference lesions of a size both runs find, one alone, or none."""

    a: int
    b: int
    level: str
    both: int
    only_a: int
    only_b: int
    neither: int


def count_found(
    evaluations: Sequence[Evaluation], pairs: Sequence[tuple[int, int]], threshold: str, edges: Sequence[float]
) -> Iterator[Found]:
    """Of all pairs, over all sizes and by size; nothing without ``lesions.csv``."""
    if any(evaluation.lesions is None for evaluation in evaluations):
        return
    rows = lesions(evaluations, threshold)
    levels: dict[str, Bin | None] = {ALL_SIZES: None, **of_metrics.bins(edges)}
    for (a, b), (level, size) in itertools.product(pairs, levels.items()):
        inside = [row["found"] for row in rows if of_metrics.in_bin(row["diameter_mm"], size)]
        counts = [sum((f[a], f[b]) == state for f in inside) for state in itertools.product((True, False), repeat=2)]
        yield Found(a, b, level, *counts)


def lesions(evaluations: Sequence[Evaluation], threshold: str) -> list[dict[str, Any]]:
    """The reference's lesions that count, each with what every run made of it; nothing without ``lesions.csv``."""
    out: list[dict[str, Any]] = []
    if any(evaluation.lesions is None for evaluation in evaluations):
        return out
    for case, patient in zip(evaluations[0].cases, evaluations[0].patients, strict=True):
        tables = [{row["lesion"]: row for row in e.by_case[case] if row["side"] == "ref"} for e in evaluations]
        for lesion in tables[0]:
            mine = [table[lesion] for table in tables]
            if any(own.get("ignored") for own in mine):
                continue
            known = ("volume_ml", "diameter_mm", "z", "y", "x", "slices", "contrast_hu", "features")
            first = {name: next((r[name] for r in mine if r.get(name) is not None), None) for name in known}
            out.append(
                {
                    **{"case": case, "patient": patient, "lesion": lesion, **first},
                    "found": [of_metrics.is_found(own, threshold) for own in mine],
                    "dice": [own.get("dice") or 0.0 for own in mine],
                }
            )
    return out
