"""What cases say against one another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from core.audit.case import Examined
from core.audit.rules import Finding
from core.contracts import Case
from core.data.fingerprint import near_duplicates

_Item = TypeVar("_Item")

IRCADB = range(28, 49)
"""LiTS volumes that are copies of 3D-IRCADb: 28 to 47 by one count, 28 to 48 by another."""


def check_names(cases: Sequence[Case]) -> list[Finding]:
    """Cases of one id."""
    found = []
    for case, same in _grouped(cases, lambda c: c.id).items():
        if len(same) > 1:
            files = dict.fromkeys(f"{c.image}" + (f" with {c.label}" if c.label else "") for c in same)
            found.append(Finding("found_twice", "; ".join(files), (case,)))
    return found


def check_across(examined: Sequence[Examined]) -> list[Finding]:
    """Duplicates, labels under two scans, the IRCADb block, affines, axes, patients with several scans."""
    usable = [e for e in examined if e.image_hash]
    found, exact = [], set()
    for same in _grouped(usable, lambda e: e.image_hash).values():
        if len(same) < 2:
            continue
        exact |= {(a.case.id, b.case.id) for a in same for b in same}
        files = ", ".join(dict.fromkeys(str(e.case.image) for e in same))
        found.append(Finding("duplicate", f"the same voxels in {files}", _ids(same)))
        labels = {e.label_hash: e for e in reversed(same) if e.label_hash}
        if len(labels) > 1:
            files = ", ".join(str(e.case.label) for e in reversed(labels.values()))
            found.append(Finding("two_labels", f"the labels differ: {files}", _ids(same)))
    for same in _grouped([e for e in usable if e.row.get("liver_voxels")], lambda e: e.label_hash).values():
        if len({e.image_hash for e in same}) > 1:
            files = ", ".join(str(e.case.label) for e in same)
            found.append(Finding("same_label", f"the same {same[0].row['liver_voxels']} voxels in {files}", _ids(same)))
    return [*found, *_near(usable, exact), *_affines(usable), *_axes(usable), *_patients(examined)]


def _near(usable: Sequence[Examined], exact: set[tuple[str, str]]) -> list[Finding]:
    by_id = {e.case.id: e for e in usable}
    found = []
    for match in near_duplicates({e.case.id: e.prints for e in usable if e.prints is not None}):
        if (match.a, match.b) in exact:
            continue
        a, b = by_id[match.a].case, by_id[match.b].case
        rule = "near_duplicate_known" if a.patient == b.patient else "near_duplicate"
        saw = f"{match.slices} slices, {100 * match.share:.0f} % of the shorter one's, show the same"
        found.append(Finding(rule, f"{a.id} and {b.id}: {saw}", (a.id, b.id)))
    return found


def _affines(usable: Sequence[Examined]) -> list[Finding]:
    found = []
    identity = [e for e in usable if e.identity]
    if identity and len(identity) < len(usable):
        saw = f"{len(identity)} of {len(usable)} scans have the identity as affine"
        found.append(Finding("mixed_affines", saw, _ids(identity)))
    block = [e for e in identity if e.case.origin.startswith("LiTS") and _number(e.case.id) in IRCADB]
    if block:
        numbers = ", ".join(str(_number(e.case.id)) for e in block)
        found.append(Finding("ircadb", f"volumes {numbers}, all with the identity as affine", _ids(block)))
    return found


def _axes(usable: Sequence[Examined]) -> list[Finding]:
    groups = _grouped(usable, lambda e: str(e.row["axes"]))
    if len(groups) < 2:
        return []
    parts = [f"{axes} {len(same)}" for axes, same in sorted(groups.items(), key=lambda item: -len(item[1]))]
    return [Finding("axes_differ", f"number of scans by the directions of the axes: {', '.join(parts)}")]


def _patients(examined: Sequence[Examined]) -> list[Finding]:
    several = [same for same in _grouped(examined, lambda e: e.case.patient).values() if len(same) > 1]
    return [Finding("same_patient", f"all of patient {s[0].case.patient}", _ids(s)) for s in several]


def _number(case: str) -> int | None:
    match = re.fullmatch(r"\D*(\d+)", case)
    return int(match[1]) if match else None


def _ids(examined: Iterable[Examined]) -> tuple[str, ...]:
    return tuple(e.case.id for e in examined)


def _grouped(items: Iterable[_Item], key: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    groups: dict[str, list[_Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
