"""Spoilt DICOM series and MetaImage files: what is wrong, what `prepare` answers, and how to make it."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
from body import Pair, Spoilt, collector
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

DICOM: list[Spoilt] = []
spoilt = collector(DICOM)
SERIES = "1.2.826.0.1.3680043.8.498.12"


def slices(pair: Pair, series: str = SERIES) -> list[Dataset]:
    """The scan as a CT series, from the feet up."""
    out = []
    origin, step = np.diag([-1, -1, 1]) @ pair.affine[:3, 3], float(pair.affine[2, 2])
    for k in range(pair.hu.shape[2]):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = f"{series}.{k + 1}"
        one.SeriesInstanceUID, one.StudyInstanceUID = series, "1.2.826.0.1.3680043.8.498.1"
        one.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.2"
        one.PatientID, one.Modality, one.ImageType = "twelve", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.InstanceNumber = k + 1
        one.ImagePositionPatient = [float(origin[0]), float(origin[1]), float(origin[2]) + step * k]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.SliceThickness = [8, 8], step
        one.Rows, one.Columns = pair.hu.shape[1], pair.hu.shape[0]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, -1024, "HU"
        one.PixelData = np.ascontiguousarray(pair.hu[..., k].T + 1024).astype("<u2").tobytes()
        out.append(one)
    return out


def write(pair: Pair, series: list[Dataset], prefix: str = "") -> None:
    """Write slices into the folder volume-12, in place of the NIfTI scan."""
    if not pair.scan.is_dir():
        pair.scan.unlink()
        pair.scan = pair.root / "volume-12"
        pair.scan.mkdir()
    for n, one in enumerate(series):
        one.save_as(pair.scan / f"{prefix}{n:03d}.dcm", enforce_file_format=True)


@spoilt(
    "DICOM: a slice is missing",
    (
        "volume-12: series 1.2.826.0.1.3680043.8.498.12 (11 slices): 1 slice is missing: the slices are "
        "12 mm apart, but there are 24 mm between -10 mm (005.dcm) and 14 mm (006.dcm); copy the series "
        "again"
    ),
)
def dicom_missing_slice(pair: Pair) -> None:
    series = slices(pair)
    del series[6]
    write(pair, series)


@spoilt(
    "DICOM: two series in one folder, none of them named",
    (
        "volume-12: 2 CT series, and nothing says which one is meant; give each a folder of its own, or "
        "take source 'dicom', which sorts them out:\n  series 1.2.826.0.1.3680043.8.498.12 (12 slices)\n  "
        "series 1.2.826.0.1.3680043.8.498.12.7 (12 slices)"
    ),
)
def dicom_two_series(pair: Pair) -> None:
    write(pair, slices(pair))
    write(pair, slices(pair, SERIES + ".7"), "b")


@spoilt(
    "DICOM: the upper half has another slice distance",
    (
        "volume-12: series 1.2.826.0.1.3680043.8.498.12 (12 slices): the slices are not evenly spaced: "
        "mostly 12 mm apart, but 6 mm from 2 mm (006.dcm) to 8 mm (007.dcm)"
    ),
)
def dicom_two_distances(pair: Pair) -> None:
    series = slices(pair)
    for k, one in enumerate(series[7:], 1):
        one.ImagePositionPatient[2] = series[6].ImagePositionPatient[2] + 6 * k
    write(pair, series)


@spoilt(
    "DICOM: a slice has another pixel spacing",
    (
        "volume-12: series 1.2.826.0.1.3680043.8.498.12 (12 slices): 004.dcm has pixels of 4 x 4 mm, "
        "most slices have pixels of 8 x 8 mm; take it out of the series"
    ),
)
def dicom_two_pixel_spacings(pair: Pair) -> None:
    series = slices(pair)
    series[4].PixelSpacing = [4, 4]
    write(pair, series)


@spoilt(
    "DICOM: two slices at one place",
    (
        "volume-12: series 1.2.826.0.1.3680043.8.498.12 (12 slices): two slices at -22 mm, 004.dcm and "
        "005.dcm; which one is it?"
    ),
)
def dicom_same_place(pair: Pair) -> None:
    series = slices(pair)
    series[5].ImagePositionPatient = series[4].ImagePositionPatient
    write(pair, series)


@spoilt(
    "DICOM: a scout view within the series",
    (
        "volume-12: series 1.2.826.0.1.3680043.8.498.12 (12 slices): 000.dcm lies at another angle than "
        "the other slices (a scout view or a reformatted image); take it out of the series"
    ),
)
def dicom_scout(pair: Pair) -> None:
    series = slices(pair)
    series[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    write(pair, series)


@spoilt(
    "DICOM: a slice of another size",
    (
        "volume-12: series 1.2.826.0.1.3680043.8.498.12 (12 slices): 003.dcm has 20 x 36 pixels, most "
        "slices have 40 x 36 pixels; take it out of the series"
    ),
)
def dicom_other_size(pair: Pair) -> None:
    series = slices(pair)
    series[3].Rows = 20
    series[3].PixelData = series[3].PixelData[: 20 * 36 * 2]
    write(pair, series)


@spoilt(
    "DICOM: a file cut short",
    (
        "volume-12: series 1.2.826.0.1.3680043.8.498.12 (12 slices): 005.dcm is cut short or damaged: "
        "its pixels (Explicit VR Little Endian) cannot be read; copy it again"
    ),
)
def dicom_cut_short(pair: Pair) -> None:
    write(pair, slices(pair))
    path = pair.scan / "005.dcm"
    path.write_bytes(path.read_bytes()[:-1000])


@spoilt(
    "DICOM: neither slope nor intercept",
    (
        "volume-12: series 1.2.826.0.1.3680043.8.498.12 (12 slices): 000.dcm has no RescaleSlope and no "
        "RescaleIntercept, so its values cannot be turned into HU"
    ),
)
def dicom_no_rescale(pair: Pair) -> None:
    series = slices(pair)
    for one in series:
        del one.RescaleSlope, one.RescaleIntercept
    write(pair, series)


@spoilt("DICOM: an MR series", "volume-12: series 1.2.826.0.1.3680043.8.498.12 (12 slices) is of modality MR, not CT")
def dicom_mr(pair: Pair) -> None:
    series = slices(pair)
    for one in series:
        one.Modality = "MR"
    write(pair, series)


@spoilt(
    "DICOM: a tilted gantry, its label on the same grid",
    (
        "the axes meet at 76.0 degrees, not at right angles (a tilted gantry, or a registration): mm "
        "would be wrong along them, the spacing cannot be trusted; the gantry was tilted by 14.0 "
        "degrees: the slices are taken as they lie, on a sheared grid; to have right angles, convert "
        "the series with dcm2niix, which corrects the shear"
    ),
    taken=True,
    audit="warning spacing_untrusted, remark oblique, remark label_header, remark reader",
)
def dicom_tilted(pair: Pair) -> None:
    series = slices(pair)
    for k, one in enumerate(series):
        one.ImagePositionPatient[1] += 3 * k
    write(pair, series)
    pair.affine[1, 2] -= 3
    pair.save_label(pair.mask)


@spoilt("DICOM: a folder of something else", "volume-12: no DICOM image in this folder")
def dicom_nothing(pair: Pair) -> None:
    write(pair, [])
    (pair.scan / "readme.txt").write_text("the scans are on the other disk", encoding="utf-8")


@spoilt("DICOM: an empty folder", "volume-12: no DICOM image in this folder")
def dicom_empty(pair: Pair) -> None:
    write(pair, [])


@spoilt(
    "a MetaImage file cut short",
    "volume-12.mha: cut short: its header promises 34864 bytes, the file has 17432; copy it again",
)
def mha_cut_short(pair: Pair) -> None:
    _meta(pair, "volume-12.mha")
    raw = pair.scan.read_bytes()
    pair.scan.write_bytes(raw[: len(raw) // 2])


@spoilt(
    "a MetaImage header without its file of voxels",
    "volume-12.mhd: its voxels should be in volume-12.raw, which is missing",
)
def mhd_alone(pair: Pair) -> None:
    _meta(pair, "volume-12.mhd")
    pair.scan.with_suffix(".raw").unlink()


@spoilt("a text file renamed to .nrrd", "volume-12.nrrd: not an NRRD file")
def nrrd_text(pair: Pair) -> None:
    pair.scan.unlink()
    (pair.root / "volume-12.nrrd").write_text("patient;date\n" * 100, encoding="utf-8")


def _meta(pair: Pair, name: str) -> None:
    pair.scan.unlink()
    pair.scan = pair.root / name
    image = sitk.GetImageFromArray(np.ascontiguousarray(pair.hu.T))
    image.SetSpacing([8, 8, 12])
    image.SetOrigin((np.diag([-1, -1, 1]) @ pair.affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(pair.scan))
