"""Small scans with a liver and two lesions, for the tests of the store."""

import nibabel as nib
import numpy as np

from core.contracts import Case
from core.data.prepare import prepare

AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])


class Listed:
    """A source that knows its cases."""

    def __init__(self, cases):
        self._cases = cases

    def cases(self):
        return self._cases


def make(folder, name, seed, shape=(40, 36, 12), labelled=True, **said):
    """Write a scan and its label; x, y, z."""
    rng = np.random.default_rng(seed)
    image = np.full(shape, -1000, np.int16)
    image[3:-3, 4:-4] = 30
    label = np.zeros(shape, np.uint8)
    label[8:28, 8:28, 2:10] = 1
    label[12:17, 12:17, 4:6] = 2
    label[22:25, 20:26, 5:8] = 2
    image[label == 1] = 110
    image = (image + rng.normal(0, 15, shape)).astype(np.int16)
    image[5, 5, 5] = 900
    paths = folder / f"{name}.nii.gz", folder / f"{name}-label.nii.gz"
    for path, array in zip(paths, (image, label), strict=True):
        nib.save(nib.Nifti1Image(array, AFFINE), path)
    return Case(name, f"patient {name}", paths[0], paths[1] if labelled else None, origin="test", **said)


def run(cases, root, workers=1, **more):
    """Prepare them."""
    return prepare(Listed(cases), root, workers=workers, source_config={"name": "test"}, **more)


def to_schema_1(path):
    """Take from a case's file what schema 2 added: an old one, as version 1 wrote it."""
    import json

    import h5py

    with h5py.File(path, "r+") as file:
        for name in ("fingerprint", "foreground_histogram"):
            del file[name]
        _, compression, image, label, labelled, _, _, repairs, spacing, hu, _ = json.loads(file.attrs["signature"])
        said = [file.attrs["patient"], file.attrs["origin"]]
        old = [1, compression, image, label, *said, spacing, hu, repairs, labelled]
        for name in ("part", "external", "series", "label_hash"):
            del file.attrs[name]
        for name in ("scan_shape", "scan_spacing_mm", "scan_affine", "scan_box"):
            del file.attrs[name]
        file.attrs["schema"], file.attrs["signature"] = 1, json.dumps(old)
