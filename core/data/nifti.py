"""NIfTI files into the canonical orientation, slab by slab: reading takes little more memory than the result."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.arrayproxy import ArrayProxy

from core.data.volume import Check, Native, Volume, VolumeError, blank, refused, usable

_SLAB_BYTES = 16 << 20
_GEOMETRY_FIELDS = (
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_UNIT_MM = {1: 1000.0, 3: 0.001}  # NIfTI codes of metre and micron; millimetre and unknown are taken as mm


def read(path: Path, dtype: np.dtype[Any], check: Check, affine: np.ndarray | None = None) -> Volume:
    """Read a .nii or .nii.gz file.

    Args:
        path: the file.
        dtype: of the result.
        check: what turns slabs into the result's values, and may refuse them.
        affine: 4x4 in place of the file's own.

    Raises:
        VolumeError: unreadable or cut short, not three-dimensional, or refused by `check`.
    """
    with _opened(path) as (stream, header):
        shape, own = _grid(path, header)
        used = own if affine is None else np.asarray(affine, float)
        native = Native(
            axcodes=nib.aff2axcodes(used),
            shape=shape,
            affine=used,
            xyzt_units=int(header["xyzt_units"]),
            header={name: np.array(header[name]) for name in _GEOMETRY_FIELDS},
        )
        volume, target = blank(native, dtype, _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0))
        proxy = ArrayProxy(stream, header)
        step = slab(shape, max(header.get_data_dtype().itemsize, dtype.itemsize))
        tail = (0,) * (len(header.get_data_shape()) - 3)
        for k in range(0, shape[2], step):
            target[..., k : k + step] = check.add(np.asanyarray(proxy[(..., slice(k, k + step), *tail)]))
        while stream.read(1 << 20):  # to the end, so that a cut or damaged gzip file shows by its checksum
            pass
    complaint = check.complaint()
    if complaint:
        raise VolumeError(f"{path}: {complaint}")
    return volume


def write(path: Path, data: np.ndarray, native: Native) -> None:
    """Write labels in the file's own axis order as uint8, whole or not at all."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(native.shape)
    if native.header:
        for name, value in native.header.items():
            header[name] = value
    else:
        header.set_sform(native.affine, code=1)
        # A qform holds no shear (tilted gantry): left out then, so that no reader takes it over the sform.
        header.set_qform(native.affine, code=1)
        if not np.allclose(header.get_qform(), native.affine, atol=1e-3):
            header["qform_code"] = 0
    header["xyzt_units"] = native.xyzt_units
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = 352
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as raw:
            stream: Any = igzip.IGzipFile(fileobj=raw, mode="wb", mtime=0) if path.name.endswith(".gz") else raw
            header.write_to(stream)
            step = slab(data.shape, 1)
            for k in range(0, data.shape[2], step):
                stream.write(data[..., k : k + step].astype(np.uint8, copy=False).tobytes(order="F"))
            if stream is not raw:
                stream.close()
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def slab(shape: Sequence[int], itemsize: int) -> int:
    """How many planes of the last axis are worked on at once."""
    return max(1, _SLAB_BYTES // max(1, shape[0] * shape[1] * itemsize))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The decompressed stream and the parsed header; whatever goes wrong inside becomes a VolumeError."""
    with refused(path), open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = igzip.IGzipFile(fileobj=raw, mode="rb") if packed else raw
        first = stream.read(4)
        sizes = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
        size = next((n for n in (int.from_bytes(first, "little"), int.from_bytes(first, "big")) if n in sizes), 0)
        if not size:
            raise VolumeError(f"{path}: not a NIfTI file")
        stream.seek(0)
        if not packed:
            _long_enough(path, raw, size)
        header = sizes[size].from_fileobj(stream, check=False)
        if not packed:
            _long_enough(path, raw, int(header["vox_offset"]) + _data_bytes(header))
        # nibabel mends a zero to 1 mm without a word; where the affine comes from these, it would be made up.
        if not header["sform_code"] and (header["pixdim"][1:4] == 0).any():
            raise VolumeError(
                f"{path}: the affine is not usable (zero or non-finite spacing): pixdim is "
                f"{header['pixdim'][1:4].tolist()}"
            )
        header.check_fix()
        yield stream, header


def _data_bytes(header: Any) -> int:
    count = 1
    for n in header["dim"][1 : 1 + max(0, min(7, int(header["dim"][0])))].tolist():
        count *= max(0, n)
    return count * int(header["bitpix"]) // 8


def _long_enough(path: Path, raw: IO[bytes], promised: int) -> None:
    there = os.fstat(raw.fileno()).st_size
    if there < promised:
        raise VolumeError(
            f"{path}: cut short: its header promises {promised} bytes, the file has {there}; copy it again"
        )


def _grid(path: Path, header: Any) -> tuple[tuple[int, int, int], np.ndarray]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise VolumeError(f"{path}: {len(shape)}-D of shape {shape}; want one 3-D volume")
    if min(shape) < 1:
        raise VolumeError(f"{path}: no voxels, the shape is {shape}")
    if header.get_data_dtype().kind not in "iuf":
        raise VolumeError(f"{path}: holds {header.get_data_dtype()} and not plain numbers")
    return shape[:3], usable(path, np.asarray(header.get_best_affine(), float))  # type: ignore[return-value]
