"""The run directory: never overwritten, locked while in use, every record whole or absent."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core import rundir
from core.experiment import load
from core.rundir import RunError, RunLock, check, read_split, record

ROOT = Path(__file__).resolve().parents[2]
BASE = """\
source: {name: lits, root: data}
store: data/store
split: stratified
dataset: {name: slices, channels: 3}
model: {name: unet, weights: null}
loss: [dice]
optimizer: {name: adamw, lr: 1e-3}
"""
FILES = (".launch", "command.txt", "environment.json", "source.yaml", "split.json", "config.yaml")
PARTS, HASHES = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}, {"a": "1", "b": "2", "c": "3", "d": "4"}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(BASE)


def experiment(*overrides):
    loaded = load("x.yaml", overrides)
    loaded.run.mkdir(parents=True, exist_ok=True)
    return loaded


def refusal(wanted, *, resume=False):
    with pytest.raises(RunError) as caught:
        check(wanted, resume=resume)
    return str(caught.value)


def child(code, **kwargs):
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], env=settings, text=True, **kwargs)


# records


def test_all_records_are_written_and_config_yaml_last(monkeypatch):
    wanted, order = experiment(), []
    monkeypatch.setattr(sys, "argv", ["tools/train.py", "x.yaml", "optimizer.lr=1e-3", "a b=c"])
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b)))
    record(wanted, PARTS, HASHES)
    assert sorted(p.name for p in wanted.run.iterdir()) == sorted(FILES)
    assert order[-1] == "config.yaml"
    assert read_split(wanted.run) == (PARTS, HASHES)
    assert load(wanted.run).loss == wanted.loss
    command = (wanted.run / "command.txt").read_text()
    assert command.endswith(" tools/train.py x.yaml optimizer.lr=1e-3 'a b=c'\n")
    assert "name: lits" in (wanted.run / "source.yaml").read_text()
    environment = json.loads((wanted.run / "environment.json").read_text())
    assert {"commit", "dirty", "python", "platform", "versions", "devices", "threads", "world"} <= set(environment)
    assert environment["versions"]["torch"]


def test_a_resume_adds_its_command_and_keeps_the_split():
    wanted = experiment()
    record(wanted, PARTS, HASHES)
    record(wanted, {"train": ["z"]}, {"z": "9"})
    assert read_split(wanted.run) == (PARTS, HASHES)
    assert len((wanted.run / "command.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize("until", range(len(FILES)))
def test_a_start_that_dies_between_two_records_is_no_run_and_can_be_started_anew_with_another_split(until, monkeypatch):
    wanted, replace, done = experiment(), os.replace, []

    def dies(first, second):
        if len(done) == until:
            raise KeyboardInterrupt
        done.append(second)
        replace(first, second)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        record(wanted, PARTS, HASHES)
    assert not (wanted.run / "config.yaml").exists()
    monkeypatch.setattr(os, "replace", replace)
    RunLock(wanted.run).release()
    assert read_split(wanted.run) is None
    check(experiment("split.seed=5"), resume=False)
    record(wanted, {"train": ["z"]}, {"z": "9"})
    assert read_split(wanted.run) == ({"train": ["z"]}, {"z": "9"})


def test_a_process_killed_while_writing_leaves_the_old_file_whole():
    Path("file").write_text("old")
    code = (
        "import os, signal; from core import rundir; from pathlib import Path\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        "rundir.write(Path('file'), 'new' * 100_000)\n"
    )
    with child(code) as killed:
        assert killed.wait(120) == -signal.SIGKILL
    assert Path("file").read_text() == "old"
    rundir.write(Path("file"), "new")
    assert (Path("file").read_text(), sorted(p.name for p in Path().glob(".*"))) == ("new", [])


# who may use it


def test_a_new_or_empty_folder_is_free(tmp_path):
    check(load("x.yaml"), resume=False)
    check(experiment(), resume=False)
    check(experiment(), resume=True)


def test_a_run_is_not_overwritten():
    wanted = experiment()
    record(wanted, PARTS, HASHES)
    Path("runs/x_2").mkdir()
    assert refusal(wanted) == (
        "runs/x: this run exists and is not overwritten\n"
        "  go on with it:  add --resume\n"
        "  begin another:  add run=runs/x_3"
    )
    check(wanted, resume=True)


def test_a_resume_with_another_configuration_is_refused_with_the_differences():
    record(experiment(), PARTS, HASHES)
    assert refusal(experiment("optimizer.lr=1e-2", "loss[0].smooth=2", "train.epochs=99"), resume=True) == (
        "runs/x: --resume, but the configuration has changed\n"
        "  loss[0].smooth: 1.0 in the run, 2.0 now\n"
        "  optimizer.lr: 0.001 in the run, 0.01 now\n"
        "  put it back, or begin another run: run=runs/x_2"
    )


def test_a_resume_with_more_epochs_is_allowed():
    record(experiment(), PARTS, HASHES)
    check(experiment("train.epochs=99", "train.workers=1", "train.log_every=3"), resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_of_something_else_is_left_alone(resume):
    wanted = experiment()
    (wanted.run / "thesis.txt").write_text("years of work")
    assert refusal(wanted, resume=resume) == (
        "runs/x: exists, but is no run directory (it has no config.yaml); name another with run=..."
    )


def test_a_file_in_its_place_is_left_alone():
    Path("runs").mkdir()
    Path("runs/x").write_text("")
    assert refusal(load("x.yaml")) == "runs/x: a file, but the run directory should be there; name another with run=..."


# the lock

HOLD = """
import sys
from pathlib import Path
from core.rundir import RunLock
lock = RunLock(Path("runs/x"))
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_second_process_is_refused_until_the_first_ends():
    with child(HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == "held\n"
        with child(HOLD, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as second:
            error = second.communicate(timeout=120)[1]
        assert second.returncode == 1
        assert error.splitlines()[-1] == (
            "core.rundir.RunError: runs/x: another process is training in it; wait, or name another with run=..."
        )
        first.communicate("\n", timeout=120)
    RunLock(Path("runs/x")).release()


def test_the_lock_goes_with_a_killed_process_although_its_data_workers_live_on():
    code = HOLD.replace(
        'print("held"', 'import os, time\nif os.fork() == 0:\n    time.sleep(600)\nprint("held"'
    ).replace("sys.stdin.readline()", "time.sleep(600)")
    with child(code, stdout=subprocess.PIPE, start_new_session=True) as first:
        try:
            assert first.stdout.readline() == "held\n"
            first.kill()
            first.wait(60)
            RunLock(Path("runs/x")).release()
        finally:
            os.killpg(first.pid, signal.SIGKILL)


def test_a_released_lock_lets_others_in():
    lock = RunLock(Path("runs/x"))
    lock.release()
    with child(HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.communicate("\n", timeout=120)[0] == "held\n"
