from types import SimpleNamespace

import numpy as np
import pytest

import registry
from core.contracts import Prediction
from core.errors import UserError
from core.infer.evaluate import apply_postprocess, evaluate_case, merge_tables, summarise, want_probabilities

registry.discover("plugins")


def metric(name, **arguments):
    return registry.get("metric", name).target(**arguments)


def volume(shape=(3, 4, 5)):
    return SimpleNamespace(array=np.zeros(shape, np.int16), spacing_mm=(2.0, 1.0, 1.0))


class Fixed:
    """An inferer that gives what it was given."""

    def __init__(self, labels):
        self.labels, self.asked = labels, []

    def __call__(self, scan, *, probabilities=False, on_logits=None):
        self.asked.append((probabilities, on_logits))
        found = np.full((3, *self.labels.shape), 0.5, np.float16) if probabilities else None
        return Prediction(self.labels, found)


def reference():
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 1:3, 1:4] = 1
    labels[1, 1, 1] = 2
    return labels


def test_a_case_is_inferred_postprocessed_and_measured():
    def drop_tumour(labels, spacing_mm):
        assert spacing_mm == (2.0, 1.0, 1.0)
        return np.minimum(labels, 1)

    inferer, hook = Fixed(reference()), object()
    result = evaluate_case(
        "7",
        volume(),
        reference(),
        inferer=inferer,
        postprocess=[drop_tumour],
        metrics=[metric("dice"), metric("iou")],
        info=SimpleNamespace(patient="p", spacing_trusted=True),
        on_logits=hook,
    )
    assert inferer.asked == [(False, hook)]
    assert result.labels.max() == 1
    assert {row["patient"] for row in result.tables["cases"]} == {"p"}
    scores = {row["structure"]: (row["case"], row["dice"], row["iou"]) for row in result.tables["cases"]}
    assert scores["liver"] == ("7", 1.0, 1.0)
    assert scores["tumour"] == ("7", 0.0, 0.0)
    assert result.probabilities is None


def test_spacing_that_is_not_trusted_leaves_ml_empty():
    def row(info):
        case = evaluate_case(
            "7", volume(), reference(), inferer=Fixed(reference()), metrics=[metric("dice")], info=info
        )
        return case.tables["cases"][0]

    assert row(SimpleNamespace(patient="", spacing_trusted=False))["volume_ml_ref"] is None
    assert row(None)["volume_ml_ref"] == pytest.approx(6 * 0.002)


def test_without_a_reference_there_are_labels_and_no_tables():
    result = evaluate_case("7", volume(), None, inferer=Fixed(reference()), metrics=[metric("dice")])
    assert (result.labels == reference()).all()
    assert result.tables == {}


def test_a_reference_of_another_shape_is_refused_before_inferring():
    inferer = Fixed(reference())
    with pytest.raises(UserError) as error:
        evaluate_case("7", volume(), np.zeros((4, 4, 5), np.uint8), inferer=inferer)
    assert str(error.value) == "case '7': the reference has shape (4, 4, 5) and the scan (3, 4, 5) (z, y, x)"
    assert inferer.asked == []


def test_probabilities_are_made_only_if_asked_for():
    seen = []

    def cautious(labels, spacing_mm, probabilities, image):
        seen.append((probabilities.shape, image.shape))
        return labels

    inferer = Fixed(reference())
    result = evaluate_case("7", volume(), None, inferer=inferer, postprocess=[cautious])
    assert inferer.asked[-1][0] is True
    assert seen == [((3, 3, 4, 5), (3, 4, 5))]
    assert result.probabilities is not None
    evaluate_case("7", volume(), None, inferer=inferer, postprocess=[lambda labels, spacing_mm: labels])
    assert inferer.asked[-1][0] is False
    evaluate_case("7", volume(), None, inferer=inferer, probabilities=True)
    assert inferer.asked[-1][0] is True


def test_metrics_that_want_probabilities_say_so():
    assert not want_probabilities([metric("dice")])
    assert want_probabilities([metric("dice"), SimpleNamespace(probabilities=True)])


def test_postprocessors_run_in_order():
    steps = [lambda labels, spacing_mm: labels + np.uint8(1), lambda labels, spacing_mm: labels * np.uint8(2)]
    assert apply_postprocess(steps, np.full((1, 1, 1), 3, np.uint8), (1, 1, 1)).item() == 8


