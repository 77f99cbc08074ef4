"""One scan and its label -> one whole file of the store."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import h5py
import hdf5plugin
import numpy as np

from core.contracts import Case
from core.data.casefile import HISTOGRAM_BINS, HISTOGRAM_LOW, SCHEMA, Compression
from core.data.checks import geometry_note, intensity_note
from core.data.chunks import Packer
from core.data.fingerprint import fingerprint
from core.data.grid import Grid, on_grid, plan_grid
from core.data.reading import read_reference, read_scan
from core.data.tables import LESION_DTYPE, Lesions, find_lesions, lesion_table, slice_tables
from core.data.volume import Volume, VolumeError
from core.settings import PrepareSettings


@dataclass(frozen=True)
class Job:
    """One case to store.

    Attributes:
        partial: the file to write; the caller moves it into place.
        signature: says later whether the case is unchanged.
        settings: ``spacing``, ``crop`` and ``margin_mm`` count.
    """

    case: Case
    partial: Path
    compression: Compression
    signature: str
    settings: PrepareSettings = field(default_factory=PrepareSettings)


@dataclass(frozen=True)
class Done:
    """A case that is in the store, or whole in its partial file."""

    content_hash: str
    notes: tuple[str, ...]


def ingest(job: Job) -> Done:
    """Read, check and mend one case, and write it to its partial file.

    Raises:
        VolumeError: with the path and what is wrong.
    """
    case = job.case
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(1)  # the other workers have the other cores
    scan = read_scan(case)
    labelled, repairs = read_reference(case, scan)
    reference = None if labelled is None else labelled.array
    geometry = geometry_note(scan.native.affine, scan.native.header, scan.spacing_mm)
    intensity = intensity_note(scan.array)
    notes = [f"repaired: {r}" for r in repairs] + [n for n in (geometry, intensity, *scan.notes) if n]
    notes += [] if labelled is None else labelled.notes
    if not case.spacing_trusted and geometry is None:
        notes.append("the source says that the spacing cannot be trusted")
    if reference is not None and not reference.any():
        notes.append("the label is empty: no liver")
    trusted = case.spacing_trusted and geometry is None
    grid, remarks = plan_grid(scan, job.settings, label=reference, spacing_trusted=trusted)
    prints = fingerprint(scan.array)
    volume = on_grid(scan, grid)
    scan_affine = scan.affine
    del scan, labelled  # the scan's own voxels are no longer wanted where the stored ones are others
    label = reference
    if reference is not None and not grid.identity:
        label = grid.label(reference)
        lost = np.count_nonzero(reference) - np.count_nonzero(reference[grid.inside])
        if lost:
            remarks.append(f"{lost} voxels of the label lie outside the {job.settings.crop}'s box and never train")
    try:
        lesions = find_lesions(label if label is not None else np.zeros((0, 0, 0), np.uint8))
    except ValueError as error:
        raise VolumeError(f"{case.label}: {error}") from error
    per_slice, pairs = slice_tables(label, lesions, len(volume.array))
    arrays: dict[str, np.ndarray] = {
        "slices": per_slice,
        "slice_lesions": pairs,
        "lesions": lesion_table(volume.array, label, lesions, volume.spacing_mm, trusted)
        if label is not None
        else np.zeros(0, LESION_DTYPE),
        "fingerprint": prints,
        "foreground_histogram": foreground_histogram(volume.array, label),
    }
    attributes: dict[str, Any] = {
        **described(case),
        "spacing_trusted": trusted,
        "hu_trusted": case.hu_trusted and intensity is None,
        "labelled": label is not None,
        "content_hash": content_hash(volume.array),
        "label_hash": "" if label is None else content_hash(label),
        "liver_voxels": int(per_slice["liver_voxels"].sum(dtype=np.int64)),
        "tumour_voxels": int(per_slice["tumour_voxels"].sum(dtype=np.int64)),
        "series": volume.series,
        "image_path": str(case.image),
        "label_path": str(case.label or ""),
        "repairs": json.dumps(repairs),
        "notes": json.dumps([*notes, *remarks]),
        "signature": job.signature,
        **grid_attributes(grid, scan_affine),
    }
    planes = {"label": label, "native_label": None if grid.identity else reference}
    try:
        _write(job.partial, volume, planes, lesions, arrays, attributes, job.compression)
    except BaseException:
        job.partial.unlink(missing_ok=True)
        raise
    return Done(attributes["content_hash"], tuple([*notes, *remarks]))


def described(case: Case) -> dict[str, Any]:
    """The attributes that come from the source alone, and change without another look at the scan."""
    return {
        "case": case.id,
        "patient": case.patient,
        "origin": case.origin,
        "part": case.part,
        "external": case.external,
    }


def grid_attributes(grid: Grid, scan_affine: np.ndarray) -> dict[str, Any]:
    """The attributes that hold a `Grid`."""
    return {
        "scan_shape": grid.scan,
        "scan_spacing_mm": grid.scan_spacing_mm,
        "scan_affine": scan_affine,
        "scan_box": grid.box,
    }


def content_hash(array: np.ndarray) -> str:
    """Sha256 of the shape and the array in C order: int16 little-endian for HU, uint8 for labels."""
    digest = hashlib.sha256(json.dumps(list(array.shape)).encode())
    for plane in array:
        digest.update(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def foreground_histogram(image: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """Int64 ``[4096]``: how many voxels of labels 1 and 2 have each HU from -1024 to 3071, those beyond clipped."""
    counts = np.zeros(HISTOGRAM_BINS, np.int64)
    for hu, plane in zip(image, label if label is not None else (), strict=label is not None):
        if plane.any():
            found = hu[plane > 0]
            bins = np.clip(found, HISTOGRAM_LOW, HISTOGRAM_LOW + HISTOGRAM_BINS - 1).astype(np.int64) - HISTOGRAM_LOW
            counts += np.bincount(bins, minlength=HISTOGRAM_BINS)
    return counts


def _write(
    path: Path,
    volume: Volume,
    labels: Mapping[str, np.ndarray | None],
    lesions: Lesions,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    compression: Compression,
) -> None:
    """Write one case's file and flush it to the disk; the caller moves it into place."""
    native = volume.native
    with h5py.File(path, "w", locking=False) as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["compression"] = compression
        file.attrs["spacing_mm"] = volume.spacing_mm
        file.attrs["affine"] = volume.affine
        file.attrs["native_axcodes"] = "".join(native.axcodes)
        file.attrs["native_shape"] = native.shape
        file.attrs["native_affine"] = native.affine
        file.attrs["native_xyzt_units"] = native.xyzt_units
        for name, value in {**{f"header_{k}": v for k, v in native.header.items()}, **attributes}.items():
            file.attrs[name] = value
        shape = volume.array.shape
        _fill(file, "image", "<i2", shape, compression, volume.array)
        for name, label in labels.items():
            if label is not None:
                _fill(file, name, "u1", label.shape, compression, label)
        if labels["label"] is not None:
            _fill(file, "lesion", "<u2", shape, compression, lesions.planes(shape))
        for name, array in arrays.items():
            file[name] = array
    flush(path)


def _fill(file: h5py.File, name: str, dtype: str, shape: Any, compression: Compression, planes: Any) -> None:
    layout: dict[str, Any] = {}
    if compression != "none":
        layout = {"chunks": (1, *shape[1:]), "compression": hdf5plugin.Bitshuffle(nelems=0, cname="lz4")}
    data = file.create_dataset(name, shape, dtype, **layout)
    packer = Packer.of(data) if layout else None
    for z, plane in enumerate(planes):
        if packer is None:
            data[z] = plane
        else:
            packer.write(z, plane)


def flush(path: Path) -> None:
    """Wait until a written file is on the disk."""
    with open(path, "rb") as written:
        os.fsync(written.fileno())
