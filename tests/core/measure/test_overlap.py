import json

import numpy as np
import pytest

from core.errors import UserError
from core.measure import overlap
from core.measure.pair import CasePair, Counts
from core.values import LIVER, TUMOUR


def pair(pred, ref, **kwargs):
    return CasePair("a", pred, ref, (2.0, 1.0, 1.0), **kwargs)


def by_hand():
    """Reference: 8 liver voxels of which 2 are tumour; prediction: 6 of them, 1 tumour right, 1 wrong."""
    ref, pred = np.zeros((4, 6, 6), np.uint8), np.zeros((4, 6, 6), np.uint8)
    ref[1, 1:3, 1:5] = LIVER
    ref[1, 1, 1:3] = TUMOUR
    pred[1, 1:3, 1:4] = LIVER
    pred[1, 1, 2:4] = TUMOUR
    return pred, ref


def test_counts_by_hand():
    p = pair(*by_hand())
    assert p.counts("liver") == Counts(6, 8, 6)
    assert p.counts("tumour") == Counts(2, 2, 1)
    assert p.counts("parenchyma") == Counts(4, 6, 3)
    assert p.counts("background") == Counts(138, 136, 136)


def test_counts_equal_those_of_the_whole_volume_for_random_labels():
    rng = np.random.default_rng(0)
    pred, ref = (rng.integers(0, 3, (5, 9, 7)).astype(np.uint8) for _ in range(2))
    pred[0], ref[0], pred[:, :2], ref[:, :2] = 0, 0, 0, 0
    p = pair(pred, ref)
    masks = {"liver": lambda a: a > 0, "parenchyma": lambda a: a == 1, "tumour": lambda a: a == 2}
    masks["background"] = lambda a: a == 0
    for name, mask in masks.items():
        expected = Counts(mask(pred).sum(), mask(ref).sum(), (mask(pred) & mask(ref)).sum())
        assert p.counts(name) == expected, name


def test_box_is_the_smallest_with_both_sides_and_masks_lie_in_it():
    pred, ref = np.zeros((5, 6, 7), np.uint8), np.zeros((5, 6, 7), np.uint8)
    pred[1, 2, 3] = LIVER
    ref[3, 4, 2] = TUMOUR
    p = pair(pred, ref)
    assert p.box == (slice(1, 4), slice(2, 5), slice(2, 4))
    mask_pred, mask_ref = p.structure("liver")
    assert mask_pred.shape == mask_ref.shape == (3, 3, 2)
    assert p.crop(pred).shape == (3, 3, 2)
    assert p.slice_counts("liver").tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_masks_and_metrics_own_values_are_computed_once():
    p = pair(*by_hand())
    assert p.structure("tumour")[0] is p.structure("tumour")[0]
    calls = []
    for _ in range(2):
        assert p.cached("mine", lambda: calls.append(1) or "value") == "value"
    assert calls == [1]


def test_empty_volumes_count_nothing_and_have_an_empty_box():
    empty = np.zeros((3, 4, 5), np.uint8)
    p = pair(empty, empty.copy())
    assert p.counts("liver") == Counts(0, 0, 0)
    assert p.counts("background") == Counts(60, 60, 60)
    assert p.structure("liver")[0].size == 0


def test_shapes_that_differ_are_refused():
    with pytest.raises(UserError) as error:
        pair(np.zeros((3, 4, 5), np.uint8), np.zeros((3, 5, 4), np.uint8))
    assert str(error.value) == (
        "case 'a': the prediction has shape (3, 4, 5) and the reference (3, 5, 4) (z, y, x); "
        "both must lie on the scan's own grid"
    )


@pytest.mark.parametrize("spacing", [(1.0, 1.0, float("nan")), (0.0, 1.0, 1.0), (1.0, 1.0)])
def test_spacing_that_is_no_spacing_is_refused(spacing):
    with pytest.raises(UserError, match="case 'a': spacing must be three positive numbers in mm"):
        CasePair("a", np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1), np.uint8), spacing)


def test_ratios_by_hand():
    counts = Counts(pred=4, ref=6, both=3)
    assert overlap.dice(counts) == pytest.approx(0.6)
    assert overlap.iou(counts) == pytest.approx(3 / 7)


def test_errors_of_volume_by_hand():
    counts = Counts(pred=4, ref=6, both=3)
    assert overlap.figure("voe", counts) == pytest.approx(1 - 3 / 7)
    assert overlap.figure("rvd", counts) == pytest.approx(-1 / 3)
    assert overlap.figure("precision", counts) == 0.75
    assert overlap.figure("recall", counts) == 0.5


