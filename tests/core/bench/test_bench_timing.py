import os

import pytest
import torch

from core.bench.report import Column, Report, Table, machine
from core.bench.timing import in_turns, progress, rate, ratio, spread, timed


def test_sides_take_turns_and_each_runs_once_untimed():
    calls, ticks = [], iter(range(1, 100))

    def side(name):
        def once():
            calls.append(name)
            return float(next(ticks))

        return once

    with progress("test", 8) as bar:
        seconds = in_turns({"a": side("a"), "b": side("b")}, 3, bar)
    assert "".join(calls) == "ba" + "ab" + "ba" + "ab"
    assert seconds["a"].values == (3, 6, 7)
    assert seconds["b"].values == (4, 5, 8)


def test_ratio_is_taken_block_by_block():
    fast, slow = spread([10, 20, 40]), spread([5, 40, 40])
    found = ratio(fast, slow)
    assert found.values == (2, 0.5, 1)
    assert (found.median, found.low, found.high) == (1, 0.5, 2)
    assert rate(100, spread([2, 4])).values == (50, 25)
    with pytest.raises(ValueError, match="shorter"):
        ratio(fast, spread([1]))


def test_timed_waits_for_no_device_but_a_gpu():
    seen = []
    assert timed(lambda: seen.append(1), torch.device("cpu")) > 0
    assert seen == [1]


def test_a_report_as_it_is_printed_and_written(tmp_path):
    table = Table(
        "speed",
        "this against that",
        [Column("rate", "images/s", ".1f"), Column("ratio", "of that", ".2f", range=True)],
        notes=["A note."],
    )
    table.add("this", rate=spread([1, 2, 3]), ratio=spread([0.5, 1, 0.75]))
    table.add("that and more", rate=4.0, ratio="refused")
    table.add("none", rate=None)
    here = {
        "command": "python bench.py",
        "cpu": "CPU 1",
        "cores": 2,
        "threads": 1,
        "memory_gb": 23.6,
        "gpus": [],
        "busy": 0.1,
        "python": "3.11.1",
        "platform": "Linux",
        "versions": {"torch": "2.6", "timm": None},
        "commit": "0123456789abcdef",
        "dirty": True,
        "time": "2026-01-01T00:00:00+00:00",
    }
    report = Report("test", {"size": 256, "ema": None, "loss": ["dice", "focal"]}, [table], here)
    assert report.text() == (
        "command   python bench.py\n"
        "machine   CPU 1, 2 cores, 24 GB, no GPU\n"
        "          torch on 1 thread; others kept 0.1 cores busy at the start\n"
        "versions  python 3.11.1, torch 2.6\n"
        "commit    0123456789ab and changes, 2026-01-01T00:00:00+00:00\n"
        "settings  size 256, ema none, loss dice focal\n"
        "\n"
        "this against that\n"
        "                 images/s              of that\n"
        "  this                2.0  0.75 (0.50 to 1.00)\n"
        "  that and more       4.0              refused\n"
        "  none                  -                    -\n"
        "  A note."
    )
    report.write(tmp_path / "out.json")
    data = report.data()
    assert data["tables"]["speed"]["rows"][0]["rate"] == {"median": 2, "low": 1, "high": 3, "values": [1, 2, 3]}
    assert data["tables"]["speed"]["rows"][1] == {"row": "that and more", "rate": 4.0, "ratio": "refused"}
    assert (data["bench"], data["settings"]["ema"], data["cpu"]) == ("test", None, "CPU 1")
    here["busy"] = 1.0
    assert "this machine was busy with other work" in report.text()


def test_this_machine_is_described():
    found = machine()
    assert found["cpu"]
    assert 0 <= found["busy"] <= max(os.cpu_count(), os.getloadavg()[0])
    assert found["cores"] >= 1
    assert found["versions"]["torch"]
    assert found["gpus"] == [] or torch.cuda.is_available()
