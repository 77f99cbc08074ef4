"""The metrics alone, on label volumes made on the fly, against other ways to the same figures."""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.bench.measures_pair import SIDE, LabelPair, label_pair
from core.bench.measures_systems import SYSTEMS
from core.bench.measures_ways import WAYS, Way, hepar, quietly, versions
from core.bench.report import Column, Report, Table
from core.bench.stage import scratch
from core.bench.timing import Spread, in_turns, progress, ratio, spread, timed
from core.bench.ways import run
from core.contracts import Metric
from core.measure.pair import CasePair

OURS = "Hepar"


def bench_measures(
    metrics: dict[str, Metric],
    *,
    against: Sequence[str],
    pairs: int,
    slices: int,
    blocks: int,
    lesions: int = 12,
    large: int | None = None,
    side: int = SIDE,
) -> Report:
    """Overlap, surface distances and lesions of the same pairs in every way, in turns; memory; the time broken down.

    Args:
        metrics: an experiment's, by name; timed one after the other on a pair that nothing is known of.
        against: other ways (`core.bench.measures_systems.SYSTEMS`).
        pairs: how many pairs.
        slices: of each.
        blocks: how often each way is timed.
        lesions: in each reference.
        large: slices of one more pair with 60 lesions, in a process of its own.
        side: rows and columns.

    Raises:
        UserError: if one of the packages is not installed.
    """
    systems = versions(against)
    chosen = [label_pair(slices, lesions, number, side) for number in range(pairs)]
    quick = [name for name in against if not SYSTEMS[name].slow]
    ways = {OURS: hepar, **{SYSTEMS[name].title: quietly(WAYS[name]) for name in quick}}
    parts: list[dict[str, float]] = []
    with progress("measure", (len(ways) + 2) * (blocks + 1)) as bar:
        sides = {name: _over(way, chosen) for name, way in ways.items()}
        sides["parts"] = lambda: _parts(chosen, parts)
        sides["metrics"] = lambda: _metrics(metrics, chosen, parts)
        seconds = in_turns(sides, blocks, bar)
    one = {name: spread([s / pairs for s in found.values]) for name, found in seconds.items()}
    speed = Table(
        "measures",
        f"figures of {pairs} pair{'s' * (pairs > 1)} of {side}x{side}x{slices} with about {lesions} lesions",
        [
            Column("seconds", "s a pair", ".3f", range=True),
            Column("ratio", "times Hepar's", ".1f", range=True),
            Column("wanted", "wanted"),
        ],
        notes=[
            "Dice, IoU, VOE, RVD, ASSD, RMSD, HD, HD95, NSD at 1, 2, 3 mm of liver and tumour, lesion counts at three "
            "thresholds, from label volumes. surface-distance and MONAI have no RMSD and no lesions, medpy has no RMSD "
            "and no NSD: what a system lacks costs it nothing here."
        ],
    )
    wanted = {SYSTEMS[name].title: SYSTEMS[name].wanted for name in against}
    for name in ways:
        speed.add(name, seconds=one[name], ratio=ratio(one[name], one[OURS]), wanted=wanted.get(name))
    for key in (name for name in against if SYSTEMS[name].slow):
        system, (took, ours) = SYSTEMS[key], _once(WAYS[key], chosen[0])
        speed.add(system.title, seconds=took, ratio=took / ours, wanted=system.wanted)
        speed.notes.append(f"{system.title}: once, on one pair, between two runs of Hepar.")
    settings = {"pairs": pairs, "slices": slices, "lesions": lesions, "side": side, "blocks": blocks, **systems}
    tables = [speed, _breakdown(parts, pairs, one), _memory([(slices, lesions)], large, side)]
    return Report("evaluate", settings, tables)


@dataclass(frozen=True)
class Measure:
    """Hepar's way on one pair, in a process of its own."""

    file: Path
    spacing_mm: tuple[float, float, float]

    def __call__(self, folder: Path) -> None:
        """Write seconds, and the bytes that it needed above what the process had before the volumes were read."""
        before = _resident()
        with np.load(self.file) as arrays:
            pair = LabelPair(arrays["pred"], arrays["ref"], self.spacing_mm)
        _forget_peak()
        start = time.perf_counter()
        hepar(pair)
        cost = {"seconds": time.perf_counter() - start, "peak": _peak() - before, "volumes": pair.volumes}
        (folder / "cost.json").write_text(json.dumps(cost), encoding="utf-8")


