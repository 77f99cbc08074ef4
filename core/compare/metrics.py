"""What evaluations are compared by: each metric as a ratio of sums over cases, read from the tables."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from core.compare.evaluation import Evaluation
from core.errors import UserError
from core.measure.statistics import Ratio

DEFAULT = ("tumour/dice", "lesions/iou_0.1/f1", "lesions/iou_0.1/small_recall", "liver/dice")
"""Tumour Dice, lesion F1, recall of small lesions, liver Dice: where no run declares others (``compare:``)."""
EDGES_MM = (10.0, 20.0)
THRESHOLDS = {"any": "any overlap", "iou_0.1": "IoU > 0.1", "iou_0.5": "IoU > 0.5"}
_MATCHED = {"any": "matched", "iou_0.1": "matched_iou_0.1", "iou_0.5": "matched_iou_0.5"}
_OF_LESIONS = {"f1": "F1", "recall": "recall", "precision": "precision", "small_recall": "recall below {:g} mm"}
_COLUMNS = {
    "dice": "Dice",
    "iou": "IoU",
    "voe": "VOE",
    "rvd": "RVD",
    "nsd_1mm": "NSD at 1 mm",
    "nsd_2mm": "NSD at 2 mm",
}
_COLUMNS |= {"nsd_3mm": "NSD at 3 mm", "assd_mm": "ASSD (mm)", "rmsd_mm": "RMSD (mm)", "hd_mm": "HD (mm)"}
_COLUMNS |= {"hd95_mm": "HD95 (mm)"}
_LOWER = frozenset(("voe", "assd_mm", "rmsd_mm", "hd_mm", "hd95_mm", "ece", "brier"))

Bin = tuple[float, float]


@dataclass(frozen=True)
class Metric:
    """One figure to compare by.

    Attributes:
        name: as on the command line and in the files.
        title: for readers.
        structure: "lesions", or a structure of ``cases.csv``.
        column: of ``cases.csv``; of lesions f1, recall, precision or small_recall.
        threshold: when a lesion is found.
    """

    name: str
    title: str
    structure: str
    column: str
    threshold: Literal["any", "iou_0.1", "iou_0.5"] | None = None

    @property
    def pooled(self) -> bool:
        """Whether it is a ratio of sums over lesions, else the mean of a figure per case."""
        return self.threshold is not None

    @property
    def lower_is_better(self) -> bool:
        """Whether less is better."""
        return self.column in _LOWER


def declared(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """What the runs' own ``compare:`` names; `DEFAULT` where no run says it.

    Raises:
        UserError: if the runs declare different ones.
    """
    found: dict[tuple[str, ...], str] = {}
    for evaluation in evaluations:
        own = tuple(str(v) for k, v in (evaluation.config or {}).items() if re.fullmatch(r"compare\[\d+\]", k))
        if own:
            found.setdefault(own, evaluation.name)
    if len(found) > 1:
        lines = [f"  {name}: {', '.join(own)}" for own, name in found.items()]
        raise UserError("\n".join(["the runs' compare: differ; choose with --metrics", *lines]))
    return next(iter(found), DEFAULT)


def parse(names: Sequence[str], edges: Sequence[float] = EDGES_MM) -> list[Metric]:
    """The metrics of these names.

    Raises:
        UserError: for an unknown name, a name given twice, or none.
    """
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--metrics: '{twice}' is there twice")
    if not names:
        raise UserError("--metrics: name one metric or more, e.g. tumour/dice")
    return [_parse(name, edges) for name in names]


def _parse(name: str, edges: Sequence[float]) -> Metric:
    lesions = re.fullmatch(r"lesions/(any|iou_0\.1|iou_0\.5)/(f1|recall|precision|small_recall)", name)
    if lesions:
        threshold: Any = lesions[1]
        what = _OF_LESIONS[lesions[2]].format(edges[0])
        return Metric(name, f"lesion {what} ({THRESHOLDS[threshold]})", "lesions", lesions[2], threshold)
    case = re.fullmatch(r"(liver|parenchyma|tumour)/(\w+)", name)
    if case:
        return Metric(name, f"{case[1]} {_COLUMNS.get(case[2], case[2])}", case[1], case[2])
    raise UserError(
        f"--metrics: '{name}' is no metric to compare by; write STRUCTURE/COLUMN for a column of cases.csv "
        f"(tumour/dice, liver/hd95_mm, ...) or lesions/THRESHOLD/FIGURE with any, iou_0.1 or iou_0.5 and f1, recall, "
        f"precision or small_recall"
    )


def check(metric: Metric, evaluation: Evaluation) -> None:
    """Raises UserError if the evaluation's tables do not have what the metric is made from."""
    remedy = "evaluate again with that metric, or choose others with --metrics"
    if metric.threshold is not None:
        if evaluation.lesions is None:
            raise UserError(f"{evaluation.folder}: no lesions.csv, so there is no '{metric.name}'; {remedy}")
        needed = ["lesion", "side", "diameter_mm", _MATCHED[metric.threshold]]
        missing = [name for name in needed if evaluation.lesions and name not in evaluation.lesions[0]]
        if missing:
            raise UserError(
                f"{evaluation.folder / 'lesions.csv'}: no column {', '.join(missing)}, so there is no "
                f"'{metric.name}'; {remedy}"
            )
    elif all(evaluation.rows.get((case, metric.structure), {}).get(metric.column) is None for case in evaluation.cases):
        known = any(
            metric.column in row for (_, structure), row in evaluation.rows.items() if structure == metric.structure
        )
        what = "no number in column" if known else "no column"
        raise UserError(
            f"{evaluation.folder / 'cases.csv'}: {what} '{metric.column}' for {metric.structure}, so there is no "
            f"'{metric.name}'; {remedy}"
        )


