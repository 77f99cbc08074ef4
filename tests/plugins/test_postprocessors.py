import numpy as np
import pytest

import registry
from core import contracts
from core.infer.evaluate import apply_postprocess

registry.discover("plugins")
SPACING_MM = (2.0, 1.0, 0.5)  # a voxel is 0.001 ml
ARGUMENTS = {"drop_small": [{"min_voxels": 4}, {"structure": "liver", "min_ml": 0.01}], "largest_component": [{}]}


def build(name, **arguments):
    return registry.get("postprocess", name).target(**arguments)


def scene():
    labels = np.zeros((6, 20, 20), np.uint8)
    labels[1:5, 2:10, 2:10] = 1
    labels[2, 4, 4:7] = 2  # 3 voxels
    labels[3, 7:9, 7:9] = 2  # 4 voxels
    labels[1:3, 14:16, 14:16] = 1  # a second liver of 8 voxels, with a tumour of 1
    labels[1, 14, 14] = 2
    return labels


@pytest.mark.parametrize(("name", "arguments"), [(n, a) for n, many in ARGUMENTS.items() for a in many])
@pytest.mark.parametrize(
    "make", [scene, lambda: np.zeros((3, 4, 5), np.uint8), lambda: np.full((2, 3, 4), 2, np.uint8)]
)
def test_shape_and_dtype_are_kept_input_unchanged_and_twice_is_once(name, arguments, make):
    step, labels = build(name, **arguments), make()
    assert isinstance(step, contracts.Postprocess)
    before = labels.copy()
    out = apply_postprocess([step], labels, SPACING_MM)
    assert out.shape == labels.shape
    assert out.dtype == labels.dtype
    assert (labels == before).all()
    assert out is not labels
    assert (apply_postprocess([step], out, SPACING_MM) == out).all()


def test_largest_component_keeps_the_big_liver_with_its_tumours():
    out = build("largest_component")(scene(), SPACING_MM)
    expected = scene()
    expected[1:3, 14:16, 14:16] = 0
    assert (out == expected).all()


def test_largest_component_counts_liver_and_tumour_together():
    labels = np.zeros((1, 5, 12), np.uint8)
    labels[0, 1, 1:6] = (1, 1, 2, 1, 1)  # 5 voxels in one piece only if the tumour joins its two halves
    labels[0, 3, 8:12] = 1
    assert build("largest_component")(labels, SPACING_MM)[0, 1].sum() == 6
    assert build("largest_component")(labels, SPACING_MM)[0, 3].sum() == 0


def test_largest_component_settles_ties_by_place():
    labels = np.zeros((1, 5, 9), np.uint8)
    labels[0, 3, 0:2] = 1
    labels[0, 1, 5:7] = 1
    out = build("largest_component")(labels, SPACING_MM)
    assert out[0, 1, 5:7].tolist() == [1, 1]
    assert out.sum() == 2
    flipped = build("largest_component")(np.ascontiguousarray(labels[:, ::-1]), SPACING_MM)
    assert flipped[0, 1, 0:2].tolist() == [1, 1]
    assert flipped.sum() == 2


def test_connectivity_decides_whether_corners_touch():
    labels = np.zeros((2, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    assert build("largest_component")(labels, SPACING_MM).sum() == 2
    assert build("largest_component", connectivity=6)(labels, SPACING_MM).sum() == 1


def test_small_tumours_become_liver_and_those_of_the_least_size_stay():
    out = build("drop_small", min_voxels=4)(scene(), SPACING_MM)
    expected = scene()
    expected[2, 4, 4:7] = 1
    expected[1, 14, 14] = 1
    assert (out == expected).all()


@pytest.mark.parametrize(("min_ml", "kept"), [(0.003, 7), (0.004, 4), (0.0041, 0)])
def test_min_ml_follows_the_spacing(min_ml, kept):
    assert (build("drop_small", min_ml=min_ml)(scene(), SPACING_MM) == 2).sum() == kept


def test_a_small_liver_becomes_background_with_its_tumour():
    out = build("drop_small", structure="liver", min_voxels=9)(scene(), SPACING_MM)
    assert out[1:3, 14:16, 14:16].sum() == 0
    assert (out[:, :12, :12] == scene()[:, :12, :12]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either min_ml or min_voxels, got min_ml=None and min_voxels=None"),
        ({"min_ml": 1.0, "min_voxels": 3}, "give either min_ml or min_voxels, got min_ml=1.0 and min_voxels=3"),
        ({"min_ml": -1.0}, "min_ml must be positive, got -1.0"),
        ({"min_ml": float("nan")}, "min_ml must be positive, got nan"),
        ({"min_voxels": 0}, "min_voxels must be positive, got 0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match="min_") as error:
        build("drop_small", **arguments)
    assert str(error.value) == message
