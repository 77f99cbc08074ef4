"""What goes with a lesion's being found: a penalised logistic model with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.analysis import firth
from core.analysis.strata import found, patient
from core.measure.overlap import values
from core.measure.statistics import LEAST_PATIENTS

EVENTS_PER_TERM = 10
RESAMPLES = 1000
_BLOCK = 250  # resamples fitted at once


@dataclass(frozen=True)
class Term:
    """A term of the model.

    Attributes:
        name: as in ``summary.json``.
        column: of table ``lesions``.
        unit: what the odds ratio is for, to be read after "a".
        step: so much of the column's (transformed) number is one unit.
        log2: the column is taken as a logarithm to base 2.
        magnitude: its sign is dropped.
    """

    name: str
    column: str
    unit: str
    step: float = 1.0
    log2: bool = False
    magnitude: bool = False

    def of(self, lesions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """The term in its unit ``[N]``, NaN where it is not known."""
        numbers = values(lesions, self.column)
        numbers = np.abs(numbers) if self.magnitude else numbers
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers = (np.log2(numbers) if self.log2 else numbers) / self.step
        return np.where(np.isfinite(numbers), numbers, np.nan)


TERMS = (
    Term("diameter", "diameter_mm", "doubling of the diameter", log2=True),
    Term("contrast", "contrast_hu", "10 HU step of contrast, whatever its sign", step=10, magnitude=True),
    Term("sharpness", "border_hu_per_mm", "5 HU/mm step of the border's sharpness", step=5),
    Term("slice_thickness", "slice_thickness_mm", "1 mm step of slice thickness", step=1),
    Term("border_distance", "border_distance_mm", "10 mm step away from the liver's border", step=10),
)
"""In the order in which they enter, which was chosen before any data were seen."""


def detection_model(lesions: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Odds ratios of a lesion's being found, of the first terms that the events allow.

    Firth's logistic regression on the lesions that have all terms used. Events are the rarer of found and missed;
    each term takes `EVENTS_PER_TERM`. A term that no lesion has, that is the same in all lesions, or that others
    already tell, is passed over and listed in ``left_out``.

    Lesions of one patient resemble each other, so intervals (percentiles) and p come from `RESAMPLES` resamples of
    patients, as all intervals here do: a sandwich estimate would be too narrow for the few dozen patients of a test
    split, and normal limits do not fit coefficients near separation. Below 10 patients: no model.

    Returns:
        ``available``, ``why``, ``events``, ``patients``, ``lesions``, ``terms`` (``name``, ``unit``, ``odds_ratio``,
        ``ci95``, ``p``), ``left_out``, ``method``, ``resamples``.
    """
    hits = np.array([found(row) for row in lesions], np.float64)
    owner = np.array([patient(row) for row in lesions], object)
    events = _events(hits)
    out: dict[str, Any] = {
        "available": False,
        "why": None,
        "events": events,
        "patients": len(set(owner)),
        "lesions": len(lesions),
        "terms": [],
        "left_out": [],
        "method": "Firth's penalised logistic regression; percentile intervals over patients",
        "resamples": 0,
    }
    chosen, design, rows, out["left_out"] = _choose(lesions, hits)
    if not chosen:
        passed_over = "; ".join(f"{term['name']}: {term['why']}" for term in out["left_out"])
        few = f"{events} events, the rarer of found and missed lesions: a term takes {EVENTS_PER_TERM}"
        out["why"] = few if events < EVENTS_PER_TERM else f"no term can be used: {passed_over}"
        return out
    owner, hits = owner[rows], hits[rows]
    out.update(events=_events(hits), patients=len(set(owner)), lesions=len(hits))
    if out["patients"] < LEAST_PATIENTS:
        out["why"] = f"{out['patients']} patients: too few for intervals, which take {LEAST_PATIENTS}"
        return out
    # Sorted, so that the resamples do not depend on the order of cases.
    order = np.lexsort((*design.T, hits, owner.astype(str)))
    design, hits, owner = design[order], hits[order], owner[order]
    mean, sd = design.mean(axis=0), design.std(axis=0)
    scaled = np.column_stack([np.ones(len(design)), (design - mean) / sd])
    estimate, converged = firth.fit(scaled, hits)
    if not converged[0]:
        out["why"] = "the fit did not converge"
        return out
    drawn = _bootstrap(scaled, hits, owner, seed)[:, 1:] / sd
    if len(drawn) < RESAMPLES / 2:
        out["why"] = "a term differs in so few patients that most resamples do not have it"
        return out
    slopes = estimate[0, 1:] / sd
    for term, slope, column in zip(chosen, slopes, drawn.T, strict=True):
        low, high = (_exp(float(q)) for q in np.quantile(column, (0.025, 0.975)))
        crossed = min(int((column <= 0).sum()), int((column >= 0).sum()))
        out["terms"].append(
            {
                "name": term.name,
                "unit": term.unit,
                "odds_ratio": _exp(float(slope)),
                "ci95": [low, high],
                "p": min(1.0, 2 * (1 + crossed) / (1 + len(column))),
            }
        )
    out.update(available=True, resamples=len(drawn))
    return out


def _choose(
    lesions: Sequence[Mapping[str, Any]], hits: np.ndarray
) -> tuple[list[Term], np.ndarray, np.ndarray, list[dict[str, str]]]:
    """Terms, their numbers ``[n, terms]``, which lesions these are, and the terms left out with the reason."""
    chosen: list[Term] = []
    columns: list[np.ndarray] = []
    rows = np.ones(len(lesions), bool)
    left_out: list[dict[str, str]] = []
    for term in TERMS:
        numbers = term.of(lesions)
        with_it = rows & np.isfinite(numbers)
        events, needed = _events(hits[with_it]), EVENTS_PER_TERM * (len(chosen) + 1)
        design = np.column_stack([np.ones(int(with_it.sum())), *(c[with_it] for c in (*columns, numbers))])
        if not np.isfinite(numbers).any():
            left_out.append({"name": term.name, "why": "not known for any lesion"})
        elif events < needed:
            left_out.append({"name": term.name, "why": f"{events} events, {needed} needed"})
        elif np.linalg.matrix_rank(design / np.maximum(np.abs(design).max(axis=0), 1e-12), tol=1e-6) < design.shape[1]:
            left_out.append({"name": term.name, "why": "the same in all lesions, or told by the terms before it"})
        else:
            chosen, columns, rows = [*chosen, term], [*columns, numbers], with_it
    design = np.column_stack([c[rows] for c in columns]) if columns else np.zeros((0, 0))
    return chosen, design, rows, left_out


def _bootstrap(design: np.ndarray, hits: np.ndarray, owner: np.ndarray, seed: int) -> np.ndarray:
    """Coefficients of resamples of patients; those whose fit is singular are left out."""
    names, place = np.unique(owner.astype(str), return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    kept = []
    for first in range(0, RESAMPLES, _BLOCK):
        fitted, converged = firth.fit(design, hits, counts[first : first + _BLOCK, place])
        kept.append(fitted[converged])
    return np.concatenate(kept)


def _events(hits: np.ndarray) -> int:
    return int(min(hits.sum(), len(hits) - hits.sum()))


def _exp(value: float) -> float:
    return math.exp(max(-700.0, min(700.0, value)))
