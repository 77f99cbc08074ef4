"""Scans -> store: read, check, mend what is known, and write one HDF5 file a case."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py

from core.build import build
from core.contracts import Case, Source
from core.data import summary as summaries
from core.data.casefile import SCHEMA, SUFFIX, Compression, StoreError, case_files, check_id, open_case, read_info
from core.data.ingest import Done, Job, described, flush, ingest
from core.data.manage import set_aside
from core.data.migrate import migrate
from core.data.outcome import Report, found_twice, full_disk, refuse
from core.data.signature import signature
from core.data.summary import differs, is_complete
from core.data.volume import VolumeError
from core.errors import UserError
from core.experiment import Experiment
from core.parallel import cpus, map_cases
from core.settings import PrepareSettings
from registry import suggest

__all__ = ["Report", "SourceError", "differs", "is_complete", "prepare", "prepare_experiment"]

_WORKER_BYTES = 1_500_000_000  # a scan of 512x512x900 stays below this; measured in docs/data.md


class SourceError(UserError):
    """A source that finds nothing, or cannot be read."""


def prepare(
    source: Source,
    root: Path,
    *,
    compression: Compression = "bitshuffle-lz4",
    workers: int | None = None,
    spacing: tuple[float | None, float | None, float | None] | None = None,
    crop: Literal["none", "body", "liver"] = "none",
    margin_mm: float = 20.0,
    only: Sequence[str] = (),
    source_config: Mapping[str, Any],
) -> Report:
    """Bring the store at `root` in line with the source; cases that are there and unchanged stay.

    A case counts as unchanged while size and time of its files, and what the source says of it, are the same. Several
    processes may call it at once: one works, the others wait and find all done. A file is moved into place only when
    it is whole, so a killed run leaves no broken one, and the next goes on where it stopped. Files of an older schema
    are brought to the present one first.

    Args:
        source: where the scans are.
        root: the store's folder.
        compression: "none" is read as fast as the memory and takes three times the space.
        workers: processes; None: one a CPU, fewer if memory is short.
        spacing: of the stored voxels, as in `PrepareSettings`.
        crop: what is kept of a scan, as there.
        margin_mm: around it, as there.
        only: cases to store or refresh; the others stay as they are, and so does what the source no longer has.
        source_config: the ``source:`` node, recorded; another source's store is refused.

    Raises:
        SourceError: if the source finds no cases, with what it says, or has none of a name in `only`.
        StoreError: if the store belongs to another source or keeps another grid, or the disk is full.
    """
    root, settings = Path(root), PrepareSettings(compression, None, spacing, crop, margin_mm)
    root.mkdir(parents=True, exist_ok=True)
    with summaries.locked(root):
        summaries.check_owner(root, source_config)
        summaries.check_grid(root, settings)
        for stale in root.glob(".*.partial"):
            stale.unlink()
        cases = _listed(source, source_config, only)
        migrated = migrate(root)
        report = Report(root, migration=migrated if migrated.done else None)
        out = set(summaries.excluded(root))
        if out & set(only):
            names = ", ".join(sorted(out & set(only)))
            raise StoreError(f"{root}: taken out by --remove: {names}; --restore brings a case back")
        report.excluded = [case.id for case in cases if case.id in out]
        before = summaries.read(root)
        complete = bool(before.get("complete", True)) if only else True
        record = _record(before, cases, settings, source_config)
        wanted = [case for case in cases if case.id not in out]
        try:
            _run(wanted, report, settings, record, workers=workers, keep=bool(only))
        except OSError as error:
            full = full_disk(root, error)
            if full is None:
                raise
            raise full from error
        _remove_others(report, [c for c in case_files(root) if not only or c in set(only)])
        report.total = len(case_files(root))
        if report.total:
            bad = [{"case": case, "path": path, "message": message} for case, path, message in report.bad]
            others = [entry for entry in before.get("bad", []) if only and entry["case"] not in set(only)]
            count = {"complete": complete, "cases": report.total, "bad": [*others, *bad]}
            summaries.write(root, {**record, **count})
    return report


def prepare_experiment(experiment: Experiment, only: Sequence[str] = ()) -> Report:
    """Bring an experiment's store in line with its source; raises as `prepare` does."""
    wanted = experiment.prepare
    return prepare(
        build(experiment.source),
        experiment.store,
        compression=wanted.compression,
        workers=wanted.workers,
        spacing=wanted.spacing,
        crop=wanted.crop,
        margin_mm=wanted.margin_mm,
        only=only,
        source_config=experiment.source.plain(),
    )


