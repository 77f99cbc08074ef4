"""Covering arrays: few cells in which any two (or three) conditions meet in every way that is allowed."""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Cell = dict[str, Any]
Factors = Mapping[str, Sequence[Any]]
Allowed = Callable[[Cell], bool]
"""Judges whole cells and parts of cells alike."""
Meeting = tuple[tuple[str, Any], ...]
"""Some conditions with their levels, in the order of the factors."""


def meetings(factors: Factors, allowed: Allowed, strength: int = 2) -> list[Meeting]:
    """All ways in which `strength` conditions can meet."""
    out = []
    for names in combinations(factors, strength):
        for levels in product(*(factors[name] for name in names)):
            meeting = tuple(zip(names, levels, strict=True))
            if allowed(dict(meeting)):
                out.append(meeting)
    return out


def missing(cells: Sequence[Cell], factors: Factors, allowed: Allowed, strength: int = 2) -> list[Meeting]:
    """The meetings that no cell has."""
    return [m for m in meetings(factors, allowed, strength) if not any(m_in(m, cell) for cell in cells)]


def m_in(meeting: Meeting, cell: Cell) -> bool:
    """Whether a cell has a meeting."""
    return all(cell[name] == level for name, level in meeting)


def cover(
    factors: Factors,
    allowed: Allowed,
    *,
    size: int,
    strength: int = 2,
    seed: int = 0,
    moves: int = 400,
    starts: int = 50,
) -> list[Cell]:
    """`size` cells that have all meetings, or as many as were found; the same arguments give the same cells.

    From random cells on, one missing meeting at a time is put into the cell where that costs the fewest others; after
    so many moves, all over again.
    """
    rng = random.Random(seed)
    best, least = [], None
    for _ in range(starts):
        cells, left = _search(factors, allowed, size, strength, moves, rng)
        if least is None or left < least:
            best, least = cells, left
        if not left:
            break
    return best


def _search(
    factors: Factors, allowed: Allowed, size: int, strength: int, moves: int, rng: random.Random
) -> tuple[list[Cell], int]:
    cells = _begin(factors, allowed, size, rng)
    times = dict.fromkeys(meetings(factors, allowed, strength), 0)
    for cell in cells:
        for meeting in combinations(cell.items(), strength):
            times[meeting] += 1
    for _ in range(moves):
        lacking = [meeting for meeting, n in times.items() if n == 0]
        if not lacking:
            break
        wanted = dict(rng.choice(lacking))
        found = []
        for i, old in enumerate(cells):
            new = {**old, **wanted}
            if allowed(new):
                before, after = (set(combinations(cell.items(), strength)) for cell in (old, new))
                lost = sum(times[m] == 1 for m in before - after)
                # With chance in it, else the same few meetings push each other out for ever.
                found.append((lost - sum(times[m] == 0 for m in after - before) + rng.random(), i, new))
        if not found:
            continue
        cost, i, new = min(found, key=lambda f: f[:2])
        if cost < 1.5:
            for cell, by in ((cells[i], -1), (new, 1)):
                for meeting in combinations(cell.items(), strength):
                    times[meeting] += by
            cells[i] = new
    return cells, sum(n == 0 for n in times.values())


def _begin(factors: Factors, allowed: Allowed, size: int, rng: random.Random) -> list[Cell]:
    """Random cells, but for the three factors with the most levels: these go round as in a Latin square."""
    first, second, third, *_ = sorted(factors, key=lambda name: -len(factors[name]))
    cells: list[Cell] = []
    while len(cells) < size:
        i, j = divmod(len(cells), len(factors[second]))
        turn = {first: i, second: j, third: i ^ j}
        cell = {name: rng.choice(levels) for name, levels in factors.items()}
        cell |= {name: factors[name][k % len(factors[name])] for name, k in turn.items()}
        if allowed(cell):
            cells.append(cell)
    return cells
