"""What a scan's grid and header say against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from scipy import ndimage

from core.audit.fit import Small
from core.audit.rules import Finding
from core.data.volume import Native, Volume

IN_PLANE_MM = (0.3, 2.0)
SLICE_MM = (0.3, 10.0)
BODY_MM = (200.0, 600.0)
"""Width of a body, from one side to the other."""
OBLIQUE_DEGREES = 3.0
THICKER = 1.5
"""An acquisition is not axial if another axis has voxels this many times longer than z."""
FORM_TOLERANCE_MM = 0.01

_AIR = -150  # of the small copy; body is above it also where all was clipped to [-160, 240]


def stored(path: Path) -> dict[str, Any]:
    """Type, slope and intercept as a NIfTI file has them; empty for other formats, and for names that mislead."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return {}
    try:
        header: Any = nib.load(path).header
    except (ImageFileError, OSError, EOFError):
        return {}
    slope, intercept = header.get_slope_inter()
    kind = header.get_data_dtype()
    return {"dtype": str(kind.newbyteorder("=")), "slope": slope or 1.0, "intercept": intercept or 0.0}


def check_grid(volume: Volume, case: str, trusted: bool) -> list[Finding]:
    """Voxel size, obliqueness, plane of acquisition, and whether qform and sform agree."""
    found = []
    native, (z, y, x) = volume.native, volume.spacing_mm
    if trusted and not (
        SLICE_MM[0] <= z <= SLICE_MM[1] and all(IN_PLANE_MM[0] <= round(s, 4) <= IN_PLANE_MM[1] for s in (y, x))
    ):
        found.append(
            Finding(
                "spacing_implausible",
                f"voxels of {z:.4g} x {y:.4g} x {x:.4g} mm (z, y, x); plausible are {SLICE_MM[0]:g} to {SLICE_MM[1]:g} "
                f"along z and {IN_PLANE_MM[0]:g} to {IN_PLANE_MM[1]:g} in the plane",
                (case,),
            )
        )
    thick = int(np.argmax(volume.spacing_mm))
    if thick != 0 and volume.spacing_mm[thick] > THICKER * z:
        plane = ("axial", "coronal", "sagittal")[thick]
        found.append(
            Finding(
                "not_axial",
                f"the slices are {plane}: {volume.spacing_mm[thick]:.4g} mm along {'zyx'[thick]}, {z:.4g} mm along z",
                (case,),
            )
        )
    angle = tilt(native.affine)
    if angle > OBLIQUE_DEGREES:
        found.append(Finding("oblique", f"by {angle:.1f} degrees", (case,)))
    apart = forms_apart(native.header)
    if apart > FORM_TOLERANCE_MM:
        found.append(Finding("forms_disagree", f"by up to {apart:.4g} mm within the scan", (case,)))
    return found


def tilt(affine: np.ndarray) -> float:
    """Degrees between the grid's axes and the nearest of the body's, the largest of the three."""
    axes = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return math.degrees(math.acos(min(1.0, float(np.abs(axes).max(axis=0).min()))))


def forms_apart(header: Mapping[str, np.ndarray], shape: tuple[int, int, int] = (100, 100, 100)) -> float:
    """How far qform and sform place a voxel apart at most within 100 voxels, in mm; 0 if one is missing."""
    if not header or int(header["qform_code"]) <= 0 or int(header["sform_code"]) <= 0:
        return 0.0
    raw = nib.Nifti1Header()
    for name, value in header.items():
        raw[name] = value
    corners = np.array([[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])], float).T
    try:
        qform = raw.get_qform(coded=False)
    except ValueError:  # quaternions that are none
        return math.inf
    return float(np.abs((qform - raw.get_sform(coded=False)) @ corners)[:3].max())


def body_mm(small: Small) -> tuple[float, float, bool] | None:
    """Width and depth of the body in the slice where it is largest, and whether the picture cuts it; None: no body."""
    areas = [int(np.count_nonzero(plane > _AIR)) for plane in small.image]
    z = int(np.argmax(areas))
    if areas[z] < 0.05 * small.image[z].size:
        return None
    mask = ndimage.binary_opening(small.image[z] > _AIR, iterations=2)
    parts, count = ndimage.label(mask)
    if not count:
        return None
    largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    rows, columns = ndimage.find_objects(parts)[largest - 1]
    cut = columns.start == 0 or columns.stop == mask.shape[1] or rows.start == 0 or rows.stop == mask.shape[0]
    _, y, x = small.spacing_mm
    return (columns.stop - columns.start) * x, (rows.stop - rows.start) * y, cut


def check_body(small: Small, case: str) -> list[Finding]:
    """Whether the body is as large as bodies are."""
    size = body_mm(small)
    if size is None:
        return []
    width, depth, cut = size
    if width > BODY_MM[1] or (width < BODY_MM[0] and not cut):
        saw = (
            f"{width / 10:.0f} cm wide and {depth / 10:.0f} cm deep; {BODY_MM[0] / 10:.0f} to {BODY_MM[1] / 10:.0f} cm"
        )
        return [Finding("body_implausible", f"{saw} are plausible widths", (case,))]
    return []


def check_label_header(image: Native, label: Native, label_type: str, case: str) -> list[Finding]:
    """What differs between the headers of a scan and its label, although both lie on one grid."""
    found = []
    if label_type.startswith("float"):
        found.append(Finding("float_label", f"{label_type}, all values whole", (case,)))
    differs = []
    if image.axcodes != label.axcodes:
        differs.append(f"axes {''.join(image.axcodes)} in the scan, {''.join(label.axcodes)} in the label")
    if image.xyzt_units & 7 != label.xyzt_units & 7:
        units = {0: "unknown", 1: "metre", 2: "mm", 3: "micron"}
        one, other = (units.get(n.xyzt_units & 7, "?") for n in (image, label))
        differs.append(f"unit {one} in the scan, {other} in the label")
    if differs:
        found.append(Finding("label_header", "; ".join(differs), (case,)))
    return found
