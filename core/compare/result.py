"""The comparison itself: the differences of all pairs of runs, on all cases and by stratum."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.compare import metrics as of_metrics
from core.compare.evaluation import Evaluation
from core.compare.groups import Group, groups
from core.compare.lesions import Found, count_found
from core.compare.metrics import Metric
from core.compare.notes import notes
from core.compare.strata import TUMOUR_FREE, Stratum, strata
from core.measure.statistics import (
    RESAMPLES,
    Interval,
    Ratio,
    detectable,
    difference_interval,
    holm,
    paired_permutation,
    wilcoxon_pratt,
)


@dataclass(frozen=True)
class Difference:
    """One metric of two runs on the same cases; `b` less `a`.

    Attributes:
        metric: which.
        a: place of the first run.
        b: place of the second.
        kind: of the stratum; "all" for the headline.
        level: of the stratum.
        value_a: on the cases that count for both.
        value_b: on the same.
        interval: of the difference.
        cases: that count.
        patients: that count.
        only_a: cases left out because b has no number there.
        only_b: the other way round.
        moving: patients whose figures differ at all.
        p: of the paired permutation test; strata have none.
        holm: p adjusted for all metrics and pairs.
        wilcoxon: p of the signed-rank test, descriptive.
        sd: of a's and b's figures over patients, pooled; None for pooled ratios.
        apart_unpaired: the smallest difference that could be told apart if other patients had been in each group.
        apart_paired: the smallest that could be told apart with the same patients in both.
    """

    metric: Metric
    a: int
    b: int
    kind: str
    level: str
    value_a: float | None
    value_b: float | None
    interval: Interval
    cases: int
    patients: int
    only_a: int = 0
    only_b: int = 0
    moving: int = 0
    p: float | None = None
    holm: float | None = None
    wilcoxon: float | None = None
    sd: float | None = None
    apart_unpaired: float | None = None
    apart_paired: float | None = None

    @property
    def difference(self) -> float | None:
        """B less A."""
        return None if self.value_a is None or self.value_b is None else self.value_b - self.value_a

    @property
    def least_p(self) -> float:
        """The smallest p that the test could have given with so many patients that differ."""
        return max(2.0 ** (1 - self.moving), 1 / (RESAMPLES + 1)) if self.moving else 1.0


@dataclass(frozen=True)
class Comparison:
    """All of it.

    Attributes:
        evaluations: what is compared, in the user's order.
        metrics: by what.
        declared: whether these are the project's predeclared metrics.
        edges: of the lesions' sizes, mm.
        threshold: when a lesion is found, in the tables of lesions.
        values: by metric and run, each over the cases where it alone has a number.
        differences: all pairs and metrics on all cases.
        by_stratum: the same on parts.
        found: lesions by pair and size.
        groups: runs of one method.
        notes: what a reader must know before the figures.
    """

    evaluations: Sequence[Evaluation]
    metrics: Sequence[Metric]
    declared: bool
    edges: tuple[float, ...]
    threshold: str
    values: Sequence[Sequence[float | None]]
    differences: Sequence[Difference]
    by_stratum: Sequence[Difference]
    found: Sequence[Found]
    groups: Sequence[Group]
    notes: Sequence[str]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Places of the runs, the earlier first."""
        return list(itertools.combinations(range(len(self.evaluations)), 2))

    @property
    def phantom(self) -> bool:
        """Whether any figure is of synthetic scans."""
        return any(bool(evaluation.summary.get("phantom")) for evaluation in self.evaluations)


