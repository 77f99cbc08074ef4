"""A summary as tables in the terminal, 100 columns wide."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.measure.pair import STRUCTURES
from core.report.tables import number

_MACRO = {"_macro": "macro", "_macro_foreground": "macro, without background"}
_HEADINGS = {"dice": "Dice", "iou": "IoU"}
_SURFACE = {"assd_mm": "ASSD mm", "rmsd_mm": "RMSD mm", "hd95_mm": "HD95 mm", "hd_mm": "HD mm"}
_VOLUME = {"voe": "VOE", "rvd": "RVD", "abs_rvd": "|RVD|", "rvd_abs": "|RVD|", "precision": "prec.", "recall": "recall"}
_NSD = re.compile(r"nsd_([\d.]+)mm")
_THRESHOLDS = {"any": "any overlap", "iou_0.1": "IoU > 0.1", "iou_0.5": "IoU > 0.5"}
_TWO_DIGITS = re.compile(r".*_mm$")


def terminal(summary: Mapping[str, Any]) -> str:
    """The figures of a summary: overlap, volumes and surfaces, lesions, LiTS' scores beside ours, tumour-free cases."""
    blocks = [*_overlap(summary)]
    volume = _columns(summary, "Volume, mean over cases", _VOLUME)
    surface = _columns(summary, "Surface, mean over cases", {**_SURFACE, **_tolerances(summary)})
    blocks += [volume + _burden(summary) if volume else [], surface + _definition(summary) if surface else []]
    blocks += [_lesions(summary), _sizes(summary), _lits(summary), _others(summary)]
    free = summary.get("tumour_free")
    if isinstance(free, Mapping) and free.get("n"):
        blocks.append([_tumour_free(free)])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _overlap(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """One block a metric that has a mean for a structure and no place of its own below."""
    for name in _metric_names(summary):
        rows = [*_overlap_rows(summary, name)]
        intervals = any(figures.get("ci95") or figures.get("global_ci95") for _, figures, _ in rows)
        wide = f"{'95 % interval':>17}" if intervals else ""
        heading = f"{_HEADINGS.get(name, name):<30}{'mean':>8}{wide}{'median':>8}{'global':>8}{wide}{'n':>6}"
        yield [heading, *(_line(label, figures, note, intervals) for label, figures, note in rows)]


def _overlap_rows(summary: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    for structure in STRUCTURES:
        figures = summary.get(structure, {}).get(name)
        if not isinstance(figures, Mapping):
            continue
        twice = "mean_tumour_bearing" in figures
        yield f"{structure}, all cases" if twice else structure, figures, _empty_note(figures)
        if twice:
            keys = ("mean", "median", "n", "ci95")
            bearing = {key: figures.get(f"{key}_tumour_bearing") for key in keys}
            bearing["ci95"] = bearing["ci95"] or figures.get("mean_tumour_bearing_ci95")
            yield f"{structure}, cases that have one", bearing, ""
    for suffix, label in _MACRO.items():
        if isinstance(summary.get(f"{name}{suffix}"), Mapping):
            yield label, summary[f"{name}{suffix}"], ""


def _metric_names(summary: Mapping[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for structure in STRUCTURES:
        for name, figures in summary.get(structure, {}).items():
            own = name in _SURFACE or name in _VOLUME or _NSD.fullmatch(name)
            if isinstance(figures, Mapping) and "mean" in figures and not own:
                found[name] = None
    return list(found)


def _line(label: str, figures: Mapping[str, Any], note: str = "", intervals: bool = False) -> str:
    numbers = [f"{number(figures.get('mean')):>8}", f"{number(figures.get('median')):>8}"]
    numbers.append(f"{number(figures.get('global')):>8}")
    if intervals:
        numbers.insert(1, f"{_interval(figures.get('ci95')):>17}")
        numbers.append(f"{_interval(figures.get('global_ci95')):>17}")
    n = figures.get("n")
    text = f"  {label:<28}{''.join(numbers)}{'' if n is None else n:>6}".rstrip()
    return f"{text}\n{'':>4}{note}" if note else text


def _empty_note(figures: Mapping[str, Any]) -> str:
    if figures.get("left_out"):
        return f"({figures['left_out']} without any voxel left out, policy '{figures.get('empty')}')"
    both, one = figures.get("both_empty"), figures.get("one_empty")
    parts = [f"{both} empty on both sides count 1"] if both else []
    parts += [f"{one} on one side 0"] if one and parts else [f"{one} empty on one side count 0"] if one else []
    return f"({', '.join(parts)}, policy '{figures.get('empty')}')" if parts else ""


def _columns(summary: Mapping[str, Any], title: str, names: Mapping[str, str]) -> list[str]:
    """Metrics side by side, one row a structure; `n` is of the first, and what differs from it is said."""
    held = {s: {n: f for n in names if _has_mean(f := summary.get(s, {}).get(n))} for s in ("liver", "tumour")}
    pairs = (summary.get("lesions") or {}).get("boundary") if names.keys() & _SURFACE.keys() else None
    if isinstance(pairs, Mapping) and held["tumour"]:
        # First: far false positives rule the distances of the whole mask.
        whole = held.pop("tumour")
        held["matched lesions"] = {name: f for name in names if _has_mean(f := pairs.get(name))}
        held["tumour, whole mask"] = whole
    shown = [name for name in names if any(of.get(name, {}).get("mean") is not None for of in held.values())]
    if not shown:
        return []
    wide = {name: max(9, len(names[name]) + 1) for name in shown}
    lines = [f"{title:<26}" + "".join(f"{names[name]:>{wide[name]}}" for name in shown) + f"{'n':>7}"]
    for structure, figures in held.items():
        if not figures:
            continue
        counts = [figures[name].get("n") for name in shown if name in figures]
        cells = "".join(f"{_figure(name, figures.get(name, {}).get('mean')):>{wide[name]}}" for name in shown)
        n = str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)}-{max(counts)}"
        lines.append(f"  {structure:<24}{cells}{n:>7}")
    return lines


def _burden(summary: Mapping[str, Any]) -> list[str]:
    burden = summary.get("tumour_burden")
    if not isinstance(burden, Mapping) or burden.get("rmse") is None:
        return []
    most = number(burden.get("max_abs"))
    left = (burden.get("difference") or {}).get("left_out")
    without = f" ({left} without a liver left out)" if left else ""
    return [f"  tumour burden (tumour / liver): RMSE {number(burden['rmse'])}, greatest difference {most}{without}"]


def _definition(summary: Mapping[str, Any]) -> list[str]:
    """Which surface, and where a tolerance is below the slices' spacing."""
    surface = summary.get("surface")
    if not isinstance(surface, Mapping):
        return []
    flagged = surface.get("cases_with_slices_above_tolerance") or {}
    at = [f"{count} at {tolerance} mm" for tolerance, count in flagged.items() if count]
    policy = f", policy '{surface['empty']}' for empty masks" if surface.get("empty") else ""
    coarse = [f"  cases with slices further apart than the tolerance: {', '.join(at)}"] if at else []
    return [f"  surface {surface.get('definition')}{policy}", *coarse]


def _tolerances(summary: Mapping[str, Any]) -> dict[str, str]:
    names = {name for structure in STRUCTURES for name in summary.get(structure, {})}
    found = {name: match[1] for name in names if (match := _NSD.fullmatch(name))}
    return {name: f"NSD {mm} mm" for name, mm in sorted(found.items(), key=lambda item: float(item[1]))}


def _lesions(summary: Mapping[str, Any]) -> list[str]:
    lesions = summary.get("lesions")
    if not isinstance(lesions, Mapping):
        return []
    rows = [(text, lesions.get(name)) for name, text in _THRESHOLDS.items()]
    cover = lesions.get("coverage")
    if isinstance(cover, Mapping):
        rows.append(("10 % of it predicted", {**cover, "tp": cover.get("found"), "fn": cover.get("missed")}))
    lines = [_lesion_heading("Lesions, counted as found by", rows)]
    lines += [_lesion_line(text, figures, rows) for text, figures in rows if isinstance(figures, Mapping)]
    more = []
    for key, text in (("dice_detected", "Dice of found lesions"), ("dice_with_misses", "misses as 0")):
        if _has_mean(lesions.get(key)):
            more.append(f"{text} {number(lesions[key]['mean'])}")
    if _has_mean(lesions.get("cc_dice")):
        more.append(f"CC-Dice {number(lesions['cc_dice']['mean'])}")
    if isinstance(lesions.get("pq"), Mapping):
        more.append(f"PQ {number(lesions['pq'].get('pq'))}")
    if _has_mean(lesions.get("false_positives_per_case")):
        more.append(f"{lesions['false_positives_per_case']['mean']:.2f} false a case")
    lines += [f"  {', '.join(more)}"] if more else []
    froc = lesions.get("froc")
    if isinstance(froc, Mapping):
        at = [f"{number(value)} ({key})" for key, value in (froc.get("recall_at") or {}).items()]
        said = f"recall (at false positives a case) {', '.join(at)}"
        said = said if froc.get("available") else f"not available: {_why(froc)}"
        lines.append(f"  FROC: {said}")
    return lines if len(lines) > 1 else []


def _sizes(summary: Mapping[str, Any]) -> list[str]:
    bins = (summary.get("lesions") or {}).get("by_size", {})
    bins = bins.get("any") if isinstance(bins, Mapping) else None
    if not isinstance(bins, Mapping):
        return []
    rows = [(f"{name} mm", figures) for name, figures in bins.items() if isinstance(figures, Mapping)]
    if not any(figures.get(key) for _, figures in rows for key in ("tp", "fp", "fn")):
        return []
    return [_lesion_heading("Lesions by diameter, any overlap", rows)] + [_lesion_line(t, f, rows) for t, f in rows]


def _lesion_heading(title: str, rows: Sequence[tuple[str, Any]]) -> str:
    wide = f"{'95 % interval':>17}" if _any_interval(rows) else ""
    return f"{title:<34}{'found':>7}{'missed':>7}{'false':>7}{'recall':>8}{wide}{'prec.':>8}{'F1':>8}"


def _lesion_line(label: str, figures: Mapping[str, Any], rows: Sequence[tuple[str, Any]]) -> str:
    counts = "".join(f"{_count(figures.get(key)):>7}" for key in ("tp", "fn", "fp"))
    wide = f"{_interval(figures.get('recall_ci95')):>17}" if _any_interval(rows) else ""
    rates = [f"{number(figures.get(key)) if key in figures else '':>8}" for key in ("recall", "precision", "f1")]
    return f"  {label:<32}{counts}{rates[0]}{wide}{rates[1]}{rates[2]}".rstrip()


def _lits(summary: Mapping[str, Any]) -> list[str]:
    modes = [summary.get(f"lits_{mode}") for mode in ("published", "documented")]
    if not any(isinstance(mode, Mapping) for mode in modes):
        return []
    lines = [f"{'LiTS scores beside ours':<38}{'ours':>10}{'published':>12}{'documented':>12}"]
    for label, ours, theirs in (
        ("tumour Dice per case", "tumour.dice.mean", "lesion.dice_per_case"),
        ("tumour Dice global", "tumour.dice.global", "lesion.dice_global"),
        ("liver Dice per case", "liver.dice.mean", "liver.dice_per_case"),
        ("liver Dice global", "liver.dice.global", "liver.dice_global"),
        ("lesion recall, any overlap", "lesions.any.recall", "lesion.recall_greater_zero"),
        ("lesion precision, any overlap", "lesions.any.precision", "lesion.precision_greater_zero"),
        ("lesion recall, overlap > 0.5", "lesions.iou_0.5.recall", "lesion.recall"),
        ("lesion precision, overlap > 0.5", "lesions.iou_0.5.precision", "lesion.precision"),
        ("Dice of found lesions", "lesions.dice_detected.mean", "lesion.dice"),
        ("liver ASSD, mm", "liver.assd_mm.mean", "liver.assd_mm"),
    ):
        found = [_at(summary, ours), *(_at(mode, theirs) for mode in modes)]
        if any(value is not None for value in found[1:]):
            lines.append(f"  {label:<36}{number(found[0]):>10}{number(found[1]):>12}{number(found[2]):>12}")
    return lines if len(lines) > 1 else []


def _others(summary: Mapping[str, Any]) -> list[str]:
    """Top-level figures of metrics that this table does not know: numbers, and what has a mean."""
    own = {"tumour_free", *(f"{name}{suffix}" for name in _metric_names(summary) for suffix in _MACRO)}
    lines = []
    for name, value in summary.items():
        if name in own:
            continue
        if _has_mean(value):
            lines.append(_line(name, value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            lines.append(_line(str(name), {"mean": float(value)}))
    return lines


def _tumour_free(free: Mapping[str, Any]) -> str:
    missing = free.get("missing", 0)
    clean = free["n"] - free["false_positive_cases"] - missing
    text = f"Tumour-free cases: {free['n']}, {clean} without false tumour (specificity {number(free['specificity'])})"
    text += f"; {missing} without a prediction" if missing else ""
    lesions = free.get("false_positive_lesions")
    if isinstance(lesions, Mapping) and lesions.get("mean") is not None:
        text += f"; {lesions['mean']:.2f} false lesions a case"
    elif isinstance(lesions, int):
        text += f"; {lesions} false lesions"
    volume = free.get("false_positive_volume_ml", {})
    if volume.get("n"):
        text += f"; false tumour {volume['mean']:.2f} ml a case, at most {volume['max']:.2f} ml"
        if volume["left_out"]:
            text += f" (over {volume['n']}; the spacing of {volume['left_out']} cannot be trusted)"
    elif volume.get("left_out"):
        text += "; no volumes, since the spacing cannot be trusted"
    return text


def _at(value: Any, path: str) -> Any:
    """A figure by a dotted path whose names may hold dots themselves (``iou_0.5``)."""
    if not isinstance(value, Mapping):
        return None
    if path in value:
        return value[path]
    for name in value:
        if path.startswith(f"{name}."):
            return _at(value[name], path[len(name) + 1 :])
    return None


def _has_mean(value: Any) -> bool:
    return isinstance(value, Mapping) and "mean" in value


def _any_interval(rows: Sequence[tuple[str, Any]]) -> bool:
    return any(isinstance(figures, Mapping) and figures.get("recall_ci95") for _, figures in rows)


def _interval(ends: Any) -> str:
    return f"[{number(ends[0])}, {number(ends[1])}]" if ends else "-"


def _figure(name: str, value: Any) -> str:
    if _TWO_DIGITS.fullmatch(name) and not _NSD.fullmatch(name) and isinstance(value, (int, float)):
        return f"{value:.2f}"
    return number(value)


def _count(value: Any) -> str:
    return "" if value is None else str(value)


def _why(found: Mapping[str, Any]) -> str:
    return str(found.get("why") or "no probabilities")
