"""DICOM-SEG files, through highdicom, as label maps on their scan's grid."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np

from core.data.dicom_headers import SEG_CLASSES, find, quiet
from core.data.volume import Volume, VolumeError, refused
from core.values import LIVER, TUMOUR

_OFF_GRID = 0.1  # voxels; positions and spacings are written with few digits
_TUMOUR = re.compile(r"tumou?r|lesion|neoplas|mass\b|metasta|\bhcc\b|carcinoma|cancer|\bgtv\b")
_LIVER = re.compile(r"^(whole |entire )?(liver|hepar)( parenchyma)?$|^(liver )?parenchyma$")
_OTHER = re.compile(
    r"kidney|renal|pancrea|colon|lung|spleen|splenic|stomach|adrenal|bone|lymph|cyst|vessel|vein|artery"
)
_HELP = "say which segment number means what with label_map, e.g. label_map: {1: 1, 2: 2} (segment: 1 liver, 2 tumour)"


def read(path: Path, mapping: Sequence[tuple[int, int]], like: Volume | None) -> Volume:
    """Lay the segments of a DICOM-SEG file onto a scan's grid; where two overlap, the tumour is on top.

    Slices that the file has no frame of are background. Where `like` is a DICOM series, the file must name it.

    Args:
        path: the file, or a folder with one DICOM-SEG file.
        mapping: (segment number, label) pairs; segments not named become background. Empty: found by their names.
        like: the scan.

    Raises:
        VolumeError: unreadable, no DICOM-SEG, made for another series, on another grid, or a segment of unclear
            meaning.
    """
    if path.is_dir():
        path = _only(path)
    if like is None:
        raise VolumeError(f"{path}: DICOM-SEG is laid onto its scan's grid, and no scan was given")
    with refused(path), quiet():
        try:
            seg = hd.seg.segread(path, lazy_frame_retrieval=True)
        except ValueError as error:
            raise VolumeError(f"{path}: no DICOM-SEG file ({error})") from error
        _same_series(path, seg, like)
        labels = _labels(path, seg, dict(mapping))
        array = np.zeros(like.array.shape, np.uint8)
        _lay(path, seg, labels, array, np.linalg.inv(like.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0]))
    return dataclasses.replace(like, array=array, notes=())


def _only(folder: Path) -> Path:
    headers = [file for series in find(folder).series.values() for file in series.files]
    found = [file.path for file in headers if file.sop_class in SEG_CLASSES]
    if len(found) == 1:
        return found[0]
    names = f": {', '.join(path.name for path in found)}; name one" if found else ""
    raise VolumeError(f"{folder}: {len(found) or 'no'} DICOM-SEG files in this folder{names}")


def _same_series(path: Path, seg: Any, like: Volume) -> None:
    named = [str(item.SeriesInstanceUID) for item in seg.get("ReferencedSeriesSequence") or ()]
    if like.series and named and like.series not in named:
        raise VolumeError(f"{path}: made for series {', '.join(named)}; the scan is series {like.series}")


def _labels(path: Path, seg: Any, mapping: dict[int, int]) -> dict[int, int]:
    """Segment number -> label."""
    segments = {int(item.SegmentNumber): item for item in seg.SegmentSequence}
    segments.pop(0, None)  # the background of a label map
    if mapping:
        absent = sorted(set(mapping) - set(segments) - {0})
        if len(absent) == len(set(mapping) - {0}):
            raise VolumeError(
                f"{path}: has none of the segments {', '.join(map(str, absent))} that label_map names; it has "
                f"{', '.join(f'{n} {_name(item)!r}' for n, item in segments.items())}"
            )
        return {number: mapping.get(number, 0) for number in segments}
    labels = {number: _meaning(item) for number, item in segments.items()}
    unclear = [f"segment {n} {_name(segments[n])!r}" for n, label in labels.items() if label is None]
    if unclear:
        raise VolumeError(f"{path}: is {' or '.join(unclear)} liver or tumour? {_HELP}")
    return {number: label for number, label in labels.items() if label is not None}


def _meaning(item: Any) -> int | None:
    words = [_plain(_name(item)), *(_plain(text) for text in _codes(item, "SegmentedPropertyTypeCodeSequence"))]
    places = [_plain(text) for text in _codes(item, "AnatomicRegionSequence")]
    if any(_OTHER.search(text) for text in (*words, *places)):
        return None
    label, *kinds = words
    if _TUMOUR.search(label):
        return TUMOUR
    if _LIVER.search(label):
        return LIVER
    if any(_TUMOUR.search(kind) for kind in kinds):
        return TUMOUR
    # A name that says nothing, or in another language, leaves it to the code; a part of the liver is liver.
    return LIVER if any(_LIVER.search(kind) for kind in kinds) else None


def _name(item: Any) -> str:
    return str(item.get("SegmentLabel") or "")


def _codes(item: Any, name: str) -> list[str]:
    return [str(code.get("CodeMeaning") or "") for code in item.get(name) or ()]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def _lay(path: Path, seg: Any, labels: dict[int, int], array: np.ndarray, to_voxel: np.ndarray) -> None:
    """Paint each frame into ``array`` [Z, Y, X]; ``to_voxel`` is LPS mm -> voxel (x, y, z)."""
    kind = str(seg.SegmentationType)
    full = int(seg.get("MaximumFractionalValue") or 1)
    shared = (seg.get("SharedFunctionalGroupsSequence") or [{}])[0]
    for index, own in enumerate(seg.PerFrameFunctionalGroupsSequence):
        number = 0
        if kind != "LABELMAP":
            number = int(_group(path, own, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            if not labels.get(number):
                continue
        position = _group(path, own, shared, "PlanePositionSequence").ImagePositionPatient
        orientation = _group(path, own, shared, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = _group(path, own, shared, "PixelMeasuresSequence").PixelSpacing
        place = _Place(path, index + 1, (int(seg.Rows), int(seg.Columns)), array, to_voxel)
        plane = place.view(*(np.array(v, float) for v in (position, orientation, spacing)))
        frame = seg.get_stored_frame(index + 1)
        if kind == "LABELMAP":
            table = np.zeros(max(int(frame.max()), *labels, 0) + 1, np.uint8)
            for value, label in labels.items():
                table[value] = label
            painted = table[frame]
        else:
            if kind == "FRACTIONAL" and not np.isin(frame, (0, full)).all():
                raise VolumeError(
                    f"{path}: segment {number} holds fractions, not yes or no; save it anew as a binary segmentation"
                )
            painted = np.where(frame > 0, np.uint8(labels[number]), np.uint8(0))
        np.maximum(plane, painted, out=plane)


def _group(path: Path, own: Any, shared: Any, name: str) -> Any:
    for groups in (own, shared):
        if groups.get(name):
            return groups.get(name)[0]
    raise VolumeError(f"{path}: its frames have no {name}, so nothing says where they lie")


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a frame lies in an array."""

    path: Path
    frame: int
    shape: tuple[int, int]
    array: np.ndarray
    to_voxel: np.ndarray

    def view(self, position: np.ndarray, orientation: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """The plane of the array as ``[row, column]``.

        Raises:
            VolumeError: if the frame's pixels are not the voxels of one plane.
        """
        rows, columns = self.shape
        corners = [
            position,
            position + orientation[:3] * spacing[1] * (columns - 1),
            position + orientation[3:] * spacing[0] * (rows - 1),
        ]
        exact = [(self.to_voxel @ [*corner, 1])[:3] for corner in corners]
        first, right, below = (np.rint(voxel).astype(int) for voxel in exact)
        off = max(float(np.abs(voxel - np.rint(voxel)).max()) for voxel in exact)
        size = np.array(self.array.shape[::-1])
        across, down = np.flatnonzero(right - first), np.flatnonzero(below - first)
        if off > _OFF_GRID or len(across) != 1 or len(down) != 1 or across[0] == down[0]:
            raise self._refuse(f"its pixels lie up to {off:.2g} voxels beside the scan's")
        a, d = int(across[0]), int(down[0])
        k = 3 - a - d
        steps = abs(right[a] - first[a]) + 1, abs(below[d] - first[d]) + 1
        if (size[a], size[d]) != (columns, rows) or steps != (columns, rows):
            raise self._refuse(f"{columns} x {rows} pixels; the scan's slices have {size[a]} x {size[d]}")
        if {first[a], right[a]} != {0, columns - 1} or {first[d], below[d]} != {0, rows - 1}:
            raise self._refuse("it is shifted against the scan's slices")
        if not 0 <= first[k] < size[k]:
            raise self._refuse(f"it lies beyond the scan, at slice {first[k]} of {size[k]}")
        view = self.array.transpose(2, 1, 0)[tuple(int(first[k]) if axis == k else slice(None) for axis in range(3))]
        if a < d:
            view = view.T
        return view[:: 1 if first[d] == 0 else -1, :: 1 if first[a] == 0 else -1]

    def _refuse(self, text: str) -> VolumeError:
        return VolumeError(f"{self.path}: frame {self.frame} does not lie on the scan's grid: {text}")
