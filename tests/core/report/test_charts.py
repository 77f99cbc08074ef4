"""Charts as SVG: where the marks are, what they say without eyes, and that nothing gets through unescaped."""

import re
from xml.etree import ElementTree

import pytest

from core.report import charts, curves
from core.report.drawing import span

EVIL = '<script>x</script>"&'


def shapes(drawing, tag, kind):
    return [e for e in ElementTree.fromstring(drawing).iter(tag) if e.get("class") == kind]


def test_zeros_stand_apart_and_bins_hold_the_rest():
    drawing = charts.histogram("Tumour", [0.0] * 5 + [0.01, 0.52, 0.53, 1.0], "lesions", "tumour")
    (zero,) = shapes(drawing, "rect", "hatch-tumour")
    bars = shapes(drawing, "rect", "tumour")
    assert [bar[0].text for bar in bars] == [
        "1 lesions: 0.00 to 0.05",
        "2 lesions: 0.50 to 0.55",
        "1 lesions: 0.95 to 1.00",
    ]
    assert float(zero.get("height")) == pytest.approx(136)
    assert float(bars[1].get("height")) == pytest.approx(136 * 2 / 5, abs=0.01)
    label = ElementTree.fromstring(drawing).get("aria-label")
    assert label == "Tumour. 9 lesions, 5 with a Dice of 0, the others from 0.01 to 1.00, median 0.53."


def test_bins_show_recall_and_dice_with_their_intervals_and_gaps_are_not_bridged():
    dice = {"mean": 0.5, "ci95": [0.4, 0.6]}
    bins = [
        {"low": 0, "high": 10, "n": 4, "recall": 0.25, "recall_ci95": None, "dice": dice},
        {"low": 10, "high": 20, "n": 0, "recall": None, "recall_ci95": None, "dice": {"mean": None}},
        {"low": 20, "high": None, "n": 9, "recall": 1.0, "recall_ci95": [0.9, 1.0], "dice": dice},
    ]
    drawing = charts.binned("diameter", "mm", bins)
    marks = shapes(drawing, "circle", "mark recall")
    assert [float(mark.get("cy")) for mark in marks] == [118.0, 16.0]  # from 152 for 0 to 16 for 1
    assert len(shapes(drawing, "path", "mark dice")) == 2
    assert (len(shapes(drawing, "line", "whisker recall")), len(shapes(drawing, "line", "whisker dice"))) == (3, 6)
    assert shapes(drawing, "line", "thread recall") == []
    assert "0 to 10 mm: 4, found 0.25, mean Dice 0.50" in drawing
    assert "&gt;= 20 mm: 9, found 1.00, mean Dice 0.50" in drawing


def test_froc_has_a_step_for_each_point_and_marks_what_is_quoted():
    drawing = curves.froc([[0.0, 0.2], [1.0, 0.6], [20.0, 0.9]], {"1": 0.6, "8": 0.6, "4": None})
    assert len(shapes(drawing, "circle", "mark recall")) == 2
    assert "recall 0.60 at 1 false positives a case" in drawing
    (curve,) = shapes(drawing, "polyline", "curve recall")
    heights = [float(point.split(",")[1]) for point in curve.get("points").split()]
    assert heights == pytest.approx([188 - 0.2 * 164, 188 - 0.2 * 164, 188 - 0.6 * 164, 188 - 0.6 * 164], abs=0.06)


def test_probabilities_that_come_true_lie_on_the_diagonal():
    bins = [{"voxels": 5, "predicted": 0.25, "observed": 0.25}, {"voxels": 0, "predicted": None, "observed": None}]
    drawing = curves.reliability([*bins, {"voxels": 7, "predicted": 1.0, "observed": 0.5}])
    marks = shapes(drawing, "circle", "mark recall")
    assert [(float(m.get("cx")), float(m.get("cy"))) for m in marks] == [(127.0, 144.5), (388.0, 101.0)]
    assert "predicted 1.00, observed 0.50, 7 voxels" in drawing


def test_odds_ratios_are_logarithmic_around_one():
    terms = [
        {"name": "size", "unit": "doubling", "odds_ratio": ratio, "ci95": [ratio / 2, ratio * 2]}
        for ratio in (2.0, 0.5)
    ]
    marks = shapes(charts.forest(terms), "path", "mark dice")
    xs = [float(re.match(r"M([\d.]+)", mark.get("d")).group(1)) for mark in marks]
    (one,) = {float(line.get("x1")) for line in shapes(charts.forest(terms), "line", "split")}
    assert xs[0] - one == pytest.approx(one - xs[1])
    assert xs[0] > one


def test_rates_of_missed_and_found_are_told_apart_by_shape():
    drawing = charts.shares(
        [{"name": "small", "title": EVIL, "missed": 3, "missed_n": 4, "found": 1, "found_n": 4}, {"name": "none"}]
    )
    (missed,), (found,) = shapes(drawing, "rect", "mark missed"), shapes(drawing, "circle", "mark found")
    assert float(missed.get("x")) + 4.5 > float(found.get("cx"))
    assert "missed 75 %, found 25 %" in drawing
    assert "<script" not in drawing


@pytest.mark.parametrize(
    "drawing",
    [
        charts.histogram(EVIL, [0.5], EVIL, "liver"),
        charts.histogram("none", [], "cases", "liver"),
        charts.binned(EVIL, EVIL, [{"low": 0, "high": 1, "n": 1, "recall": 0.5, "dice": None}]),
        charts.binned("none", "", []),
        curves.froc([], {}),
        charts.forest([{"name": EVIL, "unit": EVIL, "odds_ratio": 1e9, "ci95": [1e-9, None]}]),
        charts.forest([]),
        charts.shares([]),
        curves.reliability([]),
    ],
)
def test_whatever_comes_it_is_one_well_formed_element(drawing):
    root = ElementTree.fromstring(drawing)
    assert root.tag == "svg"
    assert (root.get("role"), bool(root.get("aria-label"))) == ("img", True)
    assert [e for e in root.iter() if e.tag == "script"] == []


@pytest.mark.parametrize(
    ("low", "high", "name"), [(0, 10, "0 to 10"), (20, None, ">= 20"), (None, 5, "< 5"), (None, None, "all")]
)
def test_bins_have_names(low, high, name):
    assert span(low, high) == name
