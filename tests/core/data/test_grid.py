import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from core.contracts import Prediction
from core.data.grid import Grid, body_box, on_grid, plan_grid, to_grid
from core.data.resample import image_planes, label_planes
from core.data.tables import find_lesions
from core.data.volume import Native, Volume
from core.settings import PrepareSettings

ROOT = Path(__file__).resolve().parents[3]


def volume(array, spacing=(1.0, 1.0, 1.0)):
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    affine[:3, 3] = 10, -20, 30
    return Volume(array, spacing, affine, Native(("L", "P", "S"), array.shape[::-1], affine))


def grid(scan, shape, box=None, spacing=(1.0, 1.0, 1.0)):
    return Grid(scan, spacing, box or tuple((0, n) for n in scan), shape)


def one_hot(label):
    return np.stack([label == k for k in range(3)]).astype(np.float16)


def ball(shape, centre, radius_mm, spacing):
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    parts = [((i - c) * s) ** 2 for i, c, s in zip((z, y, x), centre, spacing, strict=True)]
    return sum(parts) <= radius_mm**2


def test_a_crop_alone_comes_back_voxel_by_voxel_with_background_around():
    rng = np.random.default_rng(0)
    image = rng.integers(-1000, 1000, (8, 20, 18)).astype(np.int16)
    label = rng.integers(0, 3, image.shape).astype(np.uint8)
    g = grid(image.shape, (5, 9, 12), ((2, 7), (4, 13), (1, 13)))
    inside = (slice(2, 7), slice(4, 13), slice(1, 13))
    assert not g.resamples
    assert np.array_equal(g.image(image), image[inside])
    assert np.array_equal(g.label(label), label[inside])
    soft = rng.random((3, *g.shape)).astype(np.float16)
    found = g.back(Prediction(g.label(label), soft), probabilities=True)
    wanted = np.zeros_like(label)
    wanted[inside] = label[inside]
    assert np.array_equal(found.labels, wanted)
    assert np.array_equal(found.probabilities[(slice(None), *inside)], soft)
    assert (found.probabilities[0].sum() - soft[0].sum()) == pytest.approx(image.size - soft[0].size, rel=1e-3)
    back = g.image_back(g.image(image))
    assert np.array_equal(back[inside], image[inside])
    assert set(np.unique(back[0])) == {-1024}
    assert g.back(Prediction(g.label(label), soft)).probabilities is None


def test_a_whole_scan_is_handed_through():
    image = np.zeros((4, 5, 6), np.int16)
    g = grid(image.shape, image.shape)
    assert g.identity
    assert on_grid(volume(image), g).array is image
    labels = np.zeros(image.shape, np.uint8)
    assert g.back(Prediction(labels)).labels is labels
    # A crop that resampling makes as large as the scan is another grid.
    assert not grid(image.shape, image.shape, ((0, 2), (0, 5), (0, 6))).identity
    assert pickle.loads(pickle.dumps(g)) == g


def test_voxels_that_grow_are_means_and_keep_the_mean_of_the_scan():
    image = np.random.default_rng(0).normal(50, 200, (10, 12, 14))
    out = np.stack(list(image_planes(image, (5, 4, 7))))
    assert out == pytest.approx(image.reshape(5, 2, 4, 3, 7, 2).mean((1, 3, 5)), abs=1e-3)
    for shape in [(7, 12, 14), (3, 5, 14), (10, 11, 9)]:  # not whole multiples
        assert np.stack(list(image_planes(image, shape))).mean() == pytest.approx(image.mean(), abs=0.01)


def test_fine_stripes_do_not_turn_into_coarse_ones():
    stripes = np.where(np.arange(300) % 2, 500, -500)[None, None].repeat(4, 1)
    coarse = np.stack(list(image_planes(stripes, (1, 4, 140))))
    assert np.abs(stripes[..., ::2]).max() == 500
    assert np.abs(coarse).max() < 100  # every other column alone would give 500 all along


def test_one_axis_may_shrink_while_another_grows_and_no_new_hu_appears():
    ramp = (100.0 * np.arange(12))[None, :, None] + np.zeros((6, 12, 9))
    out = np.stack(list(image_planes(ramp, (12, 6, 18))))
    assert out == pytest.approx((50 + 200.0 * np.arange(6))[None, :, None] + np.zeros((12, 6, 18)))
    edge = np.where(np.arange(20) < 9, -1000, 3000)[None, None] + np.zeros((3, 4, 20))
    for n in (7, 33):
        out = np.stack(list(image_planes(edge, (5, 4, n))))
        assert (out.min(), out.max()) == (-1000, 3000)


def test_along_z_as_along_the_other_axes():
    array = np.random.default_rng(0).normal(size=(11, 13, 9)).astype(np.float32)
    for n in (5, 7, 23):
        wanted = np.stack(list(image_planes(array, (n, 13, 9))))
        for axis in (1, 2):
            turned = np.ascontiguousarray(np.moveaxis(array, 0, axis))
            shape = [n if a == axis else s for a, s in enumerate(turned.shape)]
            found = np.moveaxis(np.stack(list(image_planes(turned, shape))), axis, 0)
            assert found == pytest.approx(wanted, abs=1e-5)


