"""One scan and its label -> one whole file of the store."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from core.contracts import Case
from core.data.checks import geometry_note, intensity_note
from core.data.store import SCHEMA, Compression
from core.data.tables import LESION_DTYPE, Lesions, find_lesions, lesion_table, slice_tables
from core.data.volume import Volume, VolumeError, read_image, read_label, same_grid


@dataclass(frozen=True)
class Job:
    """One case to store; `signature` says later whether it is unchanged."""

    case: Case
    partial: Path
    compression: Compression
    signature: str


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
    if not case.image.is_file():
        beside = f"; its label is there: {case.label}" if case.label is not None and case.label.is_file() else ""
        raise VolumeError(f"{case.image}: the scan is missing{beside}")
    volume = read_image(case.image)
    label, repairs = _read_label(case, volume)
    geometry, intensity = geometry_note(volume.native.affine, volume.native.header), intensity_note(volume.array)
    notes = [f"repaired: {r}" for r in repairs] + [n for n in (geometry, intensity) if n]
    if not case.spacing_trusted and geometry is None:
        notes.append("the source says that the spacing cannot be trusted")
    if label is not None and not label.any():
        notes.append("the label is empty: no liver")
    trusted = case.spacing_trusted and geometry is None
    try:
        lesions = find_lesions(label if label is not None else np.zeros((0, 0, 0), np.uint8))
    except ValueError as error:
        raise VolumeError(f"{case.label}: {error}") from error
    per_slice, pairs = slice_tables(label, lesions, len(volume.array))
    tables = {
        "slices": per_slice,
        "slice_lesions": pairs,
        "lesions": lesion_table(volume.array, label, lesions, volume.spacing_mm, trusted)
        if label is not None
        else np.zeros(0, LESION_DTYPE),
    }
    attributes: dict[str, Any] = {
        "case": case.id,
        "patient": case.patient,
        "origin": case.origin,
        "spacing_trusted": trusted,
        "hu_trusted": case.hu_trusted and intensity is None,
        "labelled": label is not None,
        "content_hash": content_hash(volume.array),
        "label_hash": "" if label is None else content_hash(label),
        "part": case.part,
        "external": case.external,
        "liver_voxels": int(per_slice["liver_voxels"].sum(dtype=np.int64)),
        "tumour_voxels": int(per_slice["tumour_voxels"].sum(dtype=np.int64)),
        "image_path": str(case.image),
        "label_path": str(case.label or ""),
        "repairs": json.dumps(repairs),
        "notes": json.dumps(notes),
        "signature": job.signature,
    }
    try:
        _write(job.partial, volume, label, lesions, tables, attributes, job.compression)
    except BaseException:
        job.partial.unlink(missing_ok=True)
        raise
    return Done(attributes["content_hash"], tuple(notes))


def _read_label(case: Case, volume: Volume) -> tuple[np.ndarray | None, list[str]]:
    if case.label is None:
        return None, []
    if not case.label.is_file():
        raise VolumeError(f"{case.label}: the label is missing; its scan is there: {case.image}")
    label = read_label(case.label)
    wrong = same_grid(volume, label)
    if wrong is None:
        return label.array, []
    if "label_affine" in case.repairs and label.native.shape == volume.native.shape:
        return read_label(case.label, affine=volume.native.affine).array, ["the label's affine, replaced by the scan's"]
    raise VolumeError(f"{case.label}: {wrong} ({case.image})")


def content_hash(array: np.ndarray) -> str:
    """Sha256 of the shape and the array in C order: int16 little-endian for HU, uint8 for labels."""
    digest = hashlib.sha256(json.dumps(list(array.shape)).encode())
    for plane in array:
        digest.update(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def _write(
    path: Path,
    volume: Volume,
    label: np.ndarray | None,
    lesions: Lesions,
    tables: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    compression: Compression,
) -> None:
    """Write one case's file and flush it to the disk; the caller moves it into place."""
    shape = volume.array.shape
    layout: dict[str, Any] = {}
    if compression != "none":
        layout = {"chunks": (1, *shape[1:]), "compression": hdf5plugin.Bitshuffle(nelems=0, cname="lz4")}
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
        image = file.create_dataset("image", shape, "<i2", **layout)
        for z in range(shape[0]):
            image[z] = volume.array[z]
        if label is not None:
            labels = file.create_dataset("label", shape, "u1", **layout)
            ids = file.create_dataset("lesion", shape, "<u2", **layout)
            for z in range(shape[0]):
                labels[z] = label[z]
                ids[z] = lesions.plane(z, shape[1:])
        for name, table in tables.items():
            file[name] = table
    with open(path, "rb") as written:
        os.fsync(written.fileno())
