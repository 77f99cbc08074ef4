"""The LiTS scores of cases whose numbers can be told by looking at them."""

import numpy as np
import pytest

from core.measure.pair import CasePair
from plugins.metric.lits import Lits

SHAPE = (5, 12, 24)


def volume(*boxes, liver=True):
    """A liver, and tumours at (z, y, x) slices."""
    labels = np.ones(SHAPE, np.uint8) if liver else np.zeros(SHAPE, np.uint8)
    for box in boxes:
        labels[tuple(slice(*ends) for ends in box)] = 2
    return labels


def scores(*pairs, spacing=(3.0, 1.0, 1.0), **more):
    tables = {"lits": [], "lits_lesions": []}
    for number, (pred, ref) in enumerate(pairs):
        for table, rows in Lits().measure(CasePair(f"case-{number}", pred, ref, spacing, **more)).items():
            tables[table] += rows
    found = Lits().summarise(tables)
    return found["lits_published"], found["lits_documented"]


def counts(found, suffix=""):
    return tuple(found["lesion"][f"{name}{suffix}"] for name in ("tp", "fp", "fn"))


THREE = [((1, 3), (2, 6), (x, x + 4)) for x in (2, 7, 12)]


def test_one_prediction_over_three_references_is_one_detection_and_two_misses():
    over = volume(((1, 3), (2, 6), (2, 16)))
    for found in scores((over, volume(*THREE))):
        assert counts(found) == counts(found, "_greater_zero") == (1, 0, 2)
        assert found["lesion"]["precision"] == 1
        assert found["lesion"]["recall"] == pytest.approx(1 / 3)
        assert found["lesion"]["dice"] == pytest.approx(2 * 96 / (96 + 112))
        assert found["lesion"]["detected"] == 1


def test_one_prediction_that_fails_over_three_references_counts_all_three_off():
    over = volume(((0, 5), (0, 10), (2, 16)))  # an IoU of 96 / 700
    _, documented = scores((over, volume(*THREE)))
    assert counts(documented, "_greater_zero") == (1, 0, 2)
    assert counts(documented) == (-2, 3, 5)
    assert documented["lesion"]["recall"] == pytest.approx(-2 / 3)
    assert documented["lesion"]["precision"] == -2


REFERENCE = ((2, 4), (2, 4), (10, 12))
AROUND = ((1, 5), (1, 6), (9, 14))  # 100 voxels over the 8 of the reference: an IoU of 0.08
EARLIER, LATER = ((0, 1), (9, 10), (0, 1)), ((0, 1), (9, 10), (20, 21))


def test_the_defect_takes_the_intersection_over_the_reference_unless_ids_agree():
    alone = scores((volume(AROUND), volume(REFERENCE)))
    assert [counts(found) for found in alone] == [(0, 1, 1), (0, 1, 1)]  # both ids are 1: the IoU, by chance
    # One stray voxel before it in the scan, with x slowest, and the prediction is number 2.
    stray = scores((volume(AROUND, EARLIER), volume(REFERENCE)))
    assert [counts(found) for found in stray] == [(1, 1, 0), (0, 2, 1)]
    behind = scores((volume(AROUND, LATER), volume(REFERENCE)))
    assert [counts(found) for found in behind] == [(0, 2, 1), (0, 2, 1)]
    for found in (*alone, *stray, *behind):
        assert found["lesion"]["tp_greater_zero"] == 1


def test_scan_order_has_x_slowest():
    # In a scan with z slowest this stray voxel would come after the prediction, and with x slowest before it.
    first_in_x = ((4, 5), (9, 10), (0, 1))
    published, _ = scores((volume(AROUND, first_in_x), volume(REFERENCE)))
    assert counts(published) == (1, 1, 0)


def test_nothing_detected_scores_nothing_and_9001():
    for found in scores((volume(EARLIER), volume(REFERENCE))):
        lesion = found["lesion"]
        assert [lesion[name] for name in ("dice", "jaccard", "voe")] == [0, 0, 1]
        assert [lesion[name] for name in ("rvd", "assd_mm", "rmsd_mm", "msd_mm")] == [9001] * 4
        assert lesion["detected"] == 0
        assert (lesion["precision"], lesion["recall"]) == (0, 0)


def test_no_lesion_on_either_side_has_a_dice_of_1_a_case_and_no_global_one():
    for found in scores((volume(), volume())):
        assert found["lesion"]["dice_per_case"] == 1
        assert found["lesion"]["dice_global"] is None
        assert counts(found) == (0, 0, 0)
        assert (found["lesion"]["precision"], found["lesion"]["recall"]) == (0, 0)
        assert found["tumour_burden"] == {"rmse": 0, "max": 0, "n": 1}


