import pytest
import torch

from plugins.window.hu_window import HuWindow


def test_clips_then_scales_to_0_and_1():
    out = HuWindow(low=-200, high=300)(torch.tensor([[[[-1024.0, -200, -100, 50, 300, 3000]]]]))
    assert out.flatten().tolist() == pytest.approx([0, 0, 0.2, 0.5, 1, 1])


def test_keeps_the_number_of_channels():
    assert HuWindow().channels(5) == 5


@pytest.mark.parametrize(("low", "high"), [(250, -200), (5, 5), (float("nan"), 5)])
def test_bounds_that_are_none_are_refused(low, high):
    with pytest.raises(ValueError, match=f"^low must be below high, both in HU, got low {low} and high {high}$"):
        HuWindow(low=low, high=high)
