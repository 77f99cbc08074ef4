"""Spoilt NIfTI files: what is wrong, what `prepare` answers, and how to make it."""

from __future__ import annotations

import gzip
import os
import shutil
import struct

import nibabel as nib
import numpy as np
from body import Pair, Spoilt, body, collector

NIFTI: list[Spoilt] = []
spoilt = collector(NIFTI)


@spoilt(
    "a .nii cut short", "volume-12.nii: cut short: its header promises 34912 bytes, the file has 20947; copy it again"
)
def nii_cut_short(pair: Pair) -> None:
    pair.unpack()
    _cut(pair, 0.6)


@spoilt(
    "a .nii.gz cut short",
    ("volume-12.nii.gz: unreadable or cut short (Compressed file ended before the end-of-stream marker was reached)"),
)
def gz_cut_short(pair: Pair) -> None:
    _cut(pair, 0.6)


@spoilt(
    "a .nii.gz without its last four bytes",
    ("volume-12.nii.gz: unreadable or cut short (Compressed file ended before the end-of-stream marker was reached)"),
)
def gz_without_its_end(pair: Pair) -> None:
    pair.scan.write_bytes(pair.scan.read_bytes()[:-4])


@spoilt(
    "one bit of the voxels flipped within a .nii.gz",
    "volume-12.nii.gz: unreadable or cut short (CRC check failed 1606490257 != 667599429)",
)
def gz_bit_flipped(pair: Pair) -> None:
    pair.unpack()
    packed = bytearray(gzip.compress(pair.scan.read_bytes(), compresslevel=0))  # stored, so that only the sum tells
    pair.scan.unlink()
    pair.scan = pair.scan.with_suffix(".nii.gz")
    packed[20000] ^= 4
    pair.scan.write_bytes(packed)


@spoilt("one bit of the header's size flipped", "volume-12.nii: not a NIfTI file")
def header_size_flipped(pair: Pair) -> None:
    pair.patch(0, "i", 348 ^ 16)


@spoilt(
    "one bit of the header's shape flipped",
    "volume-12.nii: cut short: its header promises 96352 bytes, the file has 34912; copy it again",
)
def header_shape_flipped(pair: Pair) -> None:
    pair.patch(42, "h", pair.hu.shape[0] ^ 64)


@spoilt(
    "one bit of the header's data type flipped", "volume-12.nii: unreadable or cut short (data code 68 not recognized)"
)
def header_dtype_flipped(pair: Pair) -> None:
    pair.patch(70, "h", 4 ^ 64)


@spoilt(
    "one bit of the header's voxel offset flipped",
    "volume-12.nii: cut short: its header promises 36960 bytes, the file has 34912; copy it again",
)
def header_offset_flipped(pair: Pair) -> None:
    pair.patch(108, "f", 352 + 2048)


@spoilt("complex numbers", "volume-12.nii.gz: holds complex64 and not plain numbers")
def complex_numbers(pair: Pair) -> None:
    pair.save_scan(pair.hu.astype(np.complex64))


