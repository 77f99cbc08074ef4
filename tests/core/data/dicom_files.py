"""Writes DICOM series and segmentations for tests."""

from __future__ import annotations

from pathlib import Path

import gdcm
import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

UID = "1.2.826.0.1.3680043.8.498.4"
SERIES = f"{UID}.7"
SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg 2000": JPEG2000Lossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg lossless": JPEGLosslessSV1,
}
SPACING = (2.5, 0.8, 0.7)
ORIGIN = (-12.25, 7.5, -300.0)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(
    [[0.7, 0, 0, -12.25], [0, 0.8, 0, 7.5], [0, 0, 2.5, -300], [0, 0, 0, 1]]
)
"""Voxel (column, row, slice) -> RAS mm of the series as `slices` makes it."""


def body(shape: tuple[int, int, int] = (8, 24, 20)) -> np.ndarray:
    """HU ``[Z, Y, X]`` of a round body with liver, tumour and bone in air."""
    z, y, x = np.indices(shape)
    _, rows, columns = shape
    radius = np.hypot(y / rows - 0.5, x / columns - 0.5)
    hu = np.where(radius < 0.4, 40, -1000)
    hu[np.hypot(y / rows - 0.5, x / columns - 0.4) < 0.2] = 110
    hu[np.hypot(y / rows - 0.45, x / columns - 0.35) < 0.08] = 60
    hu[np.hypot(y / rows - 0.8, x / columns - 0.5) < 0.06] = 700
    return (hu + (7 * x + 3 * y + 5 * z) % 11).astype(np.int16)


def labels(shape: tuple[int, int, int] = (8, 24, 20)) -> np.ndarray:
    """Labels ``[Z, Y, X]`` that belong to `body`, unlike in every direction; none on the first and last slice."""
    z, y, x = np.indices(shape)
    _, rows, columns = shape
    out = (np.hypot(y / rows - 0.5, x / columns - 0.4) < 0.2).astype(np.uint8)
    out[(np.hypot(y / rows - 0.45, x / columns - 0.35) < 0.08) & (z > 2)] = 2
    out[[0, -1]] = 0
    return out


def slices(
    hu: np.ndarray,
    *,
    series: str = SERIES,
    spacing: tuple[float, float, float] = SPACING,
    origin: tuple[float, float, float] = ORIGIN,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    slope: float = 1,
    intercept: float = -1024,
    signed: bool = False,
    bits: int = 16,
    **tags: object,
) -> list[Dataset]:
    """One CT image a slice of ``hu`` [Z, Y, X], from the first to the last along the normal."""
    out = []
    normal = np.cross(orientation[:3], orientation[3:])
    for k, plane in enumerate(hu):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, f"{series}.{k + 1}"
        one.StudyInstanceUID, one.SeriesInstanceUID = f"{UID}.1", series
        one.FrameOfReferenceUID = f"{UID}.2"
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Doe^Jane", "4711", "19400101", "F"
        one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20240102", "101010", "1", "1"
        one.Modality, one.Manufacturer, one.ReferringPhysicianName = "CT", "Acme", ""
        one.ImageType, one.SeriesDescription, one.SeriesNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], "Portal 2.5", 3
        one.InstanceNumber = len(hu) - k  # against the order in space, as some scanners count
        one.ImagePositionPatient = [float(v) for v in np.array(origin) + normal * spacing[0] * k]
        one.ImageOrientationPatient = list(orientation)
        one.PixelSpacing, one.SliceThickness = [spacing[1], spacing[2]], spacing[0]
        one.Rows, one.Columns = plane.shape
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, bits, bits - 1, int(signed)
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = slope, intercept, "HU"
        stored = np.rint((plane.astype(float) - intercept) / slope)
        one.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
        for name, value in tags.items():
            setattr(one, name, value)
        out.append(one)
    return out


def write(folder: Path, series: list[Dataset], *, syntax: str = "explicit", name: str = "IM{:04d}") -> Path:
    """Write the images, named in the order of the list: IM0000, IM0005, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, one in enumerate(series):
        path = folder / name.format(5 * n)
        _save(one, path, SYNTAXES[syntax])
    return folder


def _save(one: Dataset, path: Path, syntax: str) -> None:
    meta = one.file_meta
    if syntax in (RLELossless, JPEGLSLossless):
        one.compress(syntax, generate_instance_uid=False)
        one.save_as(path, enforce_file_format=True)
    elif syntax in (JPEGLosslessSV1, JPEG2000Lossless):
        names = {JPEGLosslessSV1: "JPEGLosslessProcess14_1", JPEG2000Lossless: "JPEG2000Lossless"}
        one.save_as(path, enforce_file_format=True)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, names[syntax])))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    else:
        if syntax == ExplicitVRBigEndian:
            one.PixelData = np.frombuffer(one.PixelData, "<u2").byteswap().tobytes()
        one["PixelData"].VR = "OW"
        meta.TransferSyntaxUID = syntax
        one.save_as(path, enforce_file_format=True)


def enhanced(hu: np.ndarray, order: list[int] | None = None, **given: object) -> Dataset:
    """One enhanced CT object with a frame a slice, in the order given."""
    single = slices(hu, **given)  # type: ignore[arg-type]
    order = order if order is not None else list(range(len(single)))
    out = Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    moved = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
    for element in single[0]:
        if element.keyword not in (*moved, "RescaleType", "PixelData", "SliceThickness"):
            out.add(element)
    out.SOPClassUID, out.NumberOfFrames = EnhancedCTImageStorage, len(order)
    shared, measures, direction = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = single[0].PixelSpacing, single[0].SliceThickness
    direction.ImageOrientationPatient = single[0].ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [direction]
    out.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        frame, place, rescale = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = single[k].ImagePositionPatient
        rescale.RescaleSlope, rescale.RescaleIntercept = single[k].RescaleSlope, single[k].RescaleIntercept
        rescale.RescaleType = "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [rescale]
        frames.append(frame)
    out.PerFrameFunctionalGroupsSequence = frames
    out.PixelData = b"".join(single[k].PixelData for k in order)
    return out


def segment(number: int, label: str, kind: Code = codes.SCT.Organ) -> SegmentDescription:
    """A segment of a segmentation."""
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )


def write_seg(
    path: Path,
    source: list[Dataset],
    masks: np.ndarray,
    segments: list[SegmentDescription],
    kind: str = "BINARY",
    **given: object,
) -> Path:
    """Write a segmentation; masks are ``[Z, Y, X, segment]``, or ``[Z, Y, X]`` of segment numbers."""
    seg = Segmentation(
        source_images=source,
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=given.pop("series", f"{UID}.9"),  # type: ignore[arg-type]
        series_number=9,
        sop_instance_uid=given.pop("instance", f"{UID}.9.1"),  # type: ignore[arg-type]
        instance_number=1,
        manufacturer="Acme",
        manufacturer_model_name="Pen",
        software_versions="1",
        device_serial_number="1",
        **given,  # type: ignore[arg-type]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path
