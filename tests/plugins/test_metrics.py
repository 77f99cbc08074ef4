import json

import numpy as np
import pytest

import registry
from core import contracts
from core.infer.evaluate import merge_tables, summarise
from core.measure.pair import CasePair

registry.discover("plugins")
METRICS = registry.names("metric")
CASES_COLUMNS = {"case", "structure"}


def build(name, **arguments):
    return registry.get("metric", name).target(**arguments)


def pairs():
    rng = np.random.default_rng(1)
    ref = np.zeros((6, 12, 12), np.uint8)
    ref[1:5, 2:10, 2:10] = 1
    ref[2:4, 4:7, 4:7] = 2
    pred = ref.copy()
    noise = rng.random(ref.shape) < 0.1
    pred[noise] = rng.integers(0, 3, int(noise.sum()))
    free = np.minimum(ref, 1)
    empty = np.zeros_like(ref)
    sides = [(pred, ref), (ref, ref), (pred, free), (free, free), (empty, ref), (pred, empty), (empty, empty)]
    return [
        CasePair(str(i), p.copy(), r.copy(), (3.0, 0.8, 0.8), spacing_trusted=i % 2 == 0)
        for i, (p, r) in enumerate(sides)
    ]


def test_the_first_metrics_are_there():
    assert {"dice", "iou"} <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_keeps_its_contract(name):
    metric = build(name)
    assert isinstance(metric, contracts.Metric)
    before = [(p.pred.copy(), p.reference.copy()) for p in pairs()]
    measured = pairs()
    tables = [metric.measure(p) for p in measured]
    for (pred, ref), p in zip(before, measured, strict=True):
        assert (p.pred == pred).all()
        assert (p.reference == ref).all()
    for table in tables:
        assert all(row.keys() >= CASES_COLUMNS for row in table.get("cases", []))
    merged = merge_tables(tables)
    assert len(merged.get("cases", [])) == sum(len(table.get("cases", [])) for table in tables)
    assert json.dumps(metric.summarise(merged))
    assert json.dumps(metric.summarise({"cases": []}))


def test_dice_and_iou_share_one_row_a_case_and_structure():
    metrics = [build("dice"), build("iou")]
    tables = merge_tables(metric.measure(p) for p in pairs() for metric in metrics)
    assert len(tables["cases"]) == 7 * 4
    for row in tables["cases"] + tables["slices"]:
        dice, iou = row["dice"], row["iou"]
        assert iou == pytest.approx(dice / (2 - dice))
    out = summarise(metrics, tables)
    assert set(out["tumour"]) == {"dice", "iou"}
    assert out["tumour"]["dice"]["n_tumour_bearing"] == 3
    assert out["tumour_free"]["n"] == 4


def test_empty_is_an_argument():
    both_empty = pairs()[6]
    score = {e: build("dice", empty=e).measure(both_empty)["cases"][2]["dice"] for e in ("lits", "nan", "worst")}
    assert score == {"lits": 1.0, "nan": None, "worst": 1.0}
