import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from core.data.tables import find_lesions as stored_lesions
from core.measure import regions
from core.measure.lesion_rows import case_row, centres, lesion_rows
from core.measure.lesion_summary import bin_names, summarise
from core.measure.lesions import find_lesions
from core.measure.pair import CasePair
from core.values import LIVER, TUMOUR

SPACING = (2.0, 1.0, 1.0)
SHAPE = (8, 30, 30)


def labels(*boxes):
    out = np.full(SHAPE, LIVER, np.uint8)
    for z, y, x in boxes:
        out[slice(*z), slice(*y), slice(*x)] = TUMOUR
    return out


def pair(pred, ref, case="a", **more):
    return CasePair(case, pred, ref, SPACING, **more)


def by_lesion(rows, side):
    return {row["lesion"]: row for row in rows if row["side"] == side}


A, B, C = ((1, 4), (2, 6), (2, 6)), ((1, 4), (2, 6), (8, 12)), ((5, 7), (20, 24), (20, 28))


def test_lesions_of_a_reference_have_the_ids_of_the_store():
    rng = np.random.default_rng(0)
    ref = np.where(rng.random(SHAPE) < 0.06, TUMOUR, LIVER).astype(np.uint8)
    ref[:2], ref[:, :3] = 0, 0
    own, stored = pair(labels(), ref).lesions("ref"), stored_lesions(ref)
    assert own.box == stored.box
    assert np.array_equal(own.ids, stored.ids)
    assert list(own.boxes) == stored.boxes
    assert np.array_equal(own.voxels, [0, *stored.voxels])
    assert own.count == stored.count > 20


def test_centroids_and_their_voxels():
    ring = np.zeros((1, 7, 7), bool)
    ring[0, 1:6, 1:6] = True
    ring[0, 2:5, 2:5] = False
    found = find_lesions(ring, corner=(4, 10, 20))
    assert found.centroids.tolist() == [[4, 13, 23]]
    z, y, x = centres(found, SPACING)[0]
    assert ring[z - 4, y - 10, x - 20]
    assert max(abs(y - 13), abs(x - 23)) == 2
    assert found.inside((slice(0, 9), slice(0, 40), slice(0, 40))).sum() == ring.sum()


def test_connectivity_decides_what_is_one_lesion():
    ref = labels()
    ref[1, 1, 1] = ref[1, 2, 2] = ref[2, 3, 3] = TUMOUR
    one = pair(labels(), ref)
    assert [one.lesions("ref", n).count for n in (26, 18, 6)] == [1, 2, 3]
    with pytest.raises(ValueError, match="unknown side 'left', known: pred, ref"):
        one.lesions("left")


def test_a_found_a_missed_and_an_invented_lesion_by_hand():
    ref = labels(A, C)
    pred = labels(((1, 4), (2, 6), (3, 7)), ((5, 6), (14, 16), (20, 23)))
    rows = lesion_rows(pair(pred, ref))
    found, missed = by_lesion(rows, "ref").values()
    assert (found["voxels"], found["volume_ml"]) == (48, pytest.approx(0.096))
    assert found["diameter_mm"] == pytest.approx((6 * 96 / math.pi) ** (1 / 3))
    assert (found["z_first"], found["z_last"], found["slices"]) == (1, 3, 3)
    assert (found["z"], found["y"], found["x"]) in {(2, y, x) for y in (3, 4) for x in (3, 4)}
    assert (found["matched"], found["matched_iou_0.1"], found["matched_iou_0.5"]) == (1, 1, 1)
    assert (found["iou"], found["dice"], found["coverage"]) == (0.6, 0.75, 0.75)
    assert (found["covered"], found["merged"], found["split"], found["ignored"]) == (1, 0, 0, 0)
    assert (found["assd_mm"] < 1.0, found["hd95_mm"], found["nsd_1mm"]) == (True, 1.0, 1.0)
    assert (missed["matched"], missed["iou"], missed["dice"], missed["coverage"]) == (None, None, None, 0.0)
    assert (missed["covered"], missed["assd_mm"], missed["nsd_3mm"]) == (0, None, None)
    right, wrong = by_lesion(rows, "pred").values()
    assert (right["matched"], right["dice"], wrong["matched"], wrong["dice"]) == (1, 0.75, None, None)
    # The invented one is nearer to the missed.
    assert found["cc_dice"] == pytest.approx(2 * 36 / (48 + 48))
    assert missed["cc_dice"] == 0.0


