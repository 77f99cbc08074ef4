"""What a page keeps of a case: the right slices, labels without loss, few enough bytes."""

import numpy as np
import pytest

from core.measure.pair import CasePair
from core.report.views import (
    LIMIT_BYTES,
    RANGE_HU,
    SIDE,
    SLICES,
    choose_slices,
    make_view,
    read_view,
    write_view,
)
from tests.core.report.fake_evaluation import pair


def test_a_small_case_is_kept_voxel_by_voxel():
    case = pair("a", [(12, 44, 60, 12, "partly")])
    view = make_view(case)
    image, pred, ref = view.decoded()
    y, x = view.corner
    height, width = view.frame
    box = (slice(view.z[0], view.z[-1] + 1), slice(y, y + height), slice(x, x + width))
    assert view.scale == 1.0
    assert view.left_out == 0
    np.testing.assert_array_equal(pred, case.pred[box])
    np.testing.assert_array_equal(ref, case.reference[box])
    low, high = RANGE_HU
    hu = image.astype(float) * (high - low) / 255 + low
    assert np.abs(hu - np.clip(case.image[box], low, high)).mean() < 12  # noise of 14 HU, and WebP
    # Both livers with a margin of 12 mm, and no more.
    livers = np.argwhere((case.pred > 0) | (case.reference > 0))
    assert y == livers[:, 1].min() - 13
    assert x == livers[:, 2].min() - 13
    assert view.z[0] == livers[:, 0].min() - 3 if livers[:, 0].min() > 3 else view.z[0] == 0


def test_a_file_gives_back_the_view_whole(tmp_path):
    view = make_view(pair("a/b", [(12, 44, 60, 12, "partly")]))
    write_view(tmp_path / "views" / "x.npz", view)
    assert read_view(tmp_path / "views" / "x.npz") == view
    assert [path.name for path in (tmp_path / "views").iterdir()] == ["x.npz"]


def test_slices_with_tumour_come_first_and_others_are_thinned_evenly():
    tumour = np.zeros(400, bool)
    tumour[250:280] = True
    chosen = choose_slices(tumour, 10, 390, limit=100)
    assert len(chosen) == 100
    assert set(range(250, 280)) <= set(chosen)
    assert (chosen[0], chosen[-1]) == (10, 389)
    assert np.diff(chosen).max() <= 8
    assert choose_slices(np.ones(400, bool), 0, 400, limit=100).tolist()[:3] == [0, 4, 8]
    assert choose_slices(tumour, 10, 60, limit=100).tolist() == list(range(10, 60))


def test_a_large_case_is_made_smaller_and_says_what_is_left_out():
    labels = np.zeros((130, 40, 420), np.uint8)
    labels[5:125, 4:36, 10:410] = 1
    labels[60, 20, 100] = labels[61:70, 18:24, 300:340] = 2
    view = make_view(CasePair("a", labels, labels, (1.0, 1.0, 1.0)))
    _, pred, ref = view.decoded()
    assert (len(view.z), view.left_out) == (SLICES, 26)
    assert max(view.frame) == SIDE
    assert pred.shape == (SLICES, *view.frame)
    # The tumour of one voxel is there, at its place; the large one keeps its area.
    at = view.z.index(60)
    (place,) = np.argwhere(ref[at] == 2)
    expected = ((20 - view.corner[0]) * view.scale, (100 - view.corner[1]) * view.scale)
    np.testing.assert_allclose(place, expected, atol=1)
    assert (ref[view.z.index(65)] == 2).sum() == pytest.approx(6 * 40 * view.scale**2, rel=0.2)


@pytest.mark.parametrize("image", [True, False], ids=["image", "no-image"])
def test_noise_and_nothing_stay_within_the_limit(image):
    rng = np.random.default_rng(0)
    shape = (12, 120, 120)
    noise = rng.integers(-1000, 1000, shape).astype(np.int16) if image else None
    for labels in (rng.integers(0, 3, shape).astype(np.uint8), np.zeros(shape, np.uint8)):
        view = make_view(CasePair("a", labels, labels[::-1], (1.0, 1.0, 1.0), image=noise))
        assert len(view.image) + len(view.labels) <= LIMIT_BYTES
        assert bool(view.image) == image
        decoded, pred, ref = view.decoded()
        assert (decoded is not None) == image
        assert (pred > 0).any() == (ref > 0).any() == bool(labels.any())


def test_a_run_longer_than_two_bytes_is_split():
    labels = np.zeros((3, 200, 200), np.uint8)
    labels[2, 199, 199] = 2
    ones = np.ones_like(labels)
    _, pred, ref = make_view(CasePair("a", labels, ones, (1.0, 1.0, 1.0))).decoded()
    np.testing.assert_array_equal(pred, labels)
    np.testing.assert_array_equal(ref, ones)
