"""Hook `progress`: a bar in a real pseudo-terminal, plain lines elsewhere."""

import dataclasses
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from core.contracts import RunState
from plugins.hook import progress
from plugins.hook.progress import Progress

STATE = RunState(Path("runs/x"), 0, 0, 1200, 300, "", cost={"images_per_s": 153.24, "loader_wait": 0.07})
METRICS = {"train/loss": 0.61234, "train/gradient_norm": 1.5}
VAL = {"val/loss": 0.5, "val/liver/dice": 0.9, "val/tumour/dice": 0.25, "val/other": 1.0}


def at(step):
    return dataclasses.replace(STATE, step=step, epoch=step // 300)


class Terminal:
    """A pseudo-terminal in place of stdout and stderr; `lines` is what a screen of `width` columns shows of it."""

    def __init__(self, monkeypatch, width):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self._width, self._file = width, os.fdopen(slave, "w", encoding="utf-8")
        monkeypatch.setattr(sys, "stdout", self._file)
        monkeypatch.setattr(sys, "stderr", self._file)

    def lines(self):
        self._file.flush()
        os.set_blocking(self._master, False)
        seen = b""
        while True:
            try:
                seen += os.read(self._master, 1 << 16)
            except BlockingIOError:
                break
        lines, row, column = [""], 0, 0
        for mark in seen.decode().replace("\r\n", "\n"):
            if mark == "\r":
                column = 0
                continue
            if mark == "\n" or column == self._width:
                row, column = row + 1, 0
                lines.append("")
                if mark == "\n":
                    continue
            lines[row] = lines[row][:column].ljust(column) + mark + lines[row][column + 1 :]
            column += 1
        return [line.rstrip() for line in lines]


def epoch(hook, first, last, logged_every=20):
    for step in range(first, last + 1):
        hook.on_step_end(at(step), METRICS if step % logged_every == 0 else {})


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bar_and_validation_lines_do_not_tear_each_other(monkeypatch, width):
    terminal = Terminal(monkeypatch, width)
    hook = Progress()
    hook.on_fit_start(STATE)
    epoch(hook, 1, 300)
    hook.on_eval_start(at(300))
    hook.on_eval_end(at(300), VAL, [])
    epoch(hook, 301, 600)
    hook.on_fit_end(at(600), "stopped")
    print("after")
    *wrapped, bar, after, end = terminal.lines()
    line = "epoch 1  step 300  val: loss 0.5000  liver/dice 0.9000  tumour/dice 0.2500"
    assert "".join(wrapped) == line
    assert len(wrapped) == -(-len(line) // width)
    assert (after, end) == ("after", "")
    assert len(bar) <= width
    figures = {
        60: ", loss 0.6123",
        80: ", loss 0.6123 wait 7% 153 img/s",
        120: ", loss 0.6123 wait 7% 153 img/s grad 1.50",
    }
    assert re.fullmatch(rf"train  50% \|[^|]+\| 600/1200 eta \d\d:\d\d{figures[width]}", bar), bar


def test_the_bar_says_when_it_stands_still_for_a_validation(monkeypatch):
    terminal = Terminal(monkeypatch, 80)
    hook = Progress()
    hook.on_fit_start(STATE)
    epoch(hook, 1, 300)
    hook.on_eval_start(at(300))
    assert terminal.lines()[-1].startswith("valid  25% |")
    hook.on_failed(at(300), RuntimeError("no"))
    print("Traceback")
    assert terminal.lines()[-2:] == ["Traceback", ""]


def test_a_resumed_bar_goes_on_where_it_was(monkeypatch):
    terminal = Terminal(monkeypatch, 80)
    hook = Progress()
    hook.on_fit_start(dataclasses.replace(at(900), resumed_from=900))
    said, bar = terminal.lines()
    assert said == "going on from step 900"
    assert bar.startswith("train  75% |")
    assert " 900/1200 " in bar


@pytest.fixture
def clock(monkeypatch):
    """Advances by `clock.pace` seconds a step."""

    class Clock:
        now, pace = 1000.0, 0.3

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_without_a_terminal_there_is_a_line_a_second_and_the_last_step(clock, capsys):
    hook = Progress()
    hook.on_fit_start(STATE)
    for step in range(1, 8):
        clock.now += clock.pace
        hook.on_step_end(at(step), METRICS if step != 1 else {})
    hook.on_eval_start(at(7))
    hook.on_eval_end(at(7), VAL, [])
    clock.now += clock.pace
    hook.on_step_end(at(1200), METRICS)
    hook.on_fit_end(at(1200), "all steps done")
    out, err = capsys.readouterr()
    figures = "loss 0.6123  wait 7%  153 img/s  grad 1.50"
    assert out.splitlines() == [
        f"step 2/1200  epoch 0  eta 05:59  {figures}",
        f"step 6/1200  epoch 0  eta 05:58  {figures}",
        "epoch 0  step 7  val: loss 0.5000  liver/dice 0.9000  tumour/dice 0.2500",
        f"step 1200/1200  epoch 4  eta 00:00  {figures}",
    ]
    assert err == ""


def test_the_time_left_counts_the_steps_of_this_process(clock, capsys):
    hook = Progress()
    hook.on_fit_start(dataclasses.replace(at(600), resumed_from=600))
    clock.now += 200.0
    hook.on_step_end(at(620), METRICS)
    assert "step 620/1200  epoch 2  eta 1:36:40  loss" in capsys.readouterr().out


def test_the_validations_line_has_what_it_is_asked_for(capsys):
    hook = Progress(metrics=("val/other", "val/absent"))
    hook.on_fit_start(STATE)
    hook.on_eval_end(at(300), VAL, [])
    assert capsys.readouterr().out == "epoch 1  step 300  val: other 1.0000\n"
