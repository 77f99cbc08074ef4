import pytest

from core import config
from core.build import make_plan
from core.document import ConfigError
from core.errors import UserError
from core.tune.grid import arrange, read


def plan(text):
    problems = []
    made = make_plan("postprocess", config.parse(text), "postprocess", problems)
    assert problems == []
    return made


def arranged(base, *entries):
    return arrange([plan(text) for text in base], read(entries))


def names(grid, setting):
    return [(p.name, p.args.get("min_ml", p.args.get("threshold"))) for p in grid.plans(setting)]


def test_thresholds_go_before_what_the_run_has_and_the_rest_after_it():
    grid = arranged(["{name: largest_component}"])
    assert [step.title for step in grid.steps] == ["tumour_threshold.threshold", "drop_small.min_ml"]
    settings = grid.settings()
    assert len(settings) == len(set(settings)) == 70
    assert settings[0] == grid.own == (0, 0)
    assert names(grid, grid.own) == [("largest_component", None)]
    assert names(grid, (2, 3)) == [("tumour_threshold", 0.4), ("largest_component", None), ("drop_small", 0.05)]
    assert grid.words((2, 3)) == {"tumour_threshold.threshold": "0.4", "drop_small.min_ml": "0.05"}


def test_settings_with_fewer_steps_come_first_then_values_listed_earlier():
    grid = arranged([], "tumour_threshold.threshold=off,0.5,0.4", "drop_small.min_ml=off,0.1")
    assert grid.settings() == [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (2, 1)]


def test_a_step_that_the_run_has_stays_at_its_place_and_its_own_value_is_tried():
    base = [
        "{name: drop_small, min_ml: 0.3}",
        "{name: largest_component}",
        "{name: drop_small, structure: liver, min_ml: 9}",
    ]
    grid = arranged(base, "drop_small.min_ml=off,0.1")
    assert [getattr(slot, "title", None) or slot.name for slot in grid.slots] == [
        "drop_small.min_ml",
        "largest_component",
        "drop_small",
    ]
    (step,) = grid.steps
    assert step.words == ("off", "0.3", "0.1")
    assert grid.own == (1,)
    assert grid.plans(grid.own) == [plan(text) for text in base]
    assert names(grid, (0,)) == [("largest_component", None), ("drop_small", 9)]
    assert arranged(base, "drop_small.min_ml=0.3").settings() == [(0,)]


def test_the_runs_own_setting_is_always_among_those_that_are_compared():
    grid = arranged([], "drop_small.min_ml=0.1,0.2")
    assert grid.steps[0].words == ("off", "0.1", "0.2")
    assert grid.own == (0,)


@pytest.mark.parametrize("off", ["off", "0", "null"])
def test_off_may_be_written_as_0_where_the_component_knows_no_0(off):
    (step,) = read([f"drop_small.min_ml={off},0.1"])
    assert step.words == ("off", "0.1")
    assert step.options[0] is None


def test_nodes_and_files_give_what_else_a_step_is_set_to(tmp_path):
    node = "{name: drop_small, structure: liver, min_ml: [off, 20], connectivity: [26, 6]}"
    (step,) = read([node])
    assert step.title == "drop_small(structure=liver).min_ml, connectivity"
    assert step.words == ("off", "min_ml=20, connectivity=26", "min_ml=20, connectivity=6")
    (tmp_path / "grid.yaml").write_text(f"- {node}\n- {{name: drop_small, min_ml: [0.1]}}\n")
    assert read([str(tmp_path / "grid.yaml")]) == [step, *read(["drop_small.min_ml=0.1"])]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            ["drop_small.min_m=0.1"],
            "1 problem in the grid\n--grid  postprocess.min_m: postprocess 'drop_small' has no such argument, did you "
            "mean 'min_ml'?",
        ),
        (["drop_smal.min_ml=0.1"], "1 problem in the grid\n--grid  postprocess.name: unknown postprocess 'drop_smal'"),
        (
            ["drop_small.min_ml=-1,0"],
            "1 problem in the grid\n--grid  postprocess 'drop_small': min_ml must be positive, got -1.0",
        ),
        (
            ["drop_small.min_ml=off"],
            "1 problem in the grid\n--grid: no values to try; give a list of them, e.g. {name:",
        ),
        (["{name: drop_small, min_ml: 0.1}"], "1 problem in the grid\n--grid: no values to try; give a list of them"),
        (["[a]"], "1 problem in the grid\n--grid: want a node such as {name: drop_small, structure: tumour,"),
        (
            ["drop_small.min_ml=0.1", "drop_small.min_ml=0.2"],
            "1 problem in the grid\n--grid: drop_small.min_ml is given twice; put all its values into one",
        ),
        (["min_ml=0.1"], "--grid min_ml=0.1: want NAME.ARGUMENT=VALUES, e.g. drop_small.min_ml=off,0.05"),
        (["gird.yaml"], "--grid gird.yaml: no such file; want one, or drop_small.min_ml=off,0.05, or a node such as"),
    ],
)
def test_what_is_no_grid_is_refused(entries, message):
    with pytest.raises((ConfigError, UserError)) as error:
        read(entries)
    assert str(error.value).startswith(message)


def test_too_many_settings_are_refused():
    values = ",".join(str(n / 1000) for n in range(1, 60))
    with pytest.raises(UserError) as error:
        arranged([], f"tumour_threshold.threshold={values}", f"drop_small.min_ml={values}")
    assert str(error.value) == (
        "--grid: 3600 settings (60 tumour_threshold.threshold x 60 drop_small.min_ml), and at most 2000 are tried; "
        "give fewer values"
    )
