"""The report's first tables: what was scored, how well, with which intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.report.cells import Cell, Table, mean, median, number, span, with_interval
from core.report.detection import THRESHOLDS
from core.report.folder import Evaluation

LEAST_PATIENTS = 10
_STRUCTURES = ("tumour", "liver", "parenchyma")
_FIGURES: tuple[tuple[str, str, int, str], ...] = (
    ("iou", "IoU", 3, "intersection over union"),
    ("nsd_1mm", "NSD at 1 mm", 3, "share of both surfaces that lies within the tolerance of the other"),
    ("nsd_2mm", "NSD at 2 mm", 3, "share of both surfaces that lies within the tolerance of the other"),
    ("nsd_3mm", "NSD at 3 mm", 3, "share of both surfaces that lies within the tolerance of the other"),
    ("hd95_mm", "HD95, mm", 2, "the larger of the two directed 95th percentiles of surface distances"),
    ("assd_mm", "ASSD, mm", 2, "mean distance of both surfaces"),
    ("voe", "VOE", 3, "1 - IoU"),
    ("rvd", "RVD", 3, "(prediction - reference) / reference, signed"),
)
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
                middle = Cell(number(dice.get("median_tumour_bearing")))
                table.add("Dice, cases that have one", own, middle, "", number(dice.get("n_tumour_bearing")), "")
        for name, label, digits, about in _FIGURES:
            one = figures.get(name) if isinstance(figures, Mapping) else None
            if isinstance(one, Mapping) and "mean" in one:
                pooled = with_interval(one, "global", digits) if "global" in one else Cell("")
                table.add(label, mean(one, digits), median(one, digits), pooled, *_counts(one))
                table.help[label] = about
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
    least = 1.96 * spread * (2 / len(scores)) ** 0.5
    text = f"With {len(scores)} cases and a standard deviation of {spread:.2f} of the tumour Dice, "
    if least <= 0.01:
        return f"{text}two runs that differ by {least:.3f} or more could be told apart unpaired."
    return (
        f"{text}a difference of one point of Dice (0.01) cannot be told apart unpaired: it would have to be about "
        f"{least:.2f}. Compare runs case by case with tools/compare.py."
    )


def notes(e: Evaluation) -> list[str]:
    """What belongs to the scores: what empty masks score, and what difference could be seen."""
    dice = e.of("tumour", "dice") or {}
    out = []
    if dice.get("empty"):
        out.append(
            f"Empty masks: policy '{dice['empty']}'. It touched the tumour Dice of {_cases(dice.get('both_empty'))} "
            f"with a tumour on neither side, and of {_cases(dice.get('one_empty'))} with one on one side only."
        )
    apart = told_apart(e)
    out += [apart] if apart else []
    surface, burden = e.of("surface"), e.of("tumour_burden")
    if isinstance(surface, Mapping):
        out.append(
            f"Surfaces: {surface.get('definition')}. On whole tumour masks, distances are ruled by lesions "
            "that are far apart; those of matched lesions are below."
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
        out.append(f"Tumour burden (tumour / liver): RMSE {rmse.main}{between}, greatest absolute difference {most}.")
    return out


def _cases(count: Any) -> str:
    return f"{count or 0} case{'s' * (count != 1)}"


def _counts(figures: Mapping[str, Any]) -> tuple[str, str]:
    left = figures.get("left_out")
    return number(figures.get("n")), str(left) if left else ""


def _bearing(dice: Mapping[str, Any]) -> Any:
    return dice.get("ci95_tumour_bearing") or dice.get("mean_tumour_bearing_ci95")


def _under(ends: Any, n: Any, unit: str) -> str:
    return ", ".join(part for part in (span(ends), f"{n} {unit}" if n is not None else "") if part)
