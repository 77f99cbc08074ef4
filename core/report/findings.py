"""The report's error analysis: how Dice is distributed, what missed lesions are like, where false ones lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from core.contracts import Rows
from core.report import charts, curves
from core.report.cells import Cell, Table, mean, median, number, percent, span, with_interval
from core.report.drawing import span as name_of_bin
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
    found = e.of("error_analysis", "distribution", "end_slices")
    if not isinstance(found, Mapping) or not found.get("lesions"):
        return None
    columns = (("slices", ""), ("n", ""), ("Dice of 0", "share, with its 95 % interval"), ("mean", ""), ("median", ""))
    table = Table(columns, caption=f"{found['lesions']} lesions that are on three slices or more")
    for name in ("first", "middle", "last"):
        one = found.get(name)
        if isinstance(one, Mapping):
            zero = Cell(number(one.get("p_zero"), 2), span(one.get("p_zero_ci95"), 2))
            table.add(name, number(one.get("n")), zero, mean(one.get("dice"), 2), median(one.get("dice"), 2))
    return table


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
        both = (_rate(row, side) for side in ("missed", "found"))
        table.add(str(row.get("title") or row.get("name")), *both)
    return Chart("Features of missed lesions beside found ones", charts.shares(rows), numbers=table)


def probabilities(e: Evaluation) -> Table | None:
    """What the model gave the lesions that it missed, and those that it found."""
    both = [e.of("error_analysis", "probability", side) for side in ("missed", "found")]
    if not all(isinstance(one, Mapping) for one in both) or not any(one.get("n") for one in both):
        return None
    table = Table((("", ""), ("mean", "with its 95 % interval"), ("median", "with the quartiles"), ("n", "lesions")))
    table.caption = "Mean predicted tumour probability inside of a lesion"
    for name, one in zip(("missed", "found"), both, strict=True):
        table.add(name, mean(one), median(one), number(one.get("n")))
    return table


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
        unit = f"a {term['unit']}" if term.get("unit") else ""
        table.add(str(term.get("name")).replace("_", " "), ratio, unit, number(term.get("p"), 4))
    rests = [f"{found.get('events')} events in {found.get('patients')} patients"]
    rests += [str(found[key]) for key in ("method", "why") if found.get(key)]
    dropped = [one for one in found.get("left_out") or [] if isinstance(one, Mapping)]
    rests += [f"without {str(one.get('name')).replace('_', ' ')} ({one.get('why')})" for one in dropped]
    return Chart("Odds of a lesion being found", charts.forest(terms), f"{'; '.join(rests)}.", table), ""


def false_positives(e: Evaluation) -> Table | None:
    """False lesions by where they lie."""
    found = e.of("error_analysis", "false_positives")
    if not isinstance(found, Mapping) or not found.get("n"):
        return None
    table = Table((("place", ""), ("false lesions", ""), ("volume, ml", "median and quartiles"), ("HU", "mean")))
    for row in found.get("by_place") or []:
        volume, hu = row.get("volume_ml"), row.get("mean_hu")
        name = PLACES.get(row.get("place"), str(row.get("place")).replace("_", " "))
        table.add(name, percent(row.get("n") or 0, found["n"]), median(volume, 2), mean(hu, 0))
    return table


def froc(e: Evaluation) -> tuple[Chart | None, str]:
    """The FROC curve, or why there is none."""
    found = e.of("lesions", "froc")
    if not isinstance(found, Mapping):
        return None, "" if e.of("lesions") is None else "not measured"
    if not found.get("available"):
        return None, str(found.get("why") or "no probabilities")
    at, by_max = found.get("recall_at") or {}, e.of("lesions", "froc", "by_max", "recall_at") or {}
    table = Table(
        (
            ("false positives a case", ""),
            ("recall", "candidates scored by their mean probability"),
            ("by the maximum", "candidates scored by their greatest probability"),
        )
    )
    for name, value in at.items():
        table.add(str(name), number(value), number(by_max.get(name)) if by_max else "")
    return Chart("FROC", curves.froc(found.get("curve") or [], at), numbers=table), ""


def calibration(e: Evaluation) -> tuple[Chart | None, str]:
    """How far predicted probabilities come true, or why that is not known."""
    found = e.of("calibration")
    if not isinstance(found, Mapping):
        return None, ""
    if not found.get("available"):
        return None, str(found.get("why") or "no probabilities")
    table = Table((("", ""), ("all voxels", "with its 95 % interval"), ("mean over cases", "with its 95 % interval")))
    for name, label in (("ece", "expected calibration error"), ("brier", "Brier score")):
        per_case = found.get("per_case") if isinstance(found.get("per_case"), Mapping) else {}
        table.add(label, with_interval(found, name, 4), mean((per_case or {}).get(name), 4))
    text = f"Probability of {found.get('of', 'tumour')} inside of the {found.get('inside', 'liver')}."
    bins = [one for one in found.get("reliability") or [] if isinstance(one, Mapping)]
    return Chart("Calibration", curves.reliability(bins), text, table), ""


def _rate(row: Mapping[str, Any], side: str) -> Cell:
    share = percent(row.get(side) or 0, row.get(f"{side}_n"))
    ends = span(row.get(f"{side}_ci95"), 2)
    return Cell(share.main, f"{share.soft}; {ends}") if ends else share


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
        share: tuple[Cell | str, ...] = ()
        if recall:
            share = (number(one.get("found")), Cell(number(one.get("recall"), 2), span(one.get("recall_ci95"), 2)))
        table.add(
            name_of_bin(one.get("low"), one.get("high")), number(one.get("n")), *share, mean(dice, 2), median(dice, 2)
        )
    return table
