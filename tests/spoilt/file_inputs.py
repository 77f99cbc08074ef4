"""Spoilt NIfTI files and intensities: what is wrong, what `prepare` answers, and how to make it."""

from __future__ import annotations

import gzip
import os
import shutil

import nibabel as nib
import numpy as np
from body import Pair, Spoilt, body, collector

FILES: list[Spoilt] = []
spoilt = collector(FILES)


@spoilt(
    "a .nii cut short", "volume-12.nii: cut short: its header promises 34912 bytes, the file has 20947; copy it again"
)
def nii_cut_short(pair: Pair) -> None:
    pair.unpack()
    _cut(pair, 0.6)


@spoilt("a .nii.gz cut short", "volume-12.nii.gz: unreadable or cut short (...)")
def gz_cut_short(pair: Pair) -> None:
    _cut(pair, 0.6)


@spoilt("a .nii.gz without its last four bytes", "volume-12.nii.gz: unreadable or cut short (...)")
def gz_without_its_end(pair: Pair) -> None:
    pair.scan.write_bytes(pair.scan.read_bytes()[:-4])


@spoilt("one bit of the voxels flipped within a .nii.gz", "volume-12.nii.gz: unreadable or cut short (...)")
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


@spoilt("one bit of the header's data type flipped", "volume-12.nii: unreadable or cut short (...)")
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
    "negative HU stored without a sign",
    "volume-12.nii.gz: intensities reach from 3 to 65481, beyond 16 bits, so they are not HU",
)
def unsigned(pair: Pair) -> None:
    pair.save_scan(pair.hu.astype(np.uint16))


@spoilt(
    "one bit of the header's slope flipped",
    "intensities lie within [-254, 136]: windowed before, so HU cannot be trusted",
    taken=True,
    audit="warning windowed",
)
def header_slope_flipped(pair: Pair) -> None:
    pair.patch(112, "2f", 0.25, 0)  # 1 is 0x3f800000, this is 0x3e800000


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


@spoilt(
    "a copy, mirrored and two slices shorter",
    "",
    taken=True,
    audit="error near_duplicate, warning liver_left, warning cut_liver",
)
def near_copy(pair: Pair) -> None:
    hu, mask = body(11)
    pair.save_scan(hu[::-1, :, 2:])
    pair.save_label(mask[::-1, :, 2:])


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


@spoilt("a link to a file that is gone", "volume-12.nii.gz: a link to gone.nii.gz, which is not there")
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
