"""Whether a split leaks: what is on two of its sides and should not be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Literal

from core.data import overlaps
from core.data.fingerprint import duplicates
from core.data.splits import EXTERNAL, SplitError
from core.data.store import Store

FILE = "leakage.json"
"""Of a run directory."""
Policy = Literal["fail", "warn"]

_SHOWN = 10


@dataclass
class Pair:
    """Two cases on two sides that share something.

    Attributes:
        sides: the parts that they are in.
        patient: the patient of both, or an empty string.
        same_scan: the HU are the same.
        share: of the shorter one's slices that the other has too, 0 if they are no near duplicates.
        slices: how many these are.
    """

    cases: tuple[str, str]
    sides: tuple[str, str]
    patient: str = ""
    same_scan: bool = False
    share: float = 0.0
    slices: int = 0

    def __str__(self) -> str:
        why = [f"patient '{self.patient}'"] if self.patient else []
        if self.same_scan:
            why.append("the same scan")
        elif self.share:
            count = "1 slice" if self.slices == 1 else f"{self.slices} slices"
            why.append(f"near duplicates, {count} or {100 * self.share:.0f} % of the shorter one")
        (a, b), (first, second) = self.cases, self.sides
        return f"{a} ({first}) and {b} ({second}): {', '.join(why)}"


@dataclass
class Leakage:
    """What was found.

    Attributes:
        cases: how many were compared.
        pairs: what is on two sides.
        external: why an external set is none, a line each.
        notes: what is known of public sets that are used together, a line each; no leak.
    """

    cases: int
    pairs: list[Pair] = field(default_factory=list)
    external: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def leaks(self) -> bool:
        """Whether anything is on two sides."""
        return bool(self.pairs or self.external)

    def text(self, shown: int | None = _SHOWN) -> str:
        """The report; empty if there is nothing to say.

        Args:
            shown: pairs that are listed; None lists all.
        """
        lines = []
        if self.pairs:
            lines.append(f"the split leaks: {len(self.pairs)} pair{'s' if len(self.pairs) > 1 else ''} on two sides")
            lines += [f"  {pair}" for pair in self.pairs[:shown]]
            if shown is not None and len(self.pairs) > shown:
                lines.append(f"  and {len(self.pairs) - shown} more, all in the run's {FILE}")
        if self.external:
            lines += ["the external test set holds patients of the training data", *(f"  {x}" for x in self.external)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def document(self) -> str:
        """The report as JSON, all pairs in it."""
        found: dict[str, Any] = {"leaks": self.leaks, **asdict(self)}
        return json.dumps(found, indent=1)


def find(parts: Mapping[str, Sequence[str]], store: Store) -> Leakage:
    """Compare all cases of a split by patient, content and fingerprint, and external sets by what is known of them."""
    side = {case: name for name, cases in parts.items() for case in cases if case in store.cases}
    infos = {case: store.info(case) for case in store.cases if case in side}
    found = Leakage(len(infos))
    pairs: dict[tuple[str, str], Pair] = {}

    def pair(a: str, b: str) -> Pair:
        a, b = (a, b) if order[a] < order[b] else (b, a)
        return pairs.setdefault((a, b), Pair((a, b), (side[a], side[b])))

    order = {case: i for i, case in enumerate(infos)}
    owners: dict[tuple[str, str], list[str]] = {}
    for case, info in infos.items():
        for key in (("patient", info.patient), ("content", info.content_hash)):
            owners.setdefault(key, []).append(case)
    for (what, value), cases in owners.items():
        for a, b in combinations(cases, 2):
            if side[a] != side[b]:
                if what == "patient":
                    pair(a, b).patient = value
                else:
                    pair(a, b).same_scan = True
    near = [match for match in duplicates(store) if match.a in side and match.b in side]
    for match in near:
        if side[match.a] != side[match.b]:
            one = pair(match.a, match.b)
            one.share, one.slices = round(match.share, 4), match.slices
    found.pairs = sorted(pairs.values(), key=lambda one: (order[one.cases[0]], order[one.cases[1]]))
    outside = [info.origin for case, info in infos.items() if side[case] == EXTERNAL]
    inside = [info.origin for case, info in infos.items() if side[case] != EXTERNAL]
    found.external = overlaps.refusals(outside, inside)
    for a, b in combinations(sorted(set(inside)), 2):
        reason = overlaps.why(a, b)
        if reason is not None:
            count = sum({infos[m.a].origin, infos[m.b].origin} == {a, b} for m in near)
            found.notes.append(f"{a} and {b} share patients ({reason}); near duplicates found between them: {count}")
    return found


def check(parts: Mapping[str, Sequence[str]], store: Store, policy: Policy) -> Leakage:
    """Find what leaks, and refuse it under the policy "fail".

    Raises:
        SplitError: with all that leaks, and what to do.
    """
    found = find(parts, store)
    if found.leaks and policy == "fail":
        raise SplitError(
            f"{found.text(shown=None)}\n"
            f"  keep them on one side (split: stratified does), leave cases out (source.exclude), or go on all the "
            f"same with split.leakage=warn, which is recorded in the run"
        )
    return found