def compare(evaluations: Sequence[Evaluation], names: Sequence[str] | None = None) -> Comparison:
    """Compare evaluations of the same cases by these metrics; None: those that the runs declare.

    Raises:
        UserError: for an unknown metric, or one that an evaluation does not have.
    """
    edges = of_metrics.edges_mm(evaluations[0])
    declared = of_metrics.declared(evaluations) if names is None else None
    metrics = of_metrics.parse(names or declared or (), edges)
    for metric, evaluation in itertools.product(metrics, evaluations):
        of_metrics.check(metric, evaluation)
    pairs = list(itertools.combinations(range(len(evaluations)), 2))
    parts = [Stratum("all", "all cases", np.ones(len(evaluations[0].cases), bool)), *strata(evaluations)]
    differences: list[Difference] = []
    by_stratum: list[Difference] = []
    values = []
    for metric in metrics:
        whole = [of_metrics.ratio(metric, evaluation, None, edges) for evaluation in evaluations]
        values.append([one.value for one in whole])
        sizes: list[tuple[str, list[Ratio]]] = []
        if metric.pooled and metric.column != "small_recall":
            for level, size in of_metrics.bins(edges).items():
                sizes.append((level, [of_metrics.ratio(metric, e, size, edges) for e in evaluations]))
        for a, b in pairs:
            for part in parts:
                if metric.pooled and part.level == TUMOUR_FREE:
                    continue  # nothing to find there: recall has no denominator, F1 is 0 however many false positives
                row = _difference(metric, evaluations[0], (a, b), (whole[a], whole[b]), part)
                (differences if part.kind == "all" else by_stratum).append(row)
            for level, ratios in sizes:
                part = dataclasses.replace(parts[0], kind="lesion size", level=level)
                by_stratum.append(_difference(metric, evaluations[0], (a, b), (ratios[a], ratios[b]), part))
    adjusted = holm([row.p for row in differences])
    differences = [dataclasses.replace(row, holm=p) for row, p in zip(differences, adjusted, strict=True)]
    threshold = next((metric.threshold for metric in metrics if metric.threshold is not None), "iou_0.1")
    return Comparison(
        evaluations=evaluations,
        metrics=metrics,
        declared=declared is not None,
        edges=edges,
        threshold=threshold,
        values=values,
        differences=differences,
        by_stratum=[row for row in by_stratum if row.cases],
        found=list(count_found(evaluations, pairs, threshold, edges)),
        groups=groups(evaluations),
        notes=notes(evaluations),
    )


def _difference(
    metric: Metric, of: Evaluation, pair: tuple[int, int], sides: tuple[Ratio, Ratio], part: Stratum
) -> Difference:
    defined = [side.denominator > 0 for side in sides]
    # A pooled ratio takes a case that counts on one side alone (a false positive in a case without lesions).
    counts = part.cases & ((defined[0] | defined[1]) if metric.pooled else (defined[0] & defined[1]))
    first, second = (Ratio(side.numerator[counts], side.denominator[counts]) for side in sides)
    patients = [patient for patient, kept in zip(of.patients, counts, strict=True) if kept]
    row = Difference(
        metric=metric,
        a=pair[0],
        b=pair[1],
        kind=part.kind,
        level=part.level,
        value_a=first.value,
        value_b=second.value,
        interval=difference_interval(second, first, patients),
        cases=int(counts.sum()),
        patients=len(set(patients)),
        only_a=0 if metric.pooled else int((part.cases & defined[0] & ~defined[1]).sum()),
        only_b=0 if metric.pooled else int((part.cases & defined[1] & ~defined[0]).sum()),
    )
    if part.kind != "all":
        return row
    with np.errstate(invalid="ignore", divide="ignore"):
        per_case = [side.numerator / side.denominator for side in (first, second)]
    gaps = per_case[1] - per_case[0]
    means = [_by_patient(numbers, patients) for numbers in (*per_case, gaps)]
    changed = [_by_patient(y - x, patients) != 0 for x, y in zip(first, second, strict=True)]
    spread: dict[str, Any] = {}
    if not metric.pooled and len(means[0]) > 1:
        sd = float(np.sqrt((means[0].var(ddof=1) + means[1].var(ddof=1)) / 2))
        n = len(means[0])
        spread = {
            "sd": sd,
            "apart_unpaired": detectable(sd, n, paired=False),
            "apart_paired": detectable(float(means[2].std(ddof=1)), n, paired=True),
        }
    return dataclasses.replace(
        row,
        moving=int(np.count_nonzero(changed[0] | changed[1])),
        p=paired_permutation(second, first, patients),
        wilcoxon=wilcoxon_pratt(gaps, patients),
        **spread,
    )


def _by_patient(numbers: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """Means over each patient's cases, in one order."""
    names, place = np.unique(np.asarray(patients, str), return_inverse=True)
    return np.bincount(place, numbers, len(names)) / np.maximum(np.bincount(place, minlength=len(names)), 1)
