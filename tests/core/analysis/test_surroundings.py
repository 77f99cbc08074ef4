import numpy as np
import pytest

from core.analysis import surroundings as module
from core.analysis.surroundings import LiverBorder, robust, surroundings
from core.measure.pair import CasePair

SPACING = (2.5, 0.8, 0.8)
SHAPE = (16, 56, 56)


def distance():
    """mm from the middle of the volume."""
    grid = np.indices(SHAPE)
    return np.sqrt(sum(((g - n / 2) * s) ** 2 for g, n, s in zip(grid, SHAPE, SPACING, strict=True)))


def ball(image, *, pred=None, **more):
    reference = np.where(distance() <= 8, 2, 1).astype(np.uint8)
    reference[:, :2] = 0
    prediction = np.zeros(SHAPE, np.uint8) if pred is None else pred
    return CasePair("a", prediction, reference, SPACING, image=np.rint(image).astype(np.int16), **more)


def test_contrast_leaves_out_vessels_and_other_lesions_and_is_blind_to_the_prediction():
    image = np.where(distance() <= 8, 60, 110) + np.arange(SHAPE[2]) % 3 - 1  # some spread, as in a scan
    pair = ball(image)
    alone = surroundings(pair, 1)
    assert alone.contrast_hu == pytest.approx(-50, abs=0.1)
    vessel = (distance() > 12) & (distance() < 16) & (np.indices(SHAPE)[1] < 16)
    other = (distance() > 11) & (distance() < 15) & (np.indices(SHAPE)[1] > 42)
    pair.image[vessel] = 190
    pair.image[other] = 60
    pair.reference[other] = 2
    crowded = CasePair("a", np.where(vessel, 2, 1).astype(np.uint8), pair.reference, SPACING, image=pair.image)
    assert crowded.lesions("ref").count == 2
    first = int(crowded.lesions("ref").voxels.argmax())
    assert surroundings(crowded, first).contrast_hu == pytest.approx(-50, abs=0.3)
    shell = (distance() >= 10) & (distance() <= 18) & (crowded.reference == 1)
    assert abs(crowded.image[shell].mean() - 110) > 1  # vessels would have shown


def test_noise_is_the_sd_of_the_parenchyma():
    image = np.where(distance() <= 8, 60, 110) + np.random.default_rng(0).normal(0, 12, SHAPE)
    image[(distance() > 11) & (np.indices(SHAPE)[1] < 10)] = 300  # vessels
    got = surroundings(ball(image), 1)
    assert got.noise_hu == pytest.approx(12, rel=0.08)
    assert got.cnr == pytest.approx(50 / 12, rel=0.08)
    assert got.contrast_hu == pytest.approx(-50, abs=1)


@pytest.mark.parametrize("slope", [3, -6])
@pytest.mark.parametrize("noise", [0, 15])
def test_sharpness_is_the_slope_along_the_normal_in_mm(slope, noise):
    ramp = 100 + np.clip((distance() - 8) * slope, -40, 40)
    got = surroundings(ball(ramp + np.random.default_rng(0).normal(0, noise, SHAPE)), 1)
    # Thick slices and voxels' steps take a few per cent; noise must not add to it.
    assert got.border_hu_per_mm == pytest.approx(abs(slope), abs=0.06 * abs(slope) + 0.4 * (noise > 0))


def test_large_lesions_are_worked_on_in_parts(monkeypatch):
    image = 100 + np.clip((distance() - 8) * 4, -40, 40)
    whole = surroundings(ball(image), 1)
    monkeypatch.setattr(module, "_BOX_VOXELS", 9000)
    parts = surroundings(ball(image), 1)
    assert parts.border_hu_per_mm == pytest.approx(whole.border_hu_per_mm, rel=1e-6)
    assert parts.contrast_hu == pytest.approx(whole.contrast_hu, abs=3)


def test_distance_to_the_border_in_mm_where_the_scan_ends_none():
    reference = np.zeros((9, 30, 30), np.uint8)
    reference[:, 4:26, :] = 1  # the scan cuts the liver on four sides
    reference[4, 10:13, 12] = 2
    pair = CasePair("a", reference, reference, SPACING)
    border = LiverBorder.of(pair)
    assert border.distance(pair.lesions("ref"), 1) == pytest.approx(7 * 0.8)
    reference[4, 11, 17] = 0  # a hole
    pair = CasePair("a", reference, reference, SPACING)
    assert LiverBorder.of(pair).distance(pair.lesions("ref"), 1) == pytest.approx(5 * 0.8)
    reference[reference == 0] = 1
    pair = CasePair("a", reference, reference, SPACING)
    assert LiverBorder.of(pair).distance(pair.lesions("ref"), 1) is None


def test_nothing_without_an_image_a_spacing_or_parenchyma():
    image = np.where(distance() <= 8, 60, 110)
    assert surroundings(ball(image, spacing_trusted=False), 1) == module.Surroundings()
    pair = ball(image)
    assert surroundings(CasePair("a", pair.pred, pair.reference, SPACING), 1) == module.Surroundings()
    bare = np.where(pair.reference == 2, 2, 0).astype(np.uint8)
    assert surroundings(CasePair("a", bare, bare, SPACING, image=pair.image), 1) == module.Surroundings()
    full = np.full((3, 4, 5), 2, np.uint8)
    pair = CasePair("a", full, full, SPACING, image=np.zeros((3, 4, 5), np.int16))
    assert surroundings(pair, 1) == module.Surroundings()


def test_robust_figures_of_whole_numbers_are_not_steps():
    values = np.rint(np.random.default_rng(0).normal(100.3, 4.4, 20_000))
    median, sd = robust(values)
    assert (median, sd) == (pytest.approx(100.3, abs=0.1), pytest.approx(4.4, rel=0.03))
