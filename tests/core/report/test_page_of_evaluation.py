"""The report from a folder alone: what it says, and that it says what is missing instead of failing."""

import dataclasses
import json
import re

import pytest

from core.errors import UserError
from core.report import detection, findings, lists, lits, scores
from core.report.folder import read_evaluation
from core.report.page import _notes as page_notes
from core.report.page import page, write_report
from core.report.tables import write_json
from tests.core.report.fake_evaluation import EVIL, SMALL, make


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("evaluation")
    make(made)
    return made


@pytest.fixture(scope="module")
def html(folder):
    return write_report(folder).read_text()


def words(html):
    """What is read, without tags."""
    body = re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", html)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_nothing_is_fetched_and_every_value_is_escaped(html):
    assert EVIL not in html
    assert "<script>document" not in html
    assert html.count("<script>") == 1
    assert "default-src 'none'" in html
    assert re.findall(r"""\b(?:src|href)=["'](?!#)[^"']*""", html) == []
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html.replace("url(#hatch-", "")


def test_it_says_what_a_reader_has_to_know_first(html):
    text = words(html)
    assert "PHANTOM Synthetic scans." in text
    assert "6 cases of 6 patients" in text
    assert "No intervals: 6 patients. A bootstrap over fewer than 10 gives intervals that are far too narrow." in text
    assert "A claim about a method wants three seeds or more, and this page is of one model." in text
    assert "policy 'lits'. It touched the tumour Dice of 1 case with a tumour on neither side, and of 2 cases" in (
        text.replace("&#39;", "'")
    )
    assert "a difference of one point of Dice (0.01) cannot be told apart unpaired" in text
    assert "On phantoms this describes the generator." in text
    assert "none is called the cause" in text
    assert "NSD is coarse where slices are farther apart than its tolerance: 6 cases at 1 mm." in text


def test_the_tumour_dice_is_given_twice_with_n(folder):
    e = read_evaluation(folder)
    rows = {row[0].main: row for row in scores.headline(e)[0].rows}
    everything, bearing = rows["Dice, all cases"], rows["Dice, cases that have one"]
    assert (everything[1].main, everything[4].main) == (f"{e.of('tumour', 'dice', 'mean'):.3f}", "6")
    assert (bearing[1].main, bearing[4].main) == (f"{e.of('tumour', 'dice', 'mean_tumour_bearing'):.3f}", "4")
    # Distances of matched lesions come before those of the whole mask, and an NSD at whatever tolerance was measured.
    tumour = e.summary["tumour"]
    changed = {**tumour, "nsd_0.5mm": tumour["nsd_1mm"]}
    changed["dice"] = {**tumour["dice"], "q25_tumour_bearing": 0.25, "q75_tumour_bearing": 0.75}
    other = dataclasses.replace(e, summary={**e.summary, "tumour": changed})
    rows = {row[0].main: row for row in scores.headline(other)[0].rows}
    assert rows["Dice, cases that have one"][2].soft == "0.250 to 0.750"
    assert findings.end_slices(e).caption == "5 lesions that are on three slices or more"
    assert detection.size_tables(e)[0].columns[-1] == ("Dice", "missed lesions 0")
    first, last = (list(rows).index(f"HD95, mm, {of}") for of in ("matched lesions", "whole mask"))
    assert first < list(rows).index("NSD at 0.5 mm, whole mask") < last
    assert [row[0].main for row in detection.lesion_table(e).rows] == [
        *("any overlap", "IoU > 0.1", "IoU > 0.5"),
        *("10 % of it predicted", "any overlap, mean over cases"),
    ]


def test_strict_and_both_modes_of_lits_stand_side_by_side(folder):
    e = read_evaluation(folder)
    rows = {row[0].main: [cell.main for cell in row[1:]] for row in lits.lits_table(e).rows}
    dice = f"{e.of('tumour', 'dice', 'mean'):.3f}"
    assert rows["tumour Dice per case"] == [dice] * 3
    assert rows["lesion recall at 0.5"] == [f"{e.of('lesions', 'iou_0.5', 'recall'):.3f}", "0.410", "0.410"]
    assert rows["liver ASSD, mm"][1:] == ["1.900", "1.900"]
    assert rows["cases"] == ["-", "6", "6"]


def test_lists_have_missed_lesions_first_and_count_per_case(folder):
    e = read_evaluation(folder)
    rows, left_out = lists.lesion_rows(e)
    assert left_out == 0
    assert [row["kind"] for row in rows] == ["missed"] * 3 + ["false"] * 2 + ["found"] * 4
    cases = {row["case"]: row for row in lists.case_rows(e)}
    assert [cell["value"] for cell in cases["case-2"]["cells"][4:8]] == [2, 1, 1, 1]
    assert cases["free"]["kinds"] == ["free"]
    assert cases["flagged"]["kinds"] == ["false", "free"]
    assert lists.chosen(e)[0] == ("best", 1)


