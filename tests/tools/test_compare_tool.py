"""tools/compare.py: its table, its files, and what it does not overwrite."""

import json

import pytest
from tiny_run import call

from core.errors import UserError
from core.report.tables import read_csv
from tests.core.compare.evaluations import make_run

NAMES = ["comparison.csv", "comparison.html", "comparison.json", "comparison_cases.csv", "comparison_lesions.csv"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    return [make_run(root / "a", cases=12, phantom=True), make_run(root / "b", "tumour_focused", cases=12, seed=1)]


def test_table_and_files_beside_the_first_run(runs, capsys):
    assert call("compare", *runs) == 0
    said = capsys.readouterr().out
    folder = runs[0].parent / "compare_a_vs_b"
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert "PHANTOM: synthetic scans; this describes their generator and says nothing about patients\n" in said
    assert f"A  a  ({runs[0]}/evaluation; seed 0, step 1200)\n" in said
    assert "   sampler.name: A uniform, B tumour_focused\n" in said
    assert "12 cases of 12 patients\n" in said
    assert all(len(line) <= 120 for line in said.splitlines() if not line.startswith(("written", "A  ", "B  ")))
    assert f"written to {folder}: comparison.json" in said
    rows = read_csv(folder / "comparison.csv")
    assert [row["metric"] for row in rows if row["stratum"] == "all"] == [
        *("tumour/dice", "lesions/iou_0.1/f1", "lesions/iou_0.1/small_recall", "liver/dice")
    ]
    assert rows[0]["ci95_low"] < rows[0]["difference"] < rows[0]["ci95_high"]
    record = json.loads((folder / "comparison.json").read_text())
    assert (record["phantom"], record["predeclared"]) == (True, True)
    assert record["conclusions"][0] in said.replace("\n  ", " ")
    assert len(read_csv(folder / "comparison_cases.csv")) == 12
    lesions = read_csv(folder / "comparison_lesions.csv")
    assert {row["found (a)"] for row in lesions} == {0, 1}
    assert len(lesions) == sum(record["lesions"][0][state] for state in ("both", "only_a", "only_b", "neither"))


def test_only_its_own_earlier_files_are_replaced(runs, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    assert call("compare", *runs, "-o", out) == 0
    assert "earlier comparison" not in capsys.readouterr().out
    assert call("compare", *runs, "-o", out, "--metrics", "tumour/dice") == 0
    said = capsys.readouterr().out
    assert f"written to {out} (the earlier comparison is replaced): comparison.json" in said
    assert "note: metrics chosen on the command line; p is honest only if they were chosen before any figure\n" in said
    assert (out / "mine.txt").read_text() == "kept"
    third = make_run(tmp_path / "c", cases=12, seed=2)
    with pytest.raises(UserError) as caught:
        call("compare", runs[0], third, "-o", out)
    both = " and ".join(f"{run}/evaluation" for run in runs)
    assert str(caught.value) == f"{out}: holds the comparison of {both}; name another folder with -o"
    (out / "comparison.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        call("compare", *runs, "-o", out)
    assert str(caught.value) == f"{out}/comparison.json: is there and not by this tool; name another folder with -o"
    with pytest.raises(UserError, match=r"mine\.txt: a file; name a folder with -o"):
        call("compare", *runs, "-o", out / "mine.txt")


def test_three_runs_in_one_table(runs, tmp_path, capsys):
    third = make_run(tmp_path / "c", cases=12, seed=2)
    assert call("compare", *runs, third, "-o", tmp_path / "three") == 0
    said = capsys.readouterr().out
    assert "\n  B - A " in said
    assert "\n  C - B " in said
    assert "(Holm for 12 tests)." in said
    assert "Trainings: 2 of the configuration of a, c (seeds 0, 2); 1 of the configuration of b (seed 1)." in said
    assert "mean (lowest to highest) of the trainings: A, C 0." in said