def test_a_tumour_free_reference_makes_every_prediction_a_false_positive():
    for found in scores((volume(AROUND, EARLIER), volume())):
        assert counts(found) == counts(found, "_greater_zero") == (0, 2, 0)
        assert found["tumour_free"] == 1
        assert found["lesion"]["dice_per_case"] == 0


def test_misses_do_not_hurt_the_means_over_detected_lesions_which_are_pooled_over_cases():
    half = ((2, 4), (2, 4), (10, 13))  # 12 voxels, 8 of them right
    pairs = [(volume(REFERENCE), volume(REFERENCE)), (volume(half), volume(REFERENCE, EARLIER))]
    for found in scores(*pairs, (volume(), volume(REFERENCE))):
        lesion = found["lesion"]
        assert counts(found) == (2, 0, 2)
        assert lesion["detected"] == 2
        assert lesion["dice"] == pytest.approx((1 + 0.8) / 2)
        assert lesion["voe"] == pytest.approx((0 + 1 / 3) / 2)
        assert lesion["rvd"] == pytest.approx((0 + (8 - 12) / 12) / 2)  # reference less prediction, over prediction
        assert lesion["msd_mm"] == pytest.approx((0 + 1) / 2)
        assert lesion["assd_mm"] == pytest.approx((0 + 4 / 20) / 2)
        assert lesion["rmsd_mm"] == pytest.approx((0 + (4 / 20) ** 0.5) / 2)
        assert lesion["dice_per_case"] == pytest.approx((1 + 16 / 21 + 0) / 3)
        assert lesion["dice_global"] == pytest.approx(2 * 16 / (20 + 25))


def test_without_a_voxel_of_label_1_the_liver_counts_as_absent():
    tumours_alone = volume(REFERENCE, liver=False)
    for found in scores((tumours_alone, volume(REFERENCE)), (volume(REFERENCE), volume(REFERENCE))):
        liver = found["liver"]
        assert liver["absent"] == 1
        assert liver["dice"] == liver["dice_per_case"] == 0.5
        assert liver["assd_mm"] == liver["rvd"] == 9001 / 2
        assert liver["dice_global"] == pytest.approx(2 * 1440 / (1440 + 2 * 1440))
        assert found["lesion"]["dice_per_case"] == 1  # lesions are not touched by it
        burden = 8 / 1440
        assert found["tumour_burden"]["max"] == 0
        assert found["tumour_burden"]["rmse"] == pytest.approx(((burden - 9001) ** 2 / 2) ** 0.5)


def test_the_greatest_burden_error_is_signed():
    too_much = (volume(AROUND), volume(REFERENCE))
    for found in scores(too_much, too_much):
        assert found["tumour_burden"]["max"] == pytest.approx((8 - 100) / 1440)
        assert found["tumour_burden"]["rmse"] == pytest.approx((100 - 8) / 1440)


def test_distances_need_a_spacing_to_trust_and_are_counted():
    for found in scores((volume(REFERENCE), volume(REFERENCE)), spacing_trusted=False):
        assert found["lesion"]["assd_mm"] is None
        assert (found["lesion"]["detected"], found["lesion"]["detected_mm"], found["liver"]["n_mm"]) == (1, 0, 0)
        assert found["lesion"]["dice"] == 1
        assert found["liver"]["dice"] == 1


def test_a_prediction_that_is_the_best_of_two_references_merges_them_and_what_else_covers_them():
    left, right = ((1, 3), (2, 6), (2, 8)), ((1, 3), (2, 6), (10, 16))
    parts = [((1, 3), (2, 6), (2, 4)), ((1, 3), (2, 6), (5, 11))]  # the second is the best of both
    for found in scores((volume(*parts), volume(left, right))):
        assert counts(found, "_greater_zero") == (1, 1, 1)
    tables = Lits().measure(CasePair("a", volume(*parts), volume(left, right), (3.0, 1.0, 1.0)))
    (row,) = tables["lits_lesions"]
    assert (row["lesion"], row["references"], row["predictions"]) == (1, 2, 2)


def test_intervals_come_with_ten_patients():
    pairs = [(volume(AROUND if i % 3 else REFERENCE), volume(REFERENCE)) for i in range(12)]
    for found in scores(*pairs):
        low, high = found["lesion"]["recall_ci95"]
        assert 0 <= low < 4 / 12 < high <= 1
    for found in scores(*pairs[:9]):
        assert found["lesion"]["recall_ci95"] is None
