"""One case, read as `prepare` reads it, measured and looked at; nothing is written."""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from core.audit.content import check_slices
from core.audit.fit import FAT, fit, shrink, side
from core.audit.geometry import body_mm, check_body, check_grid, check_label_header, stored
from core.audit.intensity import check_intensities, count_values, intensities
from core.audit.masks import Labels, check_fit, check_label, check_side, measure
from core.audit.rules import Finding
from core.audit.thumbnails import Picture, draw
from core.contracts import Case
from core.data.checks import geometry_note, intensity_note
from core.data.fingerprint import fingerprint
from core.data.ingest import content_hash
from core.data.reading import read_reference, read_scan
from core.data.tables import Lesions
from core.data.volume import Volume
from core.errors import UserError
from core.report.figures import WINDOW_HU


@dataclass
class Examined:
    """What is known of one case; small, since a worker sends it back.

    Attributes:
        row: column -> value, as in ``audit.csv``; None is blank.
        findings: of this case alone.
        prints: `core.data.fingerprint.fingerprint`, None for a scan that cannot be used.
        image_hash, label_hash: of the voxels, empty if there are none.
        identity: whether the affine is the identity.
        pictures: three planes, or none.
    """

    case: Case
    row: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    prints: np.ndarray | None = None
    image_hash: str = ""
    label_hash: str = ""
    identity: bool = False
    pictures: tuple[Picture, ...] = ()


def examine(case: Case) -> Examined:
    """Read a case and say what speaks against it; a file that cannot be used is a finding and no error."""
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(1)  # the other workers have the other cores
    seen = Examined(case)
    try:
        scan = read_scan(case)
    except UserError as error:
        seen.findings.append(Finding("refused", str(error), (case.id,)))
        return seen
    label, notes = None, list(scan.notes)
    try:
        label, repairs = read_reference(case, scan)
        notes += [f"repaired: {repair}" for repair in repairs]
    except UserError as error:
        seen.findings.append(Finding("refused", str(error), (case.id,)))
    notes += [] if label is None else label.notes
    seen.findings += [Finding("reader", note, (case.id,)) for note in notes]
    if case.label is None:
        seen.findings.append(Finding("no_label", "the source names none", (case.id,)))
    _measure(seen, scan, None if label is None else label.array)
    if label is not None and case.label is not None:
        kind = str(stored(case.label).get("dtype", ""))
        seen.findings += check_label_header(scan.native, label.native, kind, case.id)
    return seen


def _measure(seen: Examined, scan: Volume, label: np.ndarray | None) -> None:
    case, array = seen.case, scan.array
    note, windowed = geometry_note(scan.native.affine, scan.native.header, scan.spacing_mm), intensity_note(array)
    trusted = case.spacing_trusted and note is None
    if not trusted:
        seen.findings.append(Finding("spacing_untrusted", note or "the source says so", (case.id,)))
    seen.identity = bool(np.array_equal(np.abs(scan.native.affine), np.eye(4)))
    values = intensities(count_values(array))
    about_values = check_intensities(values, windowed, case.hu_trusted, case.id)
    hu = not any(f.rule in ("windowed", "hu_scale", "declared_windowed") for f in about_values)
    small = shrink(array, label, scan.spacing_mm)
    seen.findings += check_grid(scan, case.id, trusted) + about_values + check_slices(array, small, case.id)
    if trusted:
        seen.findings += check_body(small, case.id)
    body = body_mm(small) if trusted else None
    # Without HU in the range of tissue nothing can be said of how a mask lies.
    scaled = any(f.rule == "hu_scale" for f in about_values) or values.low > FAT - 50 or values.high < 150
    labels, medium = None, None
    counted = _counted(seen, label)
    if label is not None and counted is not None:
        labels, lesions = counted
        seen.findings += check_label(label, labels, lesions, scan.spacing_mm, trusted, case.id)
        fitted = None if scaled else fit(small)
        if fitted is not None:
            off = check_fit(fitted, scan.spacing_mm, trusted, case.id)
            seen.findings += off or check_side(side(small), case.id)
            medium = fitted.median if hu else None
        seen.label_hash = content_hash(label)
    seen.image_hash, seen.prints = content_hash(array), fingerprint(array)
    centre = labels.centre if labels is not None and labels.centre is not None else [n // 2 for n in array.shape]
    window = (float(values.low), float(values.high)) if scaled else WINDOW_HU
    seen.pictures = draw(array, label, centre, scan.spacing_mm, window)
    seen.row = {
        "axes": "".join(scan.native.axcodes),
        **dict(zip(("size_z", "size_y", "size_x"), array.shape, strict=True)),
        **{f"spacing_{a}_mm": round(s, 4) for a, s in zip("zyx", scan.spacing_mm, strict=True)},
        "spacing_trusted": trusted,
        "hu_low": values.low,
        "hu_high": values.high,
        "padding": " ".join(str(v) for v in values.padding) or None,
        "hu_trusted": hu,
        "body_width_mm": None if body is None else round(body[0]),
        **_label_columns(labels, math.prod(scan.spacing_mm) / 1000 if trusted else math.nan),
        "liver_hu": None if medium is None else round(medium),
        **stored(case.image),
    }


def _counted(seen: Examined, label: np.ndarray | None) -> tuple[Labels, Lesions] | None:
    if label is None:
        return None
    try:
        return measure(label)
    except ValueError as error:  # more lesions than can be numbered; `prepare` refuses them too
        seen.findings.append(Finding("refused", f"{seen.case.label}: {error}", (seen.case.id,)))
        return None


def _label_columns(labels: Labels | None, voxel_ml: float) -> dict[str, Any]:
    names = ("liver_ml", "tumour_ml", "lesions", "largest_mm", "median_mm", "liver_voxels", "tumour_voxels")
    if labels is None:
        return dict.fromkeys(names)

    def ml(voxels: int) -> float | None:
        return None if math.isnan(voxel_ml) else round(voxels * voxel_ml, 2)

    def mm(voxels: float) -> float | None:
        return None if math.isnan(voxel_ml) else round((6 * voxels * voxel_ml * 1000 / math.pi) ** (1 / 3), 1)

    sizes = labels.lesions
    return {
        "liver_ml": ml(labels.liver_voxels),
        "tumour_ml": ml(labels.tumour_voxels),
        "lesions": len(sizes),
        "largest_mm": mm(max(sizes)) if sizes else None,
        "median_mm": mm(float(np.median(sizes))) if sizes else None,
        "liver_voxels": labels.liver_voxels,
        "tumour_voxels": labels.tumour_voxels,
    }
