from pathlib import Path
from types import SimpleNamespace

from core.evaluate.output import left_out, windowed
from core.evaluate.run import _notes


def run(crop="none", tuned=None, checkpoint="best.pt"):
    experiment = SimpleNamespace(prepare=SimpleNamespace(crop=crop))
    return SimpleNamespace(experiment=experiment, tuned=tuned, checkpoint=Path("run", checkpoint))


def test_figures_on_cases_that_something_was_chosen_on_say_so():
    tuned, selected = SimpleNamespace(cases=("a", "b")), {"selected": "selected on these cases: optimistic"}
    assert _notes(run(), ["a"], "test") == {}
    assert _notes(run(tuned=tuned), ["c"], "test") == {}
    assert _notes(run(tuned=tuned), ["b", "c"], "test") == selected
    assert _notes(run("liver"), ["b"], "test") == {"cropped": "cropped to the reference's liver: optimistic"}
    # Validation cases chose the best checkpoint, and no other.
    assert _notes(run(), ["a"], "val") == selected
    assert _notes(run(checkpoint="step_00000007.pt"), ["a"], "val") == {}


def test_cases_that_are_left_out_are_counted_and_named():
    assert left_out(["a", "b"], 26, {"a": "no sform", "b": "x"}) == (
        "the spacing of 2 of 26 cases cannot be trusted, no mm or ml of a, b (a: no sform)"
    )
    assert windowed([str(n) for n in range(10)], 10) == (
        "the intensities of 10 of 10 scans were windowed before, so contrast is not in HU: "
        "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    )
