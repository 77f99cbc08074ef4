"""The audit on a little real CT, where it lies beside the repository: what is wrong with it, and nothing else."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.audit.case import examine
from core.contracts import Case

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real CT at {DATA} (it is never part of the project)")


def rules(seen):
    return {f.rule: f.saw for f in seen.findings}


def test_chaos_is_cut_at_its_lower_end_and_fine_otherwise():
    folder = DATA / "chaos_ct3"
    seen = examine(Case("chaos", "c", folder / "ct.nii.gz", folder / "liver_gt.nii.gz"))
    assert rules(seen) == {"cut_liver": "3025 voxels on the lowest slice (at most 36118 on one)"}
    assert (seen.row["liver_ml"], seen.row["liver_hu"], seen.row["body_width_mm"]) == (1417.49, 144, 308)


def test_extracts_of_lits_are_windowed_and_have_no_spacing():
    folder = DATA / "lits_real"
    seen = examine(Case("volume-5", "5", folder / "volume-5.nii.gz", folder / "segmentation-5.nii.gz"))
    assert set(rules(seen)) == {"windowed", "spacing_untrusted", "cut_liver"}
    assert rules(seen)["windowed"] == (
        "all within [-160, 240]; 54 % of the voxels at -160 exactly and 0.79 % of the voxels at 240 exactly; "
        "256 different values, in steps of 1.57"
    )
    assert (seen.row["liver_ml"], seen.row["liver_hu"], seen.row["lesions"]) == (None, None, 1)


def test_mirrored_mask_is_found_in_a_windowed_extract(tmp_path):
    folder = DATA / "lits_real"
    label = nib.load(folder / "segmentation-6.nii.gz")
    turned = np.asarray(label.dataobj)[:, ::-1]
    nib.save(nib.Nifti1Image(turned, label.affine, label.header), tmp_path / "turned.nii")
    seen = examine(Case("volume-6", "6", folder / "volume-6.nii.gz", tmp_path / "turned.nii"))
    assert rules(seen)["mirrored_mask"] == (
        "30 % of the mask are fat, lung, air or bone (below -50 or above 300 HU); "
        "mirrored along y (front to back) it would be 0.0 %"
    )
