"""Metrics `volume`, `surface` and `lesions`: their rows and what their summaries say."""

import json
import math

import numpy as np
import pytest

import registry
from core.infer.evaluate import merge_tables, summarise
from core.measure.pair import CasePair
from core.values import LIVER, TUMOUR

registry.discover("plugins")
SHAPE, SPACING = (8, 24, 24), (2.5, 1.0, 1.0)


def build(name, **arguments):
    return registry.get("metric", name).target(**arguments)


def labels(tumour=None, liver=np.s_[1:7, 2:22, 2:22]):
    out = np.zeros(SHAPE, np.uint8)
    out[liver] = LIVER
    if tumour is not None:
        out[tumour] = TUMOUR
    return out


HERE, BESIDE, LARGE = np.s_[2:4, 4:8, 4:8], np.s_[2:4, 4:8, 6:10], np.s_[2:4, 4:8, 4:12]


def pair(name, pred, ref, **more):
    return CasePair(name, pred, ref, more.pop("spacing", SPACING), **more)


def measured(metrics, pairs):
    tables = merge_tables(metric.measure(p) for p in pairs for metric in metrics)
    return tables, json.loads(json.dumps(summarise(metrics, tables), allow_nan=False))


def row(tables, case, structure):
    return next(r for r in tables["cases"] if (r["case"], r["structure"]) == (case, structure))


def test_errors_of_volume_and_burden_by_hand():
    pairs = [pair("more", labels(LARGE), labels(HERE)), pair("less", labels(HERE), labels(LARGE))]
    tables, out = measured([build("volume")], pairs)
    more = row(tables, "more", "tumour")
    assert (more["voe"], more["rvd"], more["precision"], more["recall"]) == (0.5, 1.0, 0.5, 1.0)
    assert (more["volume_ml_pred"], more["volume_ml_ref"]) == (pytest.approx(0.16), pytest.approx(0.08))
    assert (more["burden_pred"], more["burden_ref"]) == (64 / 2400, 32 / 2400)
    tumour = out["tumour"]
    assert (tumour["rvd"]["mean"], tumour["rvd_abs"]["mean"]) == (pytest.approx(0.25), pytest.approx(0.75))
    assert (tumour["rvd"]["global"], tumour["voe"]["global"]) == (0.0, 0.5)
    assert out["tumour_burden"]["rmse"] == out["tumour_burden"]["max_abs"] == pytest.approx(32 / 2400)
    assert (out["tumour_burden"]["difference"]["mean"], out["tumour_burden"]["difference"]["n"]) == (0.0, 2)
    assert "slices" not in tables


def test_without_a_liver_there_is_no_burden_and_no_false_zero():
    tables, out = measured([build("volume")], [pair("a", np.zeros(SHAPE, np.uint8), labels(HERE))])
    tumour = row(tables, "a", "tumour")
    assert (tumour["burden_pred"], tumour["burden_ref"]) == (None, 32 / 2400)
    assert (tumour["precision"], tumour["recall"], tumour["rvd"], tumour["voe"]) == (None, 0.0, -1.0, 1.0)
    assert out["tumour_burden"]["rmse"] is out["tumour_burden"]["max_abs"] is None
    assert out["tumour_burden"]["difference"]["left_out"] == 1
    assert set(row(tables, "a", "background")[name] for name in ("voe", "rvd", "precision", "recall")) == {None}


def test_surfaces_say_what_they_are_and_which_tolerance_is_below_the_slices():
    pairs = [
        pair("thick", labels(BESIDE), labels(HERE)),
        pair("thin", labels(BESIDE), labels(HERE), spacing=(1.0, 1.0, 1.0)),
        pair("unknown", labels(BESIDE), labels(HERE), spacing_trusted=False),
    ]
    tables, out = measured([build("surface", tolerances_mm=(0.5, 1.0, 2.5))], pairs)
    thick = row(tables, "thick", "tumour")
    assert (thick["hd_mm"], thick["nsd_2.5mm"]) == (2.0, 1.0)
    assert thick["assd_mm"] < thick["rmsd_mm"] < thick["hd95_mm"] == 2.0
    assert set(row(tables, "unknown", "tumour").values()) == {"unknown", "tumour", None}
    assert [r["structure"] for r in tables["cases"][:2]] == ["liver", "tumour"]
    assert out["surface"] == {
        "definition": "edge6",
        "empty": "lits",
        "tolerances_mm": [0.5, 1.0, 2.5],
        "spacing_not_trusted": 1,
        "cases_with_slices_above_tolerance": {"0.5": 2, "1": 1, "2.5": 0},
    }
    assert (out["tumour"]["hd_mm"]["mean"], out["tumour"]["hd_mm"]["n"]) == (2.0, 2)


