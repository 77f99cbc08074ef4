"""How a training ends other than by all its steps, and what it refuses before it begins."""

import json
import signal

import pytest
from harness import experiment, last, metric_rows, train

from core.train import checkpoint

PLUGIN = '''
from registry import register


@register("metric", "breaks")
class Breaks:
    """A metric that fails. Example: {name: breaks}"""

    def measure(self, pair):
        raise RuntimeError("this metric is broken")

    def summarise(self, tables):
        return {}


@register("optimizer", "unfused")
def unfused(model, *, lr: float = 0.1):
    """An optimizer that cannot leave an update out on the device. Example: {name: unfused}"""
    import torch

    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, foreach=True)
'''


def test_an_unknown_metric_of_early_stopping_is_refused_before_training(tmp_path):
    done = train(experiment(tmp_path), "train.early_stop.metric=val/tumor/dice")
    assert done.returncode == 2
    assert "train.early_stop.metric: no metric 'val/tumor/dice', did you mean 'val/tumour/dice'?\n" in done.stderr
    assert "val/tumour/dice" in done.stderr
    # Nothing has begun: the command with the right metric may simply be given.
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_max_minutes_ends_with_a_checkpoint_and_says_how_to_go_on(tmp_path):
    path = experiment(tmp_path)
    done = train(path, "train.max_minutes=1e-4")
    assert done.returncode == 0, done.stderr
    assert "time is up (train.max_minutes) (step 1 of 6)" in done.stdout
    assert "--resume" in done.stdout
    assert last(tmp_path / "run")["step"] == 1


def test_checkpoints_come_by_the_clock_within_an_epoch(tmp_path):
    path = experiment(tmp_path, sampler={"name": "tumour_focused", "length": 36})
    done = train(path, "train.save_minutes=1e-6", "train.keep_last=99", "train.epochs=1")
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["best.pt", *(f"step_{n:08d}.pt" for n in range(1, 7))]


def test_overfit_brings_the_loss_down_on_the_same_batch_without_validation(tmp_path):
    path = experiment(tmp_path, model={"name": "small", "dropout": 0.0}, train={"batch": 6, "workers": 0})
    done = train(path, "train.overfit=1", "train.epochs=60", "train.log_every=20", "schedule=constant")
    assert done.returncode == 0, done.stderr
    assert "none: the same 1 batches again and again (train.overfit)" in done.stdout
    rows = metric_rows(tmp_path / "run")
    assert rows[-1]["step"] == 60
    assert not any(key.startswith("val/") for row in rows for key in row)
    assert rows[-1]["train/loss"] < 0.5 * rows[0]["train/loss"]


def test_a_metric_that_fails_costs_its_validation_and_no_step(tmp_path):
    path = experiment(tmp_path, plugins=["small.py", "more.py"])
    (tmp_path / "more.py").write_text(PLUGIN)
    done = train(path, "metric=[dice,breaks]")
    assert done.returncode == 1
    assert "this metric is broken" in done.stderr
    state = last(tmp_path / "run")
    assert (state["step"], state["evaluated_step"]) == (2, 0)
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert (failure["step"], failure["samples"]) == (2, [])


def test_an_update_that_is_not_finite_is_left_out_by_an_optimizer_that_cannot_mask_too(tmp_path):
    path = experiment(tmp_path, plugins=["small.py", "more.py"], loss=[{"name": "nan_at", "rank": 0, "call": 4}])
    (tmp_path / "more.py").write_text(PLUGIN)
    for name in ("adamw", "unfused"):
        run = tmp_path / name
        done = train(path, f"optimizer={name}", f"run={run}", "train.save_minutes=1e-6", "train.keep_last=9")
        assert done.returncode == 2
        assert (
            "step 2: the gradient's norm is nan (loss nan, nan_at nan on rank 0); nothing was updated." in done.stderr
        )
        assert f"the last good checkpoint is {run / 'checkpoints' / 'step_00000002.pt'}" in done.stderr
        assert checkpoint.newest(run)["step"] == 2


def test_fp16_skips_single_steps_and_ends_after_many_in_a_row(tmp_path):
    path = experiment(tmp_path, loss=[{"name": "nan_at", "rank": 0, "call": 4}])
    done = train(path, "train.precision=fp16", "train.epochs=30", "train.validate_every=99")
    assert done.returncode == 2
    # The trial step and steps 0 and 1 are the first three calls, so step 2 is the first to be skipped.
    assert "step 21: the gradient's norm is nan" in done.stderr


@pytest.mark.slow
def test_torchrun_does_not_resume_an_older_run_of_the_same_name_that_it_was_refused(tmp_path):
    path = experiment(tmp_path)
    assert train(path).returncode == 0
    before = (tmp_path / "run" / "command.txt").read_text()
    done = train(path, "train.epochs=9", ranks=1, options=("--max-restarts=1",))
    assert done.returncode != 0
    assert done.stderr.count("this run exists and is not overwritten") == 2
    assert (tmp_path / "run" / "command.txt").read_text() == before
    assert last(tmp_path / "run")["step"] == 6


@pytest.mark.slow
def test_sigterm_during_validation_leaves_it_to_the_resumed_run(tmp_path):
    path = experiment(tmp_path)
    assert train(path, f"run={tmp_path / 'whole'}").returncode == 0
    hooks = f"hook=[jsonl,{{name: signal_at, step: 2, number: {int(signal.SIGTERM)}, event: eval_start}}]"
    assert train(path, hooks).returncode == 128 + signal.SIGTERM
    state = last(tmp_path / "run")
    assert (state["step"], state["evaluated_step"]) == (2, 0)
    assert train(path, "--resume").returncode == 0
    assert metric_rows(tmp_path / "run") == metric_rows(tmp_path / "whole")


@pytest.mark.slow
def test_two_deterministic_runs_give_identical_logs(tmp_path):
    path = experiment(tmp_path, augment=[{"name": "affine"}, {"name": "elastic"}, {"name": "noise"}])
    for name in ("one", "two"):
        done = train(path, "train.deterministic=true", f"run={tmp_path / name}")
        assert done.returncode == 0, done.stderr
    one, two = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "two"))
    assert one
    assert one == two