def test_a_label_is_what_fills_most_of_a_voxel_and_is_repeated_where_voxels_shrink():
    label = np.zeros((1, 2, 8), np.uint8)
    label[0, :, 1:4], label[0, :, 5] = 1, 2
    assert np.stack(list(label_planes(label, (1, 1, 4)))).tolist() == [[[1, 1, 2, 0]]]
    fine = np.stack(list(label_planes(label, (3, 4, 16))))
    assert np.array_equal(fine, label.repeat(3, 0).repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("spacing", [(5.0, 1.5, 1.5), (3.0, 3.0, 3.0), (0.5, 0.5, 0.5)])
def test_a_lesion_of_3_mm_survives(spacing, offset):
    own = (1.0, 0.75, 0.75)
    label = np.ones((24, 40, 40), np.uint8)
    centre = tuple(c + offset * w / o for c, w, o in zip((10, 20, 20), spacing, own, strict=True))
    label[ball(label.shape, centre, 1.5, own)] = 2
    label[5, 5, 5] = 2  # and of one voxel
    g, notes = plan_grid(volume(label.astype(np.int16), own), PrepareSettings(spacing=spacing))
    assert notes == []
    stored = g.label(label)
    assert stored.shape == g.shape != label.shape
    assert find_lesions(stored).count == find_lesions(label).count == 2
    z, y, x = np.argwhere(ndimage.label(stored == 2)[0] == ndimage.label(stored == 2)[1]).mean(0)
    for found, c, n, m in zip((z, y, x), centre, g.shape, label.shape, strict=True):
        assert abs((found + 0.5) / n * m - 0.5 - c) * max(own) <= max(spacing)


def test_sizes_in_ml_and_mm_agree_with_those_of_the_scan():
    own, wanted = (2.5, 0.8, 0.8), (2.0, 1.3, 1.3)
    label = np.zeros((40, 100, 100), np.uint8)
    label[ball(label.shape, (20, 50, 50), 35, own)] = 1
    label[ball(label.shape, (20, 60, 50), 12, own)] = 2
    g, _ = plan_grid(volume(label.astype(np.int16), own), PrepareSettings(spacing=wanted))
    stored = g.label(label)
    assert g.spacing_mm == pytest.approx(wanted, rel=0.02)
    for value in (1, 2):
        before = (label == value).sum() * np.prod(own)
        assert (stored == value).sum() * np.prod(g.spacing_mm) == pytest.approx(before, rel=0.03)


def test_a_prediction_comes_back_to_the_scan_by_interpolated_probabilities():
    own = (2.0, 0.8, 0.8)
    label = np.zeros((20, 60, 60), np.uint8)
    label[ball(label.shape, (10, 30, 30), 16, own)] = 1
    label[ball(label.shape, (10, 34, 30), 6, own)] = 2
    for wanted in [(3.0, 1.2, 1.2), (1.0, 0.5, 0.5), (None, 1.6, 1.6), (1.0, 1.6, None)]:
        g, _ = plan_grid(volume(label.astype(np.int16), own), PrepareSettings(spacing=wanted))
        assert g.resamples
        stored = g.label(label)
        for given in (Prediction(stored, one_hot(stored)), Prediction(stored)):
            found = g.back(given).labels
            assert found.shape == label.shape
            for value in (1, 2):
                both = ((found == value) & (label == value)).sum()
                assert 2 * both / ((found == value).sum() + (label == value).sum()) > 0.85, wanted
    # Half-way probabilities: the border lies where they cross, not on the border of a voxel.
    g = grid((1, 1, 8), (1, 1, 2))
    soft = np.zeros((3, 1, 1, 2), np.float16)
    soft[0, 0, 0], soft[1, 0, 0] = (1.0, 0.25), (0.0, 0.75)
    found = g.back(Prediction(soft.argmax(0).astype(np.uint8), soft), probabilities=True)
    assert found.labels[0, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert found.probabilities[1, 0, 0] == pytest.approx(np.array([0, 0, 0.09, 0.28, 0.47, 0.66, 0.75, 0.75]), abs=0.01)


def test_another_shape_is_no_prediction_of_the_stored_grid():
    with pytest.raises(
        ValueError, match=r"a prediction of shape \(1, 2, 3\) does not fit the stored grid, \(2, 4, 4\)"
    ):
        grid((2, 8, 8), (2, 4, 4)).back(Prediction(np.zeros((1, 2, 3), np.uint8)))


def test_outer_faces_of_both_grids_lie_on_each_other():
    scan = volume(np.zeros((10, 30, 20), np.int16), (2.0, 0.7, 0.9))
    g = grid((10, 30, 20), (3, 11, 25), ((2, 8), (3, 25), (1, 18)), (2.0, 0.7, 0.9))
    stored = on_grid(scan, g)
    size = np.sqrt((stored.affine[:3, :3] ** 2).sum(0))[::-1]
    assert size == pytest.approx(g.spacing_mm)
    for corner in np.ndindex(2, 2, 2):
        inner = [b[c] - 0.5 for b, c in zip(g.box, corner, strict=True)]
        outer = [c * n - 0.5 for n, c in zip(g.shape, corner, strict=True)]
        assert stored.affine @ [*outer[::-1], 1] == pytest.approx(scan.affine @ [*inner[::-1], 1])


def body(shape=(20, 100, 110), spacing=(3.0, 2.0, 2.0)):
    """A trunk with lungs on a thin table that it touches."""
    image = np.full(shape, -1000, np.int16)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    trunk = ((y - 45) / 30) ** 2 + ((x - 50) / 40) ** 2 + 0 * z <= 1
    image[trunk] = 40
    image[((y - 40) / 12) ** 2 + ((x - 35) / 10) ** 2 + 0 * z <= 1] = -850
    image[:, 75:78, 2:108] = 200  # 6 mm thick
    image[:, 90:92, 2:108] = 200
    image += np.random.default_rng(0).normal(0, 15, shape).astype(np.int16)
    return image, spacing


def test_the_body_is_found_without_the_table():
    image, spacing = body()
    (z0, z1), (y0, y1), (x0, x1) = body_box(image, spacing)
    assert (z0, z1) == (0, 20)
    assert (y0, x0) == pytest.approx((15, 10), abs=3)
    assert y1 <= 82  # the trunk ends at 75, what touches it is taken along for 8 mm at most
    assert x1 == pytest.approx(91, abs=8)
    assert body_box(np.full((5, 40, 40), -1000, np.int16), spacing) is None


def test_new_scans_are_cropped_as_stored_ones():
    image, spacing = body()
    settings = PrepareSettings(crop="body", margin_mm=4.0, spacing=(None, 4.0, 4.0))
    found, g = to_grid(volume(image, spacing), settings)
    planned, notes = plan_grid(volume(image, spacing), settings, label=np.ones(image.shape, np.uint8))
    assert notes == []
    assert g == planned
    assert found.array.shape == g.shape
    assert g.shape[0] == 20
    assert found.spacing_mm == pytest.approx((3, 4, 4), rel=0.02)


def test_the_livers_box_needs_a_reference():
    image, spacing = body()
    label = np.zeros(image.shape, np.uint8)
    label[5:9, 30:40, 50:60] = 1
    settings = PrepareSettings(crop="liver", margin_mm=6.0)
    g, notes = plan_grid(volume(image, spacing), settings, label=label)
    assert g.box == ((3, 11), (27, 43), (47, 63))
    assert notes == []
    g, notes = plan_grid(volume(image, spacing), settings)
    assert (g.identity, notes) == (True, ["no liver in a reference: the scan is not cropped"])
    same, g = to_grid(volume(image, spacing), settings)
    assert g.identity
    assert same.array is image


def test_a_spacing_that_cannot_be_trusted_is_not_resampled():
    scan = volume(np.zeros((4, 8, 8), np.int16))
    g, notes = plan_grid(scan, PrepareSettings(spacing=(2.0, 2.0, 2.0)), spacing_trusted=False)
    assert (g.shape, notes) == ((4, 8, 8), ["the spacing cannot be trusted: the scan is not resampled"])
    # A new scan says so itself.
    identity = Volume(scan.array, scan.spacing_mm, np.eye(4), Native(("R", "A", "S"), (8, 8, 4), np.eye(4)))
    assert to_grid(identity, PrepareSettings(spacing=(2.0, 2.0, 2.0)))[1].identity


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"spacing": (0.0, 1.0, 1.0)},
            r"spacing is in mm, along z, y, x, each between 0.05 and 50 or null, got \[0.0, ",
        ),
        ({"margin_mm": -1.0}, "margin_mm must not be negative, got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, text):
    with pytest.raises(ValueError, match=text):
        PrepareSettings(**values)


def test_memory_of_both_ways_stays_small():
    """What comes on top of the two volumes is a few slices."""
    code = f"""
import re, sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import numpy as np
from core.contracts import Prediction
from core.data.grid import Grid
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
scan = (100, 512, 512)
g = Grid(scan, (1.0, 1.0, 1.0), tuple((0, n) for n in scan), (50, 256, 256))
small = Grid((2, 64, 64), (1.0,) * 3, ((0, 2), (0, 64), (0, 64)), (1, 32, 32))
small.back(Prediction(small.label(np.ones((2, 64, 64), np.uint8)), np.zeros((3, 1, 32, 32), np.float16)))
image = np.ones(scan, np.int16)
label = np.ones(scan, np.uint8)
soft = np.ones((3, *g.shape), np.float16)
before = peak()
stored, there = g.image(image), g.label(label)
found = g.back(Prediction(there, soft))
print((peak() - before - stored.nbytes - there.nbytes - found.labels.nbytes) / image.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5
