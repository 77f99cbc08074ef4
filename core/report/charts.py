"""Charts of the report as SVG in the page's colours, also dark and printed; shapes say what colours say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from core.report.drawing import Drawing, between, marker, percent, share_axis, short, span

_BINS = 20


def histogram(title: str, scores: Sequence[float], unit: str, kind: str) -> Markup:
    """How a Dice is distributed: those that are exactly 0 apart, hatched, then twenty bins from above 0 to 1.

    Args:
        title: what is counted.
        scores: each in [0, 1].
        unit: plural of what one score belongs to.
        kind: ``tumour`` or ``liver``, for the colour.
    """
    numbers = np.asarray(scores, np.float64)
    zero, positive = int((numbers == 0).sum()), numbers[numbers > 0]
    counts = np.histogram(positive, _BINS, (0.0, 1.0))[0]
    says = f"{len(numbers)} {unit}, {zero} with a Dice of 0"
    if len(positive):
        says += f", the others from {positive.min():.2f} to {positive.max():.2f}, median {np.median(positive):.2f}"
    out = Drawing(340, 190, title, says + ".")
    left, right, top, bottom = 62, 330, 14, 150
    most = max(1, zero, int(counts.max()))
    high = (bottom - top) / most
    _counts_axis(out, most, 34, right, top, bottom)
    if zero:
        out.add(
            "rect", f"hatch-{kind}", f"{zero} {unit}: 0", x=38, y=bottom - zero * high, width=16, height=zero * high
        )
        out.text(46, bottom - zero * high - 4, str(zero), "small strong")
    wide = (right - left) / _BINS
    for i, count in enumerate(counts):
        if count:
            about = f"{count} {unit}: {i / _BINS:.2f} to {(i + 1) / _BINS:.2f}"
            out.add(
                "rect",
                kind,
                about,
                x=left + i * wide + 0.7,
                y=bottom - count * high,
                width=wide - 1.4,
                height=count * high,
            )
    out.text(46, bottom + 15, "0", "small strong")
    out.line(58, top, 58, bottom, "split")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + tick * (right - left)
        out.line(x, bottom, x, bottom + 4, "axis")
        out.text(x, bottom + 15, ">0" if not tick else f"{tick:g}", "small")
    if len(positive):
        x = left + float(np.median(positive)) * (right - left)
        out.line(x, top, x, bottom, "median")
    out.text((left + right) / 2, bottom + 31, f"Dice of {len(numbers)} {unit}", "small")
    return out.done()


def binned(title: str, unit: str, bins: Sequence[Mapping[str, Any]], *, recall: bool = True) -> Markup:
    """Share found and mean Dice by bins of a feature, with their intervals, over the number in each bin.

    Args:
        title: the feature.
        unit: its unit.
        bins: low, high (None has no end), n, dice, and recall with recall_ci95 where `recall`.
        recall: whether to draw the share found.
    """
    drawn: list[tuple[str, str, float, list[Any]]] = []
    if recall:
        drawn.append(("recall", "found", -7.0, [(b.get("recall"), b.get("recall_ci95")) for b in bins]))
    drawn.append(("dice", "mean Dice", 7.0 if recall else 0.0, [_mean(b.get("dice")) for b in bins]))
    names = [span(b.get("low"), b.get("high")) for b in bins]
    says = "; ".join(
        f"{name} {unit}: {b.get('n', 0)}, "
        + ", ".join(f"{label} {short(series[i][0])}" for _, label, _, series in drawn)
        for i, (name, b) in enumerate(zip(names, bins, strict=True))
    )
    width = max(340, 60 + 76 * len(bins))
    out = Drawing(width, 210, title, says)
    left, right, top, bottom = 36, width - 10, 16, 152
    share_axis(out, left, right, top, bottom)
    step = (right - left) / max(1, len(bins))
    for kind, label, shift, series in drawn:
        before: tuple[float, float] | None = None
        for i, (value, interval) in enumerate(series):
            if value is None:
                before = None
                continue
            x, y = left + (i + 0.5) * step + shift, bottom - value * (bottom - top)
            if before is not None:
                out.line(*before, x, y, f"thread {kind}")
            before = (x, y)
            if interval:
                low, high = (bottom - max(0.0, min(1.0, end)) * (bottom - top) for end in interval)
                for at in ((x, low, x, high), (x - 4, low, x + 4, low), (x - 4, high, x + 4, high)):
                    out.line(*at, f"whisker {kind}")
            about = f"{names[i]} {unit}: {label} {short(value)}{between(interval)}, n {bins[i].get('n', 0)}"
            marker(out, kind, x, y, about)
    for i, name in enumerate(names):
        x = left + (i + 0.5) * step
        out.text(x, bottom + 15, name, "small")
        out.text(x, bottom + 29, f"n {bins[i].get('n', 0)}", "small soft")
    out.text((left + right) / 2, bottom + 46, f"{title}{f', {unit}' if unit else ''}", "small")
    return out.done()


def forest(terms: Sequence[Mapping[str, Any]]) -> Markup:
    """Odds ratios with their intervals, on a logarithmic scale; 1 is no association."""
    known = [t for t in terms if t.get("odds_ratio")]
    ends = [float(v) for t in known for v in (t["odds_ratio"], *(t.get("ci95") or ())) if v and v > 0]
    reach = max([2.0, *(max(v, 1 / v) for v in ends)])
    reach = min(64.0, 2 ** math.ceil(math.log2(reach)))
    says = "; ".join(f"{t['name']}: {short(t['odds_ratio'])}{between(t.get('ci95'))}" for t in known)
    height = 34 + 30 * len(known)
    out = Drawing(430, height + 22, "Odds ratios of being found", says)
    left, right = 178, 410

    def across(ratio: float) -> float:
        return (left + right) / 2 + math.log(min(reach, max(1 / reach, ratio))) / math.log(reach) * (right - left) / 2

    doublings = int(math.log2(reach))
    for power in range(-doublings, doublings + 1, max(1, doublings // 3)):
        x = across(2.0**power)
        out.line(x, 8, x, height - 14, "grid" if power else "split")
        out.text(x, height, f"{2.0**power:g}" if power >= 0 else f"1/{2**-power}", "small")
    for i, term in enumerate(known):
        y, ratio, interval = 24 + 30 * i, float(term["odds_ratio"]), term.get("ci95")
        out.text(left - 12, y, str(term["name"]).replace("_", " "), "strong", "end")
        if term.get("unit"):
            out.text(left - 12, y + 12, f"a {term['unit']}", "small soft", "end")
        if interval and None not in interval:
            out.line(across(interval[0]), y, across(interval[1]), y, "whisker recall")
        marker(out, "dice", across(ratio), y, f"{term['name']}: {short(ratio)}{between(interval)}")
    out.text(left, height + 16, "found less often", "small soft", "start")
    out.text(right, height + 16, "found more often", "small soft", "end")
    return out.done()


def shares(features: Sequence[Mapping[str, Any]]) -> Markup:
    """The rate of each feature among missed lesions beside that among found ones, with their intervals."""
    rows = [(str(f.get("title") or f["name"]), _rate(f, "missed"), _rate(f, "found"), f) for f in features]
    says = "; ".join(f"{name}: missed {percent(missed)}, found {percent(found)}" for name, missed, found, _ in rows)
    height = 10 + 44 * len(rows)
    out = Drawing(430, height + 26, "Features of missed and found lesions", says)
    left, right = 12, 410
    for tick in (0, 25, 50, 75, 100):
        x = left + tick / 100 * (right - left)
        out.line(x, 8, x, height, "grid")
        out.text(x, height + 14, f"{tick} %", "small")
    for i, (name, missed, found, feature) in enumerate(rows):
        y = 36 + 44 * i
        # What does not fit is in the numbers below and in the hint.
        shown = name if len(name) <= 66 else f"{name[:64].rsplit(' ', 1)[0]} ..."
        out.text(left, y - 13, shown, "small", "start")
        out.line(left, y, right, y, "grid")
        for kind, value, shift in (("found", found, 4), ("missed", missed, -4)):
            if value is None:
                continue
            x, ends = left + value * (right - left), feature.get(f"{kind}_ci95")
            if ends and None not in ends:
                low, high = (left + end * (right - left) for end in ends)
                out.line(low, y + shift, high, y + shift, f"whisker {kind}")
            marker(out, kind, x, y + shift, f"{name}, {kind}: {percent(value)}{between(ends)}")
    return out.done()


def _counts_axis(out: Drawing, most: int, left: float, right: float, top: float, bottom: float) -> None:
    step = max(1, 10 ** int(math.log10(max(1, most))) // 2)
    while most / step > 4:
        step *= 2
    for count in range(0, most + 1, step):
        y = bottom - count * (bottom - top) / most
        out.line(left, y, right, y, "grid" if count else "axis")
        out.text(left - 5, y + 4, str(count), "small", "end")


def _mean(figures: Any) -> tuple[float | None, Any]:
    return (figures.get("mean"), figures.get("ci95")) if isinstance(figures, Mapping) else (None, None)


def _rate(feature: Mapping[str, Any], side: str) -> float | None:
    total = feature.get(f"{side}_n")
    return float(feature.get(side) or 0) / float(total) if total else None
