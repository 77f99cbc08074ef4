"""The report's error analysis: how Dice is distributed, what missed lesions are like, where false ones lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from core.contracts import Rows
from core.report import charts
from core.report.cells import Cell, Table, mean, number, percent, span
from core.report.folder import Evaluation

FEATURES: dict[str, tuple[str, str]] = {
    "diameter_mm": ("diameter", "mm"),
    "volume_ml": ("volume", "ml"),
    "contrast_hu": ("contrast to the liver around it", "HU"),
    "cnr": ("contrast-to-noise ratio", ""),
    "border_hu_per_mm": ("sharpness of its border", "HU/mm"),
    "border_distance_mm": ("distance to the liver's border", "mm"),
    "slice_thickness_mm": ("slice thickness", "mm"),
    "lesion_count": ("lesions in the case", ""),
    "tumour_ml": ("tumour in the case", "ml"),
    "burden": ("tumour burden, share of the liver", ""),
}
PLACES: dict[str, str] = {
    "outside_liver": "outside of the liver",
    "liver_border": "at the liver's border",
    "vessel_like": "like a vessel",
    "gallbladder_like": "dark like the gallbladder",
    "inside": "elsewhere in the liver",
}


@dataclass(frozen=True)
class Chart:
    """A drawing, what it shows, what is said below it, and its numbers."""

    title: str
    drawing: Markup
    text: str = ""
    numbers: Table | None = None


def distributions(e: Evaluation) -> list[Chart]:
    """Dice of slices, lesions and cases."""
    slices = {name: _of(e.tables["slices"], name) for name in ("tumour", "liver")}
    cases = {name: _of(e.tables["cases"], name) for name in ("tumour", "liver")}
    bearing = [row for row in cases["tumour"] if row.get("voxels_ref") != 0]
    lesions = [row if row.get("dice") is not None else {**row, "dice": 0.0} for row in e.lesions("ref")]
    kinds: tuple[tuple[str, str, Rows, str, str], ...] = (
        ("Tumour, per slice", "slices", slices["tumour"], "tumour", "slice"),
        ("Tumour, per lesion", "lesions", lesions, "tumour", "lesion"),
        ("Tumour, per case that has one", "cases", bearing, "tumour", "case"),
        ("Liver, per slice", "slices", slices["liver"], "liver", ""),
        ("Liver, per case", "cases", cases["liver"], "liver", ""),
    )
    out = []
    for title, unit, rows, kind, key in kinds:
        scores = [float(row["dice"]) for row in rows if row.get("dice") is not None]
        if scores:
            text = _hurdle(e.of("error_analysis", "distribution", key), unit) if key else ""
            out.append(Chart(title, charts.histogram(title, scores, unit, kind), text))
    return out


def end_slices(e: Evaluation) -> Table | None:
    """How the first and the last slices of lesions fare beside the others."""
    return _nested(e.of("error_analysis", "distribution", "end_slices"))


def strata(e: Evaluation) -> list[Chart]:
    """Share found and Dice by what lesions are like, and Dice by what cases are like."""
    out = []
    for group, recall in (("recall_by", True), ("cases_by", False)):
        for name, bins in (e.of("error_analysis", group) or {}).items():
            bins = [one for one in bins or [] if isinstance(one, Mapping)]
            if not any(one.get("n") for one in bins):
                continue
            title, unit = FEATURES.get(name, (name.replace("_", " "), ""))
            what = "Lesions by" if recall else "Cases by"
            drawing = charts.binned(f"{what} {title}", unit, bins, recall=recall)
            out.append(Chart(f"{what} {title}", drawing, numbers=_numbers(title, unit, bins, recall)))
    return out


def features(e: Evaluation) -> Chart | None:
    """How often each feature is there among missed lesions, and among found ones."""
    rows = [row for row in e.of("error_analysis", "features") or [] if isinstance(row, Mapping)]
    if not rows:
        return None
    table = Table((("", ""), ("missed", "lesions with it"), ("found", "lesions with it")))
    for row in rows:
        both = (percent(row.get(side) or 0, row.get(f"{side}_n")) for side in ("missed", "found"))
        table.add(str(row.get("title") or row.get("name")), *both)
    return Chart("Features of missed lesions beside found ones", charts.shares(rows), numbers=table)


def model(e: Evaluation) -> tuple[Chart | None, str]:
    """The detection model, and what is to be said of it: why it is not there, or what it rests on."""
    found = e.of("error_analysis", "detection_model")
    if not isinstance(found, Mapping):
        return None, ""
    terms = [term for term in found.get("terms") or [] if isinstance(term, Mapping)]
    if not found.get("available") or not terms:
        return None, str(found.get("why") or "not fitted")
    table = Table((("", ""), ("odds ratio", "of being found, with its 95 % interval"), ("for", ""), ("p", "")))
    for term in terms:
        ratio = Cell(number(term.get("odds_ratio"), 2), span(term.get("ci95"), 2))
        table.add(str(term.get("name")).replace("_", " "), ratio, f"a {term.get('unit')}", number(term.get("p"), 4))
    rests = f"{found.get('events')} events in {found.get('patients')} patients"
    if found.get("why"):
        rests += f"; {found['why']}"
    return Chart("Odds of a lesion being found", charts.forest(terms), rests, table), ""


def false_positives(e: Evaluation) -> Table | None:
    """False lesions by where they lie."""
    found = e.of("error_analysis", "false_positives")
    if not isinstance(found, Mapping) or not found.get("n"):
        return None
    table = Table((("place", ""), ("false lesions", ""), ("volume, ml", "median and quartiles"), ("HU", "mean")))
    for row in found.get("by_place") or []:
        volume, hu = row.get("volume_ml"), row.get("mean_hu")
        middle = Cell("-")
        if isinstance(volume, Mapping):
            middle = Cell(number(volume.get("median"), 2), span((volume.get("q25"), volume.get("q75")), 2))
        name = PLACES.get(row.get("place"), str(row.get("place")).replace("_", " "))
        table.add(name, percent(row.get("n") or 0, found["n"]), middle, mean(hu, 0))
    return table


def froc(e: Evaluation) -> tuple[Chart | None, str]:
    """The FROC curve, or why there is none."""
    found = e.of("lesions", "froc")
    if not isinstance(found, Mapping):
        return None, "" if e.of("lesions") is None else "not measured"
    if not found.get("available"):
        return None, str(found.get("why") or "no probabilities")
    at = found.get("recall_at") or {}
    table = Table((("false positives a case", ""), ("recall", "")))
    for name, value in at.items():
        table.add(str(name), number(value))
    return Chart("FROC", charts.froc(found.get("curve") or [], at), numbers=table), ""


def _of(rows: Iterable[Mapping[str, Any]], structure: str) -> Rows:
    return [dict(row) for row in rows if row.get("structure") == structure]


def _hurdle(found: Any, unit: str) -> str:
    """P(Dice = 0), then the distribution of the others, then whether it has two peaks."""
    if not isinstance(found, Mapping) or not found.get("n"):
        return ""
    ends = span(found.get("p_zero_ci95"), 2)
    text = f"{found.get('zero')} of {found['n']} {unit} ({number(found.get('p_zero'), 2)}"
    text += f"; {ends}) score 0." if ends else ") score 0."
    positive = found.get("positive")
    if isinstance(positive, Mapping) and positive.get("n"):
        quartiles = span((positive.get("q25"), positive.get("q75")), 2)
        text += f" The others: median {number(positive.get('median'), 2)}, quartiles {quartiles}."
    two = found.get("bimodality")
    if isinstance(two, Mapping):
        if two.get("p") is not None:
            verdict = "more than one peak" if two["p"] < 0.05 else "no evidence of more than one peak"
            text += f" Above 0: {verdict} ({two.get('test')}: {number(two.get('statistic'))}, p {number(two['p'])})."
        if two.get("why"):
            text += f" {str(two['why'])[:1].upper()}{str(two['why'])[1:]}."
    return text


def _numbers(title: str, unit: str, bins: list[Mapping[str, Any]], recall: bool) -> Table:
    first = (f"{title}{f', {unit}' if unit else ''}", "")
    found = (("found", ""), ("recall", "with its 95 % interval")) if recall else ()
    table = Table(
        (first, ("n", ""), *found, ("Dice", "mean, with its 95 % interval"), ("median", "with the quartiles"))
    )
    for one in bins:
        dice = one.get("dice")
        middle = Cell("-")
        if isinstance(dice, Mapping):
            middle = Cell(number(dice.get("median"), 2), span((dice.get("q25"), dice.get("q75")), 2))
        share: tuple[Cell | str, ...] = ()
        if recall:
            share = (number(one.get("found")), Cell(number(one.get("recall"), 2), span(one.get("recall_ci95"), 2)))
        table.add(charts.span(one.get("low"), one.get("high")), number(one.get("n")), *share, mean(dice, 2), middle)
    return table


def _nested(found: Any) -> Table | None:
    """Whatever figures there are, a row each."""
    if not isinstance(found, Mapping) or not found:
        return None
    table = Table((("", ""), ("", "")))
    for name, value in found.items():
        label = str(name).replace("_", " ")
        if isinstance(value, Mapping) and "mean" in value:
            table.add(label, Cell(f"{number(value['mean'])} (n {value.get('n')})", span(value.get("ci95"))))
        elif not isinstance(value, (Mapping, list)):
            table.add(label, number(value))
    return table if table.rows else None
