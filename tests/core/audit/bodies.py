"""A simple body with a liver, to be audited, and ways to spoil it."""

from pathlib import Path

import nibabel as nib
import numpy as np

from core.contracts import Case

SHAPE = (16, 96, 128)
AFFINE = np.diag([-2.0, -2.0, 6.0, 1.0])
AFFINE[:3, 3] = 120, 90, -40


def ellipsoid(centre, radii):
    z, y, x = (np.arange(n).reshape([-1 if i == a else 1 for i in range(3)]) for a, n in enumerate(SHAPE))
    return sum(((g - c) / r) ** 2 for g, c, r in zip((z, y, x), centre, radii, strict=True)) < 1


def body(seed=0):
    """HU int16 and labels uint8 ``[Z, Y, X]``, LPS: fat, a wall of muscle, lungs above, spine, stomach and liver."""
    rng = np.random.default_rng(seed)
    image = np.full(SHAPE, -1000.0)
    image[ellipsoid((8, 48, 64), (1e6, 42, 58))] = 45
    image[ellipsoid((8, 48, 64), (1e6, 36, 52))] = -100
    image[ellipsoid((19, 44, 64), (7, 30, 46))] = -850
    image[ellipsoid((8, 78, 64), (1e6, 9, 9))] = 380
    image[ellipsoid((9, 38 + seed % 5, 92), (4, 16, 16))] = 30
    liver = ellipsoid((7.5, 44 + seed % 3, 42 + seed % 4), (7, 26, 30))
    liver &= np.arange(SHAPE[2]) < 38 + 4 * np.arange(SHAPE[0])[:, None, None]  # the right lobe alone reaches down
    tumour = ellipsoid((8, 40, 36), (2.2, 7, 7))
    image[liver] = 110
    image[tumour] = 60
    label = liver.astype(np.uint8)
    label[tumour] = 2
    return np.rint(image + rng.normal(0, 12, SHAPE)).clip(-1024, 3071).astype(np.int16), label


def save(path, array, affine=AFFINE, **header):
    """``[Z, Y, X]`` as NIfTI with axes LPS."""
    picture = nib.Nifti1Image(np.ascontiguousarray(array.T), affine)
    for name, value in header.items():
        picture.header[name] = value
    nib.save(picture, path)
    return Path(path)


def case(folder, name="volume-1", image=None, label=None, affine=AFFINE, label_affine=None, seed=0, **more):
    """A case with its two files; what is not given is as it should be."""
    hu, mask = body(seed)
    image, label = hu if image is None else image, mask if label is None else label
    scan = save(folder / f"{name}.nii", image, affine)
    truth = save(folder / f"{name}-seg.nii", label, affine if label_affine is None else label_affine)
    return Case(**{"id": name, "patient": name, "image": scan, "label": truth, "origin": "TEST", **more})
