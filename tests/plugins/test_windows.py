import re

import numpy as np
import pytest
import torch

from plugins.window.multi_window import MultiWindow
from plugins.window.zscore import ZScore


class Histograms:
    """A store of two cases: one with 90 HU and one with 10 HU in its foreground, and one without foreground."""

    def foreground_histogram(self, case):
        counts = np.zeros(4096, np.int64)
        if case != "empty":
            counts[1024 + {"a": 90, "b": 10}[case]] = {"a": 30, "b": 10}[case]
        return counts


def test_windows_of_a_slice_stand_together():
    out = MultiWindow(windows=[[0, 100], [-100, 300]])(torch.tensor([-500.0, 50, 1000]).reshape(1, 3, 1, 1))
    assert out.flatten().tolist() == pytest.approx([0, 0, 0.5, 150 / 400, 1, 1])
    assert MultiWindow(windows=[[0, 100], [-100, 300]]).channels(3) == 6


@pytest.mark.parametrize("pair", [[100, 0], [5, 5], [0], [0, 1, 2], [0, float("inf")]])
def test_a_window_that_is_none_is_refused(pair):
    text = f"each of windows must be [low, high] in HU, low below high, got {pair}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        MultiWindow(windows=[[0, 100], pair])


def test_no_window_is_refused():
    with pytest.raises(ValueError, match=r"^windows must hold at least one pair \[low, high\], in HU$"):
        MultiWindow(windows=[])


def test_z_scores_come_from_the_training_cases_foreground():
    window = ZScore(Histograms(), ("a", "b"), low=0, high=100)
    mean, std = 70, np.sqrt((30 * 20**2 + 10 * 60**2) / 40)
    assert window.mean.item() == pytest.approx(mean)
    assert window.std.item() == pytest.approx(std)
    out = window(torch.tensor([-1000.0, 10, 70, 90, 500]).reshape(1, 1, 1, -1)).flatten()
    assert out.tolist() == pytest.approx([-60 / std, -60 / std, 0, 20 / std, 20 / std], rel=1e-6)


def test_percentiles_count_voxels():
    window = ZScore(Histograms(), ("a", "b"), low=20, high=30)
    assert window.clip.tolist() == [10, 90]  # of 40 voxels, 10 have 10 HU: percentile 20 is among them, 30 is not


def test_without_a_store_a_checkpoint_fills_it():
    fitted, empty = ZScore(Histograms(), ("a", "b")), ZScore(None, None)
    empty.load_state_dict(fitted.state_dict())
    x = torch.linspace(-200, 300, 50).reshape(1, 1, 1, -1)
    assert torch.equal(empty(x), fitted(x))


def test_cases_without_foreground_are_refused():
    with pytest.raises(
        ValueError, match=r"^the 1 training cases have no voxel of label 1 or 2 to take the statistics from$"
    ):
        ZScore(Histograms(), ("empty",))


def test_a_foreground_of_one_hu_is_refused():
    with pytest.raises(ValueError, match=r"^all foreground voxels of the 1 training cases have 90 HU$"):
        ZScore(Histograms(), ("a",))


@pytest.mark.parametrize(("low", "high"), [(-1, 99), (5, 5), (0, 101)])
def test_percentiles_that_are_none_are_refused(low, high):
    with pytest.raises(ValueError, match=r"^low and high are percentiles: want 0 <= low < high <= 100, got"):
        ZScore(Histograms(), ("a",), low=low, high=high)
