"""NRRD and MetaImage files through SimpleITK, into the canonical orientation."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from core.data.nifti import slab
from core.data.volume import Check, Volume, VolumeError, blank, native_grid, refused, usable

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_HEADER_BYTES = 1 << 16
# What says the voxels' size. Without it ITK makes up 1 mm.
_SPACING = {"nrrd": rb"(?mi)^(space directions|spacings):", "meta": rb"(?mi)^(ElementSpacing|ElementSize)\s*="}

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read(path: Path, dtype: np.dtype[Any], check: Check, affine: np.ndarray | None = None) -> Volume:
    """Read a .nrrd, .nhdr, .mha or .mhd file.

    The file's voxels are in memory as they are stored beside the result: ITK unpacks a compressed file as a whole.

    Args:
        path: the file.
        dtype: of the result.
        check: what turns slabs into the result's values, and may refuse them.
        affine: 4x4 in place of the file's own, voxel -> RAS.

    Raises:
        VolumeError: unreadable or cut short, not one three-dimensional image of plain numbers, no spacing in the
            header, or refused by `check`.
    """
    with refused(path):
        with open(path, "rb") as file:
            head = file.read(_HEADER_BYTES)
        nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
        if nrrd and not head.startswith(b"NRRD"):
            raise VolumeError(f"{path}: not an NRRD file")
        if not nrrd and not re.search(rb"(?m)^NDims\s*=", head):
            raise VolumeError(f"{path}: not a MetaImage file")
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
            _refuse(path, reader)
            if not re.search(_SPACING["nrrd" if nrrd else "meta"], head):
                wanted = "'space directions' and 'spacings'" if nrrd else "'ElementSpacing'"
                raise VolumeError(
                    f"{path}: the header has no {wanted.replace(' and ', ' nor ')}: the voxels' size is unknown; save "
                    f"it anew with it"
                )
            if not nrrd:
                _whole(path, head, reader)
            image = reader.Execute()
        except RuntimeError as error:
            raise VolumeError(f"{path}: unreadable or cut short ({_plain(str(error))})") from error
    size = image.GetSize()[:3]
    volume, target = blank(native_grid(usable(path, _affine(image) if affine is None else affine), size), dtype)
    voxels = sitk.GetArrayViewFromImage(image)
    voxels = voxels.reshape(voxels.shape[-3:])
    step = slab(size, max(voxels.itemsize, dtype.itemsize))
    for k in range(0, size[2], step):
        target[..., k : k + step] = check.add(voxels[k : k + step]).T
    complaint = check.complaint()
    if complaint:
        raise VolumeError(f"{path}: {complaint}")
    return volume


def _refuse(path: Path, reader: sitk.ImageFileReader) -> None:
    shape = tuple(reader.GetSize())
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise VolumeError(f"{path}: {len(shape)}-D of shape {shape}; want one 3-D volume")
    if min(shape) < 1:
        raise VolumeError(f"{path}: no voxels, the shape is {shape}")
    if reader.GetNumberOfComponents() != 1:
        raise VolumeError(f"{path}: {reader.GetNumberOfComponents()} values a voxel (colour or vectors); want one")
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise VolumeError(f"{path}: holds complex numbers; want plain ones")


def _whole(path: Path, head: bytes, reader: sitk.ImageFileReader) -> None:
    """Look whether a MetaImage's voxels are all there: ITK would print its own complaint first."""
    named = re.search(rb"(?m)^ElementDataFile\s*=\s*(\S+)\s*?\n", head)
    if named is None or re.search(rb"(?mi)^CompressedData\s*=\s*True", head):
        return
    place = named[1].decode(errors="replace")
    file = path if place.upper() == "LOCAL" else path.parent / place
    if place.upper() != "LIST" and "%" not in place:
        if not file.is_file():
            raise VolumeError(f"{path}: its voxels should be in {file}, which is missing")
        bits = int(sitk.GetPixelIDValueAsString(reader.GetPixelID()).split("-")[0])
        wanted = math.prod(reader.GetSize()) * bits // 8 + (named.end() if file == path else 0)
        if file.stat().st_size < wanted:
            raise VolumeError(
                f"{path}: cut short: its header promises {wanted} bytes, the file has {file.stat().st_size}; copy it "
                f"again"
            )


def _affine(image: sitk.Image) -> np.ndarray:
    dimension = image.GetDimension()
    direction = np.array(image.GetDirection(), float).reshape(dimension, dimension)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction @ np.diag(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return _TO_RAS @ affine


def _plain(text: str) -> str:
    """The last thing that ITK says, without addresses and places in its source code."""
    said = [line.split("): ", 1)[-1].strip() for line in text.splitlines() if "ITK ERROR" in line]
    return (said or [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"])[-1]
