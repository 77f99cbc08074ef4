import numpy as np
import pytest

import registry
from core.infer.evaluate import apply_postprocess

registry.discover("plugins")
SPACING_MM = (1.0, 1.0, 1.0)


def build(threshold):
    return registry.get("postprocess", "tumour_threshold").target(threshold=threshold)


def scene():
    """Labels of the likeliest class and probabilities [K, Z, Y, X]; one row, and an empty slice before it."""
    background = [0.9, 0.5, 0.1, 0.1, 0.1, 0.4]
    tumour = [0.1, 0.45, 0.25, 0.5, 0.8, 0.35]
    row = np.array([background, 1 - np.add(background, tumour), tumour])
    probabilities = np.zeros((3, 2, 1, 6), np.float16)
    probabilities[0], probabilities[:, 1, 0] = 1, row
    return probabilities.argmax(axis=0).astype(np.uint8), probabilities


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.25, [0, 0, 2, 2, 2, 0]), (0.5, [0, 0, 1, 2, 2, 0]), (0.6, [0, 0, 1, 1, 2, 0]), (1.0, [0, 0, 1, 1, 1, 0])],
)
def test_the_threshold_decides_inside_the_liver_alone(threshold, expected):
    labels, probabilities = scene()
    assert labels[1, 0].tolist() == [0, 0, 1, 2, 2, 0]
    before = labels.copy()
    out = apply_postprocess([build(threshold)], labels, SPACING_MM, probabilities)
    assert out[1, 0].tolist() == expected
    assert not out[0].any()
    assert (labels == before).all()
    assert (out.dtype, out.shape) == (labels.dtype, labels.shape)
    assert (apply_postprocess([build(threshold)], out, SPACING_MM, probabilities) == out).all()


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.5, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold") as error:
        build(threshold)
    assert str(error.value) == f"threshold must be above 0 and at most 1, got {threshold}"


def test_without_probabilities_it_says_so():
    with pytest.raises(ValueError, match="probabilities") as error:
        apply_postprocess([build(0.5)], scene()[0], SPACING_MM)
    assert str(error.value) == "tumour_threshold needs the network's probabilities, and there are none"
