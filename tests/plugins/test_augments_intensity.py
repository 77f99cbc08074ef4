"""HU change as the formulas say, by scipy and beside the transforms of the CPU."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.stats import kstest

from core import draws
from core.contracts import Batch, Sample
from plugins.augment.intensity import Blur, Brightness, Contrast, Gamma, LowResolution, Noise
from plugins.transform import intensity as cpu

LOW, HIGH = -200.0, 300.0
BOUNDED = {"gamma": Gamma, "contrast": Contrast, "brightness": Brightness, "noise": Noise, "blur": Blur}


def picture(channels=2, size=(72, 90)):
    """HU from air to metal, as a scan has them: most between the bounds, some outside."""
    rng = np.random.default_rng(0)
    hu = rng.normal(50, 120, (channels, *size))
    hu[:, :20] = -1000
    hu[:, 30:40, 10:30] = 1500
    return np.rint(hu).astype(np.int16)


def run(augment, hu, *seeds):
    count = len(seeds)
    label = torch.zeros(count, *hu.shape[1:], dtype=torch.uint8)
    batch = Batch(torch.from_numpy(np.stack([hu] * count)), label, None, list(range(count)), list(range(count)))
    return augment(batch, torch.tensor(seeds)).image.numpy()


@pytest.mark.parametrize("name", BOUNDED)
def test_what_is_outside_the_bounds_stays_and_what_is_inside_stays_inside(name):
    hu = picture()
    outside = (hu < LOW) | (hu > HIGH)
    assert 0.2 < outside.mean() < 0.5
    for image in run(BOUNDED[name](p=1.0), hu, *range(10)):
        assert np.array_equal(image[outside], hu[outside])
        assert image[~outside].min() >= LOW
        assert image[~outside].max() <= HIGH
        assert not np.array_equal(image, hu)


def formula(name, hu, value):
    x = np.clip(hu, LOW, HIGH).astype(np.float64)
    changed = {
        "gamma": lambda: ((x - LOW) / 500) ** value * 500 + LOW,
        "contrast": lambda: (x - 50) * value + 50,
        "brightness": lambda: x + value,
        "blur": lambda: np.stack(
            [ndimage.gaussian_filter(c, value, mode="mirror", radius=int(3.5 * value)) for c in x]
        ),
    }[name]()
    return np.where((hu >= LOW) & (hu <= HIGH), np.clip(changed, LOW, HIGH), hu)


ASKED = {
    "gamma": ("gamma", [0.5, 0.8, 1.0, 1.7]),
    "contrast": ("factor", [0.5, 1.0, 1.5]),
    "brightness": ("shift_hu", [-40.0, 0.0, 17.5]),
    "blur": ("sigma_px", [0.2, 0.6, 1.0, 2.4]),
}


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, (_, values) in ASKED.items() for v in values])
def test_a_value_does_what_its_formula_says_and_what_the_transform_on_the_cpu_does(name, value):
    hu, argument = picture(), ASKED[name][0]
    image = run(BOUNDED[name](p=1.0, **{argument: (value, value)}), hu, 3)[0]
    assert np.abs(image - formula(name, hu, value)).max() < 0.01
    transform = {"gamma": cpu.Gamma, "contrast": cpu.Contrast, "brightness": cpu.Brightness, "blur": cpu.Blur}[name]
    empty = np.zeros(hu.shape[1:])
    there = transform(p=1.0, **{argument: (value, value)})(Sample(hu, empty, empty, 0), np.random.default_rng(0)).image
    assert np.abs(image - there).max() < 0.6  # which rounds to whole HU


@pytest.mark.parametrize("name", ASKED)
def test_each_sample_draws_its_own_value_evenly_from_the_range(name):
    argument, values = ASKED[name]
    low, high = values[0], values[-1]
    hu = picture(1, (24, 24))
    images = run(BOUNDED[name](p=1.0, **{argument: (low, high)}), hu, *range(300))
    drawn = draws.uniform(torch.arange(300), f"{name}/{argument}", low, high).double().numpy()
    assert kstest((drawn - low) / (high - low), "uniform").pvalue > 0.001
    for image, value in zip(images[:40], drawn, strict=False):
        assert np.abs(image - formula(name, hu, value)).max() < 0.05


def test_bounds_can_be_others():
    hu = picture()
    image = run(Brightness(p=1.0, shift_hu=(30, 30), low=0, high=100), hu, 1)[0]
    inside = (hu >= 0) & (hu <= 100)
    assert np.array_equal(image, np.where(inside, np.clip(hu + 30, 0, 100), hu))


def test_noise_has_the_spread_that_is_asked_and_is_independent_between_voxels_channels_and_samples():
    flat = np.full((2, 128, 128), 50, np.int16)
    noise = (run(Noise(p=1.0, std_hu=(20, 20)), flat, 1, 2, 3) - 50).astype(np.float64)
    for sample in noise:
        assert abs(sample.mean()) < 0.5
        assert sample.std() == pytest.approx(20, rel=0.02)
        assert kstest(sample.ravel() / 20, "norm").pvalue > 0.001
    rows = noise.reshape(6, -1)
    assert np.abs(np.corrcoef(rows) - np.eye(6)).max() < 0.03
    for shift in (1, 128, 129):
        assert abs(np.corrcoef(rows[0], np.roll(rows[0], shift))[0, 1]) < 0.03


def test_noise_draws_its_spread_for_each_sample():
    flat = np.full((1, 40, 40), 50, np.int16)
    spread = (run(Noise(p=1.0, std_hu=(5, 25)), flat, *range(300)) - 50).std((1, 2, 3))
    assert 4.5 < spread.min() < 6.5
    assert 23.5 < spread.max() < 27
    assert spread.mean() == pytest.approx(15, abs=1.3)


def test_two_noises_in_one_list_are_not_one_noise_twice_as_strong():
    """The trainer forks the seeds by the place in the list; without that both would draw the same."""
    flat, seeds = np.full((1, 64, 64), 50, np.int16), torch.tensor([1, 2])
    one = Noise(p=1.0, std_hu=(20, 20))
    first, second = (run(one, flat, *draws.fork(seeds, f"augment/{i}").tolist()) - 50 for i in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.06


def test_components_draw_independently_from_one_seed():
    seeds = torch.arange(4000)
    words = ["gamma/p", "contrast/p", "noise/p", "affine/p", "flip/x", "flip/y", "affine/scale", "noise/std_hu"]
    correlation = np.corrcoef([draws.uniform(seeds, word).numpy() for word in words])
    assert np.abs(correlation - np.eye(len(words))).max() < 4.5 / 4000**0.5


def coarse(hu, scale):
    """By hand: nodes at the centres of the coarser grid's pixels take the voxel they lie in; then linearly between."""
    out = hu.astype(np.float64)
    for axis in (-2, -1):
        side = out.shape[axis]
        nodes = max(1, round(float(np.float32(scale) * np.float32(side))))
        voxels = out.take([(2 * j + 1) * side // (2 * nodes) for j in range(nodes)], axis)
        at = np.clip((np.arange(side) + 0.5) * nodes / side - 0.5, 0, nodes - 1)
        first = np.floor(at).astype(int)
        second = np.minimum(first + 1, nodes - 1)
        weight = (at - first).reshape(-1, *[1] * (-1 - axis))
        out = voxels.take(first, axis) * (1 - weight) + voxels.take(second, axis) * weight
    return out


@pytest.mark.parametrize("size", [(72, 90), (64, 64), (31, 45), (1, 9)])
@pytest.mark.parametrize("scale", [0.01, 0.3, 0.5, 0.77, 0.9, 1.0])
def test_low_resolution_is_the_computation_by_hand(scale, size):
    hu = picture(2, (80, 100))[:, -size[0] :, -size[1] :].copy()
    image = run(LowResolution(p=1.0, scale=(scale, scale)), hu, 5)[0]
    assert np.abs(image - coarse(hu, scale)).max() < 0.05
    if scale == 1.0:
        assert np.array_equal(image, hu)


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.75])
def test_low_resolution_is_torchs_nearest_way_down_and_linear_way_up(scale):
    hu = picture(2, (64, 96))
    image = run(LowResolution(p=1.0, scale=(scale, scale)), hu, 5)
    small = F.interpolate(torch.from_numpy(hu)[None].double(), scale_factor=scale, mode="nearest-exact")
    want = F.interpolate(small, size=hu.shape[1:], mode="bilinear", align_corners=False)
    assert np.abs(image - want.numpy()).max() < 0.01


def test_low_resolution_draws_its_scale_for_each_sample():
    hu = picture(1, (48, 48))
    images = run(LowResolution(p=1.0, scale=(0.3, 1.0)), hu, *range(50))
    scales = draws.uniform(torch.arange(50), "low_resolution/scale", 0.3, 1.0).tolist()
    assert len(set(scales)) == 50
    for image, scale in zip(images, scales, strict=True):
        assert np.abs(image - coarse(hu, scale)).max() < 0.05
