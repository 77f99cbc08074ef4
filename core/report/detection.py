"""The report's tables of lesions: found, missed and false, by size, how well outlined; and cases without a tumour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.report.cells import Cell, Table, mean, median, number, with_interval
from core.report.folder import Evaluation

THRESHOLDS = (("any", "any overlap"), ("iou_0.1", "IoU > 0.1"), ("iou_0.5", "IoU > 0.5"))


def lesion_table(e: Evaluation) -> Table | None:
    """Detection at three thresholds, and coverage."""
    if not isinstance(e.of("lesions"), Mapping):
        return None
    table = Table(_detection_columns("counts as found"))
    for name, label in THRESHOLDS:
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
    if e.of("lesions", "without_size"):
        notes.append(
            f"lesions of either side in no bin of sizes, their spacing not trusted: {e.of('lesions', 'without_size')}"
        )
    table.notes = notes
    return table


def quality_table(e: Evaluation) -> Table | None:
    """How well lesions are outlined: found ones, all, each in its own region, and their boundaries."""
    table = Table(
        (
            ("", ""),
            ("mean", "with its 95 % interval"),
            ("median", "with the quartiles"),
            ("n", "lesions; CC-Dice: cases"),
        )
    )
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
        parts = " and ".join(_with_ends(name, pq) for name in ("sq", "rq"))
        table.notes.append(f"PQ is the product of {parts}: how well matched lesions overlap, and how many are matched.")
    return table if table.rows else None


def size_tables(e: Evaluation) -> list[Table]:
    """Detection by size: references by their diameter, false positives by theirs."""
    out = []
    for name, label in THRESHOLDS:
        bins = e.of("lesions", "by_size", name)
        if isinstance(bins, Mapping) and bins:
            table = Table((*_detection_columns("diameter, mm"), ("Dice", "missed lesions 0")), caption=label)
            for size, figures in bins.items():
                if isinstance(figures, Mapping):
                    _detection(table, _size(size), figures, mean(figures.get("dice")))
            if any(one.get(key) for one in bins.values() for key in ("tp", "fp", "fn")):
                out.append(table)
    return out


def free_table(e: Evaluation) -> Table | None:
    """Cases without a tumour."""
    free = e.of("tumour_free")
    if not isinstance(free, Mapping) or not free.get("n"):
        return None
    table = Table((("", ""), ("", "")))
    table.add("cases without a tumour in the reference", number(free["n"]))
    if free.get("missing"):
        table.add("of these without a prediction", number(free["missing"]))
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


def _with_ends(name: str, pq: Mapping[str, Any]) -> str:
    cell = with_interval(pq, name)
    return f"{name.upper()} {cell.main}{f' ({cell.soft})' if cell.soft else ''}"


def _boundary(name: str) -> str:
    """``hd95_mm`` as ``HD95, mm``, ``nsd_1mm`` as ``NSD at 1 mm``."""
    first, _, last = name.partition("_")
    return f"{first.upper()}, mm" if last == "mm" else f"{first.upper()} at {last.removesuffix('mm')} mm"


def _size(name: str) -> str:
    """``[10,20)`` as ``10 to 20``."""
    low, _, high = name.strip("[)").partition(",")
    return f"{low} and more" if high == "inf" else f"{low} to {high}"


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
