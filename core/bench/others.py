"""What other systems do with the same files, where they are installed; each in the cheapest way that it offers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from core.contracts import Case
from core.errors import UserError

PACKAGES = {"nnunet": "nnunetv2", "monai": "monai"}
"""What `--against` takes, and the package that it needs; the project itself needs neither."""

# Imported in `ready`, before the clock starts, and nowhere else: they bring torch, which the other ways have not.


@dataclass(frozen=True)
class NnUNet:
    """nnU-Net v2's `DefaultPreprocessor.run_case_save`, 3d_fullres, in one process.

    The plans name each scan's own spacing, so that nothing is resampled, and its intensities are given: neither the
    fingerprint of the data set nor the planning is timed.
    """

    cases: Sequence[Case]
    low: float
    high: float

    def ready(self) -> None:
        """Import it."""
        import nnunetv2.preprocessing.preprocessors.default_preprocessor  # noqa: F401

    def __call__(self, folder: Path) -> None:
        """Write its files: float32 and int16 in blosc2, a pickle with sampled places."""
        from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        for case in self.cases:
            plans = PlansManager(self._plans(case))
            DefaultPreprocessor(verbose=False).run_case_save(
                str(folder / case.id),
                [str(case.image)],
                None if case.label is None else str(case.label),
                plans,
                plans.get_configuration("3d_fullres"),
                {"labels": {"background": 0, "liver": 1, "tumour": 2}, "channel_names": {"0": "CT"}},
            )

    def _plans(self, case: Case) -> dict[str, Any]:
        spacing = [float(s) for s in nib.load(case.image).header["pixdim"][1:4]]  # type: ignore[index]
        way = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        intensities = {"mean": 100.0, "std": 40.0, "percentile_00_5": self.low, "percentile_99_5": self.high}
        configuration = {
            "patch_size": [128, 128, 128],
            "spacing": spacing[::-1],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": way,
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_seg_kwargs": {**way, "is_seg": True, "order": 1},
            "architecture": {},
        }
        return {
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "image_reader_writer": "SimpleITKIO",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": intensities},
            "configurations": {"3d_fullres": configuration},
        }


@dataclass(frozen=True)
class Monai:
    """MONAI's loader to the disk: LoadImaged, EnsureChannelFirstd, Orientationd to LPS, ScaleIntensityRanged, np.save.

    A float32 `.npy` a scan and a uint8 one for its label. `PersistentDataset` would pickle both instead.
    """

    cases: Sequence[Case]
    low: float
    high: float

    def ready(self) -> None:
        """Import it."""
        import monai.transforms  # noqa: F401

    def __call__(self, folder: Path) -> None:
        """Write the files."""
        from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, ScaleIntensityRanged

        for case in self.cases:
            files = (
                {"image": str(case.image)}
                if case.label is None
                else {"image": str(case.image), "label": str(case.label)}
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load = Compose(
                    [
                        LoadImaged(keys=list(files)),
                        EnsureChannelFirstd(keys=list(files)),
                        Orientationd(keys=list(files), axcodes="LPS"),
                        ScaleIntensityRanged(
                            keys=["image"], a_min=self.low, a_max=self.high, b_min=0.0, b_max=1.0, clip=True
                        ),
                    ]
                )
                arrays: Any = load(files)
            for key, dtype in (("image", np.float32), ("label", np.uint8)):
                if key in arrays:
                    np.save(folder / f"{case.id}_{key}.npy", np.asarray(arrays[key]).astype(dtype, copy=False))


WAYS: dict[str, type[NnUNet] | type[Monai]] = {"nnunet": NnUNet, "monai": Monai}


def versions(names: Sequence[str]) -> dict[str, str]:
    """The version of each.

    Raises:
        UserError: before any long work, if one of them is not there.
    """
    found = {}
    for name in names:
        try:
            found[PACKAGES[name]] = metadata.version(PACKAGES[name])
        except metadata.PackageNotFoundError:
            raise UserError(
                f"--against {name}: the package {PACKAGES[name]} is not installed here (the project does not need it); "
                f"pip install {PACKAGES[name]}, best in an environment of its own, or leave {name} out"
            ) from None
    return found
