"""Large scans made on the fly: real ones of such a size are not at hand everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from core.contracts import Case

SIDE = 512
_SPACING = (0.8, 0.8, 0.8)
_LESIONS = 12


def large_case(folder: Path, slices: int, number: int = 0) -> Case:
    """A scan of 512x512 voxels and so many slices, int16 in a `.nii`, and its label: a body, a liver, twelve tumours.

    Written a slice at a time; another number is another scan.
    """
    rng = np.random.default_rng(number)
    y, x = np.ogrid[:SIDE, :SIDE]
    noise = rng.normal(0, 12, (7, SIDE, SIDE)).astype(np.int16)
    body = ((x - 256) / 210) ** 2 + ((y - 256) / 160) ** 2 <= 1
    spine = (x - 256) ** 2 + (y - 360) ** 2 <= 28**2
    places = np.column_stack(
        [rng.uniform(130, 250, _LESIONS), rng.uniform(190, 290, _LESIONS), rng.uniform(0.35, 0.65, _LESIONS) * slices]
    )
    radii = rng.uniform(4, 16, _LESIONS)
    paths = folder / f"volume-{number}.nii", folder / f"segmentation-{number}.nii"
    files = _started(paths[0], slices, "int16"), _started(paths[1], slices, "uint8")
    for z in range(slices):
        hu = np.where(body, np.int16(45), np.int16(-1000))
        hu[spine] = 500
        label = np.zeros((SIDE, SIDE), np.uint8)
        rest = 1 - ((z / slices - 0.5) / 0.3) ** 2
        if rest > 0:
            label[((x - 190) / 100) ** 2 + ((y - 240) / 85) ** 2 <= rest] = 1
            for (px, py, pz), radius in zip(places, radii, strict=True):
                if abs(z - pz) < radius:
                    label[(x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2 <= radius**2] = 2
            hu[label == 1], hu[label == 2] = 110, 60
        files[0].write((hu + np.roll(noise[z % 7], 13 * z, axis=1)).tobytes())
        files[1].write(label.tobytes())
    for file in files:
        file.close()
    return Case(f"volume-{number}", f"patient-{number}", *paths, origin="PHANTOM large")


def _started(path: Path, slices: int, dtype: str) -> BinaryIO:
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape((SIDE, SIDE, slices))
    affine = np.diag([-_SPACING[0], -_SPACING[1], _SPACING[2], 1.0])
    affine[:3, 3] = 200, 180, -600
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 1, 0
    header.set_xyzt_units("mm")
    file = open(path, "wb")  # noqa: SIM115
    header.write_to(file)
    return file
