"""The figures of a comparison, against figures worked out by hand and those of the metrics themselves."""

import itertools

import numpy as np
import pytest

import registry
from core.compare import words
from core.compare.evaluation import load
from core.compare.lesions import ALL_SIZES
from core.compare.result import compare
from core.compare.strata import strata
from core.compare.tables import case_rows, lesion_rows
from core.compare.terminal import terminal
from core.errors import UserError
from core.infer.evaluate import merge_tables, summarise
from core.measure.pair import CasePair
from core.report.tables import write_csv, write_json
from tests.core.compare.evaluations import make, make_run


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    return compare(load([make_run(root / "a"), make_run(root / "b", "tumour_focused", seed=1, better=0.8)]))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    return compare(load([make(root / "a", 9, phantom=True), make(root / "b", 9, seed=2, phantom=True)]))


def volumes(seed, pred):
    """A liver with lesions of several sizes; a prediction misses some, moves some and adds one."""
    rng = np.random.default_rng(seed)
    reference = np.ones((8, 48, 40), np.uint8)
    labels = np.ones_like(reference)
    for i, (y, x) in enumerate(itertools.product((4, 18, 32), (4, 20))):
        size = int(rng.integers(2, 9))
        reference[2:6, y : y + size, x : x + size] = 2
        if np.random.default_rng([seed, i, pred]).random() < 0.6:
            labels[2:6, y + 1 : y + 1 + size, x : x + size] = 2
    if seed % 2 == pred:
        labels[6:8, 46:48, 38:40] = 2
    return labels, reference


def evaluated(folder, pred):
    """What the project's own metrics say of four small cases; a patient has the last two."""
    folder.mkdir()
    metrics = [registry.get("metric", name).target() for name in ("dice", "lesions")]
    parts = []
    for seed in range(4):
        labels, reference = volumes(seed, pred)
        pair = CasePair(f"c{seed}", labels, reference, (2.0, 1.0, 1.0), patient=f"p{min(seed, 2)}")
        for metric in metrics:
            tables = metric.measure(pair)
            parts.append({n: [{**row, "patient": pair.patient} for row in rows] for n, rows in tables.items()})
    tables = merge_tables(parts)
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", name, rows)
    summary = summarise(metrics, tables)
    write_json(folder / "summary.json", summary)
    return summary


def test_figures_are_those_of_the_metrics(tmp_path):
    summaries = [evaluated(tmp_path / name, pred) for pred, name in enumerate("ab")]
    names = [f"lesions/{t}/{f}" for t in ("any", "iou_0.1", "iou_0.5") for f in ("f1", "recall", "precision")]
    found = compare(load([tmp_path / "a", tmp_path / "b"]), ["tumour/dice", "lesions/any/small_recall", *names])
    for place, summary in enumerate(summaries):
        values = dict(zip((m.name for m in found.metrics), (v[place] for v in found.values), strict=True))
        assert values["tumour/dice"] == pytest.approx(summary["tumour"]["dice"]["mean"], rel=1e-6)
        for name in names:
            _, threshold, figure = name.split("/")
            assert values[name] == pytest.approx(summary["lesions"][threshold][figure])
        by_size = summary["lesions"]["by_size"]["any"]
        assert values["lesions/any/small_recall"] == pytest.approx(by_size["[0,10)"]["recall"])
        for row in found.by_stratum:
            if row.kind == "lesion size" and row.metric.name == "lesions/any/f1":
                own = by_size[{"under 10 mm": "[0,10)", "10 to 20 mm": "[10,20)"}[row.level]]
                assert (row.value_a, row.value_b)[place] == pytest.approx(own["f1"])
    assert 0 < found.values[0][0] < 1  # something is missed and something found
    row = found.differences[0]
    assert (row.cases, row.patients) == (4, 3)
    total = next(row for row in found.found if row.level == ALL_SIZES)
    tp = [summary["lesions"]["any"]["tp"] for summary in summaries]
    assert [total.both + total.only_a, total.both + total.only_b] == tp
    assert total.only_a
    assert total.only_b


def test_differences_point_from_the_first_to_the_second(large):
    row = large.differences[0]
    assert (row.metric.name, row.cases, row.patients) == ("tumour/dice", 131, 131)
    a, b = (np.array(e.column("tumour", "dice")) for e in large.evaluations)
    assert row.difference == pytest.approx((b - a).mean())
    assert row.interval.low < row.difference < row.interval.high
    assert row.apart_unpaired == pytest.approx(2.8016 * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 131), rel=1e-4)
    assert row.apart_paired == pytest.approx(2.8016 * (b - a).std(ddof=1) / np.sqrt(131), rel=1e-4)
    assert row.p < row.holm < 0.05


