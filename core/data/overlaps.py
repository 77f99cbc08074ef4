"""Which public data sets show the same patients, and what a case of them is called in all of them.

From the data sets' own descriptions. LiTS (Bilic et al. 2023, arXiv:1901.04056) lives on under many names, so that none
of them can be an external test of a model that was trained on another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

CANDIDATES = "MSD Task08, HCC-TACE-Seg, TCIA CRLM"
"""Public sets with liver tumours that share no patient with LiTS."""


@dataclass(frozen=True)
class _Set:
    name: str
    pattern: str
    why: str


_LITS = (
    _Set("LiTS", r"lits(2?0?17)?(train\w*|test\w*)?", "LiTS itself"),
    _Set("3D-IRCADb", r"(3d)?ircadb?\d*", "LiTS volumes 28 to 47 are copies of 3D-IRCADb"),
    _Set(
        "MSD Task03", r"(msd|decathlon)?(task0*3)(liver)?|(msd|decathlon)liver", "MSD Task03 is LiTS under another name"
    ),
    _Set("AbdomenCT-1K", r"abdomenct1k\w*", "AbdomenCT-1K contains LiTS"),
    _Set("FLARE", r"(miccai)?flare\d*\w*", "FLARE contains LiTS"),
    _Set("AbdomenAtlas", r"abdomenatlas\w*", "AbdomenAtlas contains LiTS"),
    _Set("CT-ORG", r"ctorg", "many scans of CT-ORG are from LiTS"),
)

_SAME_PATIENT = {1: 0, 7: 6, 8: 6, 9: 6, 10: 6}
"""LiTS volumes that show the same patient as an earlier one."""
_TRAINING = 131
"""LiTS volume-0 to volume-130 are MSD Task03's liver_0 to liver_130; the test scans' numbers differ."""
_NUMBERED = ("LiTS", "MSD Task03")


def known(origin: str) -> str | None:
    """The name of the LiTS-related set that `origin` means, however it is spelt, or None."""
    plain = re.sub(r"[^a-z0-9]", "", origin.lower())
    return next((found.name for found in _LITS if re.fullmatch(found.pattern, plain)), None)


def why(first: str, second: str) -> str | None:
    """Why two origins share patients, or None if they are not known to."""
    names = known(first), known(second)
    if names[0] is None or names[1] is None:
        return None
    told = {found.name: found.why for found in _LITS}
    reasons = [told[name] for name in dict.fromkeys(names) if name is not None]
    # That LiTS is LiTS says nothing beside what the other one is.
    return " and ".join(reason for reason in reasons if len(reasons) == 1 or reason != told["LiTS"])


def refusals(external: Iterable[str], others: Iterable[str]) -> list[str]:
    """What is wrong with external test sets of these origins beside others of those, a line each; empty if nothing."""
    pairs = [(a, b, why(a, b)) for a in sorted(set(external)) for b in sorted(set(others))]
    found = [f"{a} is no external test set beside {b}: {reason}" for a, b, reason in pairs if reason is not None]
    return [*found, f"sets with liver tumours that would do beside LiTS: {CANDIDATES}"] if found else []


def lits_patient(number: int) -> str:
    """The patient of LiTS' training volume `number` (0 to 130), also that of MSD Task03's scan of this number."""
    return f"patient-{_SAME_PATIENT.get(number, number)}"


def patient_of(origin: str, case: str) -> str:
    """The patient of a case whose source names none: known for LiTS' two numberings, else the case itself."""
    match = re.fullmatch(r"(volume|liver)[-_](\d+)", case)
    if match and shares_numbers([origin]) and int(match[2]) < _TRAINING:
        return lits_patient(int(match[2]))
    return case


def shares_numbers(origins: Iterable[str]) -> bool:
    """Whether all these origins number LiTS' patients, so that one patient has one name in all of them."""
    return all(known(origin) in _NUMBERED for origin in origins)
