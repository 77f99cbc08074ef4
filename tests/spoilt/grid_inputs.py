"""Spoilt grids: what is wrong, what `prepare` answers, and how to make it."""

from __future__ import annotations

import struct

import numpy as np
from body import Pair, Spoilt, collector

GRIDS: list[Spoilt] = []
spoilt = collector(GRIDS)


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


@spoilt(
    "an affine in mm under the unit metre",
    ("voxels of 8000 x 8000 x 12000 mm are not a CT's (wrong unit, or a wrong affine): the spacing cannot be trusted"),
    taken=True,
    audit="warning spacing_untrusted",
)
def millimetres_as_metres(pair: Pair) -> None:
    pair.patch(123, "B", 1, label=True)
