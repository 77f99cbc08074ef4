"""Slices of a DICOM series -> their order and one affine, or the reason why there is none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from core.data.dicom_headers import Frame, Header
from core.data.volume import VolumeError

_SAME_ANGLE = 1e-3  # of direction cosines; scanners write six digits
_SAME_PLACE_MM = 0.01
_MISSING = 1.5  # times the usual distance
_ROUNDED_MM = 0.1  # some scanners write positions with one digit after the point
_REMARK_MM = 0.01
_TILT_DEGREES = 0.5

Slice = tuple[Header, Frame]


def stack(slices: Sequence[Slice], where: str, folder: Path) -> tuple[list[Slice], np.ndarray, list[str]]:
    """The slices sorted along their normal, the affine voxel (column, row, slice) -> RAS mm, and what to remark on.

    Slices of a tilted gantry lie shifted against each other along the plane. The affine is then the sheared one of
    their real positions: voxels stay as they are and labels overlay, but distances along its axes are none in mm.

    Args:
        slices: all of one series.
        where: what messages begin with.
        folder: what files are named relative to.

    Raises:
        VolumeError: fewer than two, or they do not make up one regular grid.
    """

    def file(one: Slice) -> str:
        name = _relative(one[0].path, folder)
        return f"{name}, frame {one[1].index + 1}" if len(one[0].frames) > 1 else name

    def refuse(text: str) -> VolumeError:
        return VolumeError(f"{where}: {text}")

    if len(slices) < 2:
        raise refuse("one slice is no volume")
    for one in slices:
        for name, value in (
            ("ImagePositionPatient", one[1].position),
            ("ImageOrientationPatient", one[1].orientation),
            ("PixelSpacing", one[1].spacing_mm),
        ):
            if value is None or not np.isfinite(value).all():
                raise refuse(f"{file(one)} has no {name}, so nothing says where the slice lies")
    _all_alike(slices, lambda s: s[0].shape, lambda v: f"{v[0]} x {v[1]} pixels", file, refuse)
    _all_alike(
        slices,
        lambda s: tuple(round(v, 3) for v in s[1].spacing_mm or ()),
        lambda v: f"pixels of {v[0]:g} x {v[1]:g} mm",
        file,
        refuse,
    )
    if not all(slices[0][0].shape) or not min(slices[0][1].spacing_mm or (0,)) > 0:
        raise refuse(f"{file(slices[0])} has no pixels, or pixels of no size")
    middle = np.median([s[1].orientation for s in slices], axis=0)  # most slices', whichever file comes first
    for one in slices:
        if np.abs(np.array(one[1].orientation) - middle).max() > _SAME_ANGLE:
            raise refuse(
                f"{file(one)} lies at another angle than the other slices (a scout view or a reformatted image); take "
                f"it out of the series"
            )
    across, down = middle[:3], middle[3:]
    if abs(np.linalg.norm(across) - 1) > 0.01 or abs(np.linalg.norm(down) - 1) > 0.01 or abs(across @ down) > 0.01:
        raise refuse(f"ImageOrientationPatient {middle.tolist()} of {file(slices[0])} is no pair of right angles")
    across, down = across / np.linalg.norm(across), down / np.linalg.norm(down)
    normal = np.cross(across, down)
    normal /= np.linalg.norm(normal)
    ordered = sorted(slices, key=lambda s: float(np.dot(s[1].position or (), normal)))
    points = np.array([s[1].position for s in ordered])
    step, notes = _steps(ordered, points, points @ normal, file, refuse)
    affine = np.eye(4)
    affine[:3, 0] = across * _spacing(ordered[0])[1]
    affine[:3, 1] = down * _spacing(ordered[0])[0]
    affine[:3, 2] = step
    affine[:3, 3] = points[0]
    angle = math.degrees(math.acos(min(1.0, float(step @ normal) / float(np.linalg.norm(step)))))
    if angle > _TILT_DEGREES:
        notes.append(
            f"the gantry was tilted by {angle:.1f} degrees: the slices are taken as they lie, on a sheared grid; to "
            f"have right angles, convert the series with dcm2niix, which corrects the shear"
        )
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    if nib.aff2axcodes(affine)[2] != "S":
        notes.append("the slices are not axial: a sagittal or coronal reformat, or a patient lying on the side")
    return ordered, affine, notes


def along_body(frame: Frame) -> bool:
    """Whether a slice is axial: its normal lies nearer to the body's long axis than to any other."""
    if frame.orientation is None:
        return False
    normal = np.abs(np.cross(frame.orientation[:3], frame.orientation[3:]))
    return bool(normal[2] == normal.max())


