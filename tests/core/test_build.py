"""Node -> plan -> object: types from annotations, nested components, and the text of every mistake."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import registry
from core import config
from core.build import Plan, build, convert, describe_type, make_plan, plain
from core.config import ConfigError
from core.contracts import Loss, Sampler


@pytest.fixture(autouse=True)
def _own_components(monkeypatch):
    """The registry as it is; what a test adds goes with it."""
    for kind in registry.kinds():
        registry.names(kind)  # imported before the copy
    state = registry._state
    copy = dataclasses.replace(state, components=dict(state.components), conflicts=dict(state.conflicts))
    monkeypatch.setattr(registry, "_state", copy)


def planned(kind, text):
    problems = []
    plan = make_plan(kind, config.parse(text), kind, problems)
    assert not problems, problems
    return plan


def complaints(kind, text, **kwargs):
    problems = []
    assert make_plan(kind, config.parse(text, "x.yaml"), kind, problems, **kwargs) is None
    return problems


def place(kind, name):
    return registry.get(kind, name).place


def converted(annotation, text):
    problems = []
    value = convert(config.parse(text, "x.yaml:1"), annotation, "a", problems)
    return problems or value


class Sum:
    """Adds losses."""

    def __init__(self, classes: int, *, losses: list[Loss], first: Loss | None = None) -> None:
        self.classes, self.losses, self.first = classes, losses, first

    def __call__(self, logits, target):
        return sum(loss(logits, target) for loss in self.losses)


def nest():
    registry.register("loss", "test_sum")(Sum)


# types


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "3", 3),
        (int, "3e0", 3),
        (float, "3", 3.0),
        (bool, "true", True),
        (str, "on", "on"),
        (Path, "a/b", Path("a/b")),
        (None, "null", None),
        (Literal["a", 2, True], "2", 2),
        (int | None, "null", None),
        (int | float, "3", 3),
        (int | float, "3.5", 3.5),
        (Literal["auto"] | Path, "auto", "auto"),
        (Literal["auto"] | Path, "other", Path("other")),
        (int | Literal["auto"], "auto", "auto"),
        (float | list[float], "[1, 2]", [1.0, 2.0]),
        (list[int], "[1, 2]", [1, 2]),
        (Sequence[float], "[1, 2]", [1.0, 2.0]),
        (tuple[int, float], "[1, 2]", (1, 2.0)),
        (tuple[int, ...], "[1, 2, 3]", (1, 2, 3)),
        (list, "[1, [a]]", [1, ["a"]]),
        (dict, "{a: {b: 1}}", {"a": {"b": 1}}),
        (dict[str, float], "{a: 1, 2: 2}", {"a": 1.0, "2": 2.0}),
        (Mapping[str, list[int]], "{a: [1]}", {"a": [1]}),
        (dict[int, float], "{1: 0.5, 2: 2}", {1: 0.5, 2: 2.0}),
        (Any, "{a: [1, x]}", {"a": [1, "x"]}),
    ],
)
def test_values_become_what_the_annotation_wants(annotation, text, value):
    got = converted(annotation, text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text", "problem"),
    [
        (int, "2.5", "want int, got 2.5"),
        (int, "true", "want int, got true"),
        (int, ".inf", "want int, got inf"),
        (int, "null", "want int, got null"),
        (float, "fast", "want float, got 'fast'"),
        (float, "'1'", "want float, got '1'"),
        (bool, "yes", "want bool, got 'yes'"),
        (bool, "1", "want bool, got 1"),
        (str, "5", "want word, got 5"),
        (Path, "5", "want path, got 5"),
        (Path, "''", "want path, got ''"),
        (Literal["count", "skip"], "skp", "want one of 'count', 'skip', got 'skp', did you mean 'skip'?"),
        (int | None, "x", "want int | null, got 'x'"),
        (int | Literal["auto"], "atuo", "want int | 'auto', got 'atuo'"),
        (list[int], "3", "want list of int, got 3"),
        (tuple[int, int], "[1]", "want [int, int], got [1]"),
        (tuple[int, ...], "{a: 1}", "want list of int, got {'a': 1}"),
        (dict[str, int], "[1]", "want mapping to int, got [1]"),
        (np.ndarray, "1", f"an experiment file cannot give a {np.ndarray}; use scalars, lists, dicts, contracts"),
    ],
)
def test_what_is_of_another_type_is_refused(annotation, text, problem):
    assert converted(annotation, text) == [f"x.yaml:1  a: {problem}"]


@pytest.mark.parametrize(
    ("annotation", "text", "problem"),
    [
        (list[int], "[1, x, y]", ["a[1]: want int, got 'x'", "a[2]: want int, got 'y'"]),
        (int | list[int], "[1, x]", ["a[1]: want int, got 'x'"]),
        (dict[str, int], "{b: x}", ["a.b: want int, got 'x'"]),
        (dict[int, int], "{b: 1}", ["a (a key): want int, got 'b'"]),
        (tuple[int, str], "[x, 1]", ["a[0]: want int, got 'x'", "a[1]: want word, got 1"]),
    ],
)
def test_the_entry_that_is_wrong_is_named(annotation, text, problem):
    assert converted(annotation, text) == [f"x.yaml:1  {p}" for p in problem]


def test_types_as_a_user_reads_them():
    assert describe_type(int | None) == "int | null"
    assert describe_type(Literal["a", "b"]) == "one of 'a', 'b'"
    assert describe_type(list[Loss]) == "list of loss"
    assert describe_type(float | tuple[float, float]) == "float | [float, float]"
    assert describe_type(Path) == "path"


# components


def test_a_word_is_short_for_a_node_with_that_name():
    assert planned("loss", "dice") == planned("loss", "{name: dice}")


def test_every_default_is_written_out():
    assert planned("loss", "dice").plain() == {"name": "dice", "weight": 1.0, "smooth": 1.0, "absent": "count"}


def test_an_unknown_component_suggests_the_nearest_and_lists_all():
    (problem,) = complaints("loss", "{name: dyce}")
    known = ", ".join(registry.names("loss"))
    assert problem == f"x.yaml  loss.name: unknown loss 'dyce', did you mean 'dice'?\n  known: {known}"


def test_an_unknown_argument_suggests_the_nearest_and_says_where_the_component_is():
    assert complaints("loss", "{name: dice, smoth: 1}") == [
        "x.yaml  loss.smoth: loss 'dice' has no such argument, did you mean 'smooth'?\n"
        f"  it has: smooth, absent, weight   ({place('loss', 'dice')})"
    ]


def test_all_problems_of_a_node_are_named_at_once():
    assert len(complaints("loss", "{name: dice, smoth: 1, smooth: x, absent: y, weight: z}")) == 4


def test_a_missing_argument_is_named():
    @registry.register("sampler", "test_needy")
    class Needy:
        def __init__(self, records: Any, *, length: int) -> None:
            pass

    assert complaints("sampler", "test_needy") == ["x.yaml  sampler.length: sampler 'test_needy' needs this argument"]


@pytest.mark.parametrize("text", ["{smooth: 1}", "{name: null}", "{name: 5}"])
def test_a_node_without_a_name_lists_the_names(text):
    assert complaints("loss", text) == [f"x.yaml  loss: no name; want one of {', '.join(registry.names('loss'))}"]


@pytest.mark.parametrize(("text", "shown"), [("5", "5"), ("null", "null"), ("[dice]", "['dice']")])
def test_what_is_no_component(text, shown):
    assert complaints("loss", text) == [
        f"x.yaml  loss: want a component such as {{name: ...}}, got {shown}",
    ]


def test_an_argument_with_the_name_of_a_key_of_core_is_refused():
    @registry.register("loss", "test_weighty")
    class Weighty:
        def __init__(self, *, weight: float = 1.0) -> None:
            pass

    assert complaints("loss", "test_weighty") == [
        f"{place('loss', 'test_weighty')}  loss 'test_weighty': the key 'weight' of a loss is core's"
    ]


def test_cores_keys_are_checked_too_and_kept_apart():
    plan = planned("loss", "{name: dice, weight: 2}")
    assert (plan.keys.weight, "weight" in plan.args) == (2.0, False)
    (problem,) = complaints("dataset", "{name: slices, channels: 3, context: 2}")
    assert problem == "x.yaml  dataset: channels must be 5 with context 2 (2*context+1), got 3"


def test_a_default_that_its_annotation_refuses_is_named_before_it_ends_in_a_config_that_does_not_load():
    @registry.register("sampler", "test_lies")
    class Lies:
        def __init__(self, records: Any, *, length: int = None, window: Any = np) -> None:  # type: ignore  # noqa: RUF013
            pass

    problem = complaints("sampler", "test_lies")[0]
    assert problem == f"{place('sampler', 'test_lies')} (default)  sampler.length: want int, got null"


def test_defaults_become_what_the_same_value_in_a_file_becomes():
    @registry.register("sampler", "test_defaults")
    class Defaults:
        def __init__(
            self,
            records: Any,
            *,
            shares: Sequence[float] = (1, 2),
            of: Mapping[int, float] = {1: 2},
            where: Path | None = Path("a"),
        ) -> None:
            pass

    plan = planned("sampler", "test_defaults")
    assert plan.args == {"shares": [1.0, 2.0], "of": {1: 2.0}, "where": Path("a")}
    assert planned("sampler", config.dump(plan.plain())) == plan


# nested components


def test_nested_components_are_planned_built_and_dumped():
    nest()
    plan = planned("loss", "{name: test_sum, losses: [dice, {name: cross_entropy}], weight: 2}")
    assert [p.name for p in plan.args["losses"]] == ["dice", "cross_entropy"]
    assert all(isinstance(p, Plan) for p in plan.args["losses"])
    assert planned("loss", config.dump(plan.plain())) == plan
    assert plan.plain()["losses"][0] == {"name": "dice", "smooth": 1.0, "absent": "count"}
    built = build(plan, classes=3)
    assert [type(loss).__name__ for loss in built.losses] == ["Dice", "CrossEntropy"]
    assert (built.classes, built.first) == (3, None)


def test_a_single_component_will_do_where_a_list_is_wanted():
    nest()
    assert planned("loss", "{name: test_sum, losses: dice}") == planned("loss", "{name: test_sum, losses: [dice]}")


def test_mistakes_inside_nested_components_are_named_with_their_path():
    nest()
    dice = place("loss", "dice")
    assert complaints("loss", "{name: test_sum, losses: [{name: dice, smoth: 1}, dyce], first: dyce}") == [
        "x.yaml  loss.losses[0].smoth: loss 'dice' has no such argument, did you mean 'smooth'?\n"
        f"  it has: smooth, absent   ({dice})",
        *(
            f"x.yaml  loss.{path}.name: unknown loss 'dyce', did you mean 'dice'?\n"
            f"  known: {', '.join(registry.names('loss'))}"
            for path in ("losses[1]", "first")
        ),
    ]


def test_a_weight_inside_a_nested_loss_is_refused_since_nobody_would_read_it():
    nest()
    (problem,) = complaints("loss", "{name: test_sum, losses: [{name: dice, weight: 2}]}")
    assert problem.startswith(
        "x.yaml  loss.losses[0].weight: loss 'dice' has no such argument; weight is for the entries of loss: alone\n"
    )


def test_a_nested_component_that_needs_what_core_does_not_have_there_is_refused():
    @registry.register("loss", "test_stray")
    class Stray:
        def __init__(self, *, sampler: Sampler) -> None:
            pass

    plan = planned("loss", "{name: test_stray, sampler: uniform}")
    with pytest.raises(ConfigError, match="sampler 'uniform' asks for records, which is not known here"):
        build(plan, classes=3)


# building


def test_a_component_gets_what_it_lists_and_nothing_else():
    @registry.register("schedule", "test_short")
    class Short:
        def __init__(self, steps_per_epoch: int, *, factor: float = 0.5) -> None:
            self.got = (steps_per_epoch, factor)

    assert build(planned("schedule", "test_short"), total_steps=10, steps_per_epoch=4).got == (4, 0.5)


def test_a_value_that_the_component_refuses_is_named_with_its_place():
    problems = []
    plan = make_plan("loss", config.parse("{name: dice, smooth: -1}", "x.yaml:7"), "loss[0]", problems)
    with pytest.raises(ConfigError) as caught:
        build(plan, classes=3)
    assert caught.value.problems == [
        "x.yaml:7  loss 'dice': smooth must be greater than 0, got -1.0; it keeps an absent class finite"
    ]


def test_plain_values_are_what_yaml_can_hold():
    plan = planned("sampler", "uniform")
    assert plain({"a": (1, Path("b")), "c": plan}) == {"a": [1, "b"], "c": {"name": "uniform"}}