def test_marks_of_the_evaluation_are_shown(folder, tmp_path):
    summary = json.loads((folder / "summary.json").read_text())
    summary["selected"] = "selected on these cases: optimistic"
    summary["notes"] = ["selected on these cases: optimistic", "--allow missing: case-7", f"{EVIL} repaired"]
    summary["phantom"] = False
    summary["folds"] = {
        "runs": ["a", "b"],
        "spread": {"tumour.dice.mean": {"mean": 0.5, "sd": 0.1, "values": [0.4, 0.6]}},
    }
    summary["provenance"] |= {"tuned": "tuned: threshold 0.4", "overrides": ["postprocess=[]"]}
    write_json(tmp_path / "summary.json", summary)
    (tmp_path / "looks.jsonl").write_text("{}\n{}\n")
    html = page(read_evaluation(tmp_path))
    assert "look 2 at these cases" in words(html)
    assert "<li>tuned: threshold 0.4</li><li>Overridden on the command line: postprocess=[]</li>" in html
    assert html.count('<li class="warning">selected on these cases: optimistic</li>') == 1
    assert '<li class="warning">--allow missing: case-7</li>' in html
    assert "&lt;script&gt;document.title=&#34;1&#34;&lt;/script&gt;&amp;&#39;&#34; repaired" in html
    assert "Synthetic scans" not in html
    assert "describes the generator" not in html
    assert "fold 2" in words(html)
    pooled = page_notes(dataclasses.replace(read_evaluation(folder), summary=summary))
    assert pooled[-1].endswith(
        "A claim about a method wants three seeds or more, and this page is of 2 models, one a fold."
    )


def drop(summary, *names):
    return {key: value for key, value in summary.items() if key not in names}


@pytest.mark.parametrize(
    ("files", "without", "says"),
    [
        (("lesions.csv", "candidates.csv"), ("lesions",), "Not measured: lesions is not in metric: ."),
        ((), ("error_analysis",), "Not analysed: error_analysis is not in metric: ."),
        ((), ("lits_published", "lits_documented"), "Not measured: lits is not in metric: ."),
        (("views",), (), "No pictures: this folder has no views/ ."),
        (
            ("cases.csv", "slices.csv", "lesions.csv", "views"),
            ("tumour", "liver", "parenchyma", "lesions", "error_analysis"),
            "No overlap was measured",
        ),
        (("cases.csv",), ("provenance",), "Not recorded."),
    ],
)
def test_what_is_missing_is_said(folder, tmp_path, files, without, says):
    for path in [*folder.glob("*.csv"), *folder.glob("views/*.npz")]:
        if path.name not in files and path.parent.name not in files:
            target = tmp_path / path.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    summary = json.loads((folder / "summary.json").read_text())
    write_json(tmp_path / "summary.json", drop(summary, *without))
    assert says in words(page(read_evaluation(tmp_path)))


def test_parts_that_could_not_be_had_say_why(folder, tmp_path):
    summary = json.loads((folder / "summary.json").read_text())
    summary["lesions"]["froc"] = {"available": False, "why": "no probabilities were kept", "recall_at": {}, "curve": []}
    why = "3 events, and 20 are needed for 2 terms"
    summary["error_analysis"]["detection_model"] = {"available": False, "why": why, "terms": []}
    summary["error_analysis"]["features"] = []
    summary["calibration"] = {"available": False, "why": "nothing was predicted"}
    summary["error_analysis"]["false_positives"] = {"n": 0, "by_place": []}
    write_json(tmp_path / "summary.json", summary)
    text = words(page(read_evaluation(tmp_path)))
    assert "Not available: no probabilities were kept." in text
    assert f"No model of detection: {why}." in text
    assert "No false lesion." in text
    assert "Not available: nothing was predicted." in text


def test_views_that_do_not_fit_are_left_out_the_chosen_ones_last(folder):
    e = read_evaluation(folder)
    sizes = {case: len(view.image) + len(view.labels) for case, view in e.views.items()}
    assert list(lists.shown_views(e)) == list(range(len(SMALL)))
    kept = lists.shown_views(e, limit=sum(sizes.values()) - 1)
    assert len(kept) == len(SMALL) - 1
    assert {place for _, place in lists.chosen(e)} <= set(kept)
    assert lists.shown_views(e, limit=10) == {}


def test_what_is_no_evaluation_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=re.escape(f"{tmp_path}: no summary.json, so no evaluation; run tools/evaluate.py first")
    ):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot be read: .* run tools/evaluate.py again"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(UserError, match="not a summary of an evaluation"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "cases.csv").write_text("name,dice\na,1\n")
    with pytest.raises(UserError, match=r"cases\.csv: no column 'case'"):
        write_report(tmp_path)
    (tmp_path / "cases.csv").unlink()
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "a.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"a\.npz: cannot be read as a view"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