@pytest.mark.parametrize("empty", ["lits", "nan", "worst"])
def test_a_denominator_of_zero_never_becomes_a_zero(empty):
    nothing, invented, missed = Counts(0, 0, 0), Counts(3, 0, 0), Counts(0, 3, 0)
    assert overlap.figure("voe", nothing, empty) == (None if empty == "nan" else 0.0)
    assert overlap.figure("voe", invented, empty) == overlap.figure("voe", missed, empty) == 1.0
    for name, known in (("rvd", missed), ("recall", missed), ("precision", invented)):
        assert overlap.figure(name, nothing, empty) is None
        assert overlap.figure(name, known, empty) is not None
    for name, unknown in (("rvd", invented), ("recall", invented), ("precision", missed)):
        assert overlap.figure(name, unknown, empty) is None


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="unknown policy for empty masks 'zero', known: lits, nan, worst"):
        overlap.check_empty("zero")


def test_intervals_are_over_patients_and_hold_the_figure():
    rng = np.random.default_rng(0)
    ref = by_hand()[1]
    pairs = []
    for i in range(24):
        pred = np.where(rng.random(ref.shape) < 0.3, 0, ref).astype(np.uint8)
        pairs.append(CasePair(str(i), pred, ref, (2.0, 1.0, 1.0)))
    tables = {"cases": [row for p in pairs for row in overlap.measure(p, ["dice"])["cases"]]}
    for row in tables["cases"]:
        row["patient"] = str(int(row["case"]) // 2)
    out = overlap.summarise(tables, ["dice"], "lits")["liver"]["dice"]
    assert out["patients"] == 12
    assert out["ci95"][0] < out["mean"] < out["ci95"][1]
    assert out["global_ci95"][0] < out["global"] < out["global_ci95"][1]
    for row in tables["cases"]:
        row["patient"] = "one"
    assert overlap.summarise(tables, ["dice"], "lits")["liver"]["dice"]["ci95"] is None


@pytest.mark.parametrize("ratio", [overlap.dice, overlap.iou])
@pytest.mark.parametrize(("empty", "both", "one"), [("lits", 1.0, 0.0), ("nan", None, 0.0), ("worst", 1.0, 0.0)])
def test_empty_masks_score_what_the_policy_says(ratio, empty, both, one):
    assert ratio(Counts(0, 0, 0), empty) == both
    assert ratio(Counts(3, 0, 0), empty) == one
    assert ratio(Counts(0, 3, 0), empty) == one


def test_rows_hold_counts_and_volumes_and_one_slice_row_where_the_structure_is():
    tables = overlap.measure(pair(*by_hand()), ["dice"])
    tumour = next(row for row in tables["cases"] if row["structure"] == "tumour")
    assert tumour == {
        "case": "a",
        "structure": "tumour",
        "dice": 0.5,
        "volume_ml_pred": pytest.approx(0.004),
        "volume_ml_ref": pytest.approx(0.004),
        "voxels_pred": 2,
        "voxels_ref": 2,
        "voxels_both": 1,
    }
    assert [row["structure"] for row in tables["cases"]] == ["liver", "parenchyma", "tumour", "background"]
    assert tables["slices"][0] == {"case": "a", "z": 1, "structure": "liver", "dice": pytest.approx(12 / 14)}
    assert len(tables["slices"]) == 3


def test_volumes_are_empty_where_the_spacing_is_not_trusted():
    rows = overlap.measure(pair(*by_hand(), spacing_trusted=False), ["dice"])["cases"]
    assert all(row["volume_ml_pred"] is None and row["volume_ml_ref"] is None for row in rows)
    assert rows[0]["voxels_ref"] == 8


def three_cases():
    """Case a by hand; b a tumour-free case with one false voxel; c tumour-free and clean."""
    pred, ref = by_hand()
    free = np.where(ref > 0, LIVER, 0).astype(np.uint8)
    false = free.copy()
    false[1, 1, 1] = TUMOUR
    sides = {"a": (pred, ref), "b": (false, free), "c": (free, free)}
    return [CasePair(name, *both, (2.0, 1.0, 1.0)) for name, both in sides.items()]


def summary(empty, pairs=None, column="dice"):
    tables = {"cases": [row for p in pairs or three_cases() for row in overlap.measure(p, [column], empty)["cases"]]}
    return overlap.summarise(tables, [column], empty)


def test_summary_by_hand():
    out = summary("lits")
    tumour = out["tumour"]["dice"]
    assert tumour["mean"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert tumour["median"] == 0.5
    assert (tumour["q25"], tumour["q75"]) == (0.25, 0.75)
    assert tumour["n"] == 3
    assert tumour["global"] == pytest.approx(2 * 1 / (3 + 2))
    assert (tumour["mean_tumour_bearing"], tumour["n_tumour_bearing"]) == (0.5, 1)
    assert (tumour["both_empty"], tumour["one_empty"], tumour["left_out"]) == (1, 1, 0)
    assert out["liver"]["dice"]["global"] == pytest.approx(2 * 22 / (22 + 24))
    free = out["tumour_free"]
    assert (free["n"], free["false_positive_cases"], free["specificity"]) == (2, 1, 0.5)
    volume = free["false_positive_volume_ml"]
    assert (volume["min"], volume["n"], volume["left_out"]) == (0.0, 2, 0)
    assert (volume["mean"], volume["max"]) == (pytest.approx(0.001), pytest.approx(0.002))
    assert tumour["ci95"] is None
    assert tumour["ci_why"] == "3 patients: too few for an interval, which takes 10"


def test_macro_takes_classes_within_a_case_first():
    background, parenchyma, tumour = 2 * 136 / 274, 2 * 3 / 10, 0.5
    out = summary("lits", three_cases()[:1])
    assert out["dice_macro"]["mean"] == pytest.approx((background + parenchyma + tumour) / 3)
    assert out["dice_macro_foreground"]["mean"] == pytest.approx((parenchyma + tumour) / 2)
    # Under `nan` the empty tumour of case c leaves the mean within the case, not the case.
    out = summary("nan", three_cases()[2:])
    assert out["dice_macro_foreground"]["mean"] == 1.0
    assert out["dice_macro_foreground"]["n"] == 1


def test_nan_policy_leaves_cases_out_and_counts_them():
    tumour = summary("nan")["tumour"]["dice"]
    assert tumour["mean"] == pytest.approx((0.5 + 0) / 2)
    assert (tumour["n"], tumour["left_out"], tumour["empty"]) == (2, 1, "nan")


def test_a_miss_never_improves_the_mean():
    pred, ref = by_hand()
    missed = np.where(pred == TUMOUR, LIVER, pred).astype(np.uint8)
    for empty in ("lits", "nan", "worst"):
        found, lost = (summary(empty, [pair(p, ref)])["tumour"]["dice"] for p in (pred, missed))
        assert lost["mean"] == lost["mean_tumour_bearing"] == 0 < found["mean"]
        assert lost["n"] == found["n"] == 1


def test_no_voxel_in_the_whole_data_set_gives_no_global_figure():
    out = summary("lits", three_cases()[2:])
    assert out["tumour"]["dice"]["global"] is None
    assert out["tumour"]["dice"]["mean"] == 1.0
    assert out["tumour"]["dice"]["mean_tumour_bearing"] is None


def test_false_positive_volume_leaves_out_cases_without_trusted_spacing():
    pairs = three_cases()
    pairs[1].spacing_trusted = False
    volume = summary("lits", pairs)["tumour_free"]["false_positive_volume_ml"]
    assert (volume["n"], volume["left_out"], volume["mean"]) == (1, 1, 0.0)


def test_a_missing_prediction_is_neither_an_empty_mask_nor_a_false_tumour():
    pairs = three_cases()
    tables = {"cases": [row for p in pairs for row in overlap.measure(p, ["dice"])["cases"]]}
    before = overlap.summarise(tables, ["dice"], "lits")
    free = [row["case"] for row in tables["cases"] if row["structure"] == "tumour" and not row["voxels_ref"]]
    for row in tables["cases"]:
        if row["case"] == free[-1]:
            row.update(dice=0.0, missing=1)
    after = overlap.summarise(tables, ["dice"], "lits")
    counts = [[out["tumour"]["dice"][name] for name in ("both_empty", "missing")] for out in (before, after)]
    assert counts[0][1] == 0
    assert counts[1] == [counts[0][0] - 1, 1]
    keys = ("n", "false_positive_cases")
    assert [after["tumour_free"][key] for key in keys] == [before["tumour_free"][key] for key in keys]
    assert after["tumour_free"]["specificity"] < before["tumour_free"]["specificity"]
    assert after["tumour_free"]["false_positive_volume_ml"]["n"] == len(free) - 1


def test_iou_and_dice_of_one_case_agree():
    out = summary("lits", three_cases()[:1], "iou")
    dice = 0.5
    assert out["tumour"]["iou"]["mean"] == pytest.approx(dice / (2 - dice))
    assert "iou_macro_foreground" in out


def test_no_case_at_all_gives_empty_figures_and_not_zeros():
    out = overlap.summarise({"cases": []}, ["dice", "iou", "voe", "rvd", "precision", "recall"], "lits")
    assert out["liver"]["dice"]["mean"] is None
    assert out["dice_macro"]["n"] == 0
    assert out["tumour_free"]["specificity"] is None
    json.dumps(out, allow_nan=False)
