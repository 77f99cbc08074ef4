"""An SVG in the page: its colours, also dark and printed; every text escaped, and told to those who do not see it."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup, escape


class Drawing:
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


def span(low: Any, high: Any) -> str:
    """A bin's name."""
    if low is None and high is None:
        return "all"
    if low is None:
        return f"< {high:g}"
    return f">= {low:g}" if high is None or math.isinf(high) or high >= 1e9 else f"{low:g} to {high:g}"


def marker(out: Drawing, kind: str, x: float, y: float, about: str) -> None:
    """A round, a diamond or a square: told apart without colour."""
    if kind in ("recall", "found"):
        out.add("circle", f"mark {kind}", about, cx=x, cy=y, r=4.5)
    elif kind == "dice":
        out.add("path", f"mark {kind}", about, d=f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5-5.5 5.5-5.5-5.5z")
    else:
        out.add("rect", f"mark {kind}", about, x=x - 4.5, y=y - 4.5, width=9, height=9)


def share_axis(out: Drawing, left: float, right: float, top: float, bottom: float) -> None:
    """From 0 to 1, upwards."""
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - tick * (bottom - top)
        out.line(left, y, right, y, "grid" if tick else "axis")
        out.text(left - 5, y + 4, f"{tick:g}", "small", "end")


def short(value: Any) -> str:
    """Two decimals, a dash for none."""
    return "-" if value is None else f"{value:.2f}"


def percent(value: float | None) -> str:
    """A share in percent, a dash for none."""
    return "-" if value is None else f"{100 * value:.0f} %"


def between(interval: Any) -> str:
    """An interval in brackets, or nothing."""
    return f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval and None not in interval else ""


def _value(value: float | str) -> str:
    return str(escape(value)) if isinstance(value, str) else f"{value:.5g}"