def ratio(metric: Metric, evaluation: Evaluation, size: Bin | None = None, edges: Sequence[float] = EDGES_MM) -> Ratio:
    """The metric's numerator and denominator per case.

    Args:
        metric: which.
        evaluation: whose.
        size: only lesions with a diameter in ``[low, high)`` mm: references by their own, false positives by theirs.
        edges: where small lesions end.
    """
    if metric.threshold is None:
        return Ratio.mean(np.array(evaluation.column(metric.structure, metric.column), np.float64))
    if metric.column == "small_recall":
        size = (0.0, edges[0]) if size is None else size
    found, missed, false = (
        np.array(side, np.float64)
        for side in zip(
            *(_count(evaluation.by_case[case], metric.threshold, size) for case in evaluation.cases), strict=True
        )
    )
    if metric.column == "f1":
        return Ratio.of(2 * found, 2 * found + missed + false)
    return Ratio.of(found, found + (false if metric.column == "precision" else missed))


def is_found(row: Mapping[str, Any], threshold: str) -> bool:
    """Whether a lesion has a partner at a threshold."""
    return row.get(_MATCHED[threshold]) is not None


def in_bin(diameter_mm: float | None, size: Bin | None) -> bool:
    """Whether a lesion is of a size; one without a diameter (spacing not trusted) is of no single one."""
    return size is None or (diameter_mm is not None and size[0] <= diameter_mm < size[1])


def edges_mm(evaluation: Evaluation) -> tuple[float, ...]:
    """The size bins' edges that the evaluation used, from the names of its bins; else `EDGES_MM`."""
    found: Any = evaluation.summary
    for key in ("lesions", "by_size", "any"):
        found = found.get(key) if isinstance(found, Mapping) else None
    lows = (re.match(r"\[([\d.]+),", str(name)) for name in found or ())
    edges = sorted({float(low[1]) for low in lows if low} - {0.0})
    return tuple(edges) or EDGES_MM


def bins(edges: Sequence[float]) -> dict[str, Bin]:
    """Sizes by their names."""
    return {level(low, high, " mm"): (low, high) for low, high in itertools.pairwise((0.0, *edges, math.inf))}


def level(low: float, high: float, unit: str) -> str:
    """What a bin is called, its lower edge included and its upper one not."""
    if math.isinf(high):
        return f"{low:g}{unit} and more"
    if not unit:  # whole numbers
        return f"{low:g}" if high == low + 1 else f"{low:g} to {high - 1:g}"
    return f"under {high:g}{unit}" if low <= 0 else f"{low:g} to {high:g}{unit}"


def _count(rows: Sequence[Mapping[str, Any]], threshold: str, size: Bin | None) -> tuple[int, int, int]:
    """Found and missed reference lesions and false positives of one case; ignored ones count nowhere."""
    found = missed = false = 0
    for row in rows:
        if row.get("ignored") or not in_bin(row.get("diameter_mm"), size):
            continue
        if row["side"] == "ref":
            found += is_found(row, threshold)
            missed += not is_found(row, threshold)
        else:
            false += not is_found(row, threshold)
    return found, missed, false