@spoilt("RGB", "volume-12.nii.gz: holds [('R', 'u1'), ('G', 'u1'), ('B', 'u1')] and not plain numbers")
def rgb(pair: Pair) -> None:
    colours = np.zeros(pair.hu.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    pair.save_scan(colours)


@spoilt("no slices", "volume-12.nii: no voxels, the shape is (36, 40, 0)")
def zero_slices(pair: Pair) -> None:
    pair.patch(46, "h", 0)


@spoilt("one slice as a 2-D file", "volume-12.nii.gz: 2-D of shape (36, 40); want one 3-D volume")
def two_dimensional(pair: Pair) -> None:
    pair.save_scan(pair.hu[..., 5])


@spoilt("4-D: four phases", "volume-12.nii.gz: 4-D of shape (36, 40, 12, 4); want one 3-D volume")
def four_phases(pair: Pair) -> None:
    pair.save_scan(np.stack([pair.hu] * 4, axis=-1))


@spoilt("a NaN", "volume-12.nii.gz: 1 of 17280 voxels are not finite (NaN or infinite)")
def a_nan(pair: Pair) -> None:
    _put(pair, np.nan)


@spoilt("an infinite voxel", "volume-12.nii.gz: 1 of 17280 voxels are not finite (NaN or infinite)")
def infinite(pair: Pair) -> None:
    _put(pair, np.inf)


@spoilt("a scan of zeros", "volume-12.nii.gz: all intensities lie within [0, 0]: normalised or empty, not HU")
def zeros(pair: Pair) -> None:
    pair.save_scan(np.zeros_like(pair.hu))


@spoilt("normalised to [0, 1]", "volume-12.nii.gz: all intensities lie within [0, 1]: normalised or empty, not HU")
def normalised(pair: Pair) -> None:
    pair.save_scan(((np.clip(pair.hu, -200, 250) + 200) / 450).astype(np.float32))


@spoilt(
    "normalised to zero mean and unit variance",
    "volume-12.nii.gz: intensities are fractions within [-1, 2]: normalised, not HU",
)
def standardised(pair: Pair) -> None:
    pair.save_scan(((pair.hu - pair.hu.mean()) / pair.hu.std()).astype(np.float32))


@spoilt("8-bit grey values", "volume-12.nii.gz: all intensities lie within [0, 255]: 8-bit grey values, not HU")
def grey_values(pair: Pair) -> None:
    pair.save_scan(((np.clip(pair.hu, -200, 250) + 200) / 450 * 255).astype(np.uint8))


@spoilt(
    "HU + 1024: the intercept is missing",
    ("volume-12.nii.gz: intensities within [8, 1569] look like HU + 1024: the rescale intercept is missing"),
)
def no_intercept(pair: Pair) -> None:
    pair.save_scan((np.maximum(pair.hu, -1024) + 1024).astype(np.uint16))


@spoilt(
    "HU + 1024, and the corners padded with -2000",
    ("volume-12.nii.gz: intensities within [-2000, 1569] look like HU + 1024: the rescale intercept is missing"),
)
def no_intercept_padded(pair: Pair) -> None:
    hu = pair.hu + 1024
    hu[:4, :4] = hu[-4:, -4:] = -2000
    pair.save_scan(hu)


@spoilt(
    "numbers beyond 16 bits",
    ("volume-12.nii.gz: intensities reach from -1.016e+06 to 545000, beyond 16 bits, so they are not HU"),
)
def beyond_16_bits(pair: Pair) -> None:
    pair.save_scan(pair.hu.astype(np.float32) * 1000)


@spoilt(
    "windowed before: HU clipped to [-160, 240]",
    "intensities lie within [-160, 240]: windowed before, so HU cannot be trusted",
    taken=True,
    audit="warning windowed",
)
def windowed(pair: Pair) -> None:
    pair.save_scan(np.clip(pair.hu, -160, 240))


@spoilt("the slope doubled", "", taken=True, audit="error hu_scale, remark padding")
def slope_doubled(pair: Pair) -> None:
    pair.save_scan(pair.hu * 2)


@spoilt("an empty label", "the label is empty: no liver", taken=True, audit="warning empty_label")
def empty_label(pair: Pair) -> None:
    pair.save_label(np.zeros_like(pair.mask))


@spoilt("a label that is tumour everywhere", "", taken=True, audit="error tumour_without_liver")
def tumour_everywhere(pair: Pair) -> None:
    pair.save_label(np.full_like(pair.mask, 2))


@spoilt(
    "a label of 3", ("segmentation-12.nii.gz: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds 3")
)
def label_of_three(pair: Pair) -> None:
    pair.mask[3, 3, 3] = 3
    pair.save_label(pair.mask)


@spoilt(
    "a label of 0.5",
    ("segmentation-12.nii.gz: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds 0.5"),
)
def label_of_a_half(pair: Pair) -> None:
    label = pair.mask.astype(np.float32)
    label[3, 3, 3] = 0.5
    pair.save_label(label)


@spoilt(
    "a negative label",
    ("segmentation-12.nii.gz: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds -1"),
)
def negative_label(pair: Pair) -> None:
    label = pair.mask.astype(np.int16)
    label[3, 3, 3] = -1
    pair.save_label(label)


@spoilt(
    "a label of NaN",
    ("segmentation-12.nii.gz: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds nan"),
)
def nan_label(pair: Pair) -> None:
    label = pair.mask.astype(np.float32)
    label[3, 3, 3] = np.nan
    pair.save_label(label)


@spoilt(
    "labels as 0, 127, 255",
    ("segmentation-12.nii.gz: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds 127, 255"),
)
def grey_label(pair: Pair) -> None:
    pair.save_label(np.array([0, 127, 255], np.uint8)[pair.mask])


@spoilt(
    "a label with a slice fewer",
    ("segmentation-12.nii.gz: shape (11, 40, 36) [Z,Y,X], the scan has (12, 40, 36) (volume-12.nii.gz)"),
)
def label_of_other_shape(pair: Pair) -> None:
    pair.save_label(pair.mask[..., :-1])


@spoilt(
    "a label 12 mm off",
    ("segmentation-12.nii.gz: its affine differs from the scan's by up to 12 (allowed: 0.001) (volume-12.nii.gz)"),
)
def label_shifted(pair: Pair) -> None:
    pair.affine[2, 3] += 12
    pair.save_label(pair.mask)


@spoilt(
    "a label with another spacing",
    ("segmentation-12.nii.gz: its affine differs from the scan's by up to 6 (allowed: 0.001) (volume-12.nii.gz)"),
)
def label_of_other_spacing(pair: Pair) -> None:
    pair.save_label(pair.mask, pair.affine @ np.diag([1, 1, 0.5, 1]))


@spoilt(
    "a label with the identity as affine",
    ("segmentation-12.nii.gz: its affine differs from the scan's by up to 121 (allowed: 0.001) (volume-12.nii.gz)"),
)
def label_without_affine(pair: Pair) -> None:
    pair.save_label(pair.mask, np.eye(4))


@spoilt(
    "sheared affines",
    (
        "the axes meet at 78.7 degrees, not at right angles (a tilted gantry, or a registration): mm "
        "would be wrong along them, the spacing cannot be trusted"
    ),
    taken=True,
    audit="warning spacing_untrusted, remark oblique",
)
def sheared(pair: Pair) -> None:
    tilt = np.eye(4)
    tilt[1, 2] = 0.3
    pair.save_both(pair.affine @ tilt)


@spoilt("negative pixdim beside a good sform", "", taken=True)
def negative_spacing(pair: Pair) -> None:
    pair.patch(76, "4f", 1, -8, -8, -12)


@spoilt(
    "a spacing of zero",
    (
        "volume-12.nii: the affine is not usable (zero or non-finite spacing): [[-8.0, 0.0, 0.0, "
        "140.0], [0.0, -8.0, 0.0, 160.0], [0.0, 0.0, 0.0, 0.0]]"
    ),
)
def zero_spacing(pair: Pair) -> None:
    pair.patch(312, "4f", 0, 0, 0, 0)


@spoilt(
    "a spacing of zero, and no sform",
    ("volume-12.nii: the affine is not usable (zero or non-finite spacing): pixdim is [8.0, 8.0, 0.0]"),
)
def zero_spacing_qform(pair: Pair) -> None:
    pair.patch(254, "h", 0, label=True)
    for path in (pair.scan, pair.label):
        raw = bytearray(path.read_bytes())
        struct.pack_into("<f", raw, 88, 0)
        struct.pack_into("<h", raw, 252, 1)
        path.write_bytes(raw)


@spoilt(
    "an affine with NaN",
    (
        "volume-12.nii: the affine is not usable (zero or non-finite spacing): [[nan, 0.0, 0.0, 140.0], "
        "[0.0, -8.0, 0.0, 160.0], [0.0, 0.0, 12.0, -70.0]]"
    ),
)
def nan_affine(pair: Pair) -> None:
    pair.patch(280, "f", np.nan)


@spoilt(
    "identity affines",
    "the affine is the identity (1 mm, no origin): spacing and orientation cannot be trusted",
    taken=True,
    audit="warning liver_left, warning spacing_untrusted, warning mixed_affines",
)
def identity_affines(pair: Pair) -> None:
    pair.save_both(np.eye(4))


@spoilt(
    "neither qform nor sform",
    "the header has neither qform nor sform: orientation is a guess, the spacing cannot be trusted",
    taken=True,
    audit="warning spacing_untrusted",
)
def no_forms(pair: Pair) -> None:
    pair.patch(252, "2h", 0, 0, label=True)


@spoilt(
    "pixdim of another spacing than the sform's",
    ("the header gives two spacings, 1 x 1 x 1 (pixdim) and 8 x 8 x 12 (sform): the spacing cannot be trusted"),
    taken=True,
    audit="warning spacing_untrusted",
)
def pixdim_disagrees(pair: Pair) -> None:
    pair.patch(80, "3f", 1, 1, 1, label=True)


@spoilt(
    "affines in metres under the unit mm",
    (
        "voxels of 0.008 x 0.008 x 0.012 mm are not a CT's (wrong unit, or a wrong affine): the spacing "
        "cannot be trusted"
    ),
    taken=True,
    audit="warning spacing_untrusted",
)
def metres(pair: Pair) -> None:
    pair.save_both(np.diag([0.001, 0.001, 0.001, 1]) @ pair.affine)


@spoilt("a scan twice, under two names", "volume-12.nii.gz: the same scan as volume-11 (volume-11.nii.gz)")
def duplicated(pair: Pair) -> None:
    shutil.copy(pair.root / "volume-11.nii.gz", pair.scan)
    shutil.copy(pair.root / "segmentation-11.nii.gz", pair.label)


@spoilt(
    "a copy, saved anew as float32 under another name",
    "volume-12.nii.gz: the same scan as volume-11 (volume-11.nii.gz)",
)
def saved_anew(pair: Pair) -> None:
    hu, mask = body(11)
    pair.save_scan(hu.astype(np.float32))
    pair.save_label(mask)


@spoilt("a copy, mirrored and two slices shorter", "", taken=True, audit="error near_duplicate, warning liver_left")
def near_copy(pair: Pair) -> None:
    hu, mask = body(11)
    pair.save_scan(hu[::-1, :, 2:])
    pair.save_label(mask[::-1, :, 2:])


@spoilt("a mirrored mask", "", taken=True, audit="warning liver_left")
def mirrored_mask(pair: Pair) -> None:
    pair.save_label(pair.mask[::-1])


@spoilt("a mask upside down", "", taken=True, audit="warning shifted_mask")
def mask_upside_down(pair: Pair) -> None:
    pair.save_label(pair.mask[:, ::-1, ::-1])


@spoilt("the mask of another patient", "", taken=True, audit="error mask_off_liver")
def mask_of_another(pair: Pair) -> None:
    pair.save_label(np.roll(body(99)[1], (9, 4), (0, 1)))


@spoilt("files that may not be read", "volume-12.nii.gz: no permission to read it")
def unreadable(pair: Pair) -> None:
    pair.scan.chmod(0)


@spoilt("a folder in place of the file", "volume-12.nii.gz: no DICOM image in this folder")
def a_folder(pair: Pair) -> None:
    pair.scan.unlink()
    pair.scan.mkdir()


@spoilt("a text file renamed to .nii", "volume-12.nii: not a NIfTI file")
def text_file(pair: Pair) -> None:
    pair.unpack()
    pair.scan.write_text("patient;date\n" * 100, encoding="utf-8")


@spoilt("a gzip file of something else", "volume-12.nii.gz: not a NIfTI file")
def gz_of_something_else(pair: Pair) -> None:
    pair.scan.write_bytes(gzip.compress(b"patient;date\n" * 100))


@spoilt("an empty file", "volume-12.nii.gz: an empty file (0 bytes); copy it again")
def empty_file(pair: Pair) -> None:
    pair.scan.write_bytes(b"")


@spoilt(
    "a link to a file that is gone", "volume-12.nii.gz: the scan is missing; its label is there: segmentation-12.nii.gz"
)
def dangling_link(pair: Pair) -> None:
    pair.scan.unlink()
    os.symlink(pair.root / "gone.nii.gz", pair.scan)


@spoilt("a label without its scan", "volume-12.nii.gz: the scan is missing; its label is there: segmentation-12.nii.gz")
def no_scan(pair: Pair) -> None:
    pair.scan.unlink()


@spoilt(
    "a number found twice",
    ("volume-12.nii.gz: found more than once; keep one of volume-12.nii.gz, Training Batch 2/volume-12.nii"),
)
def found_twice(pair: Pair) -> None:
    more = pair.root / "Training Batch 2"
    more.mkdir()
    nib.save(nib.Nifti1Image(body(55)[0], pair.affine), more / "volume-12.nii")  # type: ignore[attr-defined]


def _cut(pair: Pair, share: float) -> None:
    whole = pair.scan.read_bytes()
    pair.scan.write_bytes(whole[: int(share * len(whole))])


def _put(pair: Pair, value: float) -> None:
    hu = pair.hu.astype(np.float32)
    hu[3, 3, 3] = value
    pair.save_scan(hu)
