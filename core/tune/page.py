"""The choice as text and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.measure.statistics import LEAST_PATIENTS
from core.report.tables import number
from core.tune.choose import Choice
from core.tune.grid import Grid
from core.tune.objective import Objective

SHOWN = 100
"""Settings in the terminal; the file has all."""


def rows(grid: Grid, choice: Choice) -> list[dict[str, Any]]:
    """One row a setting, in the order in which ties prefer them."""
    out = []
    for position, (setting, figures) in enumerate(zip(grid.settings(), choice.figures, strict=True)):
        marks = {"chosen": int(position == choice.best), "own": int(setting == grid.own)}
        out.append({**grid.words(setting), **figures, **marks})
    return out


def table(rows: Sequence[Mapping[str, Any]], objective: Objective) -> str:
    """The settings, the best first."""
    sign = -1 if objective.mode == "max" else 1

    def place(row: Mapping[str, Any]) -> tuple[bool, float]:
        value = row[objective.name]
        return (value is None, 0.0 if value is None else sign * round(value, 12))

    ordered = sorted(rows, key=place)  # stable: equal ones stay in the order of preference
    columns = [name for name in rows[0] if name not in ("chosen", "own")]
    lines = [columns, *([_cell(row[name]) for name in columns] for row in ordered[:SHOWN])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    shown = ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines]
    for i, row in enumerate(ordered[:SHOWN], start=1):
        marks = [word for key, word in (("chosen", "<- chosen"), ("own", "<- the run's own")) if row[key]]
        shown[i] = f"{shown[i]}  {' '.join(marks)}".rstrip()
    if len(ordered) > SHOWN:
        shown.append(f"... {len(ordered) - SHOWN} more in tune.csv")
    return "\n".join(shown)


def judgement(choice: Choice, grid: Grid, objective: Objective, patients: Sequence[str]) -> str:
    """What was gained on these cases, and how much of that could be chance."""
    name, count, settings = objective.name, len(set(patients)), grid.settings()
    value, own = choice.figures[choice.best][name], choice.figures[settings.index(grid.own)][name]
    lines = [
        f"{name} on these cases: {number(own)} with the run's own post-processing, {number(value)} with the choice."
    ]
    if settings[choice.best] == grid.own:
        lines.append("Nothing that was tried is better than the run's own.")
    held = choice.held_out
    if held is None:
        why = "there is a single patient" if count < 2 else "without one of the patients the others cannot be judged"
        lines.append(f"How much of a gain is chance cannot be told: {why}.")
    else:
        lines.append(
            f"Each patient under what the others choose: {number(held.value)} ({held.same} of {count} times they "
            f"choose the same). New patients are nearer to that."
        )
        if own is not None and settings[choice.best] != grid.own and not _better(held.value, own, objective):
            lines.append("By it nothing is gained: the choice may be chance; --untuned goes without it.")
    if count < LEAST_PATIENTS:
        lines.append(
            f"{count} patient{'s' * (count != 1)} choose{'s' * (count == 1)} among {len(settings)} settings. Below "
            f"{LEAST_PATIENTS} a choice is mostly chance: try fewer settings (--grid), or validate on more patients."
        )
    return "\n".join(lines)


def _better(value: float | None, than: float, objective: Objective) -> bool:
    if value is None:
        return False
    return value > than + 1e-12 if objective.mode == "max" else value < than - 1e-12


def _cell(value: Any) -> str:
    return str(value) if isinstance(value, (str, int)) else number(value)
