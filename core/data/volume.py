"""NIfTI files <-> arrays in one canonical orientation, with the way back to the file's own grid.

Files are read slab by slab straight into the canonical array, so reading takes little more memory than the result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.arrayproxy import ArrayProxy
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from core.data.checks import HuCheck, LabelCheck
from core.errors import UserError

CANONICAL = ("L", "P", "S")
AFFINE_TOLERANCE = 1e-3
"""Affines that differ by more are different grids (METRICS.md, hard errors)."""

_SLAB_BYTES = 16 << 20
_GEOMETRY_FIELDS = (
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_UNIT_MM = {1: 1000.0, 3: 0.001}  # NIfTI codes of metre and micron; millimetre and unknown are taken as mm


class VolumeError(UserError):
    """A file that cannot be used, with its path and what is wrong."""


@dataclass(frozen=True, eq=False)
class Native:
    """The way back to a file's own grid.

    Attributes:
        axcodes: directions of the file's axes, e.g. ``("L", "P", "S")``.
        shape: of the file, in its own axis order.
        affine: 4x4 of the file, voxel -> RAS, in the file's own unit (nearly always mm).
        xyzt_units: the raw header field.
        header: the header's raw geometry fields, so that a written file repeats them bit by bit.
    """

    axcodes: tuple[str, str, str]
    shape: tuple[int, int, int]
    affine: np.ndarray
    xyzt_units: int = 2
    header: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan or a label map in canonical orientation (LPS).

    Attributes:
        array: ``[Z, Y, X]``, C-contiguous; x grows to the patient's left, y to the back, z to the head.
        spacing_mm: along z, y, x.
        affine: 4x4 of the canonical grid, voxel ``(x, y, z)`` -> RAS mm.
        native: the way back to the file.
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    native: Native


def read_image(path: Path) -> Volume:
    """Read a CT scan as int16 HU; slope and intercept applied, fractions rounded.

    Raises:
        VolumeError: unreadable or cut short, not three-dimensional, not finite, or intensities that cannot be HU.
    """
    return _read(Path(path), np.dtype(np.int16), HuCheck(), None)


def read_label(path: Path, *, affine: np.ndarray | None = None) -> Volume:
    """Read a label map as uint8.

    Args:
        path: .nii or .nii.gz.
        affine: 4x4 to use in place of the file's own, for the known cases whose label lacks it.

    Raises:
        VolumeError: unreadable or cut short, not three-dimensional, or labels other than 0, 1, 2.
    """
    return _read(Path(path), np.dtype(np.uint8), LabelCheck(), affine)


def to_native(labels: np.ndarray, native: Native) -> np.ndarray:
    """Canonical ``[Z, Y, X]`` -> a view in the file's own axis order and directions."""
    back = ornt_transform(axcodes2ornt(CANONICAL), axcodes2ornt(native.axcodes))
    out = apply_orientation(labels.T, back)
    if out.shape != tuple(native.shape):
        raise VolumeError(f"labels of shape {labels.shape} [Z,Y,X] do not fit a scan of shape {tuple(native.shape)}")
    return out


