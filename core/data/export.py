"""A store as plain ``.npy`` files, one a slice and one a mask, for training code of one's own.

A case's folder gets its name only when it is whole, so an export that was stopped goes on where it was.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.data.store import Store
from core.errors import UserError
from core.parallel import map_cases

COLUMNS = (
    *("case", "patient", "z", "image", "mask", "lesion", "liver_voxels", "tumour_voxels", "lesions"),
    *("spacing_z_mm", "spacing_y_mm", "spacing_x_mm", "spacing_trusted", "part", "external"),
)
_README = """Slices of CT scans of the liver, written by tools/prepare.py --export npy.

index.csv       one row a slice: case, patient (scans of one patient never part), z (from the feet to the head), its
                files, voxels of liver (labels 1 and 2 together) and of tumour, ids of the lesions on it, spacing in mm,
                whether that can be trusted, and the part that the data set's own layout names
CASE/image_0000.npy   {image}
CASE/mask_0000.npy    uint8 [Y, X]: 0 background, 1 liver, 2 tumour; absent for a scan without a label
CASE/lesion_0000.npy  uint16 [Y, X]: connected components of the tumour in the volume, from 1 ({lesions})
CASE/case.json        all that is known of the case

Rows run from the front of the body to its back, columns from the patient's right to the left. A slice is read by
numpy.load(path). Cases that were split at random by slice, and not by patient, leak.
"""


class ExportError(UserError):
    """An export that cannot be made or used, with its folder and what to do."""


@dataclass(frozen=True)
class _Job:
    store: Store
    case: str
    folder: Path
    lesions: bool
    window: tuple[float, float] | None


@dataclass
class Report:
    """What `export` did.

    Attributes:
        written: cases written now.
        kept: cases that were there already, unchanged.
        bad: (case, what is wrong).
    """

    folder: Path
    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    slices: int = 0

    def table(self) -> str:
        """The report as text."""
        good = len(self.written) + len(self.kept)
        lines = [
            f"{self.folder}: {good} cases, {self.slices} slices ({len(self.written)} cases new, "
            f"{len(self.kept)} unchanged); index.csv lists them"
        ]
        return "\n".join([*lines, *(f"  not exported: {case}  {text}" for case, text in self.bad)])


def export(
    store: Store,
    folder: Path,
    *,
    lesions: bool = False,
    window: tuple[float, float] | None = None,
    workers: int | None = None,
) -> Report:
    """Write every case of a store as ``.npy`` files; cases that are there and unchanged stay.

    Args:
        store: what to export.
        folder: where to; only cases' folders, index.csv and README.txt in it are touched.
        lesions: lesion ids too.
        window: (low, high) in HU: images become float32, clipped and scaled to [0, 1]. None: int16 HU.
        workers: processes; None: one a CPU.

    Raises:
        ExportError: if the folder holds something else, or an export of other settings.
    """
    folder = Path(folder)
    if window is not None and not window[0] < window[1]:
        raise ExportError(f"--window: low must be below high, got {window[0]:g} {window[1]:g}")
    _mine(folder, store, lesions, window)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".*.partial"):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    image = (
        "int16 [Y, X], HU" if window is None else f"float32 [Y, X], HU from {window[0]:g} to {window[1]:g} as 0 to 1"
    )
    _text(folder / "README.txt", _README.format(image=image, lesions="there" if lesions else "left out"))
    report = Report(folder)
    jobs = [_Job(store, case, folder, lesions, window) for case in store.cases]
    todo = [job for job in jobs if _known(job) is None]
    fresh = {job.case for job in todo}
    for job, result in map_cases(_write_case, todo, workers=workers, description="export"):
        if isinstance(result, OSError):
            raise ExportError(f"{folder}: {result}; mend that and run again, it goes on from here")
        if isinstance(result, Exception):
            report.bad.append((job.case, str(result)))
    rows: list[Sequence[Any]] = []
    for job in jobs:
        if _known(job) is not None:
            (report.written if job.case in fresh else report.kept).append(job.case)
            rows += _rows(job)
    report.slices = len(rows)
    partial = folder / f".index.csv.{os.getpid()}.partial"
    with open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
        _flush(file)
    os.replace(partial, folder / "index.csv")
    return report


def _write_case(job: _Job) -> None:
    store, case = job.store, job.case
    info = store.info(case)
    partial = job.folder / f".{case}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for z in range(info.shape[0]):
        _save(partial / f"image_{z:04d}.npy", _windowed(store.image(case, [z])[0], job.window))
        if info.labelled:
            _save(partial / f"mask_{z:04d}.npy", store.label(case, [z])[0])
            if job.lesions:
                _save(partial / f"lesion_{z:04d}.npy", store.lesion(case, [z])[0].astype(np.uint16))
    table = [[None if v != v else v for v in row] for row in store.lesions(case).tolist()]
    notes = {**_said(job), "lesions": table, "info": dataclasses.asdict(info)}
    _text(partial / "case.json", json.dumps(notes, indent=1))
    target = job.folder / case
    if target.exists():  # of another content; it was this export's own
        shutil.rmtree(target)
    os.replace(partial, target)


def _windowed(plane: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    if window is None:
        return plane
    low, high = window
    return ((np.clip(plane.astype(np.float32), low, high) - low) / (high - low)).astype(np.float32)


def _said(job: _Job) -> dict[str, Any]:
    info = job.store.info(job.case)
    return {
        "window": None if job.window is None else list(job.window),
        "lesion_ids": job.lesions,
        "hashes": [info.content_hash, info.label_hash],
        "described": [info.patient, info.part, info.external, info.spacing_trusted],
    }


def _known(job: _Job) -> dict[str, Any] | None:
    """What a whole and unchanged case's folder says of itself."""
    try:
        notes: dict[str, Any] = json.loads((job.folder / job.case / "case.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return notes if all(notes.get(key) == value for key, value in _said(job).items()) else None


def _rows(job: _Job) -> Iterator[Sequence[Any]]:
    store, case = job.store, job.case
    info = store.info(case)
    for row, ids in zip(store.slices(case), store.slice_lesions(case), strict=True):
        z = int(row["z"])
        names = (
            "image",
            *(("mask",) if info.labelled else ()),
            *(("lesion",) if info.labelled and job.lesions else ()),
        )
        files = {name: f"{case}/{name}_{z:04d}.npy" for name in names}
        yield (
            *(case, info.patient, z, files["image"], files.get("mask", ""), files.get("lesion", "")),
            *(row["liver_voxels"], row["tumour_voxels"], " ".join(map(str, ids)), *info.spacing_mm),
            *(int(info.spacing_trusted), info.part, int(info.external)),
        )


def _mine(folder: Path, store: Store, lesions: bool, window: tuple[float, float] | None) -> None:
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: a file; --out wants a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "README.txt").is_file() or "--export npy" not in (folder / "README.txt").read_text("utf-8"):
        raise ExportError(f"{folder}: holds something that is no export; name an empty folder or a new one with --out")
    for notes in folder.glob("*/case.json"):
        said = json.loads(notes.read_text(encoding="utf-8"))
        if said["window"] != (None if window is None else list(window)) or said["lesion_ids"] != lesions:
            raise ExportError(
                f"{folder}: was exported with other settings (window {said['window']}, lesions "
                f"{str(said['lesion_ids']).lower()}); name another folder with --out"
            )
        gone = notes.parent.name
        if gone not in store.cases:
            raise ExportError(
                f"{folder}: holds case '{gone}', which is not in the store {store.root}; name another folder with --out"
            )


def _save(path: Path, array: np.ndarray) -> None:
    np.save(path, np.ascontiguousarray(array))


def _text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        _flush(file)
    os.replace(partial, path)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
