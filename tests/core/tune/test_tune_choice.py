import pytest

import registry
from core.errors import UserError
from core.measure.score import CaseScore
from core.tune import page
from core.tune.choose import HeldOut, choose, pick
from core.tune.grid import arrange, read
from core.tune.objective import Figure, Score, make_objective

GRID = arrange([], read(["drop_small.min_ml=off,0.1,0.2"]))


def each(function, patients):
    return [function(patient) for patient in patients]


def kept(*rows):
    """Dice by setting and case, one lesion that is found where the Dice is above 0."""
    return [[CaseScore(value, int(value > 0), 1, 1) for value in row] for row in rows]


@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [
        ([0.1, 0.3, 0.3], "max", 1),
        ([0.3, 0.1, 0.1], "min", 1),
        ([0.3, 0.3 + 1e-15], "max", 0),
        ([None, 0.1, float("nan")], "max", 1),
        ([None], "max", None),
    ],
)
def test_the_best_is_the_first_of_the_best(values, mode, best):
    assert pick(values, mode) == best


def test_each_patient_is_judged_under_what_the_others_choose():
    # Settings off, 0.1, 0.2; cases of a, a, b, c. On all: 1.1, 2.4, 2.2 of 4.
    found = choose(kept([0.2, 0.2, 0.2, 0.5], [0.5, 0.9, 0.1, 0.9], [0.6, 0.6, 0.5, 0.5]), list("aabc"), Score(), each)
    assert [row["tumour_dice"] for row in found.figures] == pytest.approx([0.275, 0.6, 0.55])
    assert found.best == 1
    # Sums of Dice: without a 0.7, 1.0, 1.0, so 0.1 as the earlier; without b 0.9, 2.3, 1.7; without c 0.6, 1.5, 1.7.
    assert found.held_out == HeldOut(value=pytest.approx(((0.5 + 0.9 + 0.1 + 0.5) / 4 + 1) / 2), same=2)


def test_with_a_single_patient_nothing_can_be_held_out():
    found = choose(kept([0.2, 0.2], [0.5, 0.9], [0.1, 0.1]), ["a", "a"], Score(), each)
    assert (found.best, found.held_out) == (1, None)
    text = page.judgement(found, GRID, Score(), ["a", "a"])
    assert text == (
        "score on these cases: 0.600 with the run's own post-processing, 0.850 with the choice.\n"
        "How much of a gain is chance cannot be told: there is a single patient.\n"
        "1 patient chooses among 3 settings. Below 10 a choice is mostly chance: try fewer settings (--grid), or "
        "validate on more patients."
    )


def test_a_gain_that_does_not_hold_is_said_to_be_chance():
    rows = kept([0.5, 0.5, 0.5], [0.9, 0.1, 0.6], [0.1, 0.9, 0.6])
    found = choose(rows, list("abc"), Score(), each)
    assert found.best == 1
    # Without a 0.2 is chosen, without b 0.1; without c all three are equal, so off.
    text = page.judgement(found, GRID, Score(), list("abc"))
    assert text.splitlines()[1:3] == [
        "Each patient under what the others choose: 0.617 (1 of 3 times they choose the same). New patients are "
        "nearer to that.",
        "By it nothing is gained: the choice may be chance; --untuned goes without it.",
    ]


def test_cases_on_which_the_objective_does_not_exist_are_refused():
    nothing = [[CaseScore(1.0, 0, 0, 0)]] * 3
    with pytest.raises(UserError) as error:
        choose(nothing, ["a"], Score(), each)
    assert str(error.value) == (
        "--objective score is not a number on these 1 validation cases, whatever the setting; name another"
    )


def test_the_table_has_the_best_first_and_marks_what_was_chosen():
    found = choose(kept([0.2], [0.9], [0.5]), ["a"], Score(), each)
    assert page.table(page.rows(GRID, found), Score()) == (
        "drop_small.min_ml  score  tumour_dice  lesion_f1  matched  pred  ref\n"
        "              0.1  0.950        0.900      1.000        1     1    1  <- chosen\n"
        "              0.2  0.750        0.500      1.000        1     1    1\n"
        "              off  0.600        0.200      1.000        1     1    1  <- the run's own"
    )


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("tumour.dize", None, "--objective tumour.dize: no such figure, did you mean 'tumour.dice'?\n  there are "),
        (
            "tumour_free.n",
            None,
            "--objective tumour_free.n: say whether it is to be great or small with --mode max",
        ),
        ("tumour.dice", "min", "--mode min: tumour.dice is better the greater it is"),
        ("score", "min", "--mode min: score is better the greater it is"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(name, mode, message):
    with pytest.raises(UserError) as error:
        make_objective(name, mode, lambda: [registry.get("metric", "dice").target()])
    assert str(error.value).startswith(message)


def test_an_objective_may_be_written_as_training_logs_it():
    for name in ("val/tumour/dice", "tumour.dice"):
        found = make_objective(name, None, lambda: [registry.get("metric", "dice").target()])
        assert isinstance(found, Figure)
        assert (found.name, found.mode) == ("tumour.dice", "max")
    assert make_objective("val/score", None, list).name == "score"