def _listed(source: Source, config: Mapping[str, Any], only: Sequence[str]) -> list[Case]:
    name = config.get("name", type(source).__name__)
    try:
        cases = list(source.cases())
    except ValueError as error:
        raise SourceError(f"source '{name}': {error}") from error
    known = {case.id for case in cases}
    for wanted in only:
        if wanted not in known:
            raise SourceError(f"source '{name}': no case '{wanted}'{suggest(wanted, sorted(known))}")
    return [case for case in cases if not only or case.id in set(only)]


def _record(
    before: Mapping[str, Any], cases: Sequence[Case], settings: PrepareSettings, source_config: Mapping[str, Any]
) -> dict[str, Any]:
    """What the summary says of the whole store, whatever becomes of the cases."""
    return {
        "schema": SCHEMA,
        "grid": summaries.grid_key(settings),
        "source": dict(source_config),
        "origin": sorted({*before.get("origin", []), *(c.origin for c in cases)}),
        "excluded": list(before.get("excluded", [])),
    }


def _run(
    cases: Sequence[Case],
    report: Report,
    settings: PrepareSettings,
    record: Mapping[str, Any],
    *,
    workers: int | None,
    keep: bool,
) -> None:
    root = report.root
    twice = {case for case, n in Counter(c.id for c in cases).items() if n > 1}
    jobs: dict[str, Job] = {}
    present: dict[str, Done] = {}
    for case in cases:
        check_id(case.id)
        if case.id in twice:
            continue
        path = root / f"{case.id}{SUFFIX}"
        job = Job(case, _partial(path), settings.compression, signature(case, settings.compression, settings), settings)
        done = _unchanged(path, job)
        if done is not None:
            present[case.id] = done
        else:
            jobs[case.id] = job
    if jobs:
        summaries.write(root, {**record, "complete": False})
    results = map_cases(ingest, list(jobs.values()), workers=_workers(workers), description="prepare")
    seen = _others(root, {case.id for case in cases}) if keep else {}
    try:
        for case in cases:
            if case.id in twice:
                if all(case.id != known for known, _, _ in report.bad):
                    report.bad.append(found_twice([c for c in cases if c.id == case.id]))
                continue
            result: Any = present[case.id] if case.id in present else next(results)[1]
            if isinstance(result, Done) and result.content_hash in seen:
                result = VolumeError(f"{case.image}: the same scan as {seen[result.content_hash]}")
            if isinstance(result, Exception):
                refuse(case, result, jobs.get(case.id), report)
                continue
            seen[result.content_hash] = f"{case.id} ({case.image})"
            report.notes += [(case.id, note) for note in result.notes]
            path = root / f"{case.id}{SUFFIX}"
            if case.id in present:
                (report.updated if _restated(path, case) else report.skipped).append(case.id)
            else:
                os.replace(jobs[case.id].partial, path)
                report.stored.append(case.id)
    finally:
        results.close()  # type: ignore[attr-defined]


def _others(root: Path, cases: set[str]) -> dict[str, str]:
    """The other cases of the store, by their hash."""
    found = {}
    for case in case_files(root):
        if case not in cases:
            with open_case(root / f"{case}{SUFFIX}") as file:
                info = read_info(file)
            found[info.content_hash] = f"{case} ({info.image_path})"
    return found


def _restated(path: Path, case: Case) -> bool:
    """Write anew what the source says of a case, if that has changed; the scan itself need not be read again."""
    said = described(case)
    with open_case(path) as file:
        if all(file.attrs[name] == value for name, value in said.items()):
            return False
    partial = _partial(path)
    shutil.copyfile(path, partial)
    with h5py.File(partial, "r+", locking=False) as file:
        for name, value in said.items():
            file.attrs[name] = value
    flush(partial)
    os.replace(partial, path)
    return True


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _unchanged(path: Path, job: Job) -> Done | None:
    try:
        with open_case(path) as file:
            if file.attrs.get("signature") != job.signature:
                return None
            info = read_info(file)
            return Done(info.content_hash, info.notes)
    except (StoreError, KeyError, OSError):  # absent, cut short, or of another schema: written anew
        return None


def _remove_others(report: Report, there: Sequence[str]) -> None:
    """Set aside those cases of the store that are neither stored now nor unchanged."""
    good = {*report.stored, *report.updated, *report.skipped}
    bad = {case for case, _, _ in report.bad}
    for case in there:
        if case not in good:
            set_aside(report.root, case)
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
