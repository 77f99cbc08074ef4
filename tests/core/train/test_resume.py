"""Exact resume: real processes, real signals."""

import shutil
import signal
from pathlib import Path

import pytest
from harness import ROOT, assert_same_run, experiment, last, train

from core.train import checkpoint

KILL, TERM = int(signal.SIGKILL), int(signal.SIGTERM)


def _hooks(step: int, number: int) -> str:
    return f"hook=[jsonl,{{name: signal_at, step: {step}, number: {number}}}]"


@pytest.mark.parametrize(
    ("ranks", "number", "options"),
    [
        pytest.param(0, KILL, (), id="one-process-sigkill"),
        pytest.param(
            0, TERM, ("train.precision=fp32", "train.micro_batch=3", "train.ema=null"), id="one-sigterm-accum"
        ),
        pytest.param(2, TERM, ("train.workers=1",), id="two-ranks-sigterm-workers", marks=pytest.mark.slow),
        pytest.param(3, KILL, ("train.micro_batch=1",), id="three-ranks-sigkill-accum", marks=pytest.mark.slow),
        pytest.param(3, TERM, ("schedule={name: plateau, patience: 0}",), id="three-sigterm", marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_resumed_run_is_bit_identical(tmp_path, ranks, number, options):
    path = experiment(tmp_path)
    whole = train(path, f"run={tmp_path / 'whole'}", *options, ranks=ranks)
    assert whole.returncode == 0, whole.stderr
    steps = last(tmp_path / "whole")["step"] // 3
    at = steps + 1  # in the middle of the second epoch
    cut = train(path, _hooks(at, number), *options, ranks=ranks)
    if ranks:
        assert (cut.returncode == 0) == (number == TERM), cut.stderr
    else:
        assert cut.returncode == (128 + TERM if number == TERM else -KILL), cut.stderr
    # Several ranks read each other's requests one step late.
    assert last(tmp_path / "run")["step"] == (at + (ranks > 1) if number == TERM else steps)
    resumed = train(path, *options, "--resume", ranks=ranks)
    assert resumed.returncode == 0, resumed.stderr
    assert "all steps done" in resumed.stdout
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_sigterm_on_the_last_step_of_an_epoch_leaves_its_validation_to_the_resumed_run(tmp_path):
    path = experiment(tmp_path)
    assert train(path, f"run={tmp_path / 'whole'}").returncode == 0
    steps = last(tmp_path / "whole")["step"] // 3
    assert train(path, _hooks(steps, TERM)).returncode == 128 + TERM
    state = last(tmp_path / "run")
    assert (state["step"], state["evaluated_step"]) == (steps, 0)
    assert train(path, "--resume").returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_corrupt_newest_checkpoint_falls_back_with_a_message(tmp_path):
    path = experiment(tmp_path)
    assert train(path).returncode == 0
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step_*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed = train(path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{newest}: not a readable checkpoint" in resumed.stdout
    assert "going back to the one before" in resumed.stdout
    assert newest.with_name(f"{newest.name}.unreadable").stat().st_size == 1000
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_torchrun_restarts_and_resumes_by_itself(tmp_path):
    path = experiment(tmp_path)
    assert train(path, f"run={tmp_path / 'whole'}", ranks=2).returncode == 0
    steps = last(tmp_path / "whole")["step"] // 3
    cut = train(path, _hooks(steps + 1, KILL), "train.keep_last=5", ranks=2, options=("--max-restarts=1",))
    assert cut.returncode == 0, cut.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_sigterm_to_the_whole_group_saves_and_does_not_kill_the_data_workers(tmp_path, start):
    path = experiment(tmp_path)
    hooks = f"hook=[jsonl,{{name: signal_at, step: 3, number: {TERM}, group: true}}]"
    done = train(path, hooks, "train.workers=1", f"train.worker_start={start}")
    assert done.returncode == 128 + TERM, done.stderr
    assert "stopped by a signal (step 3 of 6)" in done.stdout
    assert f"next: python {ROOT / 'tools' / 'train.py'} {tmp_path / 'run'} --resume" in done.stdout
    assert last(tmp_path / "run")["step"] == 3
    # The printed command is the one that goes on.
    resumed = train(tmp_path / "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert last(tmp_path / "run")["step"] == 6


def test_resume_without_a_run_is_refused(tmp_path):
    done = train(experiment(tmp_path), "--resume")
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path / 'run'}: there is no run to resume; leave --resume out to begin it\n"


def test_a_state_that_only_pickle_could_load_is_refused_when_it_is_written(tmp_path):
    state = {"step": 1, "network": {}, "hooks": {"mine": {"path": Path("x")}}}
    with pytest.raises(
        checkpoint.CheckpointError, match="a checkpoint may hold tensors, numbers, words, lists and dicts"
    ):
        checkpoint.save(tmp_path, state, keep=1, best=False)
    assert list((tmp_path / "checkpoints").iterdir()) == []
