"""Scans and label maps of any file format <-> arrays in one canonical orientation, with the way back to their grid.

The one door to the files: NIfTI, NRRD, MetaImage, folders with a DICOM series, DICOM-SEG.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from core.data.checks import HuCheck, LabelCheck, whole_numbers
from core.errors import UserError

CANONICAL = ("L", "P", "S")
AFFINE_TOLERANCE = 1e-3
"""Affines that differ by more are different grids (METRICS.md, hard errors)."""

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
SUFFIXES = (".nii", ".nii.gz", *ITK_SUFFIXES)
"""Of the files that hold a volume; a DICOM series is a folder."""


class VolumeError(UserError):
    """A file that cannot be used, with its path and what is wrong."""


class Check(Protocol):
    """Turns slabs into the values that are kept, and remembers what speaks against them."""

    def add(self, slab: np.ndarray) -> np.ndarray:
        """The slab as it is kept."""

    def complaint(self) -> str | None:
        """Why the values cannot be used, or None."""


@dataclass(frozen=True, eq=False)
class Native:
    """The way back to a file's own grid.

    Attributes:
        axcodes: directions of the file's axes, e.g. ``("L", "P", "S")``.
        shape: of the file, in its own axis order.
        affine: 4x4 of the file, voxel -> RAS, in the file's own unit (nearly always mm).
        xyzt_units: the raw header field of a NIfTI file.
        header: its raw geometry fields, so that a written file repeats them bit by bit; empty for other formats.
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
        notes: what the reader remarked on.
        series: SeriesInstanceUID of a DICOM series, else empty.
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    native: Native
    notes: tuple[str, ...] = ()
    series: str = ""


def read_image(path: Path, *, series: str = "") -> Volume:
    """Read a CT scan as int16 HU; slope and intercept applied, fractions rounded.

    Args:
        path: .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, or a folder with a DICOM series.
        series: SeriesInstanceUID, where the folder holds several.

    Raises:
        VolumeError: unreadable or cut short, not three-dimensional, not finite, or intensities that cannot be HU.
    """
    # Readers are imported when first needed: each brings a library of its own, and most runs need one.
    path, check = Path(path), HuCheck()
    if path.is_dir():
        from core.data.dicom import read as read_series

        return read_series(path, check, series)
    if _is_dicom(path):
        raise VolumeError(f"{path}: one DICOM file; give the folder that holds its series")
    return _read_file(path, np.dtype(np.int16), check, None)


def read_label(
    path: Path,
    *,
    affine: np.ndarray | None = None,
    mapping: Sequence[tuple[int, int]] = (),
    like: Volume | None = None,
) -> Volume:
    """Read a label map as uint8.

    Args:
        path: .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, a DICOM-SEG file, or a folder that holds one such.
        affine: 4x4 to use in place of the file's own, for the known cases whose label lacks it.
        mapping: (value in the file, label) pairs; values not named become 0. Empty: 0, 1, 2 as they are, and segments
            of DICOM-SEG by their names.
        like: the scan; DICOM-SEG needs it, for its frames are laid onto the scan's grid.

    Raises:
        VolumeError: unreadable or cut short, not three-dimensional, labels other than 0, 1, 2 (with a mapping: other
            than whole numbers), or DICOM-SEG that does not lie on the scan's grid or has segments of unclear meaning.
    """
    path = Path(path)
    if path.is_dir() or _is_dicom(path):
        from core.data.dicom_seg import read as read_segments

        return read_segments(path, mapping, like)
    return _read_file(path, np.dtype(np.uint8), _Mapped(mapping) if mapping else LabelCheck(), affine)


def to_native(labels: np.ndarray, native: Native) -> np.ndarray:
    """Canonical ``[Z, Y, X]`` -> a view in the file's own axis order and directions."""
    back = ornt_transform(axcodes2ornt(CANONICAL), axcodes2ornt(native.axcodes))
    out = apply_orientation(labels.T, back)
    if out.shape != tuple(native.shape):
        raise VolumeError(f"labels of shape {labels.shape} [Z,Y,X] do not fit a scan of shape {tuple(native.shape)}")
    return out


