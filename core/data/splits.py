"""What all splits share: who belongs together, drawing evenly over tumour burden, and the check of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.data.store import Store
from core.errors import UserError
from registry import suggest

PARTS = ("train", "val", "test")


class SplitError(UserError):
    """A split that cannot be made, or that would leak."""


@dataclass(frozen=True)
class Group:
    """Cases that must not part: scans of one patient, or with the same content.

    Attributes:
        burden: tumour voxels / liver voxels (labels 1 and 2), 0 if there is no tumour.
    """

    cases: tuple[str, ...]
    burden: float


def groups(store: Store) -> list[Group]:
    """The labelled cases of a store, joined by patient and content, ordered by tumour burden (tumour-free first)."""
    labelled = [case for case in store.cases if store.info(case).labelled]
    parent = {case: case for case in labelled}

    def root(case: str) -> str:
        while parent[case] != case:
            case = parent[case]
        return case

    first: dict[tuple[str, str], str] = {}
    for case in labelled:
        for key in (("patient", store.info(case).patient), ("content", store.info(case).content_hash)):
            parent[root(case)] = root(first.setdefault(key, case))
    members: dict[str, list[str]] = {}
    for case in labelled:
        members.setdefault(root(case), []).append(case)
    found = []
    for cases in members.values():
        tumour = sum(store.info(c).tumour_voxels for c in cases)
        liver = sum(store.info(c).liver_voxels for c in cases)
        found.append(Group(tuple(cases), tumour / liver if liver else 0.0))
    position = {case: i for i, case in enumerate(store.cases)}
    return sorted(found, key=lambda g: (g.burden, position[g.cases[0]]))


def draw_evenly(ordered: Sequence[Group], count: int, rng: np.random.Generator) -> tuple[list[Group], list[Group]]:
    """Draw `count` of the groups: tumour-free ones by their share, and both sorts spread evenly over their order.

    Each sort is cut into as many equal stretches as it gives groups, and one is drawn at random from each.

    Returns:
        The drawn and the rest, both in order.
    """
    free = sum(group.burden == 0 for group in ordered)
    bearing = len(ordered) - free
    # Rounded, but so that neither sort is asked for more than it has.
    of_free = max(min(round(count * free / max(len(ordered), 1)), free), count - bearing)
    drawn: set[int] = set()
    for positions, number in ((range(free), of_free), (range(free, len(ordered)), count - of_free)):
        if number:
            drawn |= {int(rng.choice(stretch)) for stretch in np.array_split(np.asarray(positions), number)}
    return [ordered[i] for i in sorted(drawn)], [g for i, g in enumerate(ordered) if i not in drawn]


def check(parts: Mapping[str, Sequence[str]], store: Store) -> None:
    """Check a split, whoever made it.

    Raises:
        SplitError: if a patient or a scan's content is on two sides, or an id is unknown, unlabelled or there twice,
            or no case trains.
    """
    problems: list[str] = []
    for name in parts:
        if name not in PARTS:
            problems.append(f"no such part '{name}'{suggest(name, PARTS)} Parts: {', '.join(PARTS)}")
    placed: dict[str, str] = {}
    owner: dict[tuple[str, str], tuple[str, str]] = {}
    for name, cases in parts.items():
        for case in cases:
            if case not in store.cases:
                problems.append(f"{name}: no case '{case}' in {store.root}{suggest(case, store.cases)}")
                continue
            if case in placed:
                problems.append(f"{name}: case '{case}' is listed twice (also in {placed[case]})")
                continue
            placed[case] = name
            info = store.info(case)
            if not info.labelled:
                problems.append(f"{name}: case '{case}' has no label")
            for what, value in (("patient", info.patient), ("content", info.content_hash)):
                other, side = owner.setdefault((what, value), (case, name))
                if side != name and what == "patient":
                    problems.append(f"patient '{value}' is on two sides: {other} in {side}, {case} in {name}")
                elif side != name:
                    problems.append(f"the same scan is on two sides: {other} in {side}, {case} in {name}")
    if not parts.get("train"):
        problems.append("no case trains")
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the split"
        raise SplitError("\n  ".join([count, *problems]))
