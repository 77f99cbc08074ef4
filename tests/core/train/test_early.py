import math

import pytest

from core.errors import UserError
from core.settings import EarlyStop
from core.train.early import Judge, direction


def judge(**settings):
    return Judge(EarlyStop(**settings))


@pytest.mark.parametrize(
    ("metric", "mode", "message"),
    [
        (
            "val/score",
            "min",
            "train.early_stop.mode: val/score is better the greater it is, so mode: min would keep the worst "
            "checkpoint; set train.early_stop.mode=max",
        ),
        (
            "val/loss",
            "max",
            "train.early_stop.mode: val/loss is better the smaller it is, so mode: max would keep the worst "
            "checkpoint; set train.early_stop.mode=min",
        ),
    ],
)
def test_a_mode_that_would_keep_the_worst_checkpoint_is_refused(metric, mode, message):
    for names in (["val/loss", "val/score"], []):
        with pytest.raises(UserError) as error:
            judge(metric=metric, mode=mode).check(names)
        assert str(error.value) == message
    judge(metric=metric, mode={"min": "max", "max": "min"}[mode]).check(["val/loss", "val/score"])


def test_the_score_without_a_tumour_says_why_and_what_to_do():
    with pytest.raises(UserError) as error:
        judge(metric="val/score", mode="max").check(["val/loss", "val/tumour/dice"])
    assert str(error.value) == (
        "train.early_stop.metric: there is no val/score: it needs a validation case with a tumour in its reference; "
        "use a split whose val part has one, or judge by val/loss"
    )


def test_a_figure_that_one_validation_lacks_is_no_improvement_and_no_error():
    name = "val/lesions/any/precision"
    early = judge(metric=name, mode="max", patience=2)
    with pytest.raises(UserError, match=rf"no metric '{name}'\n  there are val/loss$"):
        early.better({"val/loss": 1.0}, 1)
    early.check(["val/loss", name])
    assert math.isnan(early.lower_is_better({"val/loss": 1.0}))
    assert [early.better({"val/loss": 1.0, **row}, 1) for row in ({}, {name: 0.2}, {})] == [False, True, False]
    assert not early.patience_is_over()


def test_a_long_list_of_names_is_cut_short():
    names = ["val/tumour/dice", "val/lesions/any/f1", "val/loss", "val/lesions/any/fp"]
    with pytest.raises(UserError) as error:
        judge(metric="val/tumor/dice", mode="max").check(names)
    assert str(error.value) == (
        "train.early_stop.metric: no metric 'val/tumor/dice', did you mean 'val/tumour/dice'?\n"
        "  there are val/loss, val/tumour/dice, 2 more, such as val/lesions/any/f1"
    )


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("val/score", "max"),
        ("val/tumour/dice", "max"),
        ("val/dice_macro_foreground", "max"),
        ("val/lesions/iou_0.1/f1", "max"),
        ("val/tumour_free/specificity", "max"),
        ("val/liver/nsd_2mm", "max"),
        ("val/loss", "min"),
        ("val/liver/hd95_mm", "min"),
        ("val/tumour_free/false_positive_volume_ml", "min"),
        ("val/liver/mean_hu", None),
        ("val/liver/rvd", None),
    ],
)
def test_the_direction_is_told_by_the_name(name, wanted):
    assert direction(name) == wanted
