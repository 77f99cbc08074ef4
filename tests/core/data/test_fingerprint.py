import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fake_store import FakeStore, info

import registry
from core.data.fingerprint import KEPT, TOLERANCE_HU, Match, duplicates, fingerprint, near_duplicates
from core.data.volume import read_image

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two phantom patients, every other slice, int16 HU [Z, Y, X]."""
    phantom = registry.get("source", "phantom").target(root=tmp_path_factory.mktemp("phantom"), cases=2, seed=1)
    return [np.ascontiguousarray(read_image(case.image).array[::2]) for case in phantom.cases()]


def distance(a, b):
    """Root mean square difference of each slice of `a` to the nearest of `b`."""
    a, b = (x.astype(np.float32) for x in (fingerprint(a), fingerprint(b)))
    return np.sqrt(np.square(a[:, None] - b[None]).mean(-1)).min(1)


def test_is_a_row_a_slice_and_a_part_of_a_scan_has_a_part_of_the_rows(scans):
    whole = fingerprint(scans[0])
    assert whole.shape == (len(scans[0]), 136)
    assert whole.dtype == np.float16
    assert np.array_equal(fingerprint(scans[0][5:9]), whole[5:9])
    assert fingerprint(scans[0][:0]).shape == (0, 136)


def test_means_are_those_of_cells_that_the_symmetries_carry_into_each_other():
    plane = np.full((64, 64), -1000, np.int16)  # clipped to -150
    plane[:2, :2] = 3000  # one cell of the corner, clipped to 200
    row = fingerprint(plane[None])[0].astype(float)
    assert row[0] == pytest.approx((200 - 150 * 3) / 4, abs=0.1)  # a corner is in an orbit of four
    assert np.allclose(row[1:], -150)
    plane[:] = -1000
    plane[0:2, 2:4] = 3000
    row = fingerprint(plane[None])[0].astype(float)
    assert row[1] == pytest.approx((200 - 150 * 7) / 8, abs=0.1)  # beside it, in one of eight
    assert np.allclose(row[[0, *range(2, 136)]], -150)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[::-1],
        lambda v: v[:, ::-1],
        lambda v: v[:, :, ::-1],
        lambda v: v.transpose(0, 2, 1),
        lambda v: v[7:19],
        lambda v: v[::3],
        lambda v: np.rint(np.round((v + 1024) / 1.7) * 1.7 - 1024).astype(np.int16),
        lambda v: (np.floor((np.clip(v, -160, 240) + 160) / 1.57) * 1.57 - 160).astype(np.int16),
        lambda v: np.where(v < -900, -3024, v).astype(np.int16),
    ],
    ids=["z", "y", "x", "transposed", "cropped", "thinned", "slope", "8-bit window", "padding"],
)
def test_a_copy_is_found_whatever_was_done_to_it(scans, change):
    copy = np.ascontiguousarray(change(scans[0]))
    prints = {name: fingerprint(v) for name, v in zip("ab", scans, strict=True)} | {"copy": fingerprint(copy)}
    (match,) = near_duplicates(prints)
    assert (match.a, match.b) == ("a", "copy")
    assert match.share == 1
    assert match.slices == len(copy)


def test_odd_and_small_planes_keep_their_symmetries():
    for shape in ((6, 20, 24), (6, 45, 33), (6, 130, 40)):
        array = np.random.default_rng(0).integers(-150, 200, shape).astype(np.int16)
        for changed in (array[:, ::-1], array[:, :, ::-1], array.transpose(0, 2, 1)):
            assert distance(np.ascontiguousarray(changed), array).max() < 0.2


def test_other_patients_and_the_same_one_at_another_time_do_not_match(scans):
    again = np.random.default_rng(0).normal(scans[0], 12)
    again = np.roll(again, (5, -4), (1, 2)).astype(np.int16)  # lies elsewhere, other noise
    assert distance(scans[0], again).min() > 2 * TOLERANCE_HU
    assert distance(scans[0], scans[1]).min() > 2 * TOLERANCE_HU
    assert near_duplicates({n: fingerprint(v) for n, v in zip("abc", [*scans, again], strict=True)}) == []


def test_scans_that_overlap_in_part_match_by_the_shorter_ones_share():
    rows = np.random.default_rng(0).uniform(-150, 200, (40, 136)).astype(np.float16)
    found = near_duplicates({"top": rows[:20], "middle": rows[10:34], "bottom": rows[26:]})
    assert found == [Match("top", "middle", 0.5, 10), Match("middle", "bottom", 8 / 14, 8)]


def test_air_says_nothing_and_one_slice_that_resembles_many_counts_once():
    rng = np.random.default_rng(0)
    air = np.full((30, 136), -150, np.float16)
    a, b, one = (rng.uniform(-150, 200, (n, 136)).astype(np.float16) for n in (10, 10, 1))
    assert near_duplicates({"a": np.concatenate([air, a]), "b": np.concatenate([air, b])}) == []
    assert near_duplicates({"a": air, "b": air}) == []
    assert near_duplicates({"a": a, "none": a[:0]}) == []
    assert near_duplicates({}) == []
    repeated = np.repeat(one, 10, axis=0)
    assert near_duplicates({"a": repeated, "b": np.concatenate([b, one])}) == []
    assert near_duplicates({"a": a, "b": np.concatenate([air, a])}) == [Match("a", "b", 1.0, 10)]


def test_many_scans_are_compared_slice_by_slice():
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 3, (60, 100, 136))
    steps[:, 0] *= 10
    walks = np.clip(np.cumsum(steps, 1), -150, 200).astype(np.float16)
    prints = {str(i): walk for i, walk in enumerate(walks)}
    prints["copy"] = walks[41, 60:][::-1]
    assert near_duplicates(prints) == [Match("41", "copy", 1.0, 40)]


def test_what_a_store_holds_is_compared_once(tmp_path):
    rows = np.random.default_rng(0).uniform(-150, 200, (9, 136)).astype(np.float16)
    read = []

    class Counting(FakeStore):
        root = tmp_path

        def fingerprint(self, case):
            read.append(case)
            return super().fingerprint(case)

    cases = {"a": info("p", prints=rows), "b": info("q", prints=rows[3:])}
    want = [Match("a", "b", 1.0, 6)]
    assert duplicates(Counting(cases)) == want
    assert json.loads((tmp_path / KEPT).read_text())["matches"] == [{"a": "a", "b": "b", "share": 1.0, "slices": 6}]
    assert duplicates(Counting(cases)) == want
    assert read == ["a", "b"]
    (tmp_path / KEPT).write_text("{")  # spoilt: found anew
    assert duplicates(Counting(cases)) == want
    assert duplicates(Counting({**cases, "c": info("r")})) == want
    assert read == ["a", "b", "a", "b", "a", "b", "c"]
    assert os.listdir(tmp_path) == [KEPT]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real CT at {SHARED}")
def test_real_slices_are_found_in_the_windowed_extract_of_their_scan_and_nowhere_else():
    files = sorted(SHARED.glob("lits_real/volume-*")) + sorted(SHARED.glob("hu_slices/volume_*"))
    prints = {
        path.name.partition(".")[0]: fingerprint(np.asarray(nib.load(path).dataobj, np.float32).T.astype(np.int16))
        for path in files
    }
    found = {(match.a, match.b) for match in near_duplicates(prints)}
    # Every third slice is in the extract: two of the five slices, two neighbours of others, and one lies beyond it.
    assert found == {("volume-4", f"volume_lits4_z{z}") for z in (373, 411, 428, 589)}
