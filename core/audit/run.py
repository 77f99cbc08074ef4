"""Audit a source's raw scans before a store is made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from core.audit.case import Examined, examine
from core.audit.page import page
from core.audit.result import Audit, conclude
from core.audit.rules import Finding
from core.audit.table import as_csv, as_json, as_text
from core.build import build
from core.contracts import Case
from core.data.memory import free_bytes
from core.data.prepare import SourceError
from core.errors import UserError
from core.experiment import Experiment
from core.parallel import cpus, map_cases
from core.report.tables import whole_file

FILES = ("audit.csv", "audit.json", "audit.html")

_WORKER_BYTES = 1_500_000_000  # a scan of 512x512x1000 with its label stays below this


def check(experiment: Experiment, out: Path | None = None, workers: int | None = None) -> int:
    """Audit the source of an experiment, print a table, and write ``audit.csv``, ``audit.json``, ``audit.html``.

    Nothing else is written, and no scan is changed. Files of an earlier audit are replaced, each as a whole.

    Args:
        experiment: its source is audited, with ``prepare.workers`` processes unless `workers` says otherwise.
        out: folder for the files; None: ``audit/<the experiment's stem>``.
        workers: processes; None: as `experiment` says, else one a CPU, fewer if memory is short.

    Returns:
        1 if a finding is an error, else 0.

    Raises:
        SourceError: if the source finds no cases, with what it says.
    """
    file = Path(experiment.file)
    stem = file.name if file.is_dir() else file.stem
    out = Path("audit") / (stem or "audit") if out is None else Path(out)
    plan = experiment.source.plain()
    try:
        cases = list(build(experiment.source).cases())
    except ValueError as error:
        raise SourceError(f"source '{plan.get('name')}': {error}") from error
    said = ", ".join(f"{k}: {v}" for k, v in plan.items() if v not in (None, "", [], {}))
    result = audit(cases, stem, said, experiment.prepare.workers if workers is None else workers)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, (as_csv(result), as_json(result), page(result)), strict=True):
            with whole_file(out / name) as writer:
                writer.write(text.encode())
    except OSError as error:
        raise UserError(f"{out}: cannot write the audit there ({error}); name another folder with --out") from error
    print(as_text(result))
    print(f"pictures and details: {out / 'audit.html'}")
    return 1 if result.count("error") else 0


def audit(cases: Sequence[Case], title: str, source: str, workers: int | None = None) -> Audit:
    """Examine all cases; one that breaks never stops the others."""
    twice = {case for case, n in Counter(c.id for c in cases).items() if n > 1}
    once = [case for case in cases if case.id not in twice]
    results = map_cases(examine, once, workers=_workers(workers), description="check")
    done = {case.id: _outcome(case, result) for case, result in results}
    return conclude(title, source, [done[c.id] if c.id in done else Examined(c) for c in cases])


def _outcome(case: Case, result: Examined | Exception) -> Examined:
    if isinstance(result, Examined):
        return result
    text = str(result) if isinstance(result, UserError) else f"{type(result).__name__}: {result}"
    return Examined(case, findings=[Finding("refused", f"{case.image}: {text}", (case.id,))])


def _workers(wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    return max(1, min(cpus(), free_bytes(torch.device("cpu")) // _WORKER_BYTES))
