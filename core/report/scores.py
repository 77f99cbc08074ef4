"""The report's first tables: what was scored, how well, with which intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.report.cells import Cell, Table, mean, median, number, span, with_interval
from core.report.folder import Evaluation

LEAST_PATIENTS = 10
_STRUCTURES = ("tumour", "liver")
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
_THRESHOLDS = (("any", "any overlap"), ("iou_0.1", "IoU > 0.1"), ("iou_0.5", "IoU > 0.5"))
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
    for name, about in _THRESHOLDS[:2]:
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


def lesion_table(e: Evaluation) -> Table | None:
    """Detection at three thresholds, and coverage."""
    if not isinstance(e.of("lesions"), Mapping):
        return None
    table = Table(_detection_columns("counts as found"))
    for name, label in _THRESHOLDS:
        _detection(table, label, e.of("lesions", name))
    cover = e.of("lesions", "coverage")
    if isinstance(cover, Mapping):
        found, missed = number(cover.get("found")), number(cover.get("missed"))
        table.add("10 % of it predicted", found, "", missed, with_interval(cover, "recall"), "", "")
    per_case, false = e.of("lesions", "per_case"), e.of("lesions", "false_positives_per_case")
    if isinstance(per_case, Mapping):
        rates = (mean(per_case.get(name)) for name in ("recall", "precision", "f1"))
        table.add("any overlap, mean over cases", "", mean(false, 2), "", *rates)
    notes = []
    for name, label in (
        ("merges", "predictions over several lesions"),
        ("splits", "lesions under several predictions"),
    ):
        if e.of("lesions", name) is not None:
            notes.append(f"{label}: {e.of('lesions', name)}")
    ignored, least = e.of("lesions", "ignored"), e.of("lesions", "min_lesion_ml")
    if least:
        notes.append(f"lesions below {least:g} ml on either side do not count: {ignored}")
    table.notes = notes
    return table


def quality_table(e: Evaluation) -> Table | None:
    """How well lesions are outlined: found ones, all, each in its own region, and their boundaries."""
    table = Table((("", ""), ("mean", "with its 95 % interval"), ("median", "with the quartiles"), ("n", "lesions")))
    for name, label in (
        ("dice_detected", "Dice of found lesions"),
        ("dice_with_misses", "Dice of all lesions, missed ones 0"),
        ("cc_dice", "CC-Dice: each lesion in its own region"),
    ):
        figures = e.of("lesions", name)
        if isinstance(figures, Mapping):
            table.add(label, mean(figures), median(figures), number(figures.get("n")))
    for name, figures in (e.of("lesions", "boundary") or {}).items():
        if isinstance(figures, Mapping):
            label, digits = _boundary(name), 2 if name.endswith("_mm") else 3
            table.add(
                f"{label}, matched lesions", mean(figures, digits), median(figures, digits), number(figures.get("n"))
            )
    pq = e.of("lesions", "pq")
    if isinstance(pq, Mapping):
        table.add("PQ at 0.5", with_interval(pq, "pq"), "", "")
        parts = f"SQ {number(pq.get('sq'))}, RQ {number(pq.get('rq'))}"
        table.notes.append(f"PQ is the product of {parts}: how well matched lesions overlap, and how many are matched.")
    return table if table.rows else None


def size_tables(e: Evaluation) -> list[Table]:
    """Detection by size: references by their diameter, false positives by theirs."""
    out = []
    for name, label in _THRESHOLDS:
        bins = e.of("lesions", "by_size", name)
        if isinstance(bins, Mapping) and bins:
            table = Table((*_detection_columns("diameter, mm"), ("Dice", "of found lesions")), caption=label)
            for size, figures in bins.items():
                if isinstance(figures, Mapping):
                    _detection(table, _size(size), figures, mean(figures.get("dice")))
            out.append(table)
    return out


def free_table(e: Evaluation) -> Table | None:
    """Cases without a tumour."""
    free = e.of("tumour_free")
    if not isinstance(free, Mapping) or not free.get("n"):
        return None
    table = Table((("", ""), ("", "")))
    table.add("cases without a tumour in the reference", number(free["n"]))
    table.add("of these with a false tumour", number(free.get("false_positive_cases")))
    table.add("specificity", with_interval(free, "specificity"))
    for name, label, digits in (
        ("false_positive_lesions", "false lesions a case", 2),
        ("false_positive_volume_ml", "false tumour a case, ml", 2),
    ):
        if isinstance(free.get(name), Mapping):
            most = free[name].get("max")
            cell = mean(free[name], digits)
            table.add(f"{label}, mean", Cell(cell.main, cell.soft or f"at most {number(most, digits)}"))
    return table


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
    return [*out, apart] if apart else out


def _cases(count: Any) -> str:
    return f"{count or 0} case{'s' * (count != 1)}"


def _boundary(name: str) -> str:
    """``hd95_mm`` as ``HD95, mm``, ``nsd_1mm`` as ``NSD at 1 mm``."""
    first, _, last = name.partition("_")
    return f"{first.upper()}, mm" if last == "mm" else f"{first.upper()} at {last.removesuffix('mm')} mm"


def _size(name: str) -> str:
    """``[10,20)`` as ``10 to 20``."""
    low, _, high = name.strip("[)").partition(",")
    return f"{low} and more" if high == "inf" else f"{low} to {high}"


def _counts(figures: Mapping[str, Any]) -> tuple[str, str]:
    left = figures.get("left_out")
    return number(figures.get("n")), str(left) if left else ""


def _bearing(dice: Mapping[str, Any]) -> Any:
    return dice.get("ci95_tumour_bearing") or dice.get("mean_tumour_bearing_ci95")


def _under(ends: Any, n: Any, unit: str) -> str:
    return ", ".join(part for part in (span(ends), f"{n} {unit}" if n is not None else "") if part)


def _detection_columns(first: str) -> tuple[tuple[str, str], ...]:
    return (
        (first, ""),
        ("found", "true positives"),
        ("false", "predicted lesions without a partner"),
        ("missed", "reference lesions without a partner"),
        ("recall", "found / all reference lesions"),
        ("precision", "found / all predicted lesions"),
        ("F1", "harmonic mean of both"),
    )


def _detection(table: Table, label: str, figures: Any, *more: Cell) -> None:
    if isinstance(figures, Mapping):
        counts = (number(figures.get(name)) for name in ("tp", "fp", "fn"))
        rates = (with_interval(figures, name) for name in ("recall", "precision", "f1"))
        table.add(label, *counts, *rates, *more)
