import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

from core.contracts import Record
from core.report.drawn import count, draw, table

RECORDS = [
    Record("a", "p", 0, 90, 10, (1, 2), (4.0, 12.0)),
    Record("a", "p", 1, 80, 0),
    Record("b", "q", 0, 0, 0),
    Record("b", "q", 1, 90, 5, (1,), (math.nan,)),
]
ORDER = [0, 0, 1, 3, 0]


def test_counts_of_cases_lesions_and_sizes():
    drawn = count(RECORDS, ORDER)
    assert drawn.kinds.tolist() == [0, 0, 1, 0, 0]
    assert drawn.cases == {"a": (3, 1), "b": (1, 0)}
    assert drawn.lesions == {("a", 1): 3, ("a", 2): 3, ("b", 1): 1}
    assert drawn.by_size() == [("0_10mm", 1, 3), ("10_20mm", 1, 3), ("20mm_up", 0, 0), ("unknown", 1, 1)]


def test_the_table_says_what_is_there_and_what_was_drawn():
    assert table(RECORDS, ORDER).splitlines() == [
        "samples    5, 3 different ones of 4; 80.0 % tumour, 20.0 % liver, 0.0 % empty",
        "cases      2 of 2, each 1 to 4 times",
        "lesions    3 of 3, each 1 to 3 times",
        "  0_10mm   1 lesions shown 3 times: 33.3 % of the lesions, 42.9 % of those drawn",
        "  10_20mm  1 lesions shown 3 times: 33.3 % of the lesions, 42.9 % of those drawn",
        "  unknown  1 lesions shown 1 times: 33.3 % of the lesions, 14.3 % of those drawn",
    ]


@pytest.mark.parametrize(
    ("records", "order"),
    [
        (RECORDS, ORDER),
        (RECORDS[1:3], [0, 1, 1]),
        (RECORDS[3:], [0]),
        ([Record(f"c{i}", "p", 0, 9, 1, (1,), (i + 1.0,)) for i in range(99)], list(range(99))),
    ],
    ids=["all", "no lesion", "no size known", "many cases"],
)
def test_a_picture_is_drawn_of_any_order(tmp_path, records, order):
    draw(tmp_path / "drawn.png", records, order, title="PHANTOM")
    image = plt.imread(tmp_path / "drawn.png")
    assert image.shape == (960, 1500, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.png"]
    # In each quarter there is something to see.
    for rows in (slice(60, 480), slice(500, 960)):
        for columns in (slice(0, 750), slice(750, 1500)):
            assert np.ptp(image[rows, columns, :3]) > 0.5
