"""The hooks in real trainings: killed, resumed, several ranks, a real terminal."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios

import pytest
from harness import ROOT, experiment, last, metric_rows, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HOOKS = ["jsonl", "tensorboard", {"name": "profiler", "first": 3, "last": 4}, {"name": "wandb", "mode": "offline"}]


def events(run):
    """Every scalar, without those that are times, and the steps of every picture and histogram."""
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
    found.Reload()
    tags = found.Tags()
    scalars = {name: [(e.step, e.value) for e in found.Scalars(name)] for name in tags["scalars"]}
    steps = {name: [e.step for e in found.Images(name)] for name in tags["images"]}
    steps |= {name: [e.step for e in found.Histograms(name)] for name in tags["histograms"]}
    times = {name: [step for step, _ in scalars.pop(name)] for name in list(scalars) if name.startswith("cost/")}
    return scalars, steps | times


@pytest.mark.slow
def test_a_killed_and_resumed_run_has_the_files_of_an_uninterrupted_one(tmp_path):
    path = experiment(tmp_path, hook=HOOKS)
    whole = train(path, f"run={tmp_path / 'whole'}", "train.log_every=1")
    assert whole.returncode == 0, whole.stderr
    kill = f"{{name: signal_at, step: 5, number: {int(signal.SIGKILL)}}}"
    hooks = f"hook=[jsonl,tensorboard,{{name: profiler, first: 3, last: 4}},{{name: wandb, mode: offline}},{kill}]"
    assert train(path, hooks, "train.log_every=1").returncode == -signal.SIGKILL
    resumed = train(path, "--resume", "train.log_every=1")
    assert resumed.returncode == 0, resumed.stderr
    run = tmp_path / "run"
    assert last(run)["step"] == 6
    assert metric_rows(run) == metric_rows(tmp_path / "whole")
    assert events(run) == events(tmp_path / "whole")
    scalars, steps = events(run)
    assert [step for step, _ in scalars["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in scalars["val/loss"]] == [2, 4, 6]
    pictures = {name: found for name, found in steps.items() if name.startswith("examples/")}
    assert list(pictures.values()) == [[2, 4, 6]] * 2
    assert sorted(p.name for p in (run / "profile").iterdir()) == ["steps_3-4.json", "steps_3-4.txt"]
    assert json.loads((run / "profile" / "steps_3-4.json").read_text())["traceEvents"]
    ids = {p.name.rpartition("-")[2] for p in (run / "wandb").glob("offline-run-*")}
    assert ids == {last(run)["hooks"]["wandb"]["id"]}


def test_a_run_killed_before_its_first_checkpoint_begins_its_files_anew(tmp_path):
    path = experiment(tmp_path)
    kill = f"hook=[jsonl,tensorboard,{{name: signal_at, step: 1, number: {int(signal.SIGKILL)}}}]"
    assert train(path, kill, "train.log_every=1").returncode == -signal.SIGKILL
    assert [row["step"] for row in metric_rows(tmp_path / "run")] == [1]
    resumed = train(path, "--resume", "hook=[jsonl,tensorboard]", "train.log_every=1")
    assert resumed.returncode == 0, resumed.stderr
    scalars, _ = events(tmp_path / "run")
    assert [step for step, _ in scalars["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in metric_rows(tmp_path / "run") if "train/loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in metric_rows(tmp_path / "run") if "sampler/tumour" in row] == [2, 4, 6]


@pytest.mark.slow
def test_the_bar_in_a_real_terminal(tmp_path):
    path = experiment(tmp_path, hook=["progress"])
    assert train(path, f"run={tmp_path / 'first'}", "train.epochs=1").returncode == 0  # prepares the store
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "train.py"), str(path), "train.log_every=1"],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    os.close(slave)
    seen = b""
    while select.select([master], [], [], 120)[0]:
        try:
            seen += os.read(master, 1 << 16)
        except OSError:  # the process has closed its end
            break
    assert process.wait(10) == 0
    # What is left on each line: a bar is overwritten by spaces before a line of text.
    lines = [line.split("\r")[-1] for line in seen.decode().replace("\r\n", "\n").split("\n")]
    validations = [line for line in lines if line.startswith("epoch ")]
    assert [line[: line.index("val:")] for line in validations] == [f"epoch {n}  step {2 * n}  " for n in (1, 2, 3)]
    assert lines[lines.index(validations[-1]) + 1].startswith("train 100% |")
    assert lines[lines.index(validations[-1]) + 2] == "all steps done (step 6 of 6)"
    assert not [line for line in lines if "|" in line and not line.startswith(("train ", "valid "))]
