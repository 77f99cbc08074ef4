"""Tables as the page shows them: text in cells, with what belongs to a number, small, under it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NONE = "-"


@dataclass(frozen=True)
class Cell:
    """A number as text, and its interval or quartiles."""

    main: str
    soft: str = ""


@dataclass
class Table:
    """A table; the first cell of a row names it.

    Attributes:
        columns: name and help of each.
        rows: cells.
        caption: what it shows.
        notes: below it.
        help: of rows, by their name.
    """

    columns: Sequence[tuple[str, str]]
    rows: list[list[Cell]] = field(default_factory=list)
    caption: str = ""
    notes: list[str] = field(default_factory=list)
    help: dict[str, str] = field(default_factory=dict)

    def add(self, *cells: Cell | str) -> None:
        """One row."""
        self.rows.append([cell if isinstance(cell, Cell) else Cell(cell) for cell in cells])

    def trimmed(self) -> Table:
        """Without the columns that hold nothing."""
        kept = [i for i, _ in enumerate(self.columns) if any(row[i].main or row[i].soft for row in self.rows)]
        rows = [[row[i] for i in kept] for row in self.rows]
        return Table([self.columns[i] for i in kept], rows, self.caption, self.notes, self.help)


def number(value: Any, digits: int = 3) -> str:
    """A float with `digits` decimals, anything else as it is, a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NONE
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def span(ends: Sequence[Any] | None, digits: int = 3) -> str:
    """``0.610 to 0.730``; empty where there is none."""
    if not ends or any(end is None for end in ends):
        return ""
    return " to ".join(number(float(end), digits) for end in ends)


def with_interval(figures: Any, name: str, digits: int = 3) -> Cell:
    """A figure of a dict with its ``_ci95`` beside it."""
    if not isinstance(figures, Mapping):
        return Cell(NONE)
    return Cell(number(figures.get(name), digits), span(figures.get(f"{name}_ci95"), digits))


def mean(figures: Any, digits: int = 3) -> Cell:
    """The mean of `describe` with its interval."""
    if not isinstance(figures, Mapping):
        return Cell(NONE)
    return Cell(number(figures.get("mean"), digits), span(figures.get("ci95"), digits))


def median(figures: Any, digits: int = 3) -> Cell:
    """The median of `describe` with the quartiles."""
    if not isinstance(figures, Mapping):
        return Cell(NONE)
    return Cell(number(figures.get("median"), digits), span((figures.get("q25"), figures.get("q75")), digits))


def percent(part: Any, whole: Any) -> Cell:
    """A share, with both counts."""
    return Cell(f"{100 * part / whole:.0f} %", f"{part} of {whole}") if whole else Cell(NONE, "none")
