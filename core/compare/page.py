"""A comparison as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from core.compare import metrics as of_metrics
from core.compare import words
from core.compare.groups import SEEDS_WANTED, differing
from core.compare.lesions import lesions
from core.compare.result import Comparison, Difference
from core.compare.strata import burden
from core.compare.tables import case_rows
from core.compare.terminal import letter
from core.compare.words import number, p_value

_PLOT = 300  # a scatter's side, in its own units
_GLYPH = 78  # half an interval's drawing, in its own units


def page(comparison: Comparison, when: str) -> str:
    """The HTML."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined)
    reach = _reach(comparison)
    first = comparison.evaluations[0]
    threshold = of_metrics.THRESHOLDS[comparison.threshold]
    return environment.get_template("page.html").render(
        title=" vs ".join(evaluation.name for evaluation in comparison.evaluations),
        when=when.replace("T", " ").removesuffix("+00:00"),
        phantom=words.PHANTOM if comparison.phantom else "",
        notes=comparison.notes,
        declared=comparison.declared,
        cases=len(first.cases),
        patients=len(set(first.patients)),
        runs=_runs(comparison),
        metrics=comparison.metrics,
        differing=differing(comparison.evaluations),
        groups=_groups(comparison),
        wanted=SEEDS_WANTED,
        pairs=[{"key": f"{a}-{b}", "a": letter(a), "b": letter(b)} for a, b in comparison.pairs],
        conclusions=[_conclusion(comparison, row) for row in comparison.differences],
        trainings=words.trainings(comparison),
        looks=words.looks(comparison),
        differences=[_row(comparison, row, reach) for row in comparison.differences],
        strata=[_row(comparison, row, reach) for row in comparison.by_stratum],
        scatters=[plot for a, b in comparison.pairs for plot in _scatters(comparison, a, b)],
        threshold=threshold,
        found=[{**vars(row), "pair": f"{row.a}-{row.b}"} for row in comparison.found],
        letters=[letter(i) for i in range(len(comparison.evaluations))],
        lesions=_lesions(comparison),
        case_columns=_case_columns(comparison),
        case_rows=_case_rows(comparison),
        plot=_PLOT,
        glyph=_GLYPH,
        edges=", ".join(f"{edge:g}" for edge in comparison.edges),
        tests=words.tests(comparison),
        quiet=words.quiet(comparison) if len(comparison.pairs) > 1 else [],
    )


def _runs(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "letter": letter(i),
            "name": evaluation.name,
            "folder": str(evaluation.folder),
            "seed": words.seed_word(comparison, i),
            "step": evaluation.provenance.get("step"),
            "looks": evaluation.looks,
            "values": [number(values[i]) for values in comparison.values],
        }
        for i, evaluation in enumerate(comparison.evaluations)
    ]


def _groups(comparison: Comparison) -> list[dict[str, Any]]:
    """Methods with their trainings, and how far apart these are."""
    out = []
    for group in comparison.groups:
        known_config = comparison.evaluations[group.members[0]].config is not None
        out.append(
            {
                "letters": ", ".join(letter(i) for i in group.members),
                "seeds": ", ".join(map(str, group.seeds)) if known_config else "not known",
                "count": len(group.seeds),
                "spread": [words.spread(values, group.members) for values in comparison.values],
            }
        )
    return out


def _conclusion(comparison: Comparison, row: Difference) -> dict[str, Any]:
    sign = "none"
    if words.is_shown(row):
        sign = "higher" if (row.difference or 0) > 0 else "lower"
    return {
        "pair": f"{row.a}-{row.b}",
        "sign": sign,
        "text": _whole(words.conclusion(row, comparison)),
        "apart": _whole(words.apart(row)),
    }


def _whole(text: str) -> str:
    """With no line's end between a number and its percent sign, or inside of ``p = 0.05``."""
    return text.replace(" %", "\u00a0%").replace("p = ", "p\u00a0=\u00a0")


def _reach(comparison: Comparison) -> dict[str, float]:
    """The greatest end of an interval of each metric: one scale for its drawings."""
    out: dict[str, float] = {}
    for row in (*comparison.differences, *comparison.by_stratum):
        ends = [abs(x) for x in (row.difference, row.interval.low, row.interval.high) if x is not None]
        out[row.metric.name] = max([out.get(row.metric.name, 0.0), *ends])
    return out


