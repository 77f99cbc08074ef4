"""Which evaluations can be compared, and what is said of those that cannot."""

import csv
import json

import pytest

from core.compare.evaluation import load
from core.compare.groups import differing, groups
from core.errors import UserError
from tests.core.compare.evaluations import make, make_run


@pytest.fixture
def two(tmp_path):
    return make_run(tmp_path / "a", cases=3), make_run(tmp_path / "b", "tumour_focused", cases=3, seed=1)


def refused(*paths):
    with pytest.raises(UserError) as caught:
        load(paths)
    return str(caught.value)


def edit(file, change):
    with open(file, newline="") as opened:
        rows = list(csv.DictReader(opened))
    kept = [row for row in rows if change(row) is not False]
    with open(file, "w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(kept)


def change_summary(folder, **values):
    file = folder / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_runs_and_folders_alike(two, tmp_path):
    a, b = load([two[0], two[1] / "evaluation"])
    assert (a.name, b.name) == ("a", "b")
    assert a.cases == ("case_000", "case_001", "case_002")
    assert a.patients == ("patient_000", "patient_001", "patient_002")
    assert (a.looks, a.config["train.seed"], a.config["sampler.name"]) == (1, 0, "uniform")
    foreign = load([two[0], make(tmp_path / "nnunet", 3, seed=2)])[1]
    assert (foreign.name, foreign.config) == ("nnunet", None)


def test_names_that_are_alike_grow(two, tmp_path):
    other = make_run(tmp_path / "other" / "a", cases=3, seed=5)
    val = make(two[0] / "evaluation_val", 3, seed=6)
    names = [e.name for e in load([two[0], other, two[1], val])]
    assert names == [f"{tmp_path.name}/a", "other/a", "b", "a/evaluation_val"]


def test_one_or_the_same_twice(two):
    expected = "a comparison takes two evaluations or more: python tools/compare.py RUN RUN ..."
    assert refused(two[0]) == expected
    folder = two[0] / "evaluation"
    assert refused(two[0], folder) == f"{folder}: named twice; a comparison takes two different evaluations"


def test_what_is_not_evaluated_says_how(two, tmp_path):
    run = tmp_path / "new"
    run.mkdir()
    expected = f"{run}: neither a run directory nor an evaluation folder (it has no cases.csv)"
    assert refused(two[0], run) == expected
    (run / "config.yaml").write_text("run: new\n")
    expected = f"{run}: this run is not evaluated; evaluate it first: python tools/evaluate.py {run}"
    assert refused(two[0], run) == expected
    make(run / "evaluation_val", 3)
    expected = f"{run}: its test split is not evaluated; name what is: {run}/evaluation_val"
    assert refused(two[0], run) == expected
    missing = tmp_path / "gone"
    assert refused(two[0], missing) == f"{missing}: no such folder; name a run directory or an evaluation folder"
    (two[1] / "evaluation" / "summary.json").unlink()
    assert refused(*two).endswith("summary.json: no such file; evaluate again, it is written last")


def test_a_case_that_one_alone_has_is_named(two):
    edit(two[1] / "evaluation" / "cases.csv", lambda row: row["case"] != "case_001")
    assert refused(*two) == (
        "the evaluations do not have the same cases, so they cannot be compared:\n"
        f"  only in {two[0]}/evaluation: case_001\n"
        "  evaluate both on the same cases"
    )


def test_many_cases_that_one_alone_has_are_counted(tmp_path):
    a, b = make(tmp_path / "a", 9), make(tmp_path / "b", 2)
    assert "case_002, case_003, case_004, case_005, case_006 and 2 more\n" in refused(a, b)


def test_other_references_are_refused(two):
    a, b = (run / "evaluation" for run in two)
    edit(b / "cases.csv", lambda row: row.update(voxels_ref="5") if row["case"] == "case_002" else None)
    said = refused(*two)
    assert said.startswith("case 'case_002': its reference has ")
    assert said.endswith(f"voxels of liver in {a} and 5 in {b}: these are figures against different references; "
                         "evaluate one again")  # fmt: skip


def test_other_lesions_are_refused(two):
    a, b = (run / "evaluation" for run in two)
    edit(b / "lesions.csv", lambda row: (row["case"], row["side"], row["lesion"]) != ("case_000", "ref", "1"))
    said = refused(*two)
    assert said.startswith(f"case 'case_000': the lesions of its reference differ between {a} (")
    assert said.endswith("evaluate both with the same connectivity and the same Hepar")


def test_other_patients_are_refused(two):
    a, b = (run / "evaluation" for run in two)
    edit(b / "cases.csv", lambda row: row.update(patient="else") if row["case"] == "case_001" else None)
    assert refused(*two) == f"case 'case_001': of patient 'patient_001' in {a}, of 'else' in {b}"


def test_other_settings_are_refused(two):
    a, b = (run / "evaluation" for run in two)
    change_summary(b, tumour={"dice": {"empty": "nan"}})
    assert refused(*two) == f"the policy for empty masks is lits in {a} and nan in {b}; evaluate both alike"
    change_summary(b, tumour={"dice": {"empty": "lits"}}, lesions={"min_lesion_ml": 0.1})
    assert refused(*two) == f"the smallest lesion that counts is 0.0 in {a} and 0.1 in {b}; evaluate both alike"
    change_summary(b, lesions={"min_lesion_ml": 0.0}, surface={"definition": "edge18"})
    change_summary(a, surface={"definition": "edge6"})
    assert refused(*two) == f"the definition of a surface is edge6 in {a} and edge18 in {b}; evaluate both alike"


def test_order_of_the_cases_is_the_first_ones(two):
    file = two[1] / "evaluation" / "cases.csv"
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *reversed(rows)]) + "\n")
    a, b = load(two)
    assert b.cases == a.cases
    assert b.patients == a.patients


def test_a_case_with_two_rows_is_refused(two):
    file = two[1] / "evaluation" / "cases.csv"
    file.write_text(file.read_text() + file.read_text().splitlines()[1] + "\n")
    assert refused(*two) == f"{file}: case 'case_000' has two rows for liver"


def test_trainings_of_one_method_are_told_by_the_seed_alone(tmp_path):
    runs = [make_run(tmp_path / f"u{seed}", cases=2, seed=seed) for seed in (0, 1, 2)]
    other = make_run(tmp_path / "f", "tumour_focused", cases=2, seed=3)
    foreign = make(tmp_path / "foreign", 2, seed=4)
    found = load([*runs, other, foreign])
    assert [(g.members, g.seeds) for g in groups(found)] == [((0, 1, 2), (0, 1, 2)), ((3,), (3,)), ((4,), ())]
    assert differing(found) == [("sampler.name", ["uniform"] * 3 + ["tumour_focused", "not known"])]


def test_what_an_evaluation_changed_is_part_of_the_method(two):
    change_summary(two[1] / "evaluation", provenance={"overrides": ["postprocess=[]", "metric=[]"], "split_hash": "s"})
    keys = dict(differing(load(two)))
    assert keys["(postprocess)"] == ["-", "[]"]
    assert not keys.keys() & {"(split_hash)", "(metric)"}
