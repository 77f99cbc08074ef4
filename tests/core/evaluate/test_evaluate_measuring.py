import fcntl
import os
from types import SimpleNamespace

import numpy as np
import pytest

import registry
from core.build import Plan
from core.evaluate import measuring
from core.evaluate.measuring import Measurers, Recipe, choose_workers
from core.evaluate.missing import as_missing
from core.evaluate.parts import Parts
from core.measure.pair import CasePair

registry.discover("plugins")
RECIPE = Recipe.of([Plan("metric", "dice", {"empty": "lits"})])


def pair(case="1", shift=0):
    ref = np.zeros((4, 8, 8), np.uint8)
    ref[1:3, 2:6, 2:6] = 1
    ref[1, 3, 3] = 2
    return CasePair(case, np.roll(ref, shift, axis=1), ref, (2, 1, 1), patient="p", image=np.zeros(ref.shape, np.int16))


@pytest.mark.parametrize(
    ("wanted", "cases", "ranks", "all_cores", "cores", "count"),
    [
        (None, 3, 1, False, 8, 0),
        (None, 20, 1, False, 1, 0),
        (None, 20, 1, False, 2, 1),
        (None, 20, 1, False, 64, 8),
        (None, 20, 4, False, 8, 1),
        (None, 5, 1, True, 8, 2),
        (3, 2, 1, False, 1, 2),
        (0, 200, 1, True, 64, 0),
    ],
)
def test_workers_are_as_many_as_cases_and_cores_are_for(monkeypatch, wanted, cases, ranks, all_cores, cores, count):
    monkeypatch.setattr(measuring, "cpus", lambda: cores)
    assert choose_workers(wanted, cases, ranks, all_cores=all_cores) == count


def test_without_room_for_the_arrays_a_case_is_measured_in_place(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "pool_of", lambda count: SimpleNamespace())
    monkeypatch.setattr(measuring, "end_pool", lambda pool: None)
    monkeypatch.setattr(measuring.np, "save", _full)
    kept = {}
    with Measurers(RECIPE, 1, kept.__setitem__) as measurers:
        measurers.put(pair(), tmp_path / "view.npz")
        measurers.finish()
    assert [row["patient"] for row in kept["1"]["cases"]] == ["p"] * 4
    assert (tmp_path / "view.npz").is_file()


def _full(*_, **__):
    raise OSError(28, "No space left on device")


def test_what_a_killed_evaluation_left_in_memory_is_taken_away_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_bases", lambda: [tmp_path])
    left, used, young = (tmp_path / f"hepar-evaluate-{name}" for name in ("left", "used", "young"))
    for folder in (left, used, young):
        folder.mkdir()
        (folder / "lock").write_bytes(b"")
        if folder is not young:
            os.utime(folder, (0, 0))
    with open(used / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        measuring._Room()
    assert {path.name for path in tmp_path.iterdir()} == {"hepar-evaluate-used", "hepar-evaluate-young"}


def test_parts_count_for_the_same_key_alone(tmp_path):
    tables = {"cases": [{"case": "1", "dice": np.float64(0.1), "n": np.int64(3), "none": None}]}
    parts = Parts(tmp_path, {"checkpoint": "a"})
    assert parts.read("1", "content") is None
    parts.view("1").write_bytes(b"view")
    parts.write("1", "content", tables, {"doubt": "x"})
    assert parts.read("1", "content") == {"cases": [{"case": "1", "dice": 0.1, "n": 3, "none": None}]}
    assert parts.read_note("1") == {"doubt": "x"}
    assert parts.read("1", "other") is None
    assert Parts(tmp_path, {"checkpoint": "b"}).read("1", "content") is None
    (tmp_path / ".parts" / "1.json").write_text('{"key":')  # half-written
    assert parts.read("1", "content") is None


def test_views_of_a_complete_evaluation_replace_the_older_ones(tmp_path):
    (tmp_path / "views").mkdir()
    for name in ("1.npz", "old.npz", "mine.txt"):
        (tmp_path / "views" / name).write_text("old")
    parts = Parts(tmp_path, {})
    parts.view("1").write_text("new")
    parts.finish(["1"])
    assert {path.name for path in (tmp_path / "views").iterdir()} == {"1.npz", "mine.txt"}
    assert (tmp_path / "views" / "1.npz").read_text() == "new"
    assert not parts.folder.exists()


def test_a_metric_that_gives_what_no_file_holds_is_named(tmp_path):
    parts = Parts(tmp_path, {})
    parts.view("1")
    with pytest.raises(TypeError, match="a row of a metric holds a object"):
        parts.write("1", "", {"cases": [{"case": "1", "x": object()}]})


def test_a_missing_prediction_has_the_worst_scores_and_keeps_its_counts():
    row = {"case": "1", "structure": "tumour", "dice": 1.0, "iou": None, "voe": 0.0, "nsd_2mm": None, "assd_mm": None}
    more = {"recall": None, "tp_iou_0.1": 0, "lesions_ref": 2, "rvd": -1.0, "voxels_ref": 7}
    lesions = [{"case": "1", "side": "ref", "lesion": 1, "dice": None}]
    out = as_missing({"cases": [{**row, **more}], "lesions": lesions})
    assert out["lesions"] is lesions
    assert out["cases"] == [
        {
            **{"case": "1", "structure": "tumour", "dice": 0.0, "iou": 0.0, "voe": 1.0, "nsd_2mm": 0.0},
            **{"assd_mm": None, "recall": 0.0, "tp_iou_0.1": 0, "lesions_ref": 2, "rvd": -1.0, "voxels_ref": 7},
            "missing": 1,
        }
    ]
    # Without a trusted spacing a figure in mm stays no number.
    assert as_missing({"cases": [{"dice": None, "nsd_2mm": None}]}, trusted=False)["cases"] == [
        {"dice": 0.0, "nsd_2mm": None, "missing": 1}
    ]
