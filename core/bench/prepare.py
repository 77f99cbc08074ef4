"""Preparing against the plain way, on the same scans."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from core.bench.large import SIDE, large_case
from core.bench.others import WAYS, versions
from core.bench.report import Column, Report, Table
from core.bench.stage import folder_bytes, scratch
from core.bench.timing import Spread, in_turns, progress, ratio, spread
from core.bench.ways import Plain, Prepare, run
from core.build import build
from core.contracts import Case
from core.errors import UserError
from core.experiment import Experiment
from core.settings import PrepareSettings

Way = Callable[[Path], None]
PLAIN = "the plain way"
_NAMES = {"nnunet": "nnU-Net's preprocessor", "monai": "MONAI's loader to disk"}
_TINY = (24, 24, 8)


def bench_prepare(
    experiment: Experiment,
    *,
    cases: int,
    processes: Sequence[int],
    blocks: int,
    against: Sequence[str] = (),
    large: int | None = None,
    synthetic: int | None = None,
) -> Report:
    """Time, size and peak memory of `prepare` at several numbers of processes, against the plain way in one.

    Args:
        experiment: its source, its section `prepare` and its window are used, its store is not touched.
        cases: how many of the source's cases, the first ones.
        processes: of `prepare`.
        blocks: how often each way runs.
        against: other systems (`core.bench.others.WAYS`), in one process.
        large: slices of a synthetic scan of 512x512 whose peak memory is measured too.
        synthetic: slices of synthetic scans of 512x512 that take the place of the source's, in plain `.nii` files.

    Raises:
        UserError: if the source has no case, or one of them is bad, or another system is not installed.
    """
    systems = versions(against)
    low, high = (float(experiment.window.args.get(key, value)) for key, value in (("low", -200), ("high", 250)))
    found = [] if synthetic is not None else _cases(experiment, cases)
    raw = sum(p.stat().st_size for c in found for p in (c.image, c.label) if p is not None)
    voxels = SIDE * SIDE * ((large or 0) + cases * (synthetic or 0))
    # The float32 slices are the largest, and no two ways' files are ever there at once.
    with scratch(8 * raw + 8 * voxels) as folder:
        chosen = found or [large_case(folder, synthetic or 1, number) for number in range(cases)]
        ways: dict[str, Way] = {PLAIN: Plain(chosen, low, high)}
        ways |= {_NAMES[name]: WAYS[name](chosen, low, high) for name in against}
        ways |= {_name(count): Prepare(chosen, experiment.prepare, count) for count in processes}
        starts: dict[str, Way] = {}
        for count in processes:
            if count > 1:
                starts[f"the start of {count} processes"] = Prepare(_tiny(folder, count), PrepareSettings(), count)
        measured = Measured()
        with progress("prepare", len(ways | starts) * (blocks + 1)) as bar:
            seconds = in_turns({n: measured.side(n, w, folder) for n, w in (ways | starts).items()}, blocks, bar)
        memory = None
        if large is not None:
            case = large_case(folder, large, cases)
            target = Path(tempfile.mkdtemp(dir=folder))
            memory = run(Prepare([case], experiment.prepare, 1), target).peak_mb * 2**20 / case.image.stat().st_size
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
    if against:
        table.notes.append(
            "nnU-Net v2: DefaultPreprocessor.run_case_save, 3d_fullres at each scan's own spacing, so without any "
            "resampling, planning or fingerprint. MONAI: LoadImaged, EnsureChannelFirstd, Orientationd, "
            "ScaleIntensityRanged, one np.save a scan and a label. Both in one process; importing them is not timed, "
            "but torch is in their memory."
        )
    for name in ways:
        table.add(
            name,
            seconds=spread([s / len(chosen) for s in seconds[name].values]),
            speed=ratio(seconds[PLAIN], seconds[name]),
            mb=measured.sizes[name] / len(chosen) / 2**20,
            size=measured.sizes[name] / measured.sizes[PLAIN],
            peak_mb=measured.peaks[name],
            memory=measured.peaks[name] / measured.peaks[PLAIN],
        )
    settings = {
        "experiment": experiment.file,
        "source": experiment.source.name if synthetic is None else f"synthetic, {SIDE}x{SIDE}x{synthetic}",
        "cases": [case.id for case in chosen],
        "compression": experiment.prepare.compression,
        "blocks": blocks,
        **systems,
    }
    return Report("prepare", settings, [table, wanted(seconds, measured, processes, against, memory, large)])


class Measured:
    """Size and peak memory of each way, filled while they are timed."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.images: dict[str, int] = {}
        self.peaks: dict[str, float] = {}

    def side(self, name: str, way: Way, folder: Path) -> Callable[[], float]:
        """One run of a way, in a folder of its own that goes away again; it returns the seconds."""

        def once() -> float:
            target = Path(tempfile.mkdtemp(dir=folder))
            cost = run(way, target)
            self.sizes[name] = folder_bytes(target)
            self.images[name] = sum(path.stat().st_size for path in target.glob("*_image.npy"))
            self.peaks[name] = max(self.peaks.get(name, 0.0), cost.peak_mb)
            shutil.rmtree(target)
            return cost.seconds

        return once


