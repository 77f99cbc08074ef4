import numpy as np
import pytest

from core.analysis.false_positives import elongation, false_positive
from core.measure.pair import CasePair

SPACING = (2.0, 1.0, 1.0)
BOXES = {
    "inside": (slice(8, 10), slice(20, 23), slice(20, 23)),
    "liver_border": (slice(8, 10), slice(10, 13), slice(20, 23)),
    "vessel_like": (slice(8, 10), slice(28, 30), slice(18, 32)),
    "gallbladder_like": (slice(12, 15), slice(36, 40), slice(20, 24)),
    "outside_liver": (slice(2, 4), slice(44, 47), slice(2, 5)),
}
HU = {"inside": 110, "liver_border": 110, "vessel_like": 170, "gallbladder_like": 12, "outside_liver": 40}


def pair(**more):
    shape = (20, 50, 50)
    reference = np.zeros(shape, np.uint8)
    reference[2:18, 8:36, 8:42] = 1
    pred, image = reference.copy(), np.where(reference == 1, 110, 40)
    for name, box in BOXES.items():
        pred[box] = 2
        image[box] = HU[name]
    image = np.rint(image + np.random.default_rng(0).normal(0, 5, shape)).astype(np.int16)
    return CasePair("a", pred, reference, SPACING, **{"image": image, **more})


def places(one):
    lesions = one.lesions("pred")
    assert lesions.count == len(BOXES)
    ids = {name: int(lesions.inside(box).max()) for name, box in BOXES.items()}
    return {name: false_positive(one, i, 5.0) for name, i in ids.items()}


def test_each_place_by_its_definition():
    got = places(pair())
    assert {name: row["place"] for name, row in got.items()} == {name: name for name in BOXES}
    assert {name: row["mean_hu"] for name, row in got.items()} == pytest.approx(HU, abs=3)
    assert got["liver_border"]["border_distance_mm"] == pytest.approx(3)
    assert got["gallbladder_like"]["border_distance_mm"] == 0


def test_without_an_image_or_a_spacing_less_is_said():
    got = places(pair(image=None))
    assert got["gallbladder_like"] == {"mean_hu": None, "border_distance_mm": 0, "place": "outside_liver"}
    assert got["vessel_like"]["place"] == "inside"
    got = places(pair(spacing_trusted=False))
    assert got["gallbladder_like"]["place"] == "gallbladder_like"  # it touches the liver
    assert (got["liver_border"]["place"], got["vessel_like"]["place"]) == ("inside", "inside")
    assert got["liver_border"]["border_distance_mm"] is None


def test_a_textured_or_dense_region_is_no_gallbladder():
    one = pair()
    one.image[BOXES["gallbladder_like"]] += np.random.default_rng(1).normal(0, 15, (3, 4, 4)).astype(np.int16)
    assert places(one)["gallbladder_like"]["place"] == "outside_liver"


def test_elongation_in_mm():
    assert elongation(np.ones((10, 2, 2), bool), (1, 1, 1)) == pytest.approx(5)
    assert elongation(np.ones((10, 2, 2), bool), (1, 5, 5)) == pytest.approx(1)  # a cube of 10 mm
    assert elongation(np.ones((1, 1, 1), bool), (1, 1, 1)) == pytest.approx(1)
    assert elongation(np.ones((1, 9, 9), bool), (1, 1, 1)) == pytest.approx(1)  # a plate is no tube
