"""What moves, moves where it should: against scipy, analytic shapes and the transforms of the CPU."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from core import draws
from core.contracts import Batch, Sample
from core.values import AIR_HU, IGNORE
from plugins.augment.cutout import Cutout
from plugins.augment.spatial import Affine, Elastic, Flip
from plugins.transform.spatial import Affine as CpuAffine
from plugins.transform.spatial import Elastic as CpuElastic

SIZE = (96, 120)


def picture(size=SIZE, channels=2, smooth=3.0):
    """A smooth random slice; its label and lesion ids follow from it: liver is above 0 HU, tumour above 60 HU."""
    noise = np.random.default_rng(0).normal(size=(channels, *size))
    hu = np.stack([ndimage.gaussian_filter(n, smooth) for n in noise])
    hu = np.rint(hu / hu.std() * 60).astype(np.int16)
    label = (hu[0] > 0).astype(np.uint8) + (hu[0] > 60)
    lesion = np.where(label == 2, 1 + ndimage.label(label == 2)[0] * 1000, 0).astype(np.int32)
    return hu, label.astype(np.uint8), lesion


def batch_of(hu, label, lesion=None, count=1):
    def stack(array):
        return torch.from_numpy(np.stack([array] * count))

    ids = list(range(count))
    return Batch(stack(hu), stack(label), None if lesion is None else stack(lesion), ids, ids)


def run(augment, hu, label, lesion, *seeds):
    after = augment(batch_of(hu, label, lesion, len(seeds)), torch.tensor(seeds))
    return after.image.numpy(), after.label.numpy(), after.lesion.numpy()


def moved_by(matrix, shift_yx, hu, label, lesion):
    """scipy's: `matrix` brings a point (y, x) about the slice's centre to its new place, then it is shifted."""
    centre = (np.array(hu.shape[-2:]) - 1) / 2
    back = np.linalg.inv(matrix)
    how = {"matrix": back, "offset": centre - back @ (centre + shift_yx), "mode": "grid-constant"}
    image = np.stack([ndimage.affine_transform(h.astype(np.float64), **how, order=1, cval=AIR_HU) for h in hu])
    nearest = [ndimage.affine_transform(a.astype(np.float64), **how, order=0, cval=0) for a in (label, lesion)]
    return image, *nearest


def matrix_yx(degrees=0.0, scale=1.0, shear_x=0.0, shear_y=0.0):
    """Scale, then rotate (anticlockwise on the screen, y down), then shear, for points (y, x)."""
    a, sx, sy = np.deg2rad([degrees, shear_x, shear_y])
    rotate = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.array([[1, np.tan(sy)], [np.tan(sx), 1]]) @ rotate * scale


def test_flip_mirrors_each_axis_by_itself_and_exactly():
    hu, label, lesion = picture()
    for axes, numpy_axes in ((("x",), (-1,)), (("y",), (-2,)), (("y", "x"), (-2, -1))):
        after = run(Flip(p=1.0, axes=axes), hu, label, lesion, 7)
        for got, want in zip(after, (hu, label, lesion), strict=True):
            assert np.array_equal(got[0], np.flip(want, numpy_axes))
            assert got.dtype == want.dtype
    images, _, _ = run(Flip(p=0.5), hu, label, lesion, *range(400))
    ways = {name: np.flip(hu, axes) for name, axes in (("no", ()), ("x", -1), ("y", -2), ("xy", (-1, -2)))}
    counts = {name: sum(np.array_equal(image, want) for image in images) for name, want in ways.items()}
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 65
    assert max(counts.values()) < 135


def test_flip_of_volumes_knows_z_and_says_that_slices_have_none():
    image = torch.arange(2 * 1 * 3 * 4 * 5, dtype=torch.int16).view(2, 1, 3, 4, 5)
    volumes = Batch(image, image[:, 0].to(torch.uint8), image[:, 0].int(), [0, 1], [0, 1])
    after = Flip(p=1.0, axes=("z", "x"))(volumes, torch.tensor([1, 2]))
    assert torch.equal(after.image, image.flip(-3, -1))
    assert torch.equal(after.lesion, image[:, 0].flip(-3, -1))
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        Flip(axes=("z",))(batch_of(*picture((8, 9), 1)), torch.tensor([1]))
    assert str(caught.value) == "flip: only volumes [B, C, D, H, W] have an axis z, got images of shape [1, 1, 8, 9]"


@pytest.mark.parametrize("size", [SIZE, (95, 121), (64, 31)])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"degrees": 20.0},
        {"degrees": -130.0},
        {"scale": 1.4},
        {"scale": 0.6},
        {"shear": 12.0},
        {"degrees": 33.0, "scale": 1.2, "shear": -20.0},
    ],
    ids=str,
)
def test_affine_is_scipys(asked, size):
    hu, label, lesion = picture(size)
    degrees, scale, shear = asked.get("degrees", 0.0), asked.get("scale", 1.0), asked.get("shear", 0.0)
    augment = Affine(p=1.0, rotate_deg=(degrees,) * 2, scale=(scale,) * 2, shear_deg=(shear,) * 2, shift=0)
    got = run(augment, hu, label, lesion, 5)
    want = moved_by(matrix_yx(degrees, scale, shear, shear), (0, 0), hu, label, lesion)
    assert np.abs(got[0][0] - want[0]).max() < 0.05
    # A pixel that lies just between two may go to either.
    assert (got[1][0] != want[1]).mean() < 0.002
    assert (got[2][0] != want[2]).mean() < 0.002
    if not asked:
        assert all(np.array_equal(g[0], w) for g, w in zip(got[1:], (label, lesion), strict=True))


def test_affine_is_scipys_for_what_each_sample_draws():
    hu, label, lesion = picture()
    augment = Affine(p=1.0, rotate_deg=(-40, 40), scale=(0.7, 1.4), shear_deg=(-15, 15), shift=0.2)
    seeds = torch.tensor([1, 2**61, 99])
    names = {"rotate_deg": (-40, 40), "scale": (0.7, 1.4), "shear_deg/x": (-15, 15), "shear_deg/y": (-15, 15)}
    drawn = [draws.uniform(seeds, f"affine/{name}", *limits) for name, limits in names.items()]
    shifts = [
        draws.uniform(seeds, f"affine/shift/{axis}", -0.2, 0.2) * side for axis, side in zip("yx", SIZE, strict=True)
    ]
    got = run(augment, hu, label, lesion, *seeds.tolist())
    for i in range(3):
        want = moved_by(matrix_yx(*(float(d[i]) for d in drawn)), [float(s[i]) for s in shifts], hu, label, lesion)
        assert np.abs(got[0][i] - want[0]).max() < 0.05
        assert (got[1][i] != want[1]).mean() < 0.002
        assert (got[2][i] != want[2]).mean() < 0.002


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.3), (0, 0.7), (25, 1.0), (-60, 1.1)])
def test_affine_moves_as_the_transform_on_the_cpu_does(degrees, scale):
    hu, label, lesion = picture()
    how = {"p": 1.0, "rotate_deg": (degrees, degrees), "scale": (scale, scale), "shift": 0}
    image, mask, _ = run(Affine(**how), hu, label, lesion, 5)
    there = CpuAffine(**how)(Sample(hu, label, lesion, 0), np.random.default_rng(0))
    # OpenCV interpolates at 32nds of a pixel, so it is off by a little, most where the slice ends in air.
    assert np.abs(image[0] - there.image).mean() < 1.5
    assert (mask[0] != there.label).mean() < 0.02


def test_a_box_goes_where_it_should():
    hu, label, lesion = (np.zeros((n, 65, 65), t) for n, t in ((1, np.int16), (1, np.uint8), (1, np.int32)))
    box = (slice(None), slice(10, 15), slice(32 - 2, 32 + 3))  # above the centre
    hu[box], label[box], lesion[box] = 100, 2, 65535

    def centre(augment):
        image, mask, ids = run(augment, hu, label[0], lesion[0], 3)
        assert np.array_equal(mask == 2, ids == 65535)
        assert set(np.unique(ids)) == {0, 65535}
        assert image[0, 0][mask[0] == 2].mean() > 75
        return np.argwhere(mask[0] == 2).mean(0), (mask == 2).sum()

    still = {"p": 1.0, "rotate_deg": (0, 0), "scale": (1, 1), "shift": 0}
    turned, area = centre(Affine(**{**still, "rotate_deg": (90, 90)}))
    assert turned == pytest.approx([32, 12])  # anticlockwise: from above to the left
    assert area == 25
    grown, area = centre(Affine(**{**still, "scale": (1.4, 1.4)}))
    assert grown == pytest.approx([32 - 20 * 1.4, 32], abs=0.6)
    assert area == 49
    sheared, _ = centre(Affine(**{**still, "shear_deg": (30, 30)}))
    assert sheared == pytest.approx([12, 32 - 20 * np.tan(np.deg2rad(30))], abs=0.6)


def test_shift_moves_by_at_most_what_is_asked_and_evenly():
    hu, label, lesion = picture((40, 80), 1)
    label[:], lesion[:] = 0, 0
    label[20, 40] = 1
    augment = Affine(p=1.0, rotate_deg=(0, 0), scale=(1, 1), shift=0.2)
    _, mask, _ = run(augment, hu, label, lesion, *range(400))
    shifts = np.array([np.argwhere(m == 1)[0] - (20, 40) for m in mask])
    assert np.abs(shifts).max(0).tolist() == [8, 16]
    assert np.abs(shifts.mean(0)).max() < 1.6
    assert shifts.std(0) == pytest.approx(np.array([16, 32]) / 12**0.5, rel=0.1)


@pytest.mark.parametrize("make", [Affine, Elastic])
def test_what_comes_in_is_air_background_and_no_lesion_and_ignored_voxels_stay_ignored(make):
    hu, label, lesion = (
        np.full((2, 64, 64), 50, np.int16),
        np.full((64, 64), IGNORE, np.uint8),
        np.full((64, 64), 9, np.int32),
    )
    wide = {"scale": (0.5, 0.5)} if make is Affine else {"shift_px": (6.0, 6.0)}
    image, mask, ids = run(make(p=1.0, **wide), hu, label, lesion, *range(8))
    inside = mask == IGNORE
    assert set(np.unique(mask)) == {0, IGNORE}
    assert np.array_equal(ids, np.where(inside, 9, 0))
    assert ((image >= AIR_HU) & (image <= 50.001)).all()
    whole = ndimage.binary_erosion(inside, np.ones((1, 3, 3)))
    assert (np.abs(image - 50).max(1)[whole] < 0.001).all()
    outside = ndimage.binary_erosion(~inside, np.ones((1, 3, 3)))
    assert outside.any()
    assert (image.max(1)[outside] == AIR_HU).all()
    if make is Affine:
        assert inside.mean() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    "augment", [Affine(p=1.0, shear_deg=(-10, 10)), Elastic(p=1.0, shift_px=(3, 3))], ids=["affine", "elastic"]
)
def test_the_label_of_a_threshold_is_the_threshold_of_the_moved_image(augment):
    y, x = np.mgrid[:128, :128]
    depth = np.maximum(30 - np.hypot(y - 55, x - 60), 14 - np.hypot(y - 100, x - 95))  # two cones: pixels from the edge
    hu, label = np.stack([depth * 20] * 2).astype(np.int16), (depth > 0).astype(np.uint8)
    lesion = np.where(depth > 0, np.where(y + x > 155, 300, 65535), 0).astype(np.int32)
    image, mask, ids = run(augment, hu, label, lesion, *range(10))
    assert np.array_equal(image[:, 0], image[:, 1])
    for i in range(10):
        threshold = image[i, 0] > 0
        differs = threshold != (mask[i] > 0)
        border = ndimage.binary_dilation(threshold) ^ ndimage.binary_erosion(threshold)
        assert (differs <= border).all()
        assert differs.mean() < 0.02
    assert set(np.unique(ids)) == {0, 300, 65535}
    assert np.array_equal(ids > 0, mask > 0)
    assert not np.array_equal(mask[0], mask[1])


def test_elastic_displaces_by_what_is_asked_as_smoothly_as_the_transform_on_the_cpu():
    size = 256
    y, x = np.mgrid[:size, :size].astype(np.int16) * 10
    ramps, label, lesion = np.stack([x, y]), np.zeros((size, size), np.uint8), np.zeros((size, size), np.int32)
    inner = np.s_[..., 40:-40, 40:-40]
    image, _, _ = run(Elastic(p=1.0, shift_px=(3.0, 3.0), smooth_px=8.0), ramps, label, lesion, *range(24))
    there = CpuElastic(p=1.0, shift_px=(3.0, 3.0), smooth_px=8.0)
    images = [there(Sample(ramps, label, lesion, 0), np.random.default_rng(seed)).image for seed in range(24)]
    fields = [(np.stack(i) - ramps)[inner] / 10 for i in (image, images)]
    for field in fields:
        assert field.std((0, 2, 3)) == pytest.approx([3.0, 3.0], rel=0.1)
        assert np.abs(field.mean((0, 2, 3))).max() < 0.35
        # A Gaussian of 8 px smooths white noise so that at a distance d it correlates by exp(-d^2 / (4 x 8^2)).
        for distance in (4, 8, 16):
            for axis in (-1, -2):
                a, b = (np.take(field, range(*r), axis) for r in ((0, 150), (distance, 150 + distance)))
                assert (a * b).mean() / 9 == pytest.approx(np.exp(-(distance**2) / 256), abs=0.1)
    across, along = fields[0][:, 0], fields[0][:, 1]
    assert abs((across * along).mean() / 9) < 0.1
    # Everywhere as strong: no grid shows through.
    spread = np.stack([f[:, i] for f in fields[:1] for i in (0, 1)]).std((0, 1))
    assert spread[::8, ::8].mean() == pytest.approx(spread[4::8, 4::8].mean(), rel=0.05)


def test_the_variance_of_the_elastic_field_is_one_at_every_pixel():
    for side, smooth in ((64, 12.0), (65, 1.0), (512, 7.3), (3, 40.0)):
        bumps = Elastic(smooth_px=smooth)._bumps(side, torch.tensor([0])).numpy()
        plain = np.exp(-0.5 * ((np.arange(side)[:, None] / smooth) - np.arange(-30, side / smooth + 30)) ** 2)
        assert (bumps**2).sum(1) == pytest.approx(np.ones(side))
        # Already so before it is set to 1, since the bumps lie close enough.
        assert (plain**2).sum(1) == pytest.approx(np.full(side, np.pi**0.5), rel=2e-4)


@pytest.mark.parametrize("shape", [(40, 60), (6, 40, 60)])
def test_cutout_fills_rectangles_of_the_size_that_is_asked(shape):
    count = 200
    zeros = [np.zeros((2, *shape), np.int16), np.full(shape, 2, np.uint8), np.full(shape, 7, np.int32)]
    image, mask, ids = run(Cutout(p=1.0, size=(0.25, 0.5)), *zeros, *range(count))
    starts = []
    for one, label, lesion in zip(image, mask, ids, strict=True):
        hole = one[0] == AIR_HU
        assert np.array_equal(one[1] == AIR_HU, hole)
        assert set(np.unique(one)) == {0, AIR_HU}
        assert np.array_equal(label, np.where(hole, IGNORE, 2))
        assert np.array_equal(lesion, np.where(hole, 0, 7))
        (box,) = ndimage.find_objects(hole.astype(int))
        sides = [s.stop - s.start for s in box]
        assert hole.sum() == np.prod(sides)
        assert all(round(0.25 * whole) <= side <= round(0.5 * whole) for side, whole in zip(sides, shape, strict=True))
        starts.append([(s.start / (whole - side)) for s, side, whole in zip(box, sides, shape, strict=True)])
    assert np.mean(starts, 0) == pytest.approx(np.full(len(shape), 0.5), abs=0.1)
    assert (np.min(starts, 0) < 0.05).all()
    assert (np.max(starts, 0) > 0.95).all()


def test_cutout_fills_several_with_what_is_asked_and_keeps_labels_if_asked():
    hu, label, lesion = (
        np.zeros((1, 100, 100), np.int16),
        np.full((100, 100), 2, np.uint8),
        np.full((100, 100), 7, np.int32),
    )
    augment = Cutout(p=1.0, count=3, size=(0.1, 0.1), fill_hu=40, label="keep")
    image, mask, ids = run(augment, hu, label, lesion, *range(60))
    areas = (image[:, 0] == 40).sum((1, 2))
    assert set(np.unique(image)) == {0, 40}
    assert areas.max() == 300
    assert areas.min() >= 100
    assert areas.mean() > 280  # they seldom overlap, and are not one and the same
    assert (mask == 2).all()
    assert (ids == 7).all()
    image, _, _ = run(Cutout(p=1.0, size=(1, 1)), hu, label, lesion, 1)
    assert (image == AIR_HU).all()