@pytest.mark.parametrize(("empty", "hd", "nsd"), [("lits", (2.0, 1), 0.5), ("worst", (None, 2), 0.5)])
def test_a_missed_tumour_lowers_the_nsd_and_never_hides(empty, hd, nsd):
    pairs = [pair("found", labels(BESIDE), labels(HERE)), pair("missed", labels(), labels(HERE))]
    _, out = measured([build("surface", empty=empty)], pairs)
    mean, n = hd
    diagonal = math.sqrt(20.0**2 + 24**2 + 24**2)
    assert out["tumour"]["hd_mm"]["mean"] == pytest.approx((2.0 + diagonal) / 2 if mean is None else mean)
    assert (out["tumour"]["hd_mm"]["n"], out["tumour"]["nsd_2mm"]["mean"]) == (n, nsd)


def test_lesions_fill_the_tumours_row_and_count_false_ones_of_tumour_free_cases():
    metrics = [build("dice"), build("lesions")]
    pairs = [pair("found", labels(BESIDE), labels(HERE)), pair("free", labels(HERE), labels())]
    tables, out = measured(metrics, pairs)
    found, free = row(tables, "found", "tumour"), row(tables, "free", "tumour")
    names = ("lesions_ref", "lesions_pred", "tp_any", "fp_any", "tp_iou_0.1", "tp_iou_0.5", "fp_iou_0.5")
    assert [found[n] for n in names] == [1, 1, 1, 0, 1, 0, 1]
    assert [free[n] for n in names] == [0, 1, 0, 1, 0, 0, 1]
    assert found["dice"] == 0.5
    assert out["tumour_free"]["n"] == 1
    assert out["tumour_free"]["false_positive_lesions"]["mean"] == 1.0
    assert (out["lesions"]["any"]["recall"], out["lesions"]["iou_0.5"]["recall"]) == (1.0, 0.0)
    assert out["lesions"]["froc"]["why"] == "no probabilities for 2 of 2 cases, such as 'found'"


def test_lesions_of_an_empty_data_set_are_no_zeros():
    out = build("lesions").summarise({})
    assert (out["lesions"]["any"]["recall"], out["lesions"]["any"]["tp"]) == (None, 0)
    json.dumps(out, allow_nan=False)


def test_probabilities_are_asked_for_and_used():
    metric = build("lesions")
    assert metric.probabilities
    pred = labels(HERE)
    probabilities = np.stack([pred == k for k in range(3)]).astype(np.float16)
    _, out = measured([metric], [pair("a", pred, labels(HERE), probabilities=probabilities)])
    assert out["lesions"]["froc"]["recall_at"]["0.25"] == 1.0


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("dice", {"empty": "one"}, "unknown policy for empty masks 'one', known: lits, nan, worst"),
        ("surface", {"surface": "edge4"}, "unknown surface 'edge4', known: edge6, edge18, element"),
        ("surface", {"tolerances_mm": ()}, r"tolerances_mm must be one or more numbers of 0 mm or more, got \[\]"),
        ("surface", {"structures": ("lung",)}, r"structures must be some of liver, parenchyma, tumour, got \['lung'\]"),
        ("lesions", {"connectivity": 4}, "connectivity must be 6, 18 or 26, got 4"),
        ("lesions", {"size_bins_mm": (20, 10)}, r"size_bins_mm must be rising numbers above 0, got \[20, 10\]"),
        ("lesions", {"min_lesion_ml": -1.0}, "min_lesion_ml must be 0 or more, got -1.0"),
    ],
)
def test_bad_arguments_say_what_is_wrong(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(name, **arguments)
