import numpy as np
import pytest

from core.contracts import Example
from core.report.figures import PREDICTION, REFERENCE
from core.report.overlay import side_by_side


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def example(image=None, reference=None, pred=None):
    image = np.full((30, 40), 40, np.int16) if image is None else image
    reference = np.zeros(image.shape, np.uint8) if reference is None else reference
    return Example("c", 0, image, reference, np.zeros_like(reference) if pred is None else pred)


def test_three_panels_windowed_as_in_the_report():
    image = np.array([[-1000, -160, 40, 240, 3000]], np.int16).repeat(3, axis=0)
    picture = side_by_side(example(image))
    assert picture.dtype == np.uint8
    assert picture.shape == (3, 15, 3)
    assert picture[0, :, 0].tolist() == [0, 0, 128, 255, 255] * 3


def test_outlines_and_filled_tumours_in_the_reports_colours():
    reference, pred = np.zeros((2, 30, 40), np.uint8)
    reference[5:25, 5:35] = 1
    reference[10:15, 10:15] = 2
    pred[8:20, 8:20] = 1
    ct, with_reference, with_pred = np.split(side_by_side(example(None, reference, pred)), 3, axis=1)
    assert (ct == 128).all()
    assert with_reference[5, 20].tolist() == with_reference[10, 12].tolist() == rgb(REFERENCE)
    tint = (1 - 0.4) * 127.5 + 0.4 * np.array(rgb(REFERENCE))
    assert with_reference[12, 12] == pytest.approx(tint, abs=1)
    assert (with_reference[6, 20] == 128).all()
    assert (with_reference[4, 20] == 128).all()
    assert with_pred[8, 10].tolist() == rgb(PREDICTION)
    # Only the outline of a liver without a tumour: 12 x 12 less 10 x 10.
    assert (with_pred == rgb(PREDICTION)).all(axis=-1).sum() == 144 - 100


def test_cropped_to_the_body_whatever_is_predicted():
    image = np.full((60, 50), -1000, np.int16)
    image[20:40, 10:35] = 50
    wild = np.full((60, 50), 2, np.uint8)
    for pred in (None, wild):
        assert side_by_side(example(image, pred=pred)).shape == (20 + 8, 3 * (25 + 8), 3)
    image[:] = -1000
    assert side_by_side(example(image)).shape == (60, 150, 3)


def test_a_reference_at_the_edge_of_the_picture_has_no_line_along_it():
    reference = np.ones((30, 40), np.uint8)
    assert (side_by_side(example(reference=reference)) == 128).all()