def test_merges_and_splits_are_told():
    one, two = labels(A, B), labels(((1, 4), (2, 6), (2, 12)))
    merged = lesion_rows(pair(two, one))
    assert [(row["merged"], row["split"], row["covered"]) for row in merged if row["side"] == "ref"] == [(1, 0, 1)] * 2
    assert [row["touches"] for row in merged if row["side"] == "pred"] == [2]
    assert sum(row["matched"] is not None for row in merged if row["side"] == "ref") == 1
    split = lesion_rows(pair(one, two))
    assert [(row["merged"], row["split"]) for row in split if row["side"] == "ref"] == [(0, 1)]
    out = summary([pair(two, one), pair(one, two, "b")])
    assert (out["merges"], out["splits"], out["coverage"]["found"]) == (1, 1, 3)


def summary(pairs, **options):
    tables = {"lesions": [], "cases": []}
    for p in pairs:
        rows = lesion_rows(p, min_lesion_ml=options.get("min_lesion_ml", 0.0))
        tables["lesions"] += rows
        tables["cases"].append(case_row(p, rows))
    return summarise(tables, **options)["lesions"]


def test_figures_are_pooled_over_lesions():
    found, missed = labels(A, C), labels(A)
    out = summary([pair(found, found), pair(missed, found, "b"), pair(found, missed, "c")])
    assert {k: out["any"][k] for k in ("tp", "fp", "fn")} == {"tp": 4, "fp": 1, "fn": 1}
    assert (out["any"]["recall"], out["any"]["precision"], out["any"]["f1"]) == (0.8, 0.8, 0.8)
    assert out["per_case"]["recall"]["mean"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert out["false_positives_per_case"]["mean"] == pytest.approx(1 / 3)
    assert (out["pq"]["pq"], out["pq"]["sq"], out["pq"]["rq"]) == (0.8, 1.0, 0.8)
    many = summary([pair(found if i else missed, found, str(i)) for i in range(10)])["pq"]
    assert all(many[f"{name}_ci95"][0] <= many[name] <= many[f"{name}_ci95"][1] for name in ("pq", "sq", "rq"))
    assert (out["dice_detected"]["mean"], out["dice_with_misses"]["mean"]) == (1.0, 0.8)
    assert out["cc_dice"]["mean"] == pytest.approx((1 + 0.5 + 2 * 48 / (48 + 48 + 64)) / 3)
    assert out["boundary"]["assd_mm"]["n"] == 4


def test_sizes_are_those_of_the_reference_and_of_false_positives_their_own():
    small, large = ((1, 2), (2, 4), (2, 4)), ((3, 8), (10, 28), (10, 28))
    out = summary([pair(labels(large), labels(small)), pair(labels(large), labels(large), "b")], size_bins_mm=(5, 10))
    sizes = out["by_size"]["any"]
    assert list(sizes) == ["[0,5)", "[5,10)", "[10,inf)"]
    counts = {name: (bin["tp"], bin["fp"], bin["fn"]) for name, bin in sizes.items()}
    assert counts == {"[0,5)": (0, 0, 1), "[5,10)": (0, 0, 0), "[10,inf)": (1, 1, 0)}
    assert sizes["[0,5)"]["dice"]["mean"] == 0.0
    assert sizes["[5,10)"]["recall"] is None
    assert [low for _, low, _ in bin_names((10.0, 20.0))] == [0.0, 10.0, 20.0]


def test_small_lesions_are_ignored_after_matching():
    tiny, near = ((1, 2), (10, 12), (10, 12)), ((1, 3), (10, 14), (10, 14))
    # A: found. The tiny reference is found by a prediction that is not tiny; a tiny prediction stands alone.
    ref, pred = labels(A, tiny), labels(A, near, ((6, 7), (25, 26), (25, 26)))
    rows = lesion_rows(pair(pred, ref), min_lesion_ml=0.01)
    assert [row["ignored"] for row in rows] == [0, 1, 0, 0, 1]
    row = case_row(pair(pred, ref), rows)
    assert (row["lesions_ref"], row["lesions_pred"], row["tp_any"], row["fp_any"]) == (1, 2, 1, 0)
    out = summary([pair(pred, ref)], min_lesion_ml=0.01)
    assert {k: out["any"][k] for k in ("tp", "fp", "fn")} == {"tp": 1, "fp": 0, "fn": 0}
    assert (out["ignored"], out["min_lesion_ml"]) == (2, 0.01)
    everything = summary([pair(pred, ref)])
    assert {k: everything["any"][k] for k in ("tp", "fp", "fn")} == {"tp": 2, "fp": 1, "fn": 0}


def test_nothing_has_a_size_without_a_trusted_spacing():
    one = pair(labels(A), labels(A, C), spacing_trusted=False)
    rows = lesion_rows(one, min_lesion_ml=100.0)
    for row in rows:
        assert {row["volume_ml"], row["diameter_mm"], row.get("cc_dice"), row.get("assd_mm")} == {None}
        assert row["ignored"] == 0
    out = summary([one], min_lesion_ml=100.0)
    assert (out["any"]["tp"], out["any"]["fn"], out["without_size"]) == (1, 1, 3)
    assert all(bin["tp"] == bin["fn"] == 0 for bin in out["by_size"]["any"].values())
    assert out["cc_dice"]["mean"] is None


@pytest.mark.parametrize(
    ("pred", "ref", "counts"), [((), (A, C), (0, 0, 2)), ((A, C), (), (0, 2, 0)), ((), (), (0, 0, 0))]
)
def test_a_side_without_lesions(pred, ref, counts):
    out = summary([pair(labels(*pred), labels(*ref))])
    assert (out["any"]["tp"], out["any"]["fp"], out["any"]["fn"]) == counts
    assert out["any"]["f1"] == (None if counts == (0, 0, 0) else 0.0)
    assert out["cc_dice"]["n"] == bool(ref)
    assert out["any"]["precision"] == (0.0 if counts[1] else None)


def test_a_full_tumour_is_one_lesion_up_to_the_ends_of_the_array():
    full = np.full(SHAPE, TUMOUR, np.uint8)
    rows = lesion_rows(pair(full, full))
    assert [(row["voxels"], row["dice"], row["slices"]) for row in rows] == [(7200, 1.0, 8)] * 2


@pytest.mark.parametrize("dense", [False, True])
def test_each_false_voxel_goes_to_its_nearest_lesion_in_mm(dense, monkeypatch):
    monkeypatch.setattr(regions, "_DENSE", 10**9 if dense else 0)
    rng = np.random.default_rng(3)
    spots, strays = rng.random(SHAPE) < 0.004, rng.random(SHAPE) < 0.1
    one = pair(np.where(strays, TUMOUR, LIVER).astype(np.uint8), np.where(spots, TUMOUR, LIVER).astype(np.uint8))
    ref, pred = one.lesions("ref"), one.lesions("pred")
    owner = regions.owners(ref, pred, SPACING)
    ids = ref.inside(tuple(slice(0, n) for n in SHAPE))
    apart = np.stack(
        [ndimage.distance_transform_edt(ids != i, sampling=SPACING) for i in range(1, ref.count + 1)], axis=-1
    )[strays & ~spots]
    assert ref.count > 10
    assert np.array_equal(apart[np.arange(len(owner)), owner.astype(int) - 1], apart.min(axis=1))


def test_cc_dice_in_regions_by_hand():
    # Two lesions 10 mm apart in z by spacing, 9 voxels apart in x; one false voxel between, nearer to the second in mm.
    ref, pred = labels(), labels()
    ref[0, 5, 5] = ref[5, 5, 5] = TUMOUR
    pred[5, 5, 5] = pred[3, 5, 5] = TUMOUR
    first, second = by_lesion(lesion_rows(pair(pred, ref)), "ref").values()
    assert (first["cc_dice"], second["cc_dice"]) == (0.0, pytest.approx(2 / 3))
    with_a_miss = labels()
    assert {row["cc_dice"] for row in lesion_rows(pair(with_a_miss, ref))} == {0.0}


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_the_numbering_of_lesions_changes_nothing(data):
    sides = [
        np.where(data.draw(hnp.arrays(bool, (3, 7, 7), elements=st.booleans())), TUMOUR, LIVER).astype(np.uint8)
        for _ in range(2)
    ]
    forth, back = (summary([CasePair("a", *(np.ascontiguousarray(s[::f]) for s in sides), SPACING)]) for f in (1, -1))
    for threshold in ("any", "iou_0.1", "iou_0.5"):
        assert forth[threshold] == back[threshold]
    assert forth["coverage"] == back["coverage"]
    assert (forth["merges"], forth["splits"]) == (back["merges"], back["splits"])
    assert forth["pq"]["pq"] == (None if back["pq"]["pq"] is None else pytest.approx(back["pq"]["pq"]))
    assert forth["any"]["tp"] >= forth["iou_0.1"]["tp"] >= forth["iou_0.5"]["tp"]
    # Ids that are given by hand, the same mask: what depends on places only stays.
    one = CasePair("a", *sides, SPACING)
    ref, pred = one.lesions("ref"), one.lesions("pred")
    if ref.count > 1 and pred.count:
        order = np.array([0, *data.draw(st.permutations(range(1, ref.count + 1)))], ref.ids.dtype)
        renamed = type(ref)(ref.box, order[ref.ids], ref.voxels, ref.boxes, ref.centroids)
        assert np.array_equal(order[regions.owners(ref, pred, SPACING)], regions.owners(renamed, pred, SPACING))
