"""Preparing against the plain way, on the same scans."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from core.bench.report import Column, Report, Table
from core.bench.stage import folder_bytes, scratch
from core.bench.timing import in_turns, progress, ratio, spread
from core.bench.ways import Plain, Prepare, run
from core.build import build
from core.contracts import Case
from core.errors import UserError
from core.experiment import Experiment


def bench_prepare(experiment: Experiment, *, cases: int, processes: Sequence[int], blocks: int) -> Report:
    """Time, size and peak memory of `prepare` at several numbers of processes, against the plain way in one.

    Args:
        experiment: its source, `prepare.compression` and window are used, its store is not touched.
        cases: how many of the source's cases, the first ones.
        processes: of `prepare`.
        blocks: how often each way runs.

    Raises:
        UserError: if the source has no case, or one of them is bad.
    """
    chosen = _cases(experiment, cases)
    low, high = (float(experiment.window.args.get(key, value)) for key, value in (("low", -200), ("high", 250)))
    plain = "the plain way"
    ways: dict[str, Plain | Prepare] = {plain: Plain(chosen, low, high)}
    for count in processes:
        name = f"prepare, {count} process{'es' if count > 1 else ''}"
        ways[name] = Prepare(chosen, experiment.prepare.compression, count)
    sizes: dict[str, int] = {}
    peaks: dict[str, float] = {}

    # The float32 slices are the larger of the two, and never both are there at once.
    raw = sum(p.stat().st_size for c in chosen for p in (c.image, c.label) if p is not None)
    with scratch(8 * raw) as folder, progress("prepare", len(ways) * (blocks + 1)) as bar:

        def side(name: str) -> Callable[[], float]:
            def once() -> float:
                target = Path(tempfile.mkdtemp(dir=folder))
                cost = run(ways[name], target)
                sizes[name], peaks[name] = folder_bytes(target), max(peaks.get(name, 0.0), cost.peak_mb)
                shutil.rmtree(target)
                return cost.seconds

            return once

        seconds = in_turns({name: side(name) for name in ways}, blocks, bar)
    table = Table(
        "prepare",
        f"{len(chosen)} scans -> slices on the disk, against the plain way",
        [
            Column("seconds", "s a case", ".2f"),
            Column("speed", "times as fast", ".2f", range=True),
            Column("mb", "MB a case", ".1f"),
            Column("size", "the size", ".3f"),
            Column("peak_mb", "peak MB", ".0f"),
            Column("memory", "the memory", ".2f"),
        ],
        notes=[
            "The plain way: nibabel's floats, clipped, a float32 .npy a slice and a uint8 one for its label. It checks "
            "nothing, makes no tables and does not wait for the disk. Several processes are started anew each time, "
            "which counts; their peak is that of the greatest one."
        ],
    )
    for name in ways:
        table.add(
            name,
            seconds=spread([s / len(chosen) for s in seconds[name].values]),
            speed=ratio(seconds[plain], seconds[name]),
            mb=sizes[name] / len(chosen) / 2**20,
            size=sizes[name] / sizes[plain],
            peak_mb=peaks[name],
            memory=peaks[name] / peaks[plain],
        )
    settings = {
        "experiment": experiment.file,
        "source": experiment.source.name,
        "cases": [case.id for case in chosen],
        "compression": experiment.prepare.compression,
        "blocks": blocks,
    }
    return Report("prepare", settings, [table])


def _cases(experiment: Experiment, count: int) -> list[Case]:
    try:
        found = list(build(experiment.source).cases())
    except ValueError as error:
        raise UserError(f"source '{experiment.source.name}': {error}") from error
    chosen = [case for case in found if case.image.is_file()][:count]
    if not chosen:
        raise UserError(f"source '{experiment.source.name}' has no case whose scan is there")
    return chosen
