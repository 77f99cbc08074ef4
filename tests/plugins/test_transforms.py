import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from core.contracts import Sample
from core.values import AIR_HU, IGNORE
from plugins.transform.intensity import Blur, Brightness, Contrast, Gamma, Noise
from plugins.transform.spatial import Affine, Elastic, Flip

SPATIAL = {"flip": Flip, "affine": Affine, "elastic": Elastic}
INTENSITY = {"gamma": Gamma, "contrast": Contrast, "brightness": Brightness, "noise": Noise, "blur": Blur}


def sample(channels=1, size=128):
    """Air, a body of 20 HU with bone of 700 HU, a liver of 110 HU and a tumour of 60 HU with lesion id 300."""
    y, x = np.mgrid[:size, :size] / size

    def disc(cy, cx, r):
        return np.hypot(y - cy, x - cx) < r

    label = np.where(disc(0.45, 0.4, 0.2), 1, 0).astype(np.uint8)
    label[disc(0.42, 0.36, 0.07)] = 2
    hu = np.select([label == 1, label == 2, disc(0.75, 0.5, 0.06), disc(0.5, 0.5, 0.42)], [110, 60, 700, 20], -1000)
    noise = np.random.default_rng(0).normal(0, 8, (channels, size, size))
    return Sample(np.rint(hu + noise).astype(np.int16), label, np.where(label == 2, 300, 0).astype(np.int32), 0)


def mean_hu(one, label):
    return float(one.image[0][one.label == label].mean())


@pytest.mark.parametrize("kind", SPATIAL)
def test_liver_and_tumour_keep_their_hu_when_moved(kind):
    before = sample()
    changed = 0
    for seed in range(20):
        after = SPATIAL[kind](p=1.0)(before, np.random.default_rng(seed))
        changed += not np.array_equal(after.label, before.label)
        assert abs(mean_hu(after, 1) - mean_hu(before, 1)) < 2
        # Small and all border: the nearest label and the interpolated image differ by half a voxel there.
        assert abs(mean_hu(after, 2) - mean_hu(before, 2)) < 4
        # Interpolating may not overshoot, and makes nothing between air and water but borders.
        assert after.image.min() >= min(AIR_HU, before.image.min())
        assert after.image.max() <= before.image.max()
    assert changed >= 19


@pytest.mark.parametrize("kind", SPATIAL)
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 7])
def test_channels_move_alike_and_what_comes_in_is_air_in_all_of_them(kind, channels):
    before = sample(channels)
    before.image[:] = before.image[:1]
    for seed in range(6):
        after = SPATIAL[kind](p=1.0)(before, np.random.default_rng(seed))
        assert after.image.shape == before.image.shape
        for channel in after.image:
            assert np.array_equal(channel, after.image[0])


def test_what_comes_in_from_outside_is_air_background_and_no_lesion():
    before = sample()
    before.image[:], before.label[:], before.lesion[:] = 50, 1, 9
    after = Affine(p=1.0, rotate_deg=(0, 0), scale=(0.5, 0.5), shift=0)(before, np.random.default_rng(0))
    assert after.image[0, 0, 0] == AIR_HU
    assert after.label[0, 0] == 0
    assert after.lesion[0, 0] == 0
    assert after.image[0, 64, 64] == 50
    assert (after.label == 1).mean() == pytest.approx(0.25, abs=0.01)
    assert np.array_equal(after.lesion == 9, after.label == 1)


def test_ignored_voxels_move_with_the_label():
    before = sample()
    before.label[:, -10:] = IGNORE
    after = Flip(p=1.0, axes=("x",))(before, np.random.default_rng(0))
    assert (after.label[:, :10] == IGNORE).all()


def test_flip_mirrors_the_named_axes_only():
    before = sample(2)
    across = Flip(p=1.0, axes=("x",))(before, np.random.default_rng(0))
    assert np.array_equal(across.image, before.image[:, :, ::-1])
    assert np.array_equal(across.lesion, before.lesion[:, ::-1])
    along = Flip(p=1.0, axes=("y",))(before, np.random.default_rng(0))
    assert np.array_equal(along.label, before.label[::-1])


