"""Scans -> store: read, check, mend what is known, and write one HDF5 file a case."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.build import build
from core.contracts import Case, Source
from core.data import store as stores
from core.data.ingest import Done, Job, ingest
from core.data.store import SCHEMA, SUFFIX, Compression, StoreError
from core.data.volume import VolumeError
from core.errors import UserError
from core.experiment import Experiment
from core.parallel import cpus, map_cases

REMOVED = "removed"
_WORKER_BYTES = 1_500_000_000  # a scan of 512x512x900 stays below this; measured in docs/data.md


class SourceError(UserError):
    """A source that finds nothing, or cannot be read."""


@dataclass
class Report:
    """What `prepare` did.

    Attributes:
        stored: cases written now.
        skipped: cases that were in the store already, unchanged.
        bad: (case, path, message); they are not in the store.
        notes: (case, remark): repairs, and what cannot be trusted.
        removed: cases set aside in the folder ``removed``, because the source no longer has them.
    """

    root: Path
    stored: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    bad: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The report as text."""
        good = len(self.stored) + len(self.skipped)
        lines = [f"store {self.root}: {good} cases ({len(self.stored)} new, {len(self.skipped)} unchanged)"]
        if self.removed:
            lines.append(f"no longer in the source, set aside in {self.root / REMOVED}: {', '.join(self.removed)}")
        remarks: dict[str, list[str]] = {}
        for case, remark in self.notes:
            remarks.setdefault(remark, []).append(case)
        lines += [f"note: {remark}\n  {', '.join(cases)}" for remark, cases in remarks.items()]
        if self.bad:
            width = max(len(case) for case, _, _ in self.bad)
            lines.append(f"{len(self.bad)} bad cases, not in the store:")
            lines += [f"  {case:<{width}}  {message}" for case, _, message in self.bad]
        return "\n".join(lines)


def prepare(
    source: Source,
    root: Path,
    *,
    compression: Compression = "bitshuffle-lz4",
    workers: int | None = None,
    source_config: Mapping[str, Any],
) -> Report:
    """Bring the store at `root` in line with the source; cases that are there and unchanged stay.

    A case counts as unchanged while size and time of its files, and what the source says of it, are the same. Several
    processes may call it at once: one works, the others wait and find all done. A file is moved into place only when
    it is whole, so a killed run leaves no broken one, and the next goes on where it stopped.

    Args:
        source: where the scans are.
        root: the store's folder.
        compression: "none" is read as fast as the memory and takes three times the space.
        workers: processes; None: one a CPU, fewer if memory is short.
        source_config: the ``source:`` node, recorded; another source's store is refused.

    Raises:
        SourceError: if the source finds no cases, with what it says.
        StoreError: if the store belongs to another source, or the disk is full.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        _check_owner(root, source_config)
        for stale in root.glob(".*.partial"):
            stale.unlink()
        try:
            cases = list(source.cases())
        except ValueError as error:
            raise SourceError(f"source '{source_config.get('name', type(source).__name__)}': {error}") from error
        report = Report(root)
        _run(cases, report, compression, workers)
        _remove_others(root, report)
        if report.stored or report.skipped:
            _write_summary(root, cases, report, source_config)
    return report


def prepare_experiment(experiment: Experiment) -> Report:
    """Bring an experiment's store in line with its source; raises as `prepare` does."""
    return prepare(
        build(experiment.source),
        experiment.store,
        compression=experiment.prepare.compression,
        workers=experiment.prepare.workers,
        source_config=experiment.source.plain(),
    )


def differs(root: Path, source_config: Mapping[str, Any]) -> list[str]:
    """In which arguments the source that a store was prepared from differs from the experiment's, as text."""
    before = (_summary(root) or {}).get("source") or {}
    keys = sorted({*before, *source_config})
    return [f"{k} {before.get(k)!r} -> {source_config.get(k)!r}" for k in keys if before.get(k) != source_config.get(k)]


def is_complete(root: Path) -> bool:
    """Whether a `prepare` of this store came to its end."""
    summary = _summary(Path(root))
    return summary is not None and summary.get("schema") == SCHEMA


