import math

from core.contracts import Record
from core.data.drawn import bin_names, size_bin, statistics


def test_shares_of_samples_and_of_lesions_by_size():
    records = [
        Record("a", "p", 0, 90, 10, (1, 2), (4.0, 12.0)),
        Record("a", "p", 1, 80, 0),
        Record("b", "q", 0, 0, 0),
        Record("b", "q", 1, 90, 5, (1,), (math.nan,)),
    ]
    assert statistics(records, [0, 0, 1, 2, 3]) == {
        "tumour": 3 / 5,
        "liver": 1 / 5,
        "empty": 1 / 5,
        "cases": 2,
        "lesions": 3,
        "lesion_0_10mm": 2 / 5,
        "lesion_10_20mm": 2 / 5,
        "lesion_20mm_up": 0,
        "lesion_unknown": 1 / 5,
    }


def test_nothing_drawn_has_no_figures():
    assert statistics([Record("a", "p", 0, 1, 0)], []) == {}


def test_a_bound_belongs_to_the_bin_above_it():
    names = bin_names([10.0, 20.0])
    sizes = (0.5, 9.99, 10, 20, 45, math.nan)
    assert [names[size_bin(d, [10.0, 20.0])] for d in sizes] == [
        *("0_10mm", "0_10mm", "10_20mm", "20mm_up", "20mm_up", "unknown")
    ]
