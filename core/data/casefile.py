"""One case's file of the store: its name, its schema, its description (docs/data.md lists every part)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)
import numpy as np

from core.data.grid import Grid
from core.data.volume import Native
from core.errors import UserError

SCHEMA = 2
SUFFIX = ".h5"
HISTOGRAM_LOW = -1024
"""HU of the first bin of `Store.foreground_histogram`; the last is 3071."""
HISTOGRAM_BINS = 4096
Compression = Literal["bitshuffle-lz4", "none"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class StoreError(UserError):
    """A store or a file in it that cannot be used, with its path and what to do."""


@dataclass(frozen=True)
class CaseInfo:
    """What is known of a case without reading its arrays.

    Attributes:
        shape: ``(Z, Y, X)`` of the stored arrays.
        spacing_mm: along z, y, x, of the stored arrays.
        spacing_trusted: False leaves the case out of every figure in mm or ml.
        hu_trusted: False if the intensities were windowed or rescaled before.
        content_hash: sha256 of shape and stored HU.
        label_hash: sha256 of shape and stored label, empty without a label.
        liver_voxels: labels 1 and 2 together.
        native_shape: ``(Z, Y, X)`` of the scan's canonical grid, before any cropping or resampling.
        native_spacing_mm: along z, y, x, of the scan's canonical grid.
        part: ``train``, ``val`` or ``test`` where the data set's own layout says so, else empty.
        external: never trains or validates, and is tested apart.
        repairs: what was mended when the case was stored.
        notes: what the checks remarked on.
    """

    case: str
    patient: str
    origin: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    spacing_trusted: bool
    hu_trusted: bool
    labelled: bool
    content_hash: str
    label_hash: str
    liver_voxels: int
    tumour_voxels: int
    native_shape: tuple[int, int, int]
    native_spacing_mm: tuple[float, float, float]
    image_path: str
    label_path: str
    part: str = ""
    external: bool = False
    repairs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key under which volume-9 comes before volume-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def check_id(case: str) -> None:
    """Raises StoreError for an id that cannot name a file."""
    if not _ID.fullmatch(case):
        raise StoreError(f"case id '{case}': want letters, digits and . _ + - only, since it names a file")


def case_files(root: Path) -> list[str]:
    """The ids of the cases that have a file in a store's folder, in natural order."""
    names = [p.name[: -len(SUFFIX)] for p in root.glob(f"*{SUFFIX}") if not p.name.startswith(".")]
    return sorted(names, key=natural)


def open_case(path: Path, *, any_schema: bool = False) -> h5py.File:
    """Open one case's file for reading.

    Raises:
        StoreError: if it is cut short, not HDF5, or of another schema (unless `any_schema`).
    """
    # No chunk cache: a chunk is a slice, seldom wanted twice, and each open array would keep a megabyte.
    try:
        file = h5py.File(path, "r", rdcc_nbytes=0)
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise StoreError(damaged(path, error)) from error
        # Some network file systems have no locks; files of a store are replaced whole, so reading needs none.
        file = h5py.File(path, "r", rdcc_nbytes=0, locking=False)
    schema = file.attrs.get("schema")
    if schema != SCHEMA and not any_schema:
        file.close()
        raise StoreError(other_schema(path, schema))
    return file


def schema_of(path: Path) -> int | None:
    """The schema that a file names; None if it is damaged or names none."""
    try:
        with open_case(path, any_schema=True) as file:
            schema = file.attrs.get("schema")
    except StoreError:
        return None
    return int(schema) if isinstance(schema, (int, np.integer)) else None


def other_schema(path: Path, schema: Any) -> str:
    """What a file of another schema needs, as text."""
    if isinstance(schema, (int, np.integer)) and 1 <= schema < SCHEMA:
        return (
            f"{path}: store schema {schema}, this version reads {SCHEMA}; tools/prepare.py EXPERIMENT --migrate brings "
            f"the store to it from its own arrays, without the raw scans"
        )
    if schema is None:
        return f"{path}: no file of a store (it names no schema); take it out of this folder"
    return (
        f"{path}: store schema {schema} is of a later version, this one reads {SCHEMA}; bring Hepar up to date, or "
        f"prepare another store with store=..."
    )


def read_info(file: h5py.File) -> CaseInfo:
    """The description of an open case.

    Raises:
        StoreError: if something is missing in it.
    """
    a = file.attrs
    try:
        return CaseInfo(
            case=str(a["case"]),
            patient=str(a["patient"]),
            origin=str(a["origin"]),
            shape=tuple(int(n) for n in file["image"].shape),  # type: ignore[arg-type]
            spacing_mm=tuple(float(s) for s in a["spacing_mm"]),  # type: ignore[arg-type]
            spacing_trusted=bool(a["spacing_trusted"]),
            hu_trusted=bool(a["hu_trusted"]),
            labelled=bool(a["labelled"]),
            content_hash=str(a["content_hash"]),
            label_hash=str(a["label_hash"]),
            liver_voxels=int(a["liver_voxels"]),
            tumour_voxels=int(a["tumour_voxels"]),
            native_shape=tuple(int(n) for n in a["scan_shape"]),  # type: ignore[arg-type]
            native_spacing_mm=tuple(float(s) for s in a["scan_spacing_mm"]),  # type: ignore[arg-type]
            image_path=str(a["image_path"]),
            label_path=str(a["label_path"]),
            part=str(a["part"]),
            external=bool(a["external"]),
            repairs=tuple(json.loads(a["repairs"])),
            notes=tuple(json.loads(a["notes"])),
        )
    except (KeyError, ValueError) as error:
        raise StoreError(damaged(Path(file.filename), error)) from error


def read_grid(file: h5py.File) -> Grid:
    """The way from the scan's own canonical grid to the stored one."""
    a = file.attrs
    return Grid(
        scan=tuple(int(n) for n in a["scan_shape"]),  # type: ignore[arg-type]
        scan_spacing_mm=tuple(float(s) for s in a["scan_spacing_mm"]),  # type: ignore[arg-type]
        box=tuple((int(first), int(end)) for first, end in a["scan_box"]),  # type: ignore[arg-type]
        shape=tuple(int(n) for n in file["image"].shape),  # type: ignore[arg-type]
    )


def read_native(file: h5py.File) -> Native:
    """The way from the scan's canonical grid to the file that it came from."""
    a = file.attrs
    return Native(
        axcodes=tuple(a["native_axcodes"]),
        shape=tuple(int(n) for n in a["native_shape"]),  # type: ignore[arg-type]
        affine=np.asarray(a["native_affine"]),
        xyzt_units=int(a["native_xyzt_units"]),
        header={k[len("header_") :]: np.asarray(a[k]) for k in a if k.startswith("header_")},
    )


def damaged(path: Path, error: Exception) -> str:
    """What a file that cannot be read is told, as text."""
    return f"{path}: cut short or damaged ({error}); delete it and run tools/prepare.py again"