def test_a_postprocessor_that_changes_the_dtype_is_named():
    class Widen:
        def __call__(self, labels, spacing_mm):
            return labels.astype(np.int64)

    with pytest.raises(TypeError) as error:
        apply_postprocess([Widen()], np.zeros((1, 2, 3), np.uint8), (1, 1, 1))
    assert str(error.value) == (
        "postprocess Widen must keep shape and dtype: it got uint8 (1, 2, 3) and gave int64 (1, 2, 3)"
    )


def test_rows_of_several_metrics_become_one_by_key():
    parts = [
        {
            "cases": [{"case": "1", "structure": "liver", "dice": 0.5}],
            "slices": [{"case": "1", "z": 3, "structure": "liver"}],
        },
        {"cases": [{"case": "1", "structure": "liver", "mine": float("nan")}]},
        {"cases": [{"case": "1", "structure": "vessel", "mine": 2}]},
        {"cases": [{"case": "1", "structure": "liver", "mine": float("nan"), "dice": 0.5}]},
        {"lesions": [{"case": "1", "side": "ref", "lesion": 1, "dice": 1.0}]},
        {
            "lesions": [
                {"case": "1", "side": "ref", "lesion": 1, "iou": 1.0},
                {"case": "1", "side": "pred", "lesion": 1},
            ]
        },
    ]
    merged = merge_tables(parts)
    assert [(row["structure"], row.get("dice")) for row in merged["cases"]] == [("liver", 0.5), ("vessel", None)]
    assert np.isnan(merged["cases"][0]["mine"])
    assert merged["lesions"][0] == {"case": "1", "side": "ref", "lesion": 1, "dice": 1.0, "iou": 1.0}
    assert len(merged["lesions"]) == 2
    assert parts[0]["cases"][0] == {"case": "1", "structure": "liver", "dice": 0.5}


def test_unknown_tables_are_appended_as_they_are():
    row = {"threshold": 0.1, "recall": 0.5}
    assert merge_tables([{"froc": [row]}, {"froc": [row]}]) == {"froc": [row, row]}


def test_rows_come_in_the_order_of_the_cases_however_they_were_spread():
    def part(case):
        return {"cases": [{"case": case, "structure": s, "dice": 1.0} for s in ("liver", "tumour")]}

    order = ["10", "2", "33"]
    one = merge_tables([part("10"), part("2"), part("33")], order)
    two = merge_tables([part("10"), part("33"), part("2")], order)
    assert one == two
    assert [row["case"] for row in two["cases"]] == ["10", "10", "2", "2", "33", "33"]


def test_two_metrics_that_disagree_on_a_field_are_an_error():
    parts = [{"cases": [{"case": "1", "structure": "liver", "dice": value}]} for value in (0.5, 0.75)]
    with pytest.raises(UserError) as error:
        merge_tables(parts)
    assert str(error.value) == (
        "two metrics give 'dice' of case 1, structure liver different values, 0.5 and 0.75; "
        "remove one of them from metric:, or let it use another column"
    )


def test_the_same_sum_in_another_order_is_the_same_figure():
    parts = [{"cases": [{"case": "1", "structure": "liver", "dice": value}]} for value in (0.1 + 0.2, 0.3)]
    assert merge_tables(parts)["cases"] == [{"case": "1", "structure": "liver", "dice": 0.1 + 0.2}]


def test_a_row_without_its_key_is_an_error():
    with pytest.raises(UserError) as error:
        merge_tables([{"cases": [{"case": "1", "dice": 0.5}]}])
    assert str(error.value) == (
        "a metric gives a row of table 'cases' without 'structure'; every row needs case, structure: "
        "{'case': '1', 'dice': 0.5}"
    )


def test_summaries_are_nested_into_one_and_contradictions_are_errors():
    first = SimpleNamespace(summarise=lambda tables: {"liver": {"dice": {"mean": 0.5, "n": 3}}, "n": 3})
    second = SimpleNamespace(summarise=lambda tables: {"liver": {"mine": {"mean": 0.1}}, "n": 3})
    assert summarise([first, second], {}) == {
        "liver": {"dice": {"mean": 0.5, "n": 3}, "mine": {"mean": 0.1}},
        "n": 3,
    }
    third = SimpleNamespace(summarise=lambda tables: {"liver": {"dice": {"mean": 0.75}}})
    with pytest.raises(UserError) as error:
        summarise([first, third], {})
    assert str(error.value) == (
        "two metrics give 'liver.dice.mean' different values, 0.5 and 0.75; "
        "remove one of them from metric:, or let it use another name"
    )