def test_affine_turns_scales_and_shifts_by_what_is_asked():
    before = sample()
    area = (before.label > 0).sum()
    bigger = Affine(p=1.0, rotate_deg=(0, 0), scale=(1.2, 1.2), shift=0)(before, np.random.default_rng(0))
    assert (bigger.label > 0).sum() / area == pytest.approx(1.44, rel=0.03)
    turned = Affine(p=1.0, rotate_deg=(90, 90), scale=(1, 1), shift=0)(before, np.random.default_rng(0))
    quarter = [np.array_equal(turned.label[4:-4, 4:-4], np.rot90(before.label, k)[4:-4, 4:-4]) for k in (1, 3)]
    assert sum(quarter) == 1
    shifts = []
    for seed in range(40):
        moved = Affine(p=1.0, rotate_deg=(0, 0), scale=(1, 1), shift=0.1)(before, np.random.default_rng(seed))
        shifts.append(np.argwhere(moved.label > 0).mean(0) - np.argwhere(before.label > 0).mean(0))
    assert 8 < np.abs(shifts).max() <= 13.5
    assert np.abs(np.mean(shifts, axis=0)).max() < 4


def test_elastic_displaces_by_about_what_is_asked():
    size = 256
    ramp = np.broadcast_to(np.arange(size, dtype=np.int16) * 10, (1, size, size)).copy()
    still = Sample(ramp, np.zeros((size, size), np.uint8), np.zeros((size, size), np.int32), 0)
    transform = Elastic(p=1.0, shift_px=(3.0, 3.0), smooth_px=8.0)
    inner = (0, slice(40, -40), slice(40, -40))
    moved = [transform(still, np.random.default_rng(seed)).image[inner] - ramp[inner] for seed in range(8)]
    assert np.std(np.stack(moved) / 10) == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("kind", INTENSITY)
@pytest.mark.parametrize("channels", [1, 5])
def test_intensity_leaves_what_is_outside_the_bounds_and_all_labels(kind, channels):
    before = sample(channels)
    outside = (before.image < -200) | (before.image > 300)
    for seed in range(10):
        after = INTENSITY[kind](p=1.0)(before, np.random.default_rng(seed))
        assert np.array_equal(after.image[outside], before.image[outside])
        assert after.image[~outside].min() >= -200
        assert after.image[~outside].max() <= 300
        assert after.label is before.label
        assert after.lesion is before.lesion


@pytest.mark.parametrize(
    ("transform", "liver_hu", "tumour_hu"),
    [
        (Gamma(p=1.0, gamma=(1.0, 1.0)), 110, 60),
        (Gamma(p=1.0, gamma=(2.0, 2.0)), 500 * 0.62**2 - 200, 500 * 0.52**2 - 200),
        (Contrast(p=1.0, factor=(1.5, 1.5)), 50 + 1.5 * 60, 50 + 1.5 * 10),
        (Contrast(p=1.0, factor=(0.5, 0.5)), 50 + 0.5 * 60, 50 + 0.5 * 10),
        (Brightness(p=1.0, shift_hu=(20.0, 20.0)), 130, 80),
        (Brightness(p=1.0, shift_hu=(-20.0, -20.0)), 90, 40),
        (Noise(p=1.0, std_hu=(25.0, 25.0)), 110, 60),
        (Blur(p=1.0, sigma_px=(0.7, 0.7)), 110, 60),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, (int, float)) else None,
)
def test_intensity_means_by_hand(transform, liver_hu, tumour_hu):
    before = sample(size=256)
    after = transform(before, np.random.default_rng(0))
    inner = np.zeros(before.label.shape, bool)
    inner[2:-2, 2:-2] = True
    for label, want, within in ((1, liver_hu, 1.0), (2, tumour_hu, 3.0)):
        same = before.label == label
        for axis in (0, 1):
            for shift in (-2, 2):
                inner &= np.roll(before.label, shift, axis) == before.label
        assert after.image[0][same & inner].mean() == pytest.approx(want, abs=within)


