"""Hook `profiler`: real traces of real operators."""

import dataclasses
import json

import pytest
import torch

from core.contracts import RunState
from plugins.hook.profiler import Profiler

PER_EPOCH = 6


class Training:
    """Multiplies matrices and tells the hook, from step `start` on."""

    def __init__(self, hook, run, start=0, validates=True):
        self.hook, self.step, self.validates = hook, start, validates
        self.state = RunState(run, start, 0, 100, PER_EPOCH, "")
        hook.on_fit_start(self.at())

    def at(self):
        return dataclasses.replace(self.state, step=self.step, epoch=self.step // PER_EPOCH)

    def to(self, step):
        while self.step < step:
            torch.mm(torch.ones(8, 8), torch.ones(8, 8))
            self.step += 1
            self.hook.on_step_end(self.at(), {})
            if self.step % PER_EPOCH == 0:
                self.hook.on_epoch_end(self.at())
                if self.validates:
                    torch.ones(4).cumsum(0)
                    self.hook.on_eval_end(self.at(), {}, [])
        return self

    def end(self):
        self.hook.on_fit_end(self.at(), "all steps done")


def written(run):
    """Per trace: its name, how many products it has, and whether the validation is in it."""
    found = {}
    for path in sorted((run / "profile").glob("*.json")):
        names = [event["name"] for event in json.loads(path.read_text())["traceEvents"]]
        found[path.stem] = names.count("aten::mm"), "aten::cumsum" in names
        table = path.with_suffix(".txt").read_text()
        assert "aten::mm" in table
        assert "Self CPU" in table
    return found


@pytest.mark.parametrize(
    ("start", "first", "last", "expected"),
    [
        pytest.param(0, 3, 5, {"steps_3-5": (3, False)}, id="with-a-step-to-warm-up"),
        pytest.param(0, 1, 2, {"steps_1-2": (2, False)}, id="from-the-first-step"),
        pytest.param(0, 2, 2, {"steps_2-2": (1, False)}, id="one-step"),
        pytest.param(0, 5, 9, {"steps_5-6": (2, False)}, id="ends-with-the-epoch"),
        pytest.param(0, 7, 9, {"steps_7-9": (3, False)}, id="begins-after-a-validation"),
        pytest.param(3, 3, 5, {"steps_4-5": (2, False)}, id="resumed-within"),
        pytest.param(5, 3, 5, {}, id="resumed-after"),
        pytest.param(0, 50, 51, {}, id="training-ends-before"),
    ],
)
def test_the_trace_has_the_steps_that_it_is_named_after(tmp_path, start, first, last, expected):
    Training(Profiler(first=first, last=last), tmp_path, start).to(16).end()
    assert written(tmp_path) == expected
    assert (tmp_path / "profile").exists() == bool(expected)


def test_at_the_end_of_an_epoch_that_may_be_validated_it_waits_for_the_next_step(tmp_path):
    Training(Profiler(first=7, last=9), tmp_path, validates=False).to(16).end()
    assert written(tmp_path) == {"steps_8-9": (2, False)}


def test_a_failure_closes_the_profiler_and_keeps_what_there_is(tmp_path):
    hook = Profiler(first=2, last=5)
    training = Training(hook, tmp_path).to(3)
    torch.mm(torch.ones(8, 8), torch.ones(8, 8))
    hook.on_failed(training.at(), RuntimeError("step 4"))
    assert list(written(tmp_path)) == ["steps_2-3"]
    # Only one profiler can run in a process: the next one shows that the first was closed.
    Training(Profiler(first=1, last=1), tmp_path / "next_run").to(1).end()
    assert written(tmp_path / "next_run") == {"steps_1-1": (1, False)}


def test_a_failure_before_the_first_step_says_nothing(tmp_path):
    hook = Profiler(first=1, last=5)
    Training(hook, tmp_path)
    hook.on_failed(RunState(tmp_path, 0, 0, 100, PER_EPOCH, ""), RuntimeError("step 1"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": 0, "last": 3}, "want 1 <= first <= last, got first 0 and last 3"),
        ({"first": 5, "last": 3}, "want 1 <= first <= last, got first 5 and last 3"),
        ({"rows": 0}, "rows must be at least 1, got 0"),
    ],
)
def test_steps_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        Profiler(**settings)
    assert str(caught.value) == message
