"""The score that chooses models: half tumour Dice per case, half lesion F1, on whole volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.contracts import Rows
from core.measure.matching import match_at, overlaps
from core.measure.overlap import dice
from core.measure.pair import CasePair

SCORE = "score"
"""Its name: ``val/score`` in training."""
NEEDS = "it needs a validation case with a tumour in its reference; use a split whose val part has one"
MIN_IOU = 0.1
"""Matched lesions overlap by more than this."""


@dataclass(frozen=True)
class CaseScore:
    """What the score needs of one case: a few numbers.

    Attributes:
        dice: of the tumour; 1 where neither side has one, 0 where one side alone has (policy ``lits``).
        matched: lesions of the reference that a predicted lesion matches, one to one, at an IoU above 0.1.
        pred: predicted lesions.
        ref: lesions of the reference.
    """

    dice: float
    matched: int
    pred: int
    ref: int


def measure(pair: CasePair) -> CaseScore:
    """Tumour Dice and lesion counts (26 neighbours, lesions of every size) of one case."""
    ref, pred = pair.lesions("ref"), pair.lesions("pred")
    value = dice(pair.counts("tumour"), "lits")
    assert value is not None  # lits has a number for every case
    return CaseScore(value, len(match_at(overlaps(ref, pred), MIN_IOU)), pred.count, ref.count)


def halves(cases: Sequence[CaseScore]) -> tuple[float, float] | None:
    """Tumour Dice (mean over cases) and lesion F1 (2 TP / (predicted + reference), pooled over cases).

    None where no case has a lesion in its reference: the Dice would then count how often nothing was predicted, and F1
    is 0 or does not exist.
    """
    ref = sum(case.ref for case in cases)
    if ref == 0:
        return None
    found, pred = sum(case.matched for case in cases), sum(case.pred for case in cases)
    return sum(case.dice for case in cases) / len(cases), 2 * found / (pred + ref)


def score(cases: Sequence[CaseScore]) -> float | None:
    """The mean of both halves, 0 to 1; None where no case has a lesion in its reference."""
    found = halves(cases)
    return None if found is None else (found[0] + found[1]) / 2


class ScoreMetric:
    """The score as a metric that every validation has, beside those of the experiment."""

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """One row a case in a table of its own."""
        return {SCORE: [{"case": pair.case, **asdict(measure(pair))}]}

    def summarise(self, tables: Mapping[str, Rows]) -> dict[str, Any]:
        """``score``, where it is defined."""
        cases = [CaseScore(row["dice"], row["matched"], row["pred"], row["ref"]) for row in tables.get(SCORE, [])]
        value = score(cases)
        return {} if value is None else {SCORE: value}
