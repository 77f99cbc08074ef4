"""The headers of DICOM files and the series that they make up; pixels are not read."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "enhanced CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "legacy converted enhanced CT",
}
SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_DIRECTORY = "1.2.840.10008.1.3.10"
_SUFFIXES = (".dcm", ".dicom", ".ima")
# No patient's name, birth date or address is among them: what is not read cannot end up anywhere.
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "ImageType"),
    *("SeriesDescription", "SeriesNumber", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelSpacing"),
    *("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("LossyImageCompression", "ReferencedSeriesSequence", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence",),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice.

    Attributes:
        index: number of the frame in its file, from 0.
        position: LPS mm of the centre of the first pixel, or None.
        orientation: LPS directions along a row and down a column, six numbers, or None.
        spacing_mm: from row to row, from column to column, or None.
        slope: stored value -> HU, or None.
        intercept: HU, or None.
        unit: RescaleType, empty if it is not said.
        kind: ImageType in capitals.
    """

    index: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    slope: float | None
    intercept: float | None
    unit: str
    kind: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """One DICOM file.

    Attributes:
        patient: the first 12 digits of the sha256 of PatientID, or empty; the id itself is not kept.
        number: SeriesNumber as text.
        shape: rows, columns.
        bits: allocated, stored, high bit.
        padding: PixelPaddingValue and PixelPaddingRangeLimit (or the value again) as stored values, or None.
        refers_to: SeriesInstanceUIDs that a segmentation names as its images.
        size: of the file, bytes.
    """

    path: Path
    sop_class: str
    instance: str
    series: str
    study: str
    patient: str
    modality: str
    description: str
    number: str
    syntax: str
    shape: tuple[int, int]
    samples: int
    bits: tuple[int, int, int]
    signed: bool
    padding: tuple[int, int] | None
    lossy: bool
    refers_to: tuple[str, ...]
    size: int
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Series:
    """The files of one SeriesInstanceUID."""

    uid: str
    files: tuple[Header, ...]

    @property
    def first(self) -> Header:
        """A file that stands for all in what a series has in common."""
        return self.files[0]

    @property
    def slices(self) -> int:
        """How many images there are; a file that is no CT counts as one."""
        return sum(len(file.frames) or 1 for file in self.files)

    def __str__(self) -> str:
        described = f"'{self.first.description}', " if self.first.description else ""
        return f"series {self.uid} ({described}{self.slices} slice{'s' if self.slices != 1 else ''})"


@dataclass(frozen=True)
class Found:
    """What there is in a folder.

    Attributes:
        series: by SeriesInstanceUID, in the order of the UIDs.
        unreadable: files that are, or are named as, DICOM and cannot be read, with the reason.
    """

    series: dict[str, Series]
    unreadable: tuple[tuple[Path, str], ...]


def find(folder: Path) -> Found:
    """All DICOM series in a folder and those below it, whatever the files are called; other files are passed over."""
    files: dict[str, list[Header]] = {}
    unreadable: list[tuple[Path, str]] = []
    with quiet():
        for path, status in walk(folder):
            try:
                header = _header(path, status.st_size, status.st_mtime_ns)
            except Exception as error:  # pydicom has no error of its own for a broken file
                unreadable.append((path, str(error).strip() or type(error).__name__))
                continue
            if header is not None:
                files.setdefault(header.series, []).append(header)
    return Found({uid: Series(uid, tuple(files[uid])) for uid in sorted(files)}, tuple(unreadable))


def walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files in a folder and those below it, by name; hidden ones are passed over, links to folders followed."""
    visited: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where) / name
            if not name.startswith(".") and path.is_file():
                yield path, path.stat()


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's remarks on values that bend the standard: what matters of them is checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# Keyed by size and time too, so that a changed file is read again: a folder of ten series is gone through for each.
@functools.lru_cache(maxsize=50_000)
def _header(path: Path, size: int, _time: int) -> Header | None:
    with open(path, "rb") as file:
        if file.read(132)[128:] != b"DICM":
            if not path.name.lower().endswith(_SUFFIXES):
                return None
            raise ValueError("an empty file" if not size else "not a DICOM file: the mark DICM is missing")
        file.seek(0)
        data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
    meta = data.file_meta
    if meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        return None
    if not data.get("SOPClassUID") or not data.get("SeriesInstanceUID"):
        raise ValueError("no SOPClassUID and SeriesInstanceUID: its header is cut short")
    patient = str(data.get("PatientID") or "").strip()
    padding = data.get("PixelPaddingValue")
    limit = data.get("PixelPaddingRangeLimit")
    return Header(
        path=path,
        sop_class=str(data.SOPClassUID),
        instance=str(data.get("SOPInstanceUID", "")),
        series=str(data.SeriesInstanceUID),
        study=str(data.get("StudyInstanceUID", "")),
        patient=hashlib.sha256(patient.encode()).hexdigest()[:12] if patient else "",
        modality=str(data.get("Modality", "")),
        description=str(data.get("SeriesDescription") or "").strip(),
        number=str(data.get("SeriesNumber") or ""),
        syntax=str(meta.get("TransferSyntaxUID", "")),
        shape=(int(data.get("Rows") or 0), int(data.get("Columns") or 0)),
        samples=int(data.get("SamplesPerPixel") or 1),
        bits=(_whole(data, "BitsAllocated", 16), _whole(data, "BitsStored", 16), _whole(data, "HighBit", 15)),
        signed=bool(data.get("PixelRepresentation")),
        padding=None if padding is None else (int(padding), int(padding if limit is None else limit)),
        lossy=str(data.get("LossyImageCompression", "")) == "01",
        refers_to=tuple(str(item.SeriesInstanceUID) for item in data.get("ReferencedSeriesSequence") or ()),
        size=size,
        frames=() if str(data.SOPClassUID) not in CT_CLASSES else tuple(_frames(data)),
    )


def _whole(data: Dataset, name: str, otherwise: int) -> int:
    value = data.get(name)
    return otherwise if value is None else int(value)


def _frames(data: Dataset) -> Iterator[Frame]:
    own = data.get("PerFrameFunctionalGroupsSequence")
    shared = (data.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for index in range(len(own) if own else 1):
        groups = (own[index], shared) if own else (shared,)

        def value(name: str, group: str, groups: tuple[Dataset, ...] = groups) -> Any:
            for one in groups:
                if one.get(group):
                    return one.get(group)[0].get(name)
            return data.get(name)

        transform = "PixelValueTransformationSequence"
        slope, intercept = value("RescaleSlope", transform), value("RescaleIntercept", transform)
        kind = value("FrameType", "CTImageFrameTypeSequence") or data.get("ImageType") or ()
        yield Frame(
            index=index,
            position=_numbers(value("ImagePositionPatient", "PlanePositionSequence"), 3),
            orientation=_numbers(value("ImageOrientationPatient", "PlaneOrientationSequence"), 6),
            spacing_mm=_numbers(value("PixelSpacing", "PixelMeasuresSequence"), 2),
            slope=None if slope is None else float(slope),
            intercept=None if intercept is None else float(intercept),
            unit=str(value("RescaleType", transform) or "").strip().upper(),
            kind=tuple(str(word).upper() for word in ([kind] if isinstance(kind, str) else kind)),
        )


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    if value is None or isinstance(value, str | float | int) or len(value) != count:
        return None
    return tuple(float(number) for number in value)
