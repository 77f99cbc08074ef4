"""Spoilt labels: what is wrong, what `prepare` answers, and how to make it."""

from __future__ import annotations

import numpy as np
from body import Pair, Spoilt, body, collector

LABELS: list[Spoilt] = []
spoilt = collector(LABELS)


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


@spoilt("a mirrored mask", "", taken=True, audit="warning liver_left")
def mirrored_mask(pair: Pair) -> None:
    pair.save_label(pair.mask[::-1])


@spoilt("a mask upside down", "", taken=True, audit="error mirrored_mask")
def mask_upside_down(pair: Pair) -> None:
    pair.save_label(pair.mask[:, ::-1, ::-1])


@spoilt(
    "the mask of another patient",
    "",
    taken=True,
    audit="error mask_off_liver, warning cut_liver, warning liver_pieces",
)
def mask_of_another(pair: Pair) -> None:
    pair.save_label(np.roll(body(99)[1], (9, 4, 5), (0, 1, 2)))


@spoilt(
    "a mask two slices off, on the right grid",
    "",
    taken=True,
    audit="warning shifted_mask, warning cut_liver, warning liver_pieces",
)
def mask_moved(pair: Pair) -> None:
    pair.save_label(np.roll(pair.mask, -2, axis=2))


@spoilt("a label cut short", "segmentation-12.nii.gz: unreadable or cut short (...)")
def label_cut_short(pair: Pair) -> None:
    whole = pair.label.read_bytes()
    pair.label.write_bytes(whole[: len(whole) // 2])


@spoilt("a scan without its label, in LiTS' layout", "", taken=True, audit="remark no_label")
def no_label(pair: Pair) -> None:
    pair.label.unlink()