def _steps(
    ordered: Sequence[Slice],
    points: np.ndarray,
    along: np.ndarray,
    file: Callable[[Slice], str],
    refuse: Callable[[str], VolumeError],
) -> tuple[np.ndarray, list[str]]:
    """The vector from slice to slice, if there is one."""
    gaps = np.diff(along)
    doubled = int((gaps < _SAME_PLACE_MM).sum())
    if doubled:
        k = int(np.argmax(gaps < _SAME_PLACE_MM))
        raise refuse(
            f"{doubled} slices lie where another one lies, e.g. at {along[k]:g} mm {file(ordered[k])} and "
            f"{file(ordered[k + 1])}: two points in time or two reconstructions in one series; separate them"
            if doubled > 1
            else f"two slices at {along[k]:g} mm, {file(ordered[k])} and {file(ordered[k + 1])}; which one is it?"
        )
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the lower one of two middle values: gaps are never too small
    wide = np.flatnonzero(gaps > _MISSING * usual)
    whole = np.rint(gaps / usual)
    if len(wide) and np.abs(gaps - whole * usual).max() <= np.maximum(_ROUNDED_MM, 0.05 * usual) * 2:
        k, missing = int(wide[0]), int(whole[wide].sum()) - len(wide)
        more = f" (and at {len(wide) - 1} more places)" if len(wide) > 1 else ""
        raise refuse(
            f"{missing} slice{'s are' if missing > 1 else ' is'} missing: the slices are {usual:g} mm apart, but there "
            f"are {gaps[k]:.4g} mm between {along[k]:g} mm ({file(ordered[k])}) and {along[k + 1]:g} mm "
            f"({file(ordered[k + 1])}){more}; copy the series again"
        )
    off = np.abs(gaps - usual)
    allowed = max(_ROUNDED_MM, 0.02 * usual)
    if off.max() > allowed + 1e-6:
        k = int(np.argmax(off > allowed + 1e-6))
        raise refuse(
            f"the slices are not evenly spaced: mostly {usual:.4g} mm apart, but {gaps[k]:.4g} mm from {along[k]:g} mm "
            f"({file(ordered[k])}) to {along[k + 1]:g} mm ({file(ordered[k + 1])})"
        )
    step = (points[-1] - points[0]) / (len(points) - 1)
    astray = np.linalg.norm(points - (points[0] + np.arange(len(points))[:, None] * step), axis=1)
    if astray.max() > max(2 * _ROUNDED_MM, 0.1 * usual):
        k = int(astray.argmax())
        raise refuse(
            f"the slices do not lie on a straight line: {file(ordered[k])} at {along[k]:g} mm is {astray[k]:.4g} mm "
            f"off the line from the first to the last"
        )
    if astray.max() > _REMARK_MM:
        return step, [f"slices lie up to {astray.max():.2g} mm off an even spacing; taken as even"]
    return step, []


def _all_alike(
    slices: Sequence[Slice],
    of: Callable[[Slice], Hashable],
    shown: Callable[[Any], str],
    file: Callable[[Slice], str],
    refuse: Callable[[str], VolumeError],
) -> None:
    values = [of(one) for one in slices]
    (usual, _), *others = Counter(values).most_common()
    if others:
        one = next(s for s, value in zip(slices, values, strict=True) if value != usual)
        raise refuse(f"{file(one)} has {shown(of(one))}, most slices have {shown(usual)}; take it out of the series")


def _spacing(one: Slice) -> tuple[float, ...]:
    assert one[1].spacing_mm is not None
    return one[1].spacing_mm


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