def wanted(
    seconds: Mapping[str, Spread],
    measured: Measured,
    processes: Sequence[int],
    against: Sequence[str],
    memory: float | None,
    large: int | None,
) -> Table:
    """What is wanted of `prepare`, and what it was."""
    table = Table(
        "wanted",
        "what is wanted of it",
        [Column("wanted", "wanted"), Column("measured", "measured", ".2f", range=True)],
    )
    if 1 in processes:
        one = seconds[_name(1)]
        table.add("times as fast as the plain way", wanted=">= 1", measured=ratio(seconds[PLAIN], one))
        for name in against:
            table.add(f"times as fast as {_NAMES[name]}", wanted=">= 5", measured=ratio(seconds[_NAMES[name]], one))
        size = measured.sizes[_name(1)]
        table.add("of the size of the plain way's .npy", wanted="<= 0.25", measured=size / measured.sizes[PLAIN])
        table.add("  of its float32 images alone", measured=size / measured.images[PLAIN])
    if 1 in processes and 2 in processes:
        one, two, start = seconds[_name(1)], seconds[_name(2)], seconds["the start of 2 processes"]
        table.add("2 processes, times as fast as 1", wanted=">= 1.7", measured=ratio(one, two))
        working = spread([max(t - s, 1e-9) for t, s in zip(two.values, start.values, strict=True)])
        table.add("  without their start", measured=ratio(one, working))
        table.add("  their start, s", measured=start)
        table.notes.append(
            "The start: two processes on two scans of 24x24x8. Of many scans it is a small part, of a few it is not."
        )
    if memory is not None:
        table.add(f"peak memory at {SIDE}x{SIDE}x{large}, in int16 volumes", wanted="< 3", measured=memory)
        table.notes.append("The peak is that of the whole process, the interpreter and its libraries included.")
    return table


def _name(count: int) -> str:
    return f"prepare, {count} process{'es' if count > 1 else ''}"


def _tiny(folder: Path, count: int) -> list[Case]:
    """As many scans of a few kilobytes as there are processes."""
    out = []
    for i in range(count):
        path = folder / f"tiny-{count}-{i}.nii"
        hu = np.random.default_rng(i).integers(-1000, 400, _TINY).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, np.diag([-1.0, -1.0, 3.0, 1.0])), path)
        out.append(Case(f"tiny-{i}", f"tiny-{i}", path))
    return out


def _cases(experiment: Experiment, count: int) -> list[Case]:
    try:
        found = list(build(experiment.source).cases())
    except ValueError as error:
        raise UserError(f"source '{experiment.source.name}': {error}") from error
    chosen = [case for case in found if case.image.is_file()][:count]
    if not chosen:
        raise UserError(f"source '{experiment.source.name}' has no case whose scan is there")
    return chosen
