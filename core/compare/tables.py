"""Rows of a comparison: differences, cases side by side, lesions side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.compare import metrics as of_metrics
from core.compare.lesions import lesions
from core.compare.result import Comparison, Difference
from core.compare.strata import burden, lesion_counts, slice_thickness
from core.contracts import Rows


def difference_row(comparison: Comparison, row: Difference) -> dict[str, Any]:
    """One row of ``comparison.csv``."""
    return {
        "metric": row.metric.name,
        "stratum": row.kind,
        "level": row.level,
        "a": comparison.evaluations[row.a].name,
        "b": comparison.evaluations[row.b].name,
        "value_a": row.value_a,
        "value_b": row.value_b,
        "difference": row.difference,
        "ci95_low": row.interval.low,
        "ci95_high": row.interval.high,
        "ci_method": row.interval.method,
        "ci_why": row.interval.why or None,
        "p": row.p,
        "p_holm": row.holm,
        "p_wilcoxon": row.wilcoxon,
        "cases": row.cases,
        "patients": row.patients,
        "patients_that_differ": row.moving if row.kind == "all" else None,
        "left_out_only_a": row.only_a,
        "left_out_only_b": row.only_b,
        "sd": row.sd,
        "apart_unpaired": row.apart_unpaired,
        "apart_paired": row.apart_paired,
    }


def case_rows(comparison: Comparison) -> Rows:
    """One row a case, a column for each metric and run."""
    first = comparison.evaluations[0]
    known = {
        "tumour_burden": burden(first),
        "slice_thickness_mm": slice_thickness(comparison.evaluations),
        "lesions_ref": lesion_counts(first),
    }
    columns: dict[str, np.ndarray] = {}
    for metric in comparison.metrics:
        for evaluation in comparison.evaluations:
            found = of_metrics.ratio(metric, evaluation, None, comparison.edges)
            with np.errstate(invalid="ignore", divide="ignore"):
                columns[f"{metric.name} ({evaluation.name})"] = found.numerator / found.denominator
    return [
        {
            "case": case,
            "patient": patient,
            **{name: _plain(values[i]) for name, values in (known | columns).items()},
        }
        for i, (case, patient) in enumerate(zip(first.cases, first.patients, strict=True))
    ]


def lesion_rows(comparison: Comparison) -> Rows:
    """One row a lesion of the reference, found (0/1) and Dice for each run."""
    out = []
    for row in lesions(comparison.evaluations, comparison.threshold):
        plain = {name: value for name, value in row.items() if name not in ("found", "dice")}
        for evaluation, found, dice in zip(comparison.evaluations, row["found"], row["dice"], strict=True):
            plain[f"found ({evaluation.name})"] = int(found)
            plain[f"dice ({evaluation.name})"] = dice
        out.append(plain)
    return out


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
