"""The report's first tables: what was scored, how well, with which intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.measure.statistics import detectable
from core.report.cells import Cell, Table, mean, median, number, span, with_interval
from core.report.detection import THRESHOLDS
from core.report.folder import Evaluation

LEAST_PATIENTS = 10
_STRUCTURES = ("tumour", "liver", "parenchyma")
_FIGURES: tuple[tuple[str, str, int, str], ...] = (
    ("iou", "IoU", 3, "intersection over union"),
    ("voe", "VOE", 3, "1 - IoU"),
    ("rvd", "RVD", 3, "(prediction - reference) / reference, signed"),
    ("rvd_abs", "|RVD|", 3, "RVD without its sign"),
)
_DISTANCES: tuple[tuple[str, str, int, str], ...] = (
    ("hd95_mm", "HD95, mm", 2, "the larger of the two directed 95th percentiles of surface distances"),
    ("assd_mm", "ASSD, mm", 2, "mean distance of both surfaces"),
)
_NSD = re.compile(r"nsd_([\d.]+)mm")
_COLUMNS = (
    ("", ""),
    ("mean", "over cases, with its 95 % bootstrap interval over patients"),
    ("median", "with the quartiles"),
    ("global", "sums over all cases, with its 95 % interval"),
    ("n", "cases with a number"),
    ("left out", "cases where it is not a number"),
)


def tiles(e: Evaluation) -> list[tuple[str, str, str]]:
    """Number, what it is, its interval and n: the few that are looked at first."""
    out = []
    dice, liver = e.of("tumour", "dice"), e.of("liver", "dice")
    if isinstance(dice, Mapping):
        out.append(
            (number(dice.get("mean")), "tumour Dice, all cases", _under(dice.get("ci95"), dice.get("n"), "cases"))
        )
        out.append(
            (
                number(dice.get("mean_tumour_bearing")),
                "tumour Dice, cases that have one",
                _under(_bearing(dice), dice.get("n_tumour_bearing"), "cases"),
            )
        )
    if isinstance(liver, Mapping):
        out.append((number(liver.get("mean")), "liver Dice", _under(liver.get("ci95"), liver.get("n"), "cases")))
    for name, about in THRESHOLDS[:2]:
        found = e.of("lesions", name)
        if isinstance(found, Mapping):
            total = (found.get("tp") or 0) + (found.get("fn") or 0)
            key, label = ("recall", "lesions found") if name == "any" else ("f1", "lesion F1")
            under = _under(found.get(f"{key}_ci95"), total, "lesions")
            out.append((number(found.get(key)), f"{label}, {about}", under))
    return out


def headline(e: Evaluation) -> list[Table]:
    """The scores of tumour and liver, and the macro figures."""
    out = []
    for structure in _STRUCTURES:
        figures = e.of(structure)
        table = Table(_COLUMNS, caption=structure.capitalize())
        dice = figures.get("dice") if isinstance(figures, Mapping) else None
        if isinstance(dice, Mapping):
            label = "Dice, all cases" if structure == "tumour" else "Dice"
            table.add(label, mean(dice), median(dice), with_interval(dice, "global"), *_counts(dice))
            if structure == "tumour" and "mean_tumour_bearing" in dice:
                own = Cell(number(dice.get("mean_tumour_bearing")), span(_bearing(dice)))
                quartiles = (dice.get("q25_tumour_bearing"), dice.get("q75_tumour_bearing"))
                middle = Cell(number(dice.get("median_tumour_bearing")), span(quartiles))
                table.add("Dice, cases that have one", own, middle, "", number(dice.get("n_tumour_bearing")), "")
        surfaces = [*_tolerances(figures), *_DISTANCES]
        _add(table, figures, _FIGURES)
        pairs = e.of("lesions", "boundary") if structure == "tumour" else None
        # First: far false positives rule the distances of the whole mask.
        _add(table, pairs, [(name, f"{label}, matched lesions", *more) for name, label, *more in surfaces], " lesions")
        whole = ", whole mask" if isinstance(pairs, Mapping) else ""
        _add(table, figures, [(name, f"{label}{whole}", *more) for name, label, *more in surfaces])
        out.append(table)
    macro = Table(_COLUMNS, caption="Macro: classes within a case first, then cases")
    for name, label in (
        ("dice_macro", "Dice of background, parenchyma, tumour"),
        ("dice_macro_foreground", "Dice of parenchyma, tumour"),
    ):
        if isinstance(e.of(name), Mapping):
            macro.add(label, mean(e.of(name)), median(e.of(name)), "", *_counts(e.of(name)))
    return [table for table in (*out, macro) if table.rows]


def fold_table(e: Evaluation) -> Table | None:
    """How figures differ between the folds of a cross-validation."""
    spread, runs = e.of("folds", "spread"), e.of("folds", "runs")
    if not isinstance(spread, Mapping) or not spread:
        return None
    names = [(f"fold {i}", str(run)) for i, run in enumerate(runs or [], 1)]
    table = Table((("", ""), ("mean", "of the folds"), ("SD", "between the folds"), *names))
    for name, figures in spread.items():
        values = [number(value) for value in figures.get("values") or []]
        table.add(
            name.replace("_", " ").replace(".", ", "), number(figures.get("mean")), number(figures.get("sd")), *values
        )
    return table


def told_apart(e: Evaluation) -> str:
    """What difference of two runs these cases could show, unpaired."""
    scores = [row["dice"] for row in e.structure("tumour") if row.get("dice") is not None]
    if len(scores) < 2:
        return ""
    spread = float(np.std(scores, ddof=1))
    least = detectable(spread, len(scores), paired=False)
    text = f"With {len(scores)} cases and a standard deviation of {spread:.2f} of the tumour Dice, "
    if least <= 0.01:
        return f"{text}two runs could be told apart unpaired from {least:.3f} on (80 % power at 5 %)."
    return (
        f"{text}a difference of one point of Dice (0.01) cannot be told apart unpaired: it would have to be about "
        f"{least:.2f} (80 % power at 5 %). Compare runs case by case with tools/compare.py."
    )


def notes(e: Evaluation) -> list[str]:
    """What belongs to the scores: what empty masks score, and what difference could be seen."""
    dice = e.of("tumour", "dice") or {}
    out = []
    if dice.get("missing"):
        out.append(f"{_cases(dice['missing']).capitalize()} without a prediction: overlap 0, all lesions missed.")
    if dice.get("empty"):
        out.append(
            f"Empty masks: policy '{dice['empty']}'. It touched the tumour Dice of {_cases(dice.get('both_empty'))} "
            f"with a tumour on neither side, and of {_cases(dice.get('one_empty'))} with one on one side only."
        )
    apart = told_apart(e)
    out += [apart] if apart else []
    surface, burden = e.of("surface"), e.of("tumour_burden")
    if isinstance(surface, Mapping):
        policy = f", policy '{surface['empty']}' for empty masks" if surface.get("empty") else ""
        out.append(
            f"Surfaces: {surface.get('definition')}{policy}. On whole tumour masks, distances are ruled by lesions "
            "that are far apart: see those of matched lesions."
        )
        flagged = [
            f"{count} case{'s' * (count != 1)} at {tolerance} mm"
            for tolerance, count in (surface.get("cases_with_slices_above_tolerance") or {}).items()
            if count
        ]
        if flagged:
            out.append(f"NSD is coarse where slices are farther apart than its tolerance: {', '.join(flagged)}.")
    if isinstance(burden, Mapping):
        rmse = with_interval(burden, "rmse")
        between = f" ({rmse.soft})" if rmse.soft else ""
        most = number(burden.get("max_abs"))
        left = (burden.get("difference") or {}).get("left_out")
        without = f"; {_cases(left)} without a liver left out" if left else ""
        out.append(
            f"Tumour burden (tumour / liver): RMSE {rmse.main}{between}, greatest absolute difference {most}{without}."
        )
    return out


def _tolerances(figures: Any) -> list[tuple[str, str, int, str]]:
    """The NSD at each tolerance that was measured."""
    found = {name: match[1] for name in figures or {} if (match := _NSD.fullmatch(name))}
    about = "share of both surfaces that lies within the tolerance of the other"
    return [(name, f"NSD at {mm} mm", 3, about) for name, mm in sorted(found.items(), key=lambda one: float(one[1]))]


def _add(table: Table, figures: Any, rows: Sequence[tuple[Any, ...]], unit: str = "") -> None:
    """A row for each figure that was measured."""
    for name, label, digits, about in rows:
        one = figures.get(name) if isinstance(figures, Mapping) else None
        if isinstance(one, Mapping) and "mean" in one:
            pooled = with_interval(one, "global", digits) if "global" in one else Cell("")
            count, left = _counts(one)
            table.add(label, mean(one, digits), median(one, digits), pooled, f"{count}{unit}", "" if unit else left)
            table.help[label] = about


def _cases(count: Any) -> str:
    return f"{count or 0} case{'s' * (count != 1)}"


def _counts(figures: Mapping[str, Any]) -> tuple[str, str]:
    left = figures.get("left_out")
    return number(figures.get("n")), str(left) if left else ""


def _bearing(dice: Mapping[str, Any]) -> Any:
    return dice.get("ci95_tumour_bearing") or dice.get("mean_tumour_bearing_ci95")


def _under(ends: Any, n: Any, unit: str) -> str:
    return ", ".join(part for part in (span(ends), f"{n} {unit}" if n is not None else "") if part)