def write_labels(path: Path, labels: np.ndarray, native: Native) -> None:
    """Write labels ``[Z, Y, X]`` as NIfTI uint8 on the scan's own grid, whole or not at all.

    Shape, affine, units, qform and sform are the scan's own; of a scan in another format, its grid as NIfTI says it.
    """
    from core.data.nifti import write

    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise VolumeError(f"{path}: a label map is written as .nii or .nii.gz")
    write(path, to_native(labels, native), native)


def same_grid(a: Volume, b: Volume) -> str | None:
    """What keeps two volumes from lying on one grid, or None."""
    if a.array.shape != b.array.shape:
        return f"shape {b.array.shape} [Z,Y,X], the scan has {a.array.shape}"
    apart = float(np.abs(a.affine - b.affine).max())
    if apart > AFFINE_TOLERANCE:
        return f"its affine differs from the scan's by up to {apart:.4g} (allowed: {AFFINE_TOLERANCE})"
    return None


def blank(native: Native, dtype: np.dtype[Any], unit_mm: float = 1.0) -> tuple[Volume, np.ndarray]:
    """A volume whose voxels are still to be filled in, and the view of them in the file's own axis order.

    Args:
        native: the file's grid.
        dtype: of the voxels.
        unit_mm: mm per unit of the file's affine.
    """
    to_canonical = ornt_transform(io_orientation(native.affine), axcodes2ornt(CANONICAL))
    affine = native.affine @ inv_ornt_aff(to_canonical, native.shape)
    affine[:3] *= unit_mm
    x, y, z = (int(n) for n in apply_orientation(np.broadcast_to(np.False_, native.shape), to_canonical).shape)
    array = np.empty((z, y, x), dtype)
    size = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    volume = Volume(array, (float(size[2]), float(size[1]), float(size[0])), affine, native)
    return volume, to_native(array, native)


def native_grid(affine: np.ndarray, shape: Sequence[int]) -> Native:
    """The grid of a file that is not NIfTI, as a NIfTI file would have it."""
    i, j, k = (int(n) for n in shape)
    return Native(axcodes=nib.aff2axcodes(affine), shape=(i, j, k), affine=affine)


def usable(path: Path, affine: np.ndarray) -> np.ndarray:
    """The affine.

    Raises:
        VolumeError: if it maps voxels to no volume.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise VolumeError(f"{path}: the affine is not usable (zero or non-finite spacing): {affine[:3].tolist()}")
    return affine


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file inside becomes a VolumeError."""
    try:
        if path.is_file() and not path.stat().st_size:
            raise VolumeError(f"{path}: an empty file (0 bytes); copy it again")
        yield
    except (VolumeError, MemoryError):
        raise
    except FileNotFoundError:
        raise VolumeError(f"{path}: no such file") from None
    except PermissionError:
        raise VolumeError(f"{path}: no permission to read it") from None
    except Exception as error:  # nibabel, zlib and the file system each have errors of their own
        text = str(error).strip() or type(error).__name__
        raise VolumeError(f"{path}: unreadable or cut short ({text})") from error


def _read_file(path: Path, dtype: np.dtype[Any], check: Check, affine: np.ndarray | None) -> Volume:
    if path.name.lower().endswith(ITK_SUFFIXES):
        from core.data.itk import read as read_itk

        return read_itk(path, dtype, check, affine)
    from core.data.nifti import read as read_nifti

    return read_nifti(path, dtype, check, affine)


def _is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:  # said by the reader
        return False


class _Mapped:
    """Gives the values of a label file their meaning; those that are not named become background."""

    def __init__(self, mapping: Sequence[tuple[int, int]]) -> None:
        self.mapping, self.fractions = mapping, set[float]()

    def add(self, slab: np.ndarray) -> np.ndarray:
        """The slab as uint8 labels."""
        slab, fractions = whole_numbers(slab)
        self.fractions |= fractions
        out = np.zeros(slab.shape, np.uint8)
        for value, label in self.mapping:
            out[slab == value] = label
        return out

    def complaint(self) -> str | None:
        """Which values are no whole numbers, or None."""
        if not self.fractions:
            return None
        found = ", ".join(f"{v:g}" for v in sorted(self.fractions)[:10])
        return f"labels must be whole numbers; it also holds {found}"
