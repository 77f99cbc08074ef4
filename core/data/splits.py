"""What all splits share: who belongs together, drawing evenly over the strata, and the check of the result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.data.fingerprint import duplicates
from core.data.store import Store
from core.errors import UserError
from registry import suggest

PARTS = ("train", "val", "test")
EXTERNAL = "external"
"""The recorded split's fourth part, which core adds: the labelled cases of external sources."""
DRAWS = 100
"""Seeded draws, of which the most even one is taken."""


class SplitError(UserError):
    """A split that cannot be made, or that would leak."""


@dataclass(frozen=True)
class Group:
    """Cases that must not part: scans of one patient, or with the same content, whole or in part.

    Attributes:
        burden: tumour voxels / liver voxels (labels 1 and 2), 0 if there is no tumour.
        lesions: how many its scans have, at most.
        thickness_mm: of its thickest slices; None if no spacing can be trusted.
    """

    cases: tuple[str, ...]
    burden: float
    lesions: int = 0
    thickness_mm: float | None = None


def groups(store: Store, among: Collection[str] | None = None) -> list[Group]:
    """The labelled cases of a store that are not external, joined, ordered by tumour burden (tumour-free first).

    Joined are scans of one patient, with the same content, or that are near duplicates, also by way of a case that
    takes no part.

    Args:
        store: where they are.
        among: these cases alone; None takes all.
    """
    parent = {case: case for case in store.cases}

    def root(case: str) -> str:
        while parent[case] != case:
            case = parent[case]
        return case

    first: dict[tuple[str, str], str] = {}
    for case in store.cases:
        for key in (("patient", store.info(case).patient), ("content", store.info(case).content_hash)):
            parent[root(case)] = root(first.setdefault(key, case))
    for match in duplicates(store):
        parent[root(match.a)] = root(match.b)
    members: dict[str, list[str]] = {}
    for case in store.cases:
        if not store.info(case).labelled or store.info(case).external or (among is not None and case not in among):
            continue
        members.setdefault(root(case), []).append(case)
    position = {case: i for i, case in enumerate(store.cases)}
    found = [_group(store, cases) for cases in members.values()]
    return sorted(found, key=lambda g: (g.burden, position[g.cases[0]]))


def _group(store: Store, cases: Sequence[str]) -> Group:
    infos = [store.info(case) for case in cases]
    tumour, liver = sum(i.tumour_voxels for i in infos), sum(i.liver_voxels for i in infos)
    return Group(
        tuple(cases),
        tumour / liver if liver else 0.0,
        max(len(store.lesions(case)) for case in cases),
        max((i.native_spacing_mm[0] for i in infos if i.spacing_trusted), default=None),
    )


Strata = Mapping[Group, tuple[int, int, int]]
_STRATA = 3


def strata(everyone: Sequence[Group]) -> Strata:
    """The stratum of each group in burden (none, then quarters of the others), lesion count and slice thickness.

    Lesions: none, 1, 2 to 4, 5 to 9, more. Slices: untrusted spacing, up to 1.5 mm, up to 3 mm, thicker.
    """
    bearing = np.array([group.burden for group in everyone if group.burden > 0])
    quarters = np.quantile(bearing, [0.25, 0.5, 0.75]) if len(bearing) else np.zeros(3)
    return {
        group: (
            0 if group.burden == 0 else 1 + int(np.searchsorted(quarters, group.burden)),
            int(np.searchsorted([1, 2, 5, 10], group.lesions, side="right")),
            0 if group.thickness_mm is None else 1 + int(np.searchsorted([1.5, 3.0], round(group.thickness_mm, 3))),
        )
        for group in everyone
    }


def imbalance(part: Sequence[Group], kinds: Strata) -> float:
    """How far a part's mix is from that of all: 0 (the same) to 1.

    The total variation distance between the shares of the strata in the part and in all, the mean over burden, lesion
    count and slice thickness. An empty part has none.
    """
    if not part:
        return 0.0
    distance = 0.0
    for values, own in zip(zip(*kinds.values(), strict=True), zip(*(kinds[g] for g in part), strict=True), strict=True):
        whole, here = Counter(values), Counter(own)
        distance += sum(abs(whole[k] / len(values) - here[k] / len(own)) for k in whole) / 2
    return distance / _STRATA


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


def most_even(draw: Callable[[np.random.Generator], list[list[Group]]], kinds: Strata, seed: int) -> list[list[Group]]:
    """Of `DRAWS` draws, which differ in their generator, the one whose parts' imbalances sum to the least."""
    best: list[list[Group]] = []
    least = math.inf
    for number in range(DRAWS):
        parts = draw(np.random.default_rng([seed, number]))
        sum_of = sum(imbalance(part, kinds) for part in parts)
        if sum_of < least - 1e-12:  # the first of equals, whatever the last bit says
            best, least = parts, sum_of
    return best


def draw_parts(ordered: Sequence[Group], counts: Sequence[int], seed: int) -> list[list[Group]]:
    """Parts of so many groups, and last what remains, each with the mix of all; see `draw_evenly`, `most_even`."""

    def draw(rng: np.random.Generator) -> list[list[Group]]:
        parts, rest = [], list(ordered)
        for count in counts:
            part, rest = draw_evenly(rest, count, rng)
            parts.append(part)
        return [*parts, rest]

    return most_even(draw, strata(ordered), seed)


def count_of(share: float, total: int) -> int:
    """Patients in a share: rounded, but at least one if the share is not 0."""
    return max(1, math.floor(share * total + 0.5)) if share > 0 else 0


def validating(store: Store, cases: Collection[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """A share of the patients of these cases to validate on, and those that train, as case ids.

    Raises:
        SplitError: if no patient is left to train on.
    """
    everyone = groups(store, cases)
    count = count_of(share, len(everyone))
    if len(everyone) < count + 1:
        raise SplitError(
            f"{store.root}: {len(everyone)} patient{'' if len(everyone) == 1 else 's'} to train and to validate on; "
            f"set split.val=0 to train on all"
        )
    val, train = draw_parts(everyone, [count], seed)
    return case_ids(store, val), case_ids(store, train)


def check_share(name: str, share: float) -> None:
    """Raises ValueError for a share outside [0, 1)."""
    if not 0 <= share < 1:
        raise ValueError(f"{name} is a share of the patients: want 0 <= {name} < 1, got {share:g}")


def case_ids(store: Store, chosen: Sequence[Group]) -> list[str]:
    """The cases of some groups, in the store's order."""
    cases = {case for group in chosen for case in group.cases}
    return [case for case in store.cases if case in cases]


def externals(store: Store) -> list[str]:
    """The labelled external cases."""
    return [case for case in store.cases if store.info(case).external and store.info(case).labelled]


def check(parts: Mapping[str, Sequence[str]], store: Store) -> None:
    """Check that a split, whoever made it, can be used; `core.data.leakage` tells whether it leaks.

    Raises:
        SplitError: if an id is unknown, unlabelled, external or there twice, or no case trains.
    """
    problems: list[str] = []
    for name in parts:
        if name not in (*PARTS, EXTERNAL):
            problems.append(f"no such part '{name}'{suggest(name, PARTS)} Parts: {', '.join(PARTS)}")
    placed: dict[str, str] = {}
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
            if info.external and name != EXTERNAL:
                problems.append(
                    f"{name}: case '{case}' is external; it is tested apart, with evaluate.py --split external"
                )
    if not parts.get("train"):
        problems.append("no case trains")
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the split"
        raise SplitError("\n  ".join([count, *problems]))
