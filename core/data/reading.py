"""A case's scan and label, as its source names them, on one grid."""

from __future__ import annotations

import os

from core.contracts import Case
from core.data.volume import Volume, VolumeError, read_image, read_label, same_grid


def read_scan(case: Case) -> Volume:
    """The scan.

    Raises:
        VolumeError: with the path and what is wrong.
    """
    if not case.image.exists():
        if case.image.is_symlink():
            raise VolumeError(f"{case.image}: a link to {os.readlink(case.image)}, which is not there")
        beside = f"; its label is there: {case.label}" if case.label is not None and case.label.exists() else ""
        raise VolumeError(f"{case.image}: the scan is missing{beside}")
    return read_image(case.image, series=case.series)


def read_reference(case: Case, scan: Volume) -> tuple[Volume | None, list[str]]:
    """The label, or None if the source names none; and what was mended so that it lies on the scan's grid.

    Raises:
        VolumeError: with the path and what is wrong.
    """
    if case.label is None:
        return None, []
    if not case.label.exists():
        raise VolumeError(f"{case.label}: the label is missing; its scan is there: {case.image}")
    label = read_label(case.label, mapping=case.label_map, like=scan)
    wrong = same_grid(scan, label)
    if wrong is None:
        return label, []
    if "label_affine" in case.repairs and label.native.shape == scan.native.shape:
        mended = read_label(case.label, affine=scan.native.affine, mapping=case.label_map, like=scan)
        return mended, ["the label's affine, replaced by the scan's"]
    raise VolumeError(f"{case.label}: {wrong} ({case.image})")