def test_identity_values_give_back_every_hu_exactly():
    before = sample()
    for transform in (
        Gamma(p=1.0, gamma=(1.0, 1.0)),
        Contrast(p=1.0, factor=(1.0, 1.0)),
        Brightness(p=1.0, shift_hu=(0.0, 0.0)),
        Noise(p=1.0, std_hu=(0.0, 0.0)),
    ):
        assert np.array_equal(transform(before, np.random.default_rng(0)).image, before.image), transform


def test_noise_and_blur_change_the_spread_by_what_is_asked():
    before = sample(3, 256)
    flat = before.label == 1
    noisy = Noise(p=1.0, std_hu=(20.0, 20.0))(before, np.random.default_rng(0)).image
    added = noisy.astype(float) - before.image
    assert added[:, flat].std() == pytest.approx(20, rel=0.05)
    assert abs(np.corrcoef(added[0][flat], added[1][flat])[0, 1]) < 0.05
    smooth = Blur(p=1.0, sigma_px=(1.0, 1.0))(before, np.random.default_rng(0)).image
    # White noise keeps 1 / (2 sqrt(pi) sigma) of its spread.
    inner = np.hypot(*(np.mgrid[:256, :256] / 256 - np.array([0.52, 0.48])[:, None, None])) < 0.07
    assert smooth[0][inner].std() / before.image[0][inner].std() == pytest.approx(0.282, rel=0.15)


def _digest(kind_and_seed):
    kind, seed = kind_and_seed
    after = {**SPATIAL, **INTENSITY}[kind](p=1.0)(sample(3), np.random.default_rng([seed, 1, 2]))
    return after.image.tobytes() + after.label.tobytes() + after.lesion.tobytes()


def test_another_process_gives_the_same_bits_for_the_same_generator():
    jobs = [(kind, seed) for kind in (*SPATIAL, *INTENSITY) for seed in (0, 1)]
    here = [_digest(job) for job in jobs]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_digest, jobs)) == here


def test_p_is_the_share_of_samples_changed():
    before = sample(size=32)
    transform = Brightness(p=0.3, shift_hu=(10.0, 10.0))
    changed = sum(transform(before, np.random.default_rng(seed)) is not before for seed in range(400))
    assert 90 < changed < 150


def test_slices_of_volumes_are_said_to_be_missing_by_spatial_ones():
    volume = Sample(np.zeros((1, 4, 8, 8), np.int16), np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8), np.int32), 0)
    with pytest.raises(ValueError, match=r"works on slices \[C, H, W\], got an image of shape \(1, 4, 8, 8\)$"):
        Affine(p=1.0)(volume, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flip(p=1.5), "p must be from 0 to 1, got 1.5"),
        (lambda: Flip(axes=()), "axes must name x, y or both"),
        (lambda: Affine(rotate_deg=(5, -5)), "rotate_deg wants [lowest, highest], got [5, -5]"),
        (lambda: Affine(scale=(0, 1)), "scale wants [lowest, highest] above 0, got [0, 1]"),
        (lambda: Affine(shift=1), "shift must be from 0 to below 1, got 1"),
        (lambda: Elastic(shift_px=(-1, 1)), "shift_px wants [lowest, highest], not negative, got [-1, 1]"),
        (lambda: Elastic(smooth_px=0.5), "smooth_px must be at least 1, got 0.5"),
        (lambda: Gamma(gamma=(0, 1)), "gamma wants [lowest, highest] above 0, got [0, 1]"),
        (lambda: Gamma(low=5, high=5), "low must be below high, both in HU, got low 5 and high 5"),
        (lambda: Contrast(factor=(2, 1)), "factor wants [lowest, highest] above 0, got [2, 1]"),
        (lambda: Brightness(shift_hu=(5, -5)), "shift_hu wants [lowest, highest], got [5, -5]"),
        (
            lambda: Brightness(shift_hu=(0, 600)),
            "shift_hu must not exceed high - low (500 HU), got [0, 600]",
        ),
        (lambda: Noise(std_hu=(-1, 2)), "std_hu wants [lowest, highest] from 0 to high - low, got [-1, 2]"),
        (lambda: Blur(sigma_px=(0, 1)), "sigma_px wants [lowest, highest] above 0, got [0, 1]"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        make()
    assert str(caught.value) == message