def _over(way: Any, pairs: Sequence[LabelPair]) -> Any:
    return lambda: timed(lambda: [way(pair) for pair in pairs])


def _once(way: Way, pair: LabelPair) -> tuple[float, float]:
    ours = timed(lambda: hepar(pair))
    took = timed(lambda: quietly(way)(pair))
    return took, (ours + timed(lambda: hepar(pair))) / 2


def _parts(pairs: Sequence[LabelPair], found: list[dict[str, float]]) -> float:
    seconds: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        before = time.perf_counter()
        yield
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - before

    taken = timed(lambda: [hepar(pair, part) for pair in pairs])
    found.append(seconds)
    return taken


def _metrics(metrics: dict[str, Metric], pairs: Sequence[LabelPair], found: list[dict[str, float]]) -> float:
    """An experiment's metrics as an evaluation runs them: what one has computed, the next one finds."""
    before = time.perf_counter()
    seconds: dict[str, float] = {}
    for pair in pairs:
        case = CasePair("pair", pair.pred, pair.ref, pair.spacing_mm)
        for name, metric in metrics.items():
            start = time.perf_counter()
            metric.measure(case)
            seconds[f"metric: {name}"] = seconds.get(f"metric: {name}", 0.0) + time.perf_counter() - start
    found.append(seconds)
    return time.perf_counter() - before


def _breakdown(parts: Sequence[dict[str, float]], pairs: int, one: dict[str, Spread]) -> Table:
    table = Table(
        "parts",
        "where the time goes",
        [Column("ms", "ms a pair", ".1f"), Column("share", "share", ".0%")],
        notes=[
            "The metrics of the experiment, without image and probabilities, one after the other on a pair that "
            "nothing is known of: what one of them has computed, the next one finds."
        ],
    )
    names = list(dict.fromkeys(name for block in parts for name in block))
    for group in ("parts", "metrics"):
        own = [name for name in names if name.startswith("metric: ") == (group == "metrics")]
        blocks = [block for block in parts if own and own[0] in block][1:]  # the first round is not timed
        total = spread([sum(block.values()) for block in blocks]) if own else None
        for name in own:
            taken = spread([block[name] for block in blocks])
            table.add(name, ms=spread([1000 * s / pairs for s in taken.values]), share=_share(taken, total))
        if total is not None:
            title = "the figures above" if group == "parts" else "the experiment's metrics"
            table.add(f"= {title}", ms=spread([1000 * s / pairs for s in total.values]))
    return table


def _share(part: Spread, total: Spread | None) -> Spread | None:
    return None if total is None else ratio(part, total)


def _memory(sizes: Sequence[tuple[int, int]], large: int | None, side: int) -> Table:
    table = Table(
        "memory",
        "in a process of its own, first call, nothing warm",
        [
            Column("seconds", "s", ".2f"),
            Column("peak_mb", "peak MB", ".0f"),
            Column("volumes", "label volumes", ".2f"),
            Column("wanted", "wanted"),
        ],
        notes=[
            "Peak: resident memory above that of the process before it read the two label volumes (uint8) together."
        ],
    )
    for slices, lesions in [*sizes, *([(large, 60)] if large is not None else [])]:
        # Twice the volumes: the pair's file, and nothing else.
        with scratch(4 * side * side * slices) as folder:
            pair = label_pair(slices, lesions, 0, side)
            np.savez(folder / "pair.npz", pred=pair.pred, ref=pair.ref)
            way = Measure(folder / "pair.npz", pair.spacing_mm)
            del pair
            target = Path(tempfile.mkdtemp(dir=folder))
            run(way, target)
            cost = json.loads((target / "cost.json").read_text(encoding="utf-8"))
        table.add(
            f"{side}x{side}x{slices}, about {lesions} lesions",
            seconds=cost["seconds"],
            peak_mb=cost["peak"] / 2**20,
            volumes=cost["peak"] / cost["volumes"],
            wanted="< 6" if slices != large else "seconds",
        )
    return table


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))
    except (OSError, StopIteration):  # not Linux: the greatest so far, in kilobytes, is all there is
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
    """Let the peak begin anew: importing may have needed more than measuring will."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # not Linux, or not allowed: the peak is then at least that of the imports
        pass
