"""What a `prepare` did, and what it refused."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.contracts import Case
from core.data.casefile import StoreError
from core.data.ingest import Job
from core.data.manage import REMOVED
from core.data.migrate import Migration
from core.errors import UserError


@dataclass
class Report:
    """What `prepare` did.

    Attributes:
        stored: cases written now.
        skipped: cases that were in the store already, unchanged.
        updated: cases of which only what the source says has changed; their scans were not read.
        bad: (case, path, message); they are not in the store.
        notes: (case, remark): repairs, and what cannot be trusted.
        removed: cases set aside in the folder ``removed``, because the source no longer has them.
        excluded: cases of the source that stay out, because they were taken out by hand.
        migration: what was brought over from an older schema beforehand.
        total: cases in the store now.
    """

    root: Path
    stored: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    bad: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    migration: Migration | None = None
    total: int = 0

    def table(self) -> str:
        """The report as text."""
        lines = [] if self.migration is None else [self.migration.table()]
        lines.append(f"store {self.root}: {self.total} cases ({len(self.stored)} new, {self._unchanged()} unchanged)")
        if self.updated:
            lines.append(f"brought up to date with what the source says: {', '.join(self.updated)}")
        if self.removed:
            lines.append(f"no longer in the source, set aside in {self.root / REMOVED}: {', '.join(self.removed)}")
        if self.excluded:
            lines.append(f"left out since --remove (--restore brings them back): {', '.join(self.excluded)}")
        remarks: dict[str, list[str]] = {}
        for case, remark in self.notes:
            remarks.setdefault(remark, []).append(case)
        lines += [f"note: {remark}\n  {', '.join(cases)}" for remark, cases in remarks.items()]
        if self.bad:
            width = max(len(case) for case, _, _ in self.bad)
            lines.append(f"{len(self.bad)} bad cases, not in the store:")
            lines += [f"  {case:<{width}}  {message}" for case, _, message in self.bad]
        return "\n".join(lines)

    def _unchanged(self) -> int:
        return self.total - len(self.stored)


def found_twice(cases: Sequence[Case]) -> tuple[str, str, str]:
    """An id that a source gives twice, as an entry of `Report.bad`."""
    files = list(dict.fromkeys(str(c.image) for c in cases))
    if len(files) == 1:  # one scan with two labels
        files = list(dict.fromkeys(str(c.label) for c in cases))
    return cases[0].id, files[0], f"{files[0]}: found more than once; keep one of {', '.join(files)}"


def full_disk(root: Path, error: Exception) -> StoreError | None:
    """What to tell the user if it is for want of room that something could not be written, else None."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return StoreError(f"{root}: the disk is full ({error}); make room and run again, it goes on from here")


def refuse(case: Case, error: Exception, job: Job | None, report: Report) -> None:
    """Note a case that could not be stored, and clear away what was begun.

    Raises:
        StoreError: if the disk is full, which no other case would survive.
    """
    full = full_disk(report.root, error)
    if full is not None:
        raise full
    if job is not None:
        job.partial.unlink(missing_ok=True)
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    path = str(case.label) if case.label is not None and text.startswith(str(case.label)) else str(case.image)
    report.bad.append((case.id, path, text if text.startswith(path) else f"{path}: {text}"))
