"""Samplers that follow the loss."""

import math
import signal

import pytest
import torch
from harness import assert_same, assert_same_run, experiment, last, metric_rows, train

from core.contracts import Batch
from core.train.feedback import Feedback, sample_losses


class Recorder:
    def __init__(self):
        self.calls = []

    def observe(self, indices, losses):
        self.calls.append((indices, losses))

    def state_dict(self):
        return {"calls": len(self.calls)}

    def load_state_dict(self, state):
        self.calls = [None] * state["calls"]


def micro(positions, indices):
    empty = torch.zeros(len(indices), 1, 2, 2)
    return Batch(empty, empty[:, 0], None, indices, positions)


def test_a_samples_loss_is_its_mean_cross_entropy_over_valid_voxels():
    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 0.0]]], [[[0.0, 1.0]], [[0.0, 3.0]]]])  # [2, 2, 1, 2]
    target = torch.tensor([[[0, 255]], [[1, 0]]], dtype=torch.uint8)
    first = math.log(1 + math.exp(-2))
    second = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert sample_losses(logits, target).tolist() == pytest.approx([first, second])
    assert sample_losses(logits, torch.full((2, 1, 2), 255, dtype=torch.uint8)).tolist() == [0, 0]


def test_the_sampler_gets_the_epochs_losses_in_global_order_once():
    sampler = Recorder()
    feedback = Feedback(sampler)
    feedback.begin_epoch()
    assert sampler.calls == []  # nothing has been seen yet
    feedback.add([micro([2, 3], [7, 7]), micro([0, 1], [4, 9])], [torch.tensor([0.5, 0.25]), torch.tensor([1.0, 2.0])])
    feedback.add([micro([4], [1])], [torch.tensor([math.nan])])
    feedback.begin_epoch()
    feedback.begin_epoch()
    assert sampler.calls == [([4, 9, 7, 7], [1.0, 2.0, 0.5, 0.25])]  # and the loss that is no number is left out


def test_what_an_epoch_has_brought_so_far_goes_through_a_checkpoint():
    sampler = Recorder()
    feedback = Feedback(sampler)
    feedback.add([micro([0], [4])], [torch.tensor([1.0])])
    state = feedback.state_dict()
    assert set(state) == {"sampler", "places", "losses"}
    fresh = Recorder()
    resumed = Feedback(fresh)
    resumed.load_state_dict(state)
    resumed.add([micro([1], [5])], [torch.tensor([3.0])])
    resumed.begin_epoch()
    assert fresh.calls == [([4, 5], [1.0, 3.0])]


def test_a_sampler_that_does_not_ask_costs_nothing():
    feedback = Feedback(object())
    feedback.add([micro([0], [4])], [])
    feedback.begin_epoch()
    assert feedback.state_dict() is None


@pytest.mark.parametrize(
    ("ranks", "number"),
    [
        pytest.param(0, signal.SIGKILL, id="one-process"),
        pytest.param(2, signal.SIGTERM, id="two-ranks", marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_sampler_follows_the_loss_resumes_bit_identical(tmp_path, ranks, number):
    options = ("sampler=follower", "train.micro_batch=1" if ranks else "train.micro_batch=3")
    path = experiment(tmp_path)
    whole = train(path, f"run={tmp_path / 'whole'}", *options, ranks=ranks)
    assert whole.returncode == 0, whole.stderr
    state = last(tmp_path / "whole")["sampler"]
    assert (state["sampler"]["losses"] != 1).any()
    # Of the third epoch, which no order follows, everything is still there.
    assert len(state["losses"]) == last(tmp_path / "whole")["step"] // 3 * 6
    steps = last(tmp_path / "whole")["step"] // 3
    at = steps + 1 if ranks else 2 * steps + 1  # ranks stop one step later: at the end of the second epoch
    hooks = f"hook=[jsonl,{{name: signal_at, step: {at}, number: {int(number)}}}]"
    train(path, hooks, *options, ranks=ranks)
    assert last(tmp_path / "run")["step"] < 3 * steps
    resumed = train(path, *options, "--resume", ranks=ranks)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert_same(last(tmp_path / "whole")["sampler"], last(tmp_path / "run")["sampler"], "sampler")
    drawn = [row for row in metric_rows(tmp_path / "run") if "sampler/tumour" in row]
    assert [row["epoch"] for row in drawn] == [1, 2, 3]
    assert all(0 < row["sampler/tumour"] <= 1 for row in drawn)
