import numpy as np
import pytest
import torch

from core.errors import UserError
from core.infer.geometry import Geometry, place, window
from core.values import AIR_HU, IGNORE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context": -1}, "context must not be negative, got -1"),
        ({"divisor": 0}, "divisor must be at least 1, got 0"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"size": (64, 0)}, "size must be at least 1, got (64, 0)"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"channels": 2, "context": 1}, "channels must be 3 with context 1 (2*context+1), got 2"),
        ({"context_mm": 0.0, "context": 1}, "context_mm must be positive or null, got 0"),
        ({"context_mm": float("inf"), "context": 1}, "context_mm must be positive or null, got inf"),
        ({"context_mm": 5.0}, "context_mm 5 needs neighbours: set context to 1 or more"),
    ],
)
def test_values_that_contradict_each_other_are_refused(arguments, message):
    with pytest.raises(ValueError, match=next(iter(arguments))) as error:
        Geometry(**arguments)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("arguments", "images", "repeat"),
    [({}, 1, 1), ({"channels": 3}, 1, 3), ({"context": 1}, 3, 1), ({"context": 1, "channels": 3}, 3, 1)],
)
def test_channels_are_neighbours_or_copies(arguments, images, repeat):
    geometry = Geometry(**arguments)
    assert (geometry.images, geometry.repeat) == (images, repeat)


def test_neighbours_repeat_the_end_slice():
    geometry = Geometry(context=2)
    assert geometry.neighbours(0, 5) == [0, 0, 0, 1, 2]
    assert geometry.neighbours(2, 5) == [0, 1, 2, 3, 4]
    assert geometry.neighbours(4, 5) == [2, 3, 4, 4, 4]
    assert geometry.neighbours(0, 1) == [0, 0, 0, 0, 0]


def test_neighbours_may_be_mirrored_at_the_ends():
    geometry = Geometry(context=3, ends="mirror")
    assert geometry.neighbours(0, 5) == [3, 2, 1, 0, 1, 2, 3]
    assert geometry.neighbours(4, 5) == [1, 2, 3, 4, 3, 2, 1]
    assert geometry.neighbours(1, 2) == [0, 1, 0, 1, 0, 1, 0]
    assert geometry.neighbours(0, 1) == [0] * 7


def test_neighbours_may_lie_at_a_distance_in_mm():
    geometry = Geometry(context=2, context_mm=4.0)
    assert geometry.neighbours(20, 50, 1.0) == [12, 16, 20, 24, 28]
    assert geometry.neighbours(20, 50, 2.5) == [17, 18, 20, 22, 23]  # 1.6 and 3.2 slices away
    assert geometry.neighbours(20, 50, 8.0) == [19, 19, 20, 21, 21]  # halves are rounded away on both sides
    assert geometry.neighbours(20, 50, 10.0) == [19, 20, 20, 20, 21]
    assert geometry.neighbours(2, 50, 1.0) == [0, 0, 2, 6, 10]
    assert Geometry(context=2, context_mm=4.0, ends="mirror").neighbours(2, 50, 1.0) == [6, 2, 2, 6, 10]


@pytest.mark.parametrize("spacing", [None, 0.0, float("nan")])
def test_a_distance_in_mm_needs_the_distance_of_the_slices(spacing):
    with pytest.raises(ValueError, match=r"^context_mm 4 needs the distance of the slices in mm$"):
        Geometry(context=1, context_mm=4.0).neighbours(3, 9, spacing)


def test_a_spacing_that_is_not_trusted_is_refused_only_where_it_counts():
    Geometry(context=1).check_spacing("case 'a'", trusted=False)
    Geometry(context=1, context_mm=4.0).check_spacing("case 'a'", trusted=True)
    with pytest.raises(UserError) as error:
        Geometry(context=1, context_mm=4.0).check_spacing("case 'a'", trusted=False)
    assert str(error.value) == (
        "case 'a': its spacing cannot be trusted, so no slice is known to be 4 mm away (context_mm); set "
        "dataset.context_mm=null to take adjacent slices, or leave the scan out of the split"
    )


@pytest.mark.parametrize(
    ("start", "size", "length", "placed"),
    [(3, 4, 10, 3), (-2, 4, 10, 0), (8, 4, 10, 6), (5, 10, 10, 0), (5, 13, 10, -2)],
)
def test_a_window_is_moved_inside_or_reaches_beyond_both_ends(start, size, length, placed):
    assert place(start, size, length) == placed


def test_a_window_and_what_it_covers():
    assert window([2, -1], [3, 4], [10, 2]) == ((slice(2, 5), slice(0, 2)), (slice(0, 3), slice(1, 3)))


def test_padding_is_air_ignored_and_taken_off_on_the_way_back():
    geometry = Geometry(divisor=16)
    image = np.arange(2 * 10 * 20, dtype=np.int16).reshape(2, 10, 20)
    padded = geometry.image(image)
    assert padded.shape == (2, 16, 32) == (2, *geometry.padded_yx((10, 20)))
    assert padded.dtype == np.int16
    assert (padded[:, :10, :20] == image).all()
    assert (padded[:, 10:] == AIR_HU).all()
    assert (padded[:, :, 20:] == AIR_HU).all()
    label = geometry.label(np.ones((2, 10, 20), np.uint8))
    assert (label[:, 10:] == IGNORE).all()
    assert (label[:, :10, :20] == 1).all()
    assert (geometry.lesion(np.ones((2, 10, 20), np.int32))[:, 10:] == 0).all()
    back = geometry.back(torch.from_numpy(padded)[:, None].float(), (10, 20))
    assert (back[:, 0].numpy() == image).all()


@pytest.mark.parametrize("size", [32, (24, 40), 96])
def test_resampling_there_and_back_does_not_move_anything(size):
    y, x = np.mgrid[:64, :80]
    disc = ((y - 30) ** 2 + (x - 45) ** 2 < 15**2).astype(np.int16) * 1000
    geometry = Geometry(size=size, divisor=8)
    there = geometry.image(disc[None])
    back = geometry.back(torch.from_numpy(there)[None].float(), disc.shape)[0, 0].numpy()
    assert back.shape == disc.shape

    def centre(a):
        return np.array([(a * y).sum() / a.sum(), (a * x).sum() / a.sum()])

    assert np.abs(centre(back.clip(0)) - centre(disc)).max() < 0.15


@pytest.mark.parametrize("size", [32, 48, 96])
def test_image_and_label_stay_on_top_of_each_other(size):
    label = np.zeros((1, 64, 64), np.uint8)
    label[0, 10:40, 21:50] = 1
    geometry = Geometry(size=size, divisor=1)
    image = geometry.image(label.astype(np.int16) * 1000)
    resampled = geometry.label(label)
    assert set(np.unique(resampled)) == {0, 1}
    # Where the two disagree, the image is undecided: the voxel lies on the border.
    wrong = (image[0] > 500) != (resampled[0] == 1)
    assert (np.abs(image[0][wrong].astype(int) - 500) <= 260).all()
    assert resampled.sum() / size**2 == pytest.approx(label.sum() / 64**2, rel=0.06)


def test_large_lesion_ids_survive_resampling():
    ids = np.zeros((1, 64, 64), np.int32)
    ids[0, 8:40, 8:40] = 4321
    out = Geometry(size=32, divisor=1).lesion(ids)
    assert out.dtype == np.int32
    assert set(np.unique(out)) == {0, 4321}


def test_a_grid_that_needs_nothing_copies_nothing():
    image = np.zeros((3, 64, 64), np.int16)
    assert Geometry(divisor=32).image(image) is image
    assert Geometry(size=64, divisor=32).image(image) is image
