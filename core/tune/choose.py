"""Which setting is the best on the validation cases, and how much of that could be chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from core.tune.objective import Mode, Objective

_TIE = 1e-12
Kept = Sequence[Sequence[Any]]
"""What the objective keeps, by setting and case."""


@dataclass(frozen=True)
class HeldOut:
    """Each patient judged under the setting that the other patients choose.

    Attributes:
        value: the objective over all cases, each under the setting that was chosen without its patient.
        same: patients without whom the choice is the same.
    """

    value: float | None
    same: int


@dataclass(frozen=True)
class Choice:
    """The best setting.

    Attributes:
        best: its position among the settings.
        figures: of every setting, on all cases.
        held_out: None with a single patient, or where the others alone cannot be judged.
    """

    best: int
    figures: list[dict[str, float | None]]
    held_out: HeldOut | None


def choose(
    kept: Kept,
    patients: Sequence[str],
    objective: Objective,
    each: Callable[[Callable[[str], int | None], Sequence[str]], Sequence[int | None]],
) -> Choice:
    """The best setting; of equals the first.

    Args:
        kept: settings in the order in which ties prefer them.
        patients: whose each case is.
        objective: judges them.
        each: maps a function over the patients, with a progress bar.

    Raises:
        UserError: if the objective is not defined on these cases under any setting.
    """
    everyone = range(len(patients))
    figures = [objective.figures(row) for row in kept]
    best = pick([found[objective.name] for found in figures], objective.mode)
    if best is None:
        raise UserError(
            f"--objective {objective.name} is not a number on these {len(patients)} validation cases, whatever the "
            f"setting; name another"
        )

    def without(patient: str) -> int | None:
        others = [case for case in everyone if patients[case] != patient]
        values = [objective.figures([row[case] for case in others])[objective.name] for row in kept]
        return pick(values, objective.mode)

    names = sorted(set(patients))
    if len(names) < 2:
        return Choice(best, figures, None)
    chosen = dict(zip(names, each(without, names), strict=True))
    if any(position is None for position in chosen.values()):
        return Choice(best, figures, None)
    settings = [chosen[patient] for patient in patients]
    held = [kept[setting][case] for case, setting in enumerate(settings) if setting is not None]
    value = objective.figures(held)[objective.name]
    return Choice(best, figures, HeldOut(value, Counter(chosen.values())[best]))


def pick(values: Sequence[float | None], mode: Mode) -> int | None:
    """The position of the best value, the first of equals; None if none is a number."""
    best: int | None = None
    sign = 1 if mode == "max" else -1
    for position, value in enumerate(values):
        if value is None or value != value:
            continue
        known = None if best is None else values[best]
        if known is None or sign * (value - known) > _TIE:
            best = position
    return best
