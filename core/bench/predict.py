"""Predicting whole scans, file to file, against the bare network on the same slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.bench.report import Column, Report, Table
from core.bench.stage import scratch
from core.bench.timing import in_turns, progress, ratio, spread, timed
from core.bench.volumes import BareNetwork, Clock, Subject, TimedInferer, pick, shares, slice_rate, stand_in
from core.data.store import Store
from core.data.volume import Volume, read_image, write_labels
from core.errors import UserError
from core.infer.evaluate import apply_postprocess

PARTS = {
    "reading": "reading the scan",
    "slices": "slices to the network's grid",
    "network": "network",
    "back": "logits back to the scan's grid",
    "labels": "labels, and the rest of the inferer",
    "postprocess": "post-processing",
    "writing": "writing the label map",
}


def bench_predict(subject: Subject, store: Store, *, cases: int, blocks: int) -> Report:
    """File to file, and the inferer alone, against the bare network; and the share of each part.

    Args:
        subject: the network and what belongs to it.
        store: where the cases are; they are read from the scans that they were prepared from.
        cases: how many, the first ones with a reference.
        blocks: how often each side is timed.

    Raises:
        UserError: if such a scan is gone.
    """
    chosen = pick(store, cases)
    scans = {case: Path(store.info(case).image_path) for case in chosen}
    for case, path in scans.items():
        if not path.is_file():
            raise UserError(f"{path}: the scan of case '{case}' is no longer there; prepare the store again")
    fixed = {case: stand_in(store.label(case)) for case in chosen} if subject.weights == "untrained" else {}
    volumes = [store.volume(case) for case in chosen]
    slices = sum(len(volume.array) for volume in volumes)
    spacings = [volume.spacing_mm[0] for volume in volumes]
    bare, inferer = BareNetwork(subject, [volume.array for volume in volumes], spacings), subject.inferer()
    clocks: list[Clock] = []

    with scratch(sum(volume.array.size for volume in volumes)) as folder, progress("predict", 4 * (blocks + 1)) as bar:

        def finish(
            case: str, volume: Volume, labels: np.ndarray, probabilities: np.ndarray | None, clock: Clock
        ) -> None:
            with clock.part("postprocess"):
                labels = apply_postprocess(subject.postprocess, labels, volume.spacing_mm, probabilities, volume.array)
            with clock.part("writing"):
                write_labels(folder / f"{case}.nii.gz", labels, volume.native)

        def file_to_file(clock: Clock, used: object) -> None:
            for case, path in scans.items():
                with clock.part("reading"):
                    volume = read_image(path)
                with subject.precision:
                    found = used(volume, probabilities=subject.probabilities)  # type: ignore[operator]
                labels = fixed.get(case, found.labels)
                finish(case, volume, labels, found.probabilities, clock)

        def in_parts() -> float:
            clocks.append(Clock(subject.device))
            used = TimedInferer(subject, clocks[-1])
            return timed(lambda: file_to_file(clocks[-1], used), subject.device)

        def infer() -> None:
            with subject.precision:
                for volume in volumes:
                    inferer(volume, probabilities=subject.probabilities)

        seconds = in_turns(
            {
                "file to file": lambda: timed(lambda: file_to_file(Clock(subject.device), inferer), subject.device),
                "inferer": lambda: timed(infer, subject.device),
                "bare network": lambda: timed(bare, subject.device),
                "parts": in_parts,
            },
            blocks,
            bar,
        )
    speed = Table(
        "speed",
        f"whole scans against the bare network on the same {slices} slices of {len(chosen)} scans",
        [Column("rate", "slices/s", ".1f"), Column("ratio", "of the bare network", ".3f", range=True)],
    )
    for name in ("bare network", "inferer", "file to file"):
        speed.add(name, rate=slice_rate(slices, seconds[name]), ratio=ratio(seconds["bare network"], seconds[name]))
    together = spread([sum(clock.seconds.values()) for clock in clocks[1:]])
    speed.add("the parts below", rate=slice_rate(slices, together), ratio=ratio(seconds["bare network"], together))
    parts = shares("parts", "where the time of a case goes", PARTS, [c.seconds for c in clocks[1:]], len(chosen))
    parts.notes += subject.note()
    return Report("predict", subject.settings(chosen, blocks), [speed, parts])
