"""A folder with a DICOM CT series -> one scan.

Headers and geometry through pydicom; pixels of any transfer syntax that pydicom and GDCM decode, slice by slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from core.data.dicom_geometry import Slice, along_body, stack
from core.data.dicom_headers import CT_CLASSES, Found, Header, Series, find, quiet, walk
from core.data.volume import Check, Volume, VolumeError, blank, native_grid
from core.values import AIR_HU

_LISTED = 20
_HU_UNITS = ("", "HU", "HU_MOD")
_SCOUT = "LOCALIZER"
_NOT_AXIAL = "is not axial (a reformatted image); name its SeriesInstanceUID to have it read all the same"


def read(folder: Path, check: Check, uid: str = "") -> Volume:
    """Read a CT series.

    Args:
        folder: with the series' files in it or below, whatever else is there.
        check: what turns slices into int16 HU, and may refuse them.
        uid: SeriesInstanceUID; empty takes the only axial CT series that there is.

    Raises:
        VolumeError: no such series or several, not CT, or slices that do not make up one regular grid of HU.
    """
    found = find(folder)
    series = _choose(folder, found, uid)
    where = f"{folder}: {series}"
    reason = objection(series)
    if reason is not None and (reason != _NOT_AXIAL or not uid):
        raise VolumeError(f"{where} {reason}")
    homes = {file.path.parent for file in series.files}
    for path, text in found.unreadable:
        if path.parent in homes:
            raise VolumeError(
                f"{where}: {path.name} beside it cannot be read ({text}); a slice may be "
                f"missing: copy it again, or take it out"
            )
    slices, notes = _slices(series, where)
    slices, affine, remarks = stack(slices, where, folder)
    rows, columns = slices[0][0].shape
    volume, target = blank(native_grid(affine, (columns, rows, len(slices))), np.dtype(np.int16))
    padded = _fill(target, slices, check, where, folder)
    complaint = check.complaint()
    if complaint:
        raise VolumeError(f"{where}: {complaint}")
    if padded:
        share = 100 * padded / volume.array.size
        remarks.append(f"{share:.2g} % of the voxels are padding (PixelPaddingValue), set to {AIR_HU} HU")
    if any(file.lossy for file in series.files):
        remarks.append("the images were compressed with loss: HU are near what was measured, not exactly that")
    return replace(volume, notes=(*notes, *remarks), series=series.uid)


def stamp(folder: Path, series: str = "") -> list[list[Any]]:
    """Name, size and time (ns) of each file in the folder and below, by which to tell whether a series is unchanged.

    Headers are not read, so it is cheap, and a change to another series in the folder counts as one.

    Args:
        folder: as in `Case.image`.
        series: SeriesInstanceUID; it begins the list, so that another one is a change.
    """
    files = [[str(path.relative_to(folder)), status.st_size, status.st_mtime_ns] for path, status in walk(folder)]
    return [[series], *files]


def holds_series(folder: Path, *, below: bool = True) -> bool:
    """Whether there is a DICOM file in the folder, or in those below it."""
    for path, _ in walk(folder):
        if (below or path.parent == folder) and path.name.upper() != "DICOMDIR":
            with open(path, "rb") as file:
                if file.read(132)[128:] == b"DICM":
                    return True
    return False


def objection(series: Series) -> str | None:
    """Why a series is no axial CT scan, as the rest of a sentence, or None."""
    first = series.first
    if first.modality != "CT":
        return f"is of modality {first.modality or 'unknown'}, not CT"
    if first.sop_class not in CT_CLASSES:
        return f"holds no CT images but {UID(first.sop_class).name}: a picture of one, its values are no HU"
    frames = [frame for file in series.files for frame in file.frames]
    if all(_SCOUT in frame.kind for frame in frames):
        return "is a scout view (localizer), not a scan"
    if len(frames) < 2:
        return "is one slice, which is no volume"
    if not any(along_body(frame) for frame in frames):
        return _NOT_AXIAL if all(frame.orientation for frame in frames) else None
    return None


def _choose(folder: Path, found: Found, uid: str) -> Series:
    if uid:
        if uid in found.series:
            return found.series[uid]
        raise VolumeError(f"{folder}: no series {uid} in it{_listed(list(found.series.values()))}")
    if not found.series:
        path, text = found.unreadable[0] if found.unreadable else (None, "")
        raise VolumeError(f"{path}: {text}" if path else f"{folder}: no DICOM image in this folder")
    usable = [series for series in found.series.values() if objection(series) is None]
    if len(usable) == 1:
        return usable[0]
    if len(found.series) == 1:
        return next(iter(found.series.values()))
    if not usable:
        reasons = [f"{series} {objection(series)}" for series in found.series.values()][:_LISTED]
        raise VolumeError(f"{folder}: no axial CT series in it:\n  " + "\n  ".join(reasons))
    raise VolumeError(
        f"{folder}: {len(usable)} CT series, and nothing says which one is meant; give each a folder of its own, or "
        f"take source 'dicom', which sorts them out{_listed(usable)}"
    )


def _listed(series: Sequence[Series]) -> str:
    lines = [f"\n  {one}" for one in series[:_LISTED]]
    return "".join([":" if lines else "; it holds none", *lines, "\n  ..." if len(series) > _LISTED else ""])


def _slices(series: Series, where: str) -> tuple[list[Slice], list[str]]:
    """The slices of a series that count, without copies of a file and scout views, and what was left out."""
    files: dict[str, Header] = {}
    copies = 0
    for file in series.files:
        known = files.setdefault(file.instance or str(file.path), file)
        if known is not file:
            if known.frames != file.frames or known.size != file.size:
                raise VolumeError(
                    f"{where}: {known.path.name} and {file.path.name} have one SOPInstanceUID and differ; which one is "
                    f"it?"
                )
            copies += 1
    notes = [f"{copies} files are copies of others in the series, passed over"] if copies else []
    for file in files.values():
        if file.sop_class not in CT_CLASSES or file.modality != "CT":
            raise VolumeError(f"{where}: {file.path.name} is no CT image ({UID(file.sop_class).name})")
    both = [(file, frame) for file in files.values() for frame in file.frames]
    slices = [one for one in both if _SCOUT not in one[1].kind]
    if len(slices) < len(both):
        notes.append(f"{len(both) - len(slices)} scout views (localizers) in the series, passed over")
    return slices, notes


def _fill(target: np.ndarray, slices: Sequence[Slice], check: Check, where: str, folder: Path) -> int:
    """Read the slices into ``target`` [column, row, slice]; the number of padded voxels."""
    places: dict[Path, list[tuple[int, Slice]]] = {}
    for k, one in enumerate(slices):
        places.setdefault(one[0].path, []).append((k, one))
    for file in {one[0].path: one[0] for one in slices}.values():
        _readable(file, where)
    padded = 0
    for path, wanted in places.items():
        header = wanted[0][1][0]
        plugin = "gdcm" if "gdcm" in get_decoder(UID(header.syntax)).available_plugins else ""
        wanted.sort(key=lambda entry: entry[1][1].index)
        try:
            with quiet():
                indices = [frame.index for _, (_, frame) in wanted]
                # From the file rather than a data set, so that of many frames one at a time is in memory.
                source = dcmread(path) if header.syntax == DeflatedExplicitVRLittleEndian else path
                pixels = iter_pixels(source, raw=True, indices=indices, decoding_plugin=plugin)
                for (k, (_, frame)), stored in zip(wanted, pixels, strict=True):
                    if stored.shape != header.shape:
                        raise ValueError(f"{stored.shape} pixels where the header says {header.shape}")
                    hu, count = _hounsfield(stored, header, frame.slope or 1.0, frame.intercept or 0.0)
                    target[..., k] = check.add(hu).T
                    padded += count
        except MemoryError:
            raise
        except Exception as error:  # each decoder has errors of its own, some of them riddles
            name = path.relative_to(folder) if path.is_relative_to(folder) else path
            raise VolumeError(
                f"{where}: {name} is cut short or damaged: its pixels "
                f"({UID(header.syntax).name}) cannot be read; copy it again"
            ) from error
    return padded


def _readable(file: Header, where: str) -> None:
    name = file.path.name
    if file.samples != 1:
        raise VolumeError(f"{where}: {name} has {file.samples} values a pixel (colour), not HU")
    for frame in file.frames:
        missing = [n for n, v in (("RescaleSlope", frame.slope), ("RescaleIntercept", frame.intercept)) if v is None]
        if missing:
            raise VolumeError(
                f"{where}: {name} has no {' and no '.join(missing)}, so its values cannot be turned into HU"
            )
        if not frame.slope:
            raise VolumeError(f"{where}: {name} has RescaleSlope 0, so its values cannot be turned into HU")
        if frame.unit not in _HU_UNITS:
            raise VolumeError(f"{where}: the values of {name} are not HU: its RescaleType is '{frame.unit}'")
    syntax = UID(file.syntax)
    try:
        known = get_decoder(syntax).is_available
    except NotImplementedError:
        known = False
    if not known:
        raise VolumeError(
            f"{where}: {name} is compressed as '{syntax.name}' ({file.syntax}), which cannot be read here; convert the "
            f"series first, e.g. with 'gdcmconv --raw'"
        )


def _hounsfield(stored: np.ndarray, file: Header, slope: float, intercept: float) -> tuple[np.ndarray, int]:
    """HU of stored values, and how many of them are padding."""
    values = _signed(stored, file)
    whole = slope == int(slope) and intercept == int(intercept)
    hu = values.astype(np.int32) * int(slope) + int(intercept) if whole else values * slope + intercept
    if file.padding is None:
        return hu, 0
    wrap = 1 << file.bits[1]  # some files write a signed value's bits as an unsigned number
    low, high = sorted(p - wrap if file.signed and p >= wrap // 2 else p for p in file.padding)
    # Values that a CT can measure are kept: files name 0 as padding where 0 is water.
    outside = (values >= low) & (values <= high) & (hu < AIR_HU)
    count = int(np.count_nonzero(outside))
    if count:
        hu[outside] = AIR_HU
    return hu, count


def _signed(stored: np.ndarray, file: Header) -> np.ndarray:
    """The values of the bits that count: those above may hold anything, e.g. an overlay, and no sign."""
    allocated, used, high = file.bits
    if allocated != stored.dtype.itemsize * 8 or not 0 < used < allocated:
        return stored
    above, below = allocated - 1 - high, high + 1 - used
    if above < 0 or below < 0 or UID(file.syntax).is_compressed:
        return stored
    return (stored << above) >> (above + below)