def _run(cases: Sequence[Case], report: Report, compression: Compression, workers: int | None) -> None:
    root = report.root
    twice = {case for case, n in Counter(c.id for c in cases).items() if n > 1}
    jobs: dict[str, Job] = {}
    present: dict[str, Done] = {}
    for case in cases:
        stores.check_id(case.id)
        if case.id in twice:
            continue
        signature = _signature(case, compression)
        done = _unchanged(root / f"{case.id}{SUFFIX}", signature)
        if done is not None:
            present[case.id] = done
        else:
            jobs[case.id] = Job(case, root / f".{case.id}{SUFFIX}.{os.getpid()}.partial", compression, signature)
    if jobs:
        (root / "store.json").unlink(missing_ok=True)  # incomplete from here on
    results = map_cases(ingest, list(jobs.values()), workers=_workers(workers), description="prepare")
    seen: dict[str, Case] = {}
    try:
        for case in cases:
            if case.id in twice:
                if all(case.id != known for known, _, _ in report.bad):
                    report.bad.append(_found_twice([c for c in cases if c.id == case.id]))
                continue
            result: Any = present[case.id] if case.id in present else next(results)[1]
            if isinstance(result, Done) and result.content_hash in seen:
                first = seen[result.content_hash]
                result = VolumeError(f"{case.image}: the same scan as {first.id} ({first.image})")
            if isinstance(result, Exception):
                _refuse(case, result, jobs.get(case.id), report)
                continue
            seen[result.content_hash] = case
            report.notes += [(case.id, note) for note in result.notes]
            if case.id in present:
                report.skipped.append(case.id)
            else:
                os.replace(jobs[case.id].partial, root / f"{case.id}{SUFFIX}")
                report.stored.append(case.id)
    finally:
        results.close()  # type: ignore[attr-defined]


def _found_twice(cases: Sequence[Case]) -> tuple[str, str, str]:
    files = list(dict.fromkeys(str(c.image) for c in cases))
    if len(files) == 1:  # one scan with two labels
        files = list(dict.fromkeys(str(c.label) for c in cases))
    return cases[0].id, files[0], f"{files[0]}: found more than once; keep one of {', '.join(files)}"


def _refuse(case: Case, error: Exception, job: Job | None, report: Report) -> None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StoreError(f"{report.root}: the disk is full ({error}); make room and run again, it goes on from here")
    if job is not None:
        job.partial.unlink(missing_ok=True)
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    path = str(case.label) if case.label is not None and text.startswith(str(case.label)) else str(case.image)
    report.bad.append((case.id, path, text if text.startswith(path) else f"{path}: {text}"))


def _signature(case: Case, compression: Compression) -> str:
    def stamp(path: Path | None) -> list[int] | None:
        try:
            found = path.stat() if path is not None else None
        except OSError:
            return None
        return [found.st_size, found.st_mtime_ns] if found is not None else None

    said = [getattr(case, f.name) for f in dataclasses.fields(case) if f.name not in ("image", "label")]
    return json.dumps([SCHEMA, compression, stamp(case.image), stamp(case.label), case.label is not None, *said])


def _unchanged(path: Path, signature: str) -> Done | None:
    try:
        with stores.open_case(path) as file:
            if file.attrs.get("signature") != signature:
                return None
            info = stores.read_info(file)
            return Done(info.content_hash, info.notes)
    except (StoreError, KeyError, OSError):  # absent, cut short, or of another schema: written anew
        return None


def _remove_others(root: Path, report: Report) -> None:
    good = {*report.stored, *report.skipped}
    bad = {case for case, _, _ in report.bad}
    for path in sorted(root.glob(f"*{SUFFIX}")):
        case = path.name[: -len(SUFFIX)]
        if case not in good:
            aside = root / REMOVED
            aside.mkdir(exist_ok=True)
            os.replace(path, aside / path.name)
            if case not in bad:
                report.removed.append(case)


def _workers(wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):  # not Linux
        return cpus()
    return max(1, min(cpus(), free // _WORKER_BYTES))


def _summary(root: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((root / "store.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _check_owner(root: Path, source_config: Mapping[str, Any]) -> None:
    summary = _summary(root)
    before = ((summary or {}).get("source") or {}).get("name")
    now = source_config.get("name")
    if before is not None and now is not None and before != now:
        raise StoreError(
            f"{root}: this store was prepared from source '{before}', not '{now}'; "
            f"name another with store=data/{now}, or delete the folder"
        )


def _write_summary(root: Path, cases: Sequence[Case], report: Report, source_config: Mapping[str, Any]) -> None:
    summary = {
        "schema": SCHEMA,
        "source": dict(source_config),
        "origin": sorted({c.origin for c in cases}),
        "cases": len(report.stored) + len(report.skipped),
        "bad": [{"case": case, "path": path, "message": message} for case, path, message in report.bad],
    }
    partial = root / f".store.json.{os.getpid()}.partial"
    with open(partial, "w") as file:
        json.dump(summary, file, indent=1, default=str)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, root / "store.json")


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    with open(root / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"{root}: another process is preparing this store; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
