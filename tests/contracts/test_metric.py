import json
import math

import numpy as np
import pytest

import registry
from core.measure.pair import CLASSES, CasePair


def pair(case, pred=None, reference=None, **more):
    shape = (5, 20, 18)
    empty = np.zeros(shape, np.uint8)
    return CasePair(
        case, empty if pred is None else pred, empty if reference is None else reference, (2.5, 0.8, 0.8), **more
    )


def reference():
    labels = np.zeros((5, 20, 18), np.uint8)
    labels[1:4, 3:15, 3:15] = 1
    labels[2, 5:9, 5:9] = 2
    return labels


def likely(labels):
    """Probabilities ``[3, Z, Y, X]`` of which the labels are the likeliest."""
    return np.stack([np.where(labels == k, 0.8, 0.1) for k in range(3)]).astype(np.float16)


def pairs():
    shifted = np.roll(reference(), 1, axis=1)
    liver_only = np.minimum(reference(), 1)
    return [
        pair("both-empty"),
        pair("normal", shifted, reference()),
        pair("perfect", reference(), reference()),
        pair("missed-tumour", liver_only, reference()),
        pair("false-tumour", reference(), liver_only),
        pair("nothing-found", None, reference()),
        pair("nothing-there", reference(), None),
        pair("untrusted", shifted, reference(), spacing_trusted=False),
        pair("with-image", shifted, reference(), image=(reference() * 40).astype(np.int16), patient="same"),
        pair("with-all", shifted, reference(), image=np.zeros((5, 20, 18), np.int16), probabilities=likely(shifted)),
        pair("nothing-likely", None, None, probabilities=likely(np.zeros((5, 20, 18), np.uint8)), patient="same"),
    ]


@pytest.fixture(params=registry.names("metric"))
def metric(request, build):
    return build("metric", request.param)


@pytest.mark.parametrize("which", range(len(pairs())), ids=[p.case for p in pairs()])
def test_measures_every_case_in_rows_named_after_it(metric, which):
    one = pairs()[which]
    before = one.pred.copy(), one.reference.copy()
    tables = metric.measure(one)
    assert tables, "no table"
    for rows in tables.values():
        assert all(row["case"] == one.case for row in rows)
        json.dumps(rows, allow_nan=False)  # not a number is an empty field, None
    for row in tables.get("cases", []):
        assert row["structure"] in CLASSES
    assert np.array_equal(one.pred, before[0])
    assert np.array_equal(one.reference, before[1])


def merged(metric, those):
    tables = {}
    for one in those:
        for table, rows in metric.measure(one).items():
            tables.setdefault(table, []).extend(rows)
    return tables


def leaves(tree):
    for value in tree.values():
        yield from leaves(value) if isinstance(value, dict) else [value]


@pytest.mark.parametrize("count", [1, len(pairs())])
def test_summarises_to_nested_figures_that_are_finite_or_absent(metric, count):
    summary = metric.summarise(merged(metric, pairs()[:count]))
    json.dumps(summary, allow_nan=False)
    assert all(math.isfinite(v) for v in leaves(summary) if isinstance(v, float))
    assert summary


def test_figures_do_not_depend_on_the_order_of_cases(metric):
    forth = metric.summarise(merged(metric, pairs()))
    back = metric.summarise(merged(metric, pairs()[::-1]))
    assert json.loads(json.dumps(back), parse_float=lambda f: round(float(f), 9)) == json.loads(
        json.dumps(forth), parse_float=lambda f: round(float(f), 9)
    )
