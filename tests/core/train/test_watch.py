"""A rank that hangs, ends or fails is named to the user, and no rank stays behind."""

import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from harness import ROOT, experiment, train

from core.train.watch import CLOSED, FAILED, LEFT, RUNS, TIMED_OUT, Report, Watch

STEPS = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import torch
from core import dist
from core.errors import UserError
from core.experiment import run_tool
from core.train.watch import Watch

def main():
    dist.start(5)
    with Watch(5) as watch:
        try:
            for step in range(6):
                watch.at(step, "loading data")
                if step == 4 and dist.rank() == 1:
                    time.sleep(0.5)  # until the others know that it is at step 4
                    {what}
                watch.at(step, "training")
                torch.distributed.all_reduce(torch.ones(3))
        except Exception as error:
            text = watch.blame(error)
            if text is not None:
                raise UserError(text) from error
            raise
    dist.stop()
    return 0

run_tool(main)
"""


def _three_ranks(folder, what):
    """Run the steps above in three processes; returns exit codes and stderrs."""
    script = folder / "steps.py"
    script.write_text(STEPS.format(what=what))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(3):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 3, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in names.items()}}
        command = [sys.executable, str(script), str(ROOT)]
        ranks.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    try:
        errors = [process.communicate(timeout=90)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return [process.returncode for process in ranks], errors


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_by_those_that_waited_and_shows_where_it_is(tmp_path):
    codes, errors = _three_ranks(tmp_path, "time.sleep(3600)")
    assert codes == [2, 1, 2]
    # Rank 0 keeps the store, so rank 2 may find it gone; but the message is rank 0's.
    last = errors[0].splitlines()[-1]
    assert re.fullmatch(
        r"rank 1 has hung: its last sign of life was step 4 \(loading data\), \d+ s ago; ranks 0(, 2)? waited 5 s "
        r"\(train.timeout_s\)",
        last,
    ), errors[0]
    assert "watch, rank 1: no progress since step 4 (loading data)" in errors[1]
    assert "time.sleep(3600)" in errors[1]
    assert "watch, rank 1: the other ranks have given up on this one; no progress for " in errors[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        (
            "os.kill(os.getpid(), 9)",
            -9,
            r"rank 1 is no longer there: its last sign of life was step 4 \(loading data\), \d+ s ago; if it printed "
            r"no error, the system may have ended it, e.g. for want of memory",
        ),
        (
            "raise OSError('scan 7 is cut short')",
            1,
            r"rank 1 failed: OSError: scan 7 is cut short, at step 4 \(loading data\), \d+ s ago; the other ranks stop "
            r"because of it",
        ),
    ],
    ids=["killed", "failed"],
)
def test_a_rank_that_ends_is_named_by_the_others(tmp_path, what, code, message):
    codes, errors = _three_ranks(tmp_path, what)
    assert codes == [2, code, 2]
    assert re.fullmatch(message, errors[0].splitlines()[-1]), errors[0]


@pytest.mark.slow
def test_a_training_whose_rank_hangs_in_a_transform_ends_with_one_message(tmp_path):
    path = experiment(tmp_path, transform=[{"name": "sleep_at", "rank": 1, "call": 9}])
    done = train(path, "train.timeout_s=5", ranks=3)
    assert done.returncode != 0
    assert re.search(
        r"\nrank 1 has hung: its last sign of life was step 3 \(loading data\), \d+ s ago; ranks 0, 2 waited 5 s "
        r"\(train.timeout_s\)\n",
        done.stderr,
    ), done.stderr
    assert "time.sleep(3600)" in done.stderr
    assert done.stderr.count("rank 1 has hung: ") == 1


def test_one_process_has_nothing_to_watch():
    before = threading.active_count()
    with Watch(1) as watch:
        watch.at(3, "training")
        assert threading.active_count() == before
        assert watch.blame(RuntimeError("Connection closed by peer")) is None


class _Store:
    """What a process group's store does, in this process."""

    def __init__(self):
        self.rows, self.broken = {}, False

    def set(self, key, value):
        if self.broken:
            raise RuntimeError("Broken pipe")
        self.rows[key] = value

    def get(self, key):
        return self.rows[key]

    def check(self, keys):
        return all(key in self.rows for key in keys)


def _watch(rank=0, world=3, timeout_s=30.0, store=None):
    watch = Watch(timeout_s)
    watch.rank, watch.world, watch._store = rank, world, store
    return watch


def test_a_lost_store_is_noted_once_and_training_goes_on(capfd):
    store = _Store()
    store.broken = True
    with _watch(timeout_s=1, store=store) as watch:
        for step in range(6):
            watch.at(step, "training")
            time.sleep(0.1)
    told = "watch, rank 0: the key-value store of the ranks is lost, hangs are no longer found (Broken pipe)\n"
    assert capfd.readouterr().err == told


def test_a_lost_store_is_named_where_a_collective_failed():
    store = _Store()
    store.broken = True
    text = _watch(store=store).blame(RuntimeError("[gloo/pair.cc:5] Connection closed by peer\nmore"))
    assert text == (
        "the connection to another rank broke (RuntimeError: [gloo/pair.cc:5] Connection closed by peer), and the "
        "ranks' common key-value store is lost too (Broken pipe): the process that kept it is gone, which is rank 0 "
        "unless torchrun keeps it"
    )