def test_holm_counts_all_metrics_and_pairs(tmp_path):
    runs = [make(tmp_path / name, 14, seed=seed) for seed, name in enumerate("abc")]
    found = compare(load(runs), ["tumour/dice", "liver/dice"])
    assert [(row.metric.name, row.a, row.b) for row in found.differences] == [
        *(("tumour/dice", a, b) for a, b in ((0, 1), (0, 2), (1, 2))),
        *(("liver/dice", a, b) for a, b in ((0, 1), (0, 2), (1, 2))),
    ]
    least = min(found.differences, key=lambda row: row.p)
    assert least.holm == pytest.approx(min(1, 6 * least.p))
    assert not found.declared


def test_only_cases_with_a_number_in_both_count(large):
    row = compare(large.evaluations, ["tumour/hd95_mm"]).differences[0]
    a, b = (np.array(e.column("tumour", "hd95_mm"), float) for e in large.evaluations)
    both = np.isfinite(a) & np.isfinite(b)
    assert row.cases == both.sum() < 131
    assert (row.only_a, row.only_b) == ((np.isfinite(a) & ~both).sum(), (np.isfinite(b) & ~both).sum())
    assert row.value_a == pytest.approx(a[both].mean())
    assert row.metric.lower_is_better
    assert f"  {row.only_b} cases with a number in B alone left out\n" in terminal(
        compare(large.evaluations, ["tumour/hd95_mm"])
    )


def test_strata_divide_the_cases(large):
    parts = {}
    for part in strata(large.evaluations):
        parts.setdefault(part.kind, []).append(part)
    assert list(parts) == ["tumour", "tumour burden", "lesions", "slice thickness"]
    for kind, of_kind in parts.items():
        together = np.sum([part.cases for part in of_kind], axis=0)
        assert together.max() == 1, kind
    bearing, free = parts["tumour"]
    assert (bearing.cases ^ free.cases).all()
    assert np.array_equal(np.any([part.cases for part in parts["tumour burden"]], axis=0), bearing.cases)
    assert [part.level for part in parts["lesions"]] == ["1", "2 to 3", "4 to 9", "10 and more"]
    dice = [row for row in large.by_stratum if row.metric.name == "tumour/dice" and row.kind == "tumour"]
    assert sum(row.cases for row in dice) == 131
    assert all(row.p is None for row in large.by_stratum)


def test_ignored_lesions_count_nowhere(tmp_path):
    folders = [make(tmp_path / name, 3, seed=seed) for seed, name in enumerate("ab")]
    for folder in folders:
        file = folder / "lesions.csv"
        head, *lines = file.read_text().splitlines()
        place = head.split(",").index("ignored")
        cells = [line.split(",") for line in lines]
        for row in cells:
            row[place] = "1" if row[0] != "case_000" else "0"
        file.write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n")
    found = compare(load(folders))
    rows = lesion_rows(found)
    assert {row["case"] for row in rows} == {"case_000"}
    assert found.differences[1].cases == 1
    assert [row["lesions_ref"] for row in case_rows(found)] == [len(rows), 0.0, 0.0]


def test_sentences_of_a_difference(large):
    row = large.differences[0]
    assert words.conclusion(row, large) == (
        f"b has a higher tumour Dice than a in these 131 cases: {words.difference(row)}, 95 % interval "
        f"{words.interval(row)}, p = {row.p:.3f}, after Holm for 4 tests {words.p_value(row.holm)}."
    )
    assert words.apart(row) == (
        f"With 131 patients and a standard deviation of {row.sd:.3f}, tumour Dice of two groups of different patients "
        f"could be told apart from {row.apart_unpaired:.3f} on (80 % power at 5 %); paired, as here, from "
        f"{row.apart_paired:.3f} on. One point (0.01) cannot be told apart either way."
    )
    assert words.trainings(large) == (
        "Trainings: 1 of the configuration of a (seed 0); 1 of the configuration of b (seed 1). Intervals and p do not "
        "contain the variance of training: a claim about a method wants 3 seeds or more of each. These figures are "
        "about these trainings alone."
    )
    assert words.looks(large) == "Looks at these cases so far: a 1, b 1. Choosing by them makes them validation cases."


