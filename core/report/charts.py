"""Charts of the report as SVG in the page's colours, also dark and printed; shapes say what colours say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

_BINS = 20


class _Drawing:
    """An SVG under way; every text is escaped."""

    def __init__(self, width: float, height: float, title: str, says: str) -> None:
        self.width, self.height, self.title, self.says = width, height, title, says
        self.parts: list[str] = []

    def add(self, tag: str, kind: str = "", text: str | None = None, **attributes: float | str) -> None:
        """One element; a `text` of a shape is shown while the mouse is on it."""
        given = {"class": kind, **attributes} if kind else attributes
        inside = " ".join(f'{name.replace("_", "-")}="{_value(value)}"' for name, value in given.items())
        body = "" if text is None else str(escape(text))
        if text is not None and tag != "text":
            body = f"<title>{body}</title>"
        self.parts.append(f"<{tag} {inside}>{body}</{tag}>")

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> None:
        """A line of text."""
        self.add("text", kind, text, x=x, y=y, text_anchor=anchor)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A line."""
        self.add("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)

    def done(self) -> Markup:
        """The element, with its title and what it says for those who do not see it."""
        return Markup(
            f'<svg class="chart" role="img" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'style="max-width:{1.4 * self.width:g}px" aria-label="{escape(f"{self.title}. {self.says}")}">'
            f"{''.join(self.parts)}</svg>"
        )


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
    out = _Drawing(340, 190, title, says + ".")
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
        + ", ".join(f"{label} {_short(series[i][0])}" for _, label, _, series in drawn)
        for i, (name, b) in enumerate(zip(names, bins, strict=True))
    )
    width = max(340, 70 + 62 * len(bins))
    out = _Drawing(width, 210, title, says)
    left, right, top, bottom = 36, width - 10, 16, 152
    _share_axis(out, left, right, top, bottom)
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
            about = f"{names[i]} {unit}: {label} {_short(value)}{_between(interval)}, n {bins[i].get('n', 0)}"
            _marker(out, kind, x, y, about)
    for i, name in enumerate(names):
        x = left + (i + 0.5) * step
        out.text(x, bottom + 15, name, "small")
        out.text(x, bottom + 29, f"n {bins[i].get('n', 0)}", "small soft")
    out.text((left + right) / 2, bottom + 46, f"{title}{f', {unit}' if unit else ''}", "small")
    return out.done()


def froc(curve: Sequence[Sequence[float]], at: Mapping[str, Any]) -> Markup:
    """Recall against false positives a case, on a scale that doubles; the points that are usually quoted are marked."""
    marks = [(float(name), value) for name, value in at.items() if value is not None]
    says = "; ".join(f"recall {_short(value)} at {name:g} false positives a case" for name, value in marks)
    out = _Drawing(400, 236, "Free-response ROC", says or "no point")
    left, right, top, bottom = 40, 388, 24, 188
    _share_axis(out, left, right, top, bottom)

    def across(fp: float) -> float:
        return left + (math.log2(min(8.0, max(0.125, fp))) + 3) / 6 * (right - left)

    for tick in (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0):
        out.line(across(tick), top, across(tick), bottom, "grid")
        out.text(across(tick), bottom + 15, {0.125: "1/8", 0.25: "1/4", 0.5: "1/2"}.get(tick, f"{tick:g}"), "small")
    steps: list[str] = []
    last = 0.0
    for fp, recall in sorted((float(p[0]), float(p[1])) for p in curve):
        if fp > 8:
            break
        steps += [f"{across(fp):.1f},{bottom - last * (bottom - top):.1f}"] if steps else []
        steps.append(f"{across(fp):.1f},{bottom - recall * (bottom - top):.1f}")
        last = recall
    if steps:
        steps.append(f"{right},{bottom - last * (bottom - top):.1f}")
        out.add("polyline", "curve recall", points=" ".join(steps))
    for fp, recall in marks:
        _marker(
            out, "recall", across(fp), bottom - recall * (bottom - top), f"recall {_short(recall)} at {fp:g} a case"
        )
    out.text((left + right) / 2, bottom + 33, "false positives a case", "small")
    out.text(left - 30, top - 12, "recall", "small", "start")
    return out.done()


