import numpy as np
import pytest

from core.analysis.slices import lesion_slices
from core.measure.pair import CasePair


def test_dice_of_each_slice_of_each_lesion():
    reference, pred = np.zeros((6, 12, 12), np.uint8), np.zeros((6, 12, 12), np.uint8)
    reference[1:5, 1:3, 1:3] = 2  # 4 voxels a slice
    reference[2:4, 8:10, 1:3] = 2
    pred[2:4, 1:3, 2:4] = 2  # half of it, and as much beside
    pred[3, 3:10, 2] = 2  # joins both on slice 3
    pred[0, 11, 11] = 2
    pair = CasePair("a", pred, reference, (1, 1, 1))
    slices = lesion_slices(pair)
    assert slices.first == 0
    assert slices.dice(1, 1, 4).tolist() == [0, 0.5, pytest.approx(2 * 2 / (4 + 4 + 5)), 0]
    # The prediction's voxels on the other lesion are left out, those on none count for both.
    assert slices.dice(2, 2, 3).tolist() == [0, pytest.approx(2 * 2 / (4 + 2 + 7))]


def test_one_side_empty():
    reference = np.zeros((4, 6, 6), np.uint8)
    reference[1:3, 2, 2] = 2
    empty = np.zeros_like(reference)
    assert lesion_slices(CasePair("a", empty, reference, (1, 1, 1))).dice(1, 1, 2).tolist() == [0, 0]
    assert lesion_slices(CasePair("a", reference, empty, (1, 1, 1))).free.sum() == 2
    assert lesion_slices(CasePair("a", empty, empty, (1, 1, 1))).ref.size == 0
