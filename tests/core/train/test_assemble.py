"""What is refused before a run directory is begun."""

import nibabel as nib
import numpy as np
import pytest
import torch
from harness import experiment, write_scans

from core.data.prepare import prepare_experiment
from core.errors import UserError
from core.experiment import load
from core.train.assemble import assemble


def refusal(path, *overrides):
    # Without the plugin file: one process cannot register it twice.
    wanted = load(path, ["plugins=[]", "model={name: unet, encoder: resnet18, weights: null}", *overrides])
    prepare_experiment(wanted)
    with pytest.raises(UserError) as error:
        assemble(wanted, torch.device("cpu"))
    assert not (wanted.run / "config.yaml").exists()
    return str(error.value)


def test_slices_of_several_sizes_are_named(tmp_path):
    write_scans(tmp_path / "scans")
    for kind in ("volume", "segmentation"):
        image = nib.load(tmp_path / "scans" / f"{kind}-104.nii")
        wider = np.pad(np.asarray(image.dataobj), ((0, 40), (0, 0), (0, 0)))
        nib.save(nib.Nifti1Image(wider, image.affine), tmp_path / "scans" / f"{kind}-104.nii")
    split = "split={name: file, train: [volume-100, volume-101, volume-104]}"
    text = refusal(experiment(tmp_path), "transform=[]", split)
    assert text == (
        "the training samples differ in size: 32x64 (volume-101), 32x96 (volume-104); set dataset.size, e.g. "
        "dataset.size=512"
    )


def test_a_model_for_patches_does_not_take_slices(tmp_path):
    text = refusal(experiment(tmp_path), "model={name: unet_3d, channels: [4, 8], strides: [[1, 2, 2]]}")
    assert text == "model 'unet_3d' takes 3-D samples, and dataset 'slices' gives 2-D ones; use dataset: patches"
