import re

import pytest
import torch

from plugins.model.unet_3d import UNet3d


def small(**given):
    return UNet3d(2, 3, channels=(4, 6, 8), strides=((1, 2, 2), (2, 2, 2)), **given)


def test_an_axis_that_is_not_divided_yet_has_kernels_of_one():
    stages = small().down
    assert [stage[0][0].kernel_size for stage in stages] == [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert [stage[0][0].stride for stage in stages] == [(1, 1, 1), (1, 2, 2), (2, 2, 2)]


def test_deep_supervision_gives_coarser_logits_in_training_alone():
    model, x = small(deep_supervision=1), torch.rand(1, 2, 4, 16, 24)
    scales = model.train()(x)
    assert [list(s.shape) for s in scales] == [[1, 3, 4, 16, 24], [1, 3, 4, 8, 12]]
    assert model.eval()(x).shape == (1, 3, 4, 16, 24)


def test_an_input_that_cannot_be_divided_is_refused():
    text = (
        "unet_3d divides patches by [2, 4, 4] along z, y, x, and [3, 16, 16] is no multiple of that; change the patch "
        "of dataset and inferer, or model.strides"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        small()(torch.rand(1, 2, 3, 16, 16))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"channels": (4,)}, "channels wants two or more positive widths, got [4]"),
        (
            {"channels": (4, 4), "strides": ((1, 2, 2), (2, 2, 2))},
            "strides wants 1 triples of positive numbers (z, y, x), one fewer than channels, "
            "got [[1, 2, 2], [2, 2, 2]]",
        ),
        (
            {"channels": (4, 4), "strides": ((1, 2, 2),), "deep_supervision": 1},
            "deep_supervision must be from 0 to 0 (stages between the finest and the coarsest), got 1",
        ),
    ],
)
def test_numbers_that_do_not_match_are_refused(given, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        UNet3d(1, 3, **given)


def test_a_slice_is_refused():
    with pytest.raises(
        ValueError, match=r"^unet_3d wants patches \[B, C, D, H, W\], got \[1, 2, 16, 16\]; use dataset"
    ):
        small()(torch.rand(1, 2, 16, 16))
