"""A rank that dies, a disk that is full, checkpoints within an epoch: real processes."""

import signal

import pytest
import torch
from harness import assert_same_run, experiment, last, train

from core.train import checkpoint


@pytest.mark.slow
def test_torchrun_restarts_when_a_rank_beyond_the_first_is_killed(tmp_path):
    # Under two ranks a rank loads 3 samples for the trial step and 3 a step: the 14th is of step 3, in epoch 1.
    path = experiment(tmp_path, transform=[{"name": "die_at", "rank": 1, "call": 14}])
    whole = train(path, f"run={tmp_path / 'whole'}", ranks=2)
    assert whole.returncode == 0, whole.stderr
    assert last(tmp_path / "whole")["step"] == 6
    cut = train(path, ranks=2, options=("--max-restarts=1",))
    assert cut.returncode == 0, cut.stderr
    assert "rank 1 is no longer there: its last sign of life was step " in cut.stderr
    assert cut.stdout.count("all steps done") == 1
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_full_disk_stops_with_the_checkpoint_before_intact(tmp_path):
    path = experiment(tmp_path)
    assert train(path, f"run={tmp_path / 'whole'}").returncode == 0
    full = train(path, "hook=[jsonl,{name: small_disk, step: 3, bytes: 8000}]")
    assert full.returncode == 2, full.stderr
    folder = tmp_path / "run" / "checkpoints"
    assert full.stderr.startswith(f"{folder / 'step_00000004.pt'}: the checkpoint could not be written: "), full.stderr
    assert full.stderr.endswith("; earlier ones are intact\n")
    assert "Traceback" not in full.stderr
    assert sorted(file.name for file in folder.iterdir()) == ["best.pt", "step_00000002.pt"]
    resumed = train(path, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_checkpoints_within_an_epoch_and_only_the_last_ones_kept(tmp_path):
    often = ("train.save_minutes=1e-6", "train.keep_last=3", "train.batch=4")  # epochs of 4 steps
    path = experiment(tmp_path)
    whole = train(path, f"run={tmp_path / 'whole'}", "hook=[jsonl,list_saved]", *often)
    assert whole.returncode == 0, whole.stderr
    kept = [line.split() for line in (tmp_path / "whole" / "saved.txt").read_text().splitlines()]
    assert {names[-1] for names in kept} == {f"step_{step:08d}.pt" for step in range(1, 13)}
    assert [len(names) for names in kept[:3]] == [1, 2, 3]
    assert max(map(len, kept)) == 3
    best = last(tmp_path / "whole")["best"]["step"]
    assert torch.load(tmp_path / "whole" / "checkpoints" / "best.pt", weights_only=True)["step"] == best

    # In the third step of the second epoch; the checkpoint of the step before may still be under way.
    cut = train(path, "hook=[jsonl,{name: signal_at, step: 7}]", *often)
    assert cut.returncode == -signal.SIGKILL
    state = last(tmp_path / "run")
    assert (state["step"], state["evaluated_step"]) in {(5, 4), (6, 4)}
    # Where one checkpoint is cut short, it goes on from the one before.
    newest = checkpoint.find(tmp_path / "run", "last")
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = train(path, "--resume", *often)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{newest}: not a readable checkpoint" in resumed.stdout
    assert_same_run(tmp_path / "whole", tmp_path / "run")