def forest(terms: Sequence[Mapping[str, Any]]) -> Markup:
    """Odds ratios with their intervals, on a logarithmic scale; 1 is no association."""
    known = [t for t in terms if t.get("odds_ratio")]
    ends = [float(v) for t in known for v in (t["odds_ratio"], *(t.get("ci95") or ())) if v and v > 0]
    reach = max([2.0, *(max(v, 1 / v) for v in ends)])
    reach = min(64.0, 2 ** math.ceil(math.log2(reach)))
    says = "; ".join(f"{t['name']}: {_short(t['odds_ratio'])}{_between(t.get('ci95'))}" for t in known)
    height = 34 + 30 * len(known)
    out = _Drawing(430, height + 22, "Odds ratios of being found", says)
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
        _marker(out, "dice", across(ratio), y, f"{term['name']}: {_short(ratio)}{_between(interval)}")
    out.text(left, height + 16, "found less often", "small soft", "start")
    out.text(right, height + 16, "found more often", "small soft", "end")
    return out.done()


def shares(features: Sequence[Mapping[str, Any]]) -> Markup:
    """The rate of each feature among missed lesions beside that among found ones."""
    rows = [(str(f.get("title") or f["name"]), _rate(f, "missed"), _rate(f, "found")) for f in features]
    says = "; ".join(f"{name}: missed {_percent(missed)}, found {_percent(found)}" for name, missed, found in rows)
    height = 20 + 26 * len(rows)
    out = _Drawing(430, height + 26, "Features of missed and found lesions", says)
    left, right = 178, 410
    for tick in (0, 25, 50, 75, 100):
        x = left + tick / 100 * (right - left)
        out.line(x, 8, x, height, "grid")
        out.text(x, height + 14, f"{tick} %", "small")
    for i, (name, missed, found) in enumerate(rows):
        y = 22 + 26 * i
        out.text(left - 12, y + 4, name, "", "end")
        at = [left + v * (right - left) for v in (missed, found) if v is not None]
        if len(at) == 2:
            out.line(at[0], y, at[1], y, "thread")
        for kind, label, value in (("found", "found", found), ("missed", "missed", missed)):
            if value is not None:
                _marker(out, kind, left + value * (right - left), y, f"{name}, {label}: {_percent(value)}")
    return out.done()


def span(low: Any, high: Any) -> str:
    """A bin's name."""
    if low is None and high is None:
        return "all"
    if low is None:
        return f"< {high:g}"
    return f">= {low:g}" if high is None or math.isinf(high) or high >= 1e9 else f"{low:g} to {high:g}"


def _marker(out: _Drawing, kind: str, x: float, y: float, about: str) -> None:
    """A round, a diamond or a square: told apart without colour."""
    if kind in ("recall", "found"):
        out.add("circle", f"mark {kind}", about, cx=x, cy=y, r=4.5)
    elif kind == "dice":
        out.add("path", f"mark {kind}", about, d=f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5-5.5 5.5-5.5-5.5z")
    else:
        out.add("rect", f"mark {kind}", about, x=x - 4.5, y=y - 4.5, width=9, height=9)


def _share_axis(out: _Drawing, left: float, right: float, top: float, bottom: float) -> None:
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - tick * (bottom - top)
        out.line(left, y, right, y, "grid" if tick else "axis")
        out.text(left - 5, y + 4, f"{tick:g}", "small", "end")


def _counts_axis(out: _Drawing, most: int, left: float, right: float, top: float, bottom: float) -> None:
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


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _between(interval: Any) -> str:
    return f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval and None not in interval else ""


def _value(value: float | str) -> str:
    return str(escape(value)) if isinstance(value, str) else f"{value:.5g}"