def test_sentences_of_few_patients(small):
    row = small.differences[0]
    assert words.conclusion(row, small) == (
        f"No difference in tumour Dice was found between a and b in these 9 phantom cases: {words.difference(row)}, no "
        f"interval, p = {row.p:.3f} (9 patients: too few for an interval, which takes 10)."
    )
    assert words.apart(row) == ""
    assert "How a and b were trained is not known (no config.yaml beside them). " in words.trainings(small)
    assert terminal(small).startswith("PHANTOM: synthetic scans; this describes their generator and says nothing about")


def test_sentences_when_none_could_have_been_found(tmp_path):
    found = compare(load([make(tmp_path / "a", 3), make(tmp_path / "b", 3, seed=1)]), ["liver/dice"])
    row = found.differences[0]
    assert words.conclusion(row, found).endswith(
        f"p = {row.p:.3f} (3 patients: too few for an interval, which takes 10). Only 3 patients differ, so none could "
        "have been found: the smallest p possible is 0.25."
    )


def test_sentences_of_equal_runs_and_of_the_variance_of_training(tmp_path):
    runs = [make_run(tmp_path / name, cases=12, seed=0) for name in "ab"]
    found = compare(load(runs))
    assert words.conclusion(found.differences[0], found) == "a and b have the same tumour Dice in these 12 cases."
    assert found.differences[0].p == 1.0
    assert words.trainings(found).endswith("The runs have the same configuration and the same seed.")
    seeds = compare(load([runs[0], make_run(tmp_path / "c", cases=12, seed=1)]))
    assert words.trainings(seeds).endswith("what they differ by here is the variance of training.")


def test_once_all_tests_are_counted(large):
    """A p below 0.05 alone is no finding."""
    row = next(row for row in large.differences if row.p < 0.05)
    several = [r if r is not row else type(r)(**{**vars(r), "p": 0.03, "holm": 0.12}) for r in large.differences]
    said = words.conclusion(several[large.differences.index(row)], large)
    assert "was found between a and b in these 131 cases once all tests are counted: " in said
    assert said.endswith("p = 0.030, after Holm for 4 tests 0.120.")


def test_metrics_that_are_not_there(large, tmp_path):
    def refused(*names, of=large.evaluations):
        with pytest.raises(UserError) as caught:
            compare(of, names)
        return str(caught.value)

    folder = large.evaluations[0].folder
    remedy = "evaluate again with that metric, or choose others with --metrics"
    assert refused("tumour/nsd_2mm") == (
        f"{folder}/cases.csv: no column 'nsd_2mm' for tumour, so there is no 'tumour/nsd_2mm'; {remedy}"
    )
    assert refused("tumour/dice", "tumour/dice") == "--metrics: 'tumour/dice' is there twice"
    assert refused("dice").startswith("--metrics: 'dice' is no metric to compare by; write STRUCTURE/COLUMN for a ")
    runs = [make(tmp_path / name, 2, seed=i) for i, name in enumerate("ab")]
    (runs[1] / "lesions.csv").unlink()
    assert refused("lesions/any/f1", of=load(runs)) == (
        f"{runs[1]}: no lesions.csv, so there is no 'lesions/any/f1'; {remedy}"
    )
    file = runs[1] / "lesions.csv"
    file.write_text((runs[0] / "lesions.csv").read_text().replace("matched_iou_0.1", "other"))
    assert refused("lesions/iou_0.1/f1", of=load(runs)) == (
        f"{file}: no column matched_iou_0.1, so there is no 'lesions/iou_0.1/f1'; {remedy}"
    )


def test_notes_say_what_makes_figures_optimistic(tmp_path):
    runs = [
        make(tmp_path / "a", 2, selected="selected on these cases: optimistic"),
        make(tmp_path / "b", 2, allowed={"missing": ["case_001"], "extra": []}),
    ]
    assert compare(load(runs)).notes == [
        "a: selected on these cases: optimistic",
        "b: evaluated with --allow missing, which 1 case needed",
    ]


def test_the_metrics_are_those_that_the_runs_declare(tmp_path):
    runs = [make_run(tmp_path / name, cases=12, seed=seed) for seed, name in enumerate("ab")]
    for run in runs:
        with open(run / "config.yaml", "a") as file:
            file.write("compare: [liver/iou, tumour/dice]\n")
    found = compare(load(runs))
    assert [metric.name for metric in found.metrics] == ["liver/iou", "tumour/dice"]
    assert found.declared
    (runs[1] / "config.yaml").write_text("compare: [liver/dice]\n")
    with pytest.raises(UserError, match=r"compare: differ; choose with --metrics\n  .*: liver/iou, tumour/dice"):
        compare(load(runs))