def _row(comparison: Comparison, row: Difference, reach: dict[str, float]) -> dict[str, Any]:
    scale = _GLYPH / (reach[row.metric.name] or 1.0)
    low, high, gap = row.interval.low, row.interval.high, row.difference
    left_out = [
        f"{count} with a number in {letter(place)} alone"
        for count, place in ((row.only_a, row.a), (row.only_b, row.b))
        if count
    ]
    return {
        "pair": f"{row.a}-{row.b}",
        "a": letter(row.a),
        "b": letter(row.b),
        "metric": row.metric.title,
        "kind": row.kind,
        "level": row.level,
        "value_a": (row.value_a, number(row.value_a)),
        "value_b": (row.value_b, number(row.value_b)),
        "gap": (gap, words.difference(row)),
        "interval": (low, words.interval(row)),
        "why": row.interval.why,
        "drawn": None if gap is None else [None if x is None else round(x * scale, 1) for x in (low, gap, high)],
        "p": (row.p, p_value(row.p)),
        "holm": (row.holm, p_value(row.holm)),
        "wilcoxon": (row.wilcoxon, p_value(row.wilcoxon)),
        "cases": row.cases,
        "patients": row.patients,
        "left_out": "; ".join(left_out),
        "shown": words.is_shown(row),
    }


def _scatters(comparison: Comparison, a: int, b: int) -> list[dict[str, Any]]:
    """Of every metric that is a mean over cases: a point a case."""
    out = []
    first = comparison.evaluations[0]
    free = burden(first) == 0
    for metric in comparison.metrics:
        if metric.pooled:
            continue
        sides = [
            np.array(comparison.evaluations[i].column(metric.structure, metric.column), np.float64) for i in (a, b)
        ]
        both = np.isfinite(sides[0]) & np.isfinite(sides[1])
        if not both.any():
            continue
        low, high, ticks = _axis(np.concatenate([side[both] for side in sides]))
        points = []
        for i in np.flatnonzero(both):
            x, y = (float(side[i]) for side in sides)
            places = [round((value - low) / (high - low) * _PLOT, 1) for value in (x, y)]
            points.append(
                {
                    **{"index": int(i), "x": places[0], "y": _PLOT - places[1], "free": bool(free[i])},
                    "text": f"{first.cases[i]}: {letter(a)} {number(x)}, {letter(b)} {number(y)}",
                }
            )
        marks = [{"at": round((tick - low) / (high - low) * _PLOT, 1), "text": f"{tick:g}"} for tick in ticks]
        above = int((sides[1][both] > sides[0][both]).sum())
        below = int((sides[1][both] < sides[0][both]).sum())
        out.append(
            {
                **{"pair": f"{a}-{b}", "a": letter(a), "b": letter(b), "title": metric.title},
                **{"name_a": comparison.evaluations[a].name, "name_b": comparison.evaluations[b].name},
                **{"points": points, "ticks": marks, "above": above, "below": below},
                "same": len(points) - above - below,
                "free": any(point["free"] for point in points),
            }
        )
    return out


def _axis(values: np.ndarray) -> tuple[float, float, list[float]]:
    """A range around all values with round ends, and its ticks."""
    low, high = float(values.min()), float(values.max())
    raw = (high - low or abs(high) or 1.0) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * times for times in (1, 2, 2.5, 5, 10) if size * times >= raw)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    end = max(end, start + 1)
    return start * step, end * step, [round(i * step, 10) for i in range(start, end + 1)]


def _lesions(comparison: Comparison) -> list[dict[str, Any]]:
    """Those that one run misses at least."""
    out = []
    for row in lesions(comparison.evaluations, comparison.threshold):
        if all(row["found"]):
            continue
        place = [row[axis] for axis in ("z", "y", "x")]
        out.append(
            {
                **row,
                "found": ["1" if found else "0" for found in row["found"]],
                "dice": [(dice, number(dice)) for dice in row["dice"]],
                "place": "" if None in place else ", ".join(f"{voxel:g}" for voxel in place),
                "features": str(row["features"] or "").replace(";", ", ").replace("_", " "),
            }
        )
    return out


def _case_columns(comparison: Comparison) -> list[str]:
    names = ["case", "patient", "tumour burden %", "slice mm", "lesions"]
    for metric in comparison.metrics:
        names += [f"{metric.title}, {letter(i)}" for i in range(len(comparison.evaluations))]
        if len(comparison.evaluations) == 2:
            names.append(f"{metric.title}, B - A")
    return names


def _case_rows(comparison: Comparison) -> list[list[tuple[Any, str]]]:
    out = []
    for row in case_rows(comparison):
        share, thickness, count = (row[k] for k in ("tumour_burden", "slice_thickness_mm", "lesions_ref"))
        cells: list[tuple[Any, str]] = [
            (row["case"], row["case"]),
            (row["patient"], row["patient"]),
            (share, "" if share is None else f"{share * 100:.2f}"),
            (thickness, "" if thickness is None else f"{thickness:g}"),
            (count, "" if count is None else f"{count:g}"),
        ]
        for metric in comparison.metrics:
            values: Sequence[float | None] = [row[f"{metric.name} ({e.name})"] for e in comparison.evaluations]
            cells += [(value, "" if value is None else number(value)) for value in values]
            if len(values) == 2:
                gap = None if values[0] is None or values[1] is None else values[1] - values[0]
                cells.append((gap, "" if gap is None else number(gap, sign=True)))
        out.append(cells)
    return out
