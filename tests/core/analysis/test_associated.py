import pytest

from core.analysis.associated import Thresholds, associated, judged

PLAIN = {
    "diameter_mm": 20.0,
    "contrast_hu": -50.0,
    "border_hu_per_mm": 9.0,
    "slice_thickness_mm": 1.0,
    "border_distance_mm": 30.0,
    "merged": 0,
    "slices": 20,
    "voxels": 4000,
}


@pytest.mark.parametrize(
    ("change", "features"),
    [
        ({}, []),
        ({"diameter_mm": 9.99}, ["small"]),
        ({"diameter_mm": 10.0}, []),
        ({"contrast_hu": -19.0}, ["low_contrast"]),
        ({"border_hu_per_mm": 3.9}, ["blurred_border"]),
        ({"slice_thickness_mm": 3.0}, []),
        ({"slice_thickness_mm": 5.0}, ["thick_slices"]),
        ({"border_distance_mm": 5.0}, ["at_liver_border"]),
        ({"merged": 1}, ["merged"]),
        ({"slices": 1}, ["doubtful_label"]),
        ({"voxels": 5}, ["doubtful_label"]),
        ({"contrast_hu": -4.0}, ["low_contrast", "doubtful_label"]),
        ({"diameter_mm": 5.0, "slice_thickness_mm": 5.0, "slices": 1}, ["small", "thick_slices", "doubtful_label"]),
        (dict.fromkeys(("diameter_mm", "contrast_hu", "border_hu_per_mm", "slice_thickness_mm")), []),
    ],
)
def test_features_by_fixed_thresholds(change, features):
    assert associated({**PLAIN, **change}, [-50.0, -40.0], Thresholds()) == features


def test_a_sign_against_that_of_the_others_makes_the_label_doubtful():
    bright = {**PLAIN, "contrast_hu": 40.0}
    assert associated(bright, [-50.0, -40.0], Thresholds()) == ["doubtful_label"]
    assert associated(bright, [], Thresholds()) == []
    assert associated(bright, [-2.0, 1.0], Thresholds()) == []  # the others have no clear sign


def test_what_is_not_known_is_not_judged():
    assert judged(PLAIN, "low_contrast")
    assert not judged({**PLAIN, "contrast_hu": None}, "low_contrast")
    assert judged({}, "merged")


def test_titles_say_the_thresholds_and_bad_ones_are_refused():
    assert Thresholds(small_mm=15).titles()["small"] == "diameter below 15 mm"
    with pytest.raises(ValueError, match="small_mm must be a number of at least 0, got -1"):
        Thresholds(small_mm=-1)