def write_labels(path: Path, labels: np.ndarray, native: Native) -> None:
    """Write labels ``[Z, Y, X]`` as NIfTI uint8 on the scan's own grid, whole or not at all.

    Shape, affine, units, qform and sform are the scan's own.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise VolumeError(f"{path}: a label map is written as .nii or .nii.gz")
    data = to_native(labels, native)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(native.shape)
    if native.header:
        for name, value in native.header.items():
            header[name] = value
    else:
        header.set_sform(native.affine, code=1)
        header.set_qform(native.affine, code=1)
    header["xyzt_units"] = native.xyzt_units
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = 352
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as raw:
            stream: Any = igzip.IGzipFile(fileobj=raw, mode="wb", mtime=0) if path.name.endswith(".gz") else raw
            header.write_to(stream)
            step = _step(data.shape, 1)
            for k in range(0, data.shape[2], step):
                stream.write(data[..., k : k + step].astype(np.uint8, copy=False).tobytes(order="F"))
            if stream is not raw:
                stream.close()
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def same_grid(a: Volume, b: Volume) -> str | None:
    """What keeps two volumes from lying on one grid, or None."""
    if a.array.shape != b.array.shape:
        return f"shape {b.array.shape} [Z,Y,X], the scan has {a.array.shape}"
    apart = float(np.abs(a.affine - b.affine).max())
    if apart > AFFINE_TOLERANCE:
        return f"its affine differs from the scan's by up to {apart:.4g} (allowed: {AFFINE_TOLERANCE})"
    return None


def _read(path: Path, dtype: np.dtype[Any], check: HuCheck | LabelCheck, affine: np.ndarray | None) -> Volume:
    with _opened(path) as (stream, header):
        shape, own = _grid(path, header)
        used = own if affine is None else np.asarray(affine, float)
        unit = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
        native = Native(
            axcodes=nib.aff2axcodes(used),
            shape=shape,
            affine=used,
            xyzt_units=int(header["xyzt_units"]),
            header={name: np.array(header[name]) for name in _GEOMETRY_FIELDS},
        )
        to_canonical = ornt_transform(io_orientation(used), axcodes2ornt(CANONICAL))
        canonical = used @ inv_ornt_aff(to_canonical, shape)
        canonical[:3] *= unit
        x, y, z = (int(n) for n in apply_orientation(np.broadcast_to(np.False_, shape), to_canonical).shape)
        array = np.empty((z, y, x), dtype)
        target = to_native(array, native)
        proxy = ArrayProxy(stream, header)
        step = _step(shape, max(header.get_data_dtype().itemsize, dtype.itemsize))
        tail = (0,) * (len(header.get_data_shape()) - 3)
        for k in range(0, shape[2], step):
            target[..., k : k + step] = check.add(np.asanyarray(proxy[(..., slice(k, k + step), *tail)]))
        while stream.read(1 << 20):  # to the end, so that a cut or damaged gzip file shows by its checksum
            pass
    complaint = check.complaint()
    if complaint:
        raise VolumeError(f"{path}: {complaint}")
    size = np.sqrt((canonical[:3, :3] ** 2).sum(axis=0))
    return Volume(array, (float(size[2]), float(size[1]), float(size[0])), canonical, native)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The decompressed stream and the parsed header; whatever goes wrong inside becomes a VolumeError."""
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: Any = igzip.IGzipFile(fileobj=raw, mode="rb") if packed else raw
            first = stream.read(4)
            kinds = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
            kind = kinds.get(int.from_bytes(first, "little")) or kinds.get(int.from_bytes(first, "big"))
            if kind is None:
                raise VolumeError(f"{path}: not a NIfTI file")
            stream.seek(0)
            yield stream, kind.from_fileobj(stream)
    except VolumeError:
        raise
    except FileNotFoundError:
        raise VolumeError(f"{path}: no such file") from None
    except MemoryError:
        raise
    except Exception as error:  # nibabel, zlib and the file system each have errors of their own
        text = str(error).strip() or type(error).__name__
        raise VolumeError(f"{path}: unreadable or cut short ({text})") from error


def _grid(path: Path, header: Any) -> tuple[tuple[int, int, int], np.ndarray]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise VolumeError(f"{path}: {len(shape)}-D of shape {shape}; want one 3-D volume")
    if min(shape) < 1:
        raise VolumeError(f"{path}: no voxels, the shape is {shape}")
    if header.get_data_dtype().kind not in "iuf":
        raise VolumeError(f"{path}: holds {header.get_data_dtype()} and not plain numbers")
    affine = np.asarray(header.get_best_affine(), float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise VolumeError(f"{path}: the affine is not usable (zero or non-finite spacing): {affine[:3].tolist()}")
    return shape[:3], affine  # type: ignore[return-value]


def _step(shape: Sequence[int], itemsize: int) -> int:
    return max(1, _SLAB_BYTES // max(1, shape[0] * shape[1] * itemsize))