def test_a_rank_tells_the_others_of_its_own_error():
    store = _Store()
    assert _watch(rank=2, store=store).blame(ValueError("no such scan")) is None
    assert _watch(store=store)._reports()[2].state == FAILED
    assert _watch(store=store)._reports()[2].error == "ValueError: no such scan"


def test_repeating_what_one_does_is_a_sign_of_life_and_no_progress():
    watch = _watch(store=_Store())
    for step, doing in [(7, "loading data"), (7, "training"), (8, "validating"), (8, "validating"), (8, "saving")]:
        watch.at(step, doing)
    assert watch._place[:3] == (8, 1, "saving")
    watch.at(9, "loading data")
    assert watch._place[:3] == (9, 0, "loading data")


def _report(state, doing="training", age=30.0, step=17, call=1):
    return Report(step, call, doing, age, 0.0, 1, state, "OSError: scan 7" if state == FAILED else "")


@pytest.mark.parametrize(
    ("reports", "silent", "alive", "message"),
    [
        pytest.param(
            [_report(TIMED_OUT), _report(RUNS, "loading data", 34, call=0), _report(TIMED_OUT)],
            [1],
            [1],
            "rank 1 has hung: its last sign of life was step 17 (loading data), 34 s ago; "
            "ranks 0, 2 waited 30 s (train.timeout_s)",
            id="hung",
        ),
        pytest.param(
            [_report(TIMED_OUT), _report(RUNS), _report(RUNS, "loading data", 31, call=0)],
            [1, 2],
            [1, 2],
            "rank 2 has hung: its last sign of life was step 17 (loading data), 31 s ago; "
            "rank 0 waited 30 s (train.timeout_s)",
            id="only-the-furthest-behind",
        ),
        pytest.param(
            [_report(TIMED_OUT), _report(RUNS), _report(RUNS, age=29)],
            [1, 2],
            [1, 2],
            "ranks 1, 2 have hung: rank 1's last sign of life was step 17 (training), 30 s ago; rank 2's last sign of "
            "life was step 17 (training), 29 s ago; rank 0 waited 30 s (train.timeout_s)",
            id="two-hung",
        ),
        pytest.param(
            [_report(TIMED_OUT), _report(LEFT), _report(TIMED_OUT)],
            [],
            [],
            "rank 1 has hung: its last sign of life was step 17 (training), 30 s ago; "
            "ranks 0, 2 waited 30 s (train.timeout_s)",
            id="hung-and-already-ended",
        ),
        pytest.param(
            [_report(TIMED_OUT), _report(RUNS, "validating", 2), _report(CLOSED)],
            [1],
            [1],
            "rank 1 kept the others waiting: its last sign of life was step 17 (validating), 2 s ago; "
            "rank 0 waited 30 s (train.timeout_s); still at work: raise train.timeout_s",
            id="slow",
        ),
        pytest.param(
            [_report(TIMED_OUT), _report(CLOSED, age=0), _report(TIMED_OUT)],
            [],
            [],
            "rank 1 came too late: its last sign of life was step 17 (training), 0 s ago; "
            "ranks 0, 2 waited 30 s (train.timeout_s)",
            id="late",
        ),
        pytest.param(
            [_report(TIMED_OUT), _report(RUNS, age=33), _report(TIMED_OUT)],
            [1],
            [],
            "rank 1 is no longer there, or frozen: its last sign of life was step 17 (training), 33 s ago; "
            "if it printed no error, the system may have ended it, e.g. for want of memory",
            id="frozen",
        ),
        pytest.param(
            [_report(CLOSED, age=1), _report(FAILED, "loading data", 1), _report(RUNS, age=1)],
            [2],
            [2],
            "rank 1 failed: OSError: scan 7, at step 17 (loading data), 1 s ago; the other ranks stop because of it",
            id="failed",
        ),
        pytest.param(
            [_report(CLOSED)],
            [1, 2],
            [],
            "ranks 1, 2 are no longer there: rank 1's last sign of life is missing; rank 2's last sign of life is "
            "missing; if it printed no error, the system may have ended it, e.g. for want of memory",
            id="never-heard-of",
        ),
        pytest.param([_report(CLOSED, age=1), _report(RUNS, age=1), _report(CLOSED)], [1], [1], None, id="unknown"),
        pytest.param([_report(TIMED_OUT), _report(TIMED_OUT), _report(TIMED_OUT)], [], [], None, id="nobody"),
    ],
)
def test_who_is_to_blame(monkeypatch, reports, silent, alive, message):
    monkeypatch.setattr("core.train.watch.time.time", lambda: 0.0)
    reports = dict(enumerate(reports))
    assert _watch()._verdict(reports, silent, alive) == message
    if message is not None:
        short = f"{message.split(':')[0]} (rank 0 says more)"
        assert _watch(rank=2)._verdict(reports, silent, alive) == short
