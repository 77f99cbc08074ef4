import csv
import os
from pathlib import Path

import pytest
from tiny_run import call, forgotten, make_run

import registry
from core.errors import UserError
from core.evaluate import measuring

PLUGIN = '''
import os
import signal
from pathlib import Path

import numpy as np

from registry import register

TRAP = Path(__file__).with_name("trap")


@register("metric", "outside_pid")
class OutsidePid:
    """Which process measured a case, and what it was given.

    Example: {name: outside_pid}
    """

    probabilities = True

    def measure(self, pair):
        if TRAP.exists() and pair.case == TRAP.read_text():
            os.kill(os.getpid(), signal.SIGKILL)
        given = float(pair.probabilities.sum(axis=0).mean())
        row = {"case": pair.case, "structure": "liver", "given": given, "hu": np.int64(pair.image.min())}
        return {"cases": [row], "outside": [{"case": pair.case, "pid": os.getpid()}]}

    def summarise(self, tables):
        return {"outside_cases": len(tables["outside"])}
'''


@pytest.fixture
def run(tmp_path):
    with forgotten():
        made = make_run(tmp_path)
        (tmp_path / "outside.py").write_text(PLUGIN)
        yield made
        registry._state.components.pop(("metric", "outside_pid"), None)
        registry._state.files[:] = [file for file in registry._state.files if Path(file).name != "outside.py"]


def rows(run, table):
    with open(run / "evaluation" / f"{table}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_workers_take_a_plugin_from_outside_and_a_killed_one_is_named_and_gone_on_from(run, capsys, monkeypatch):
    memory = run.parent / "memory"
    memory.mkdir()
    monkeypatch.setattr(measuring, "_MEMORY", memory)
    words = [run, f"plugins=[{run.parent / 'model.py'}, {run.parent / 'outside.py'}]", "metric=[dice, outside_pid]"]
    trap = run.parent / "trap"
    trap.write_text("volume-14")
    with pytest.raises(UserError) as error:
        call("evaluate", *words, "--workers", "1")
    assert str(error.value) == (
        "case 'volume-14': the process that measured it was killed, most likely for lack of memory\n"
        "  the other cases measured so far are kept, and the same command goes on from there; try --workers 0"
    )
    assert {path.name for path in (run / "evaluation" / ".parts").glob("*.json")} == {
        "volume-13.json",
        "volume-15.json",
    }
    trap.unlink()
    capsys.readouterr()
    assert call("evaluate", *words, "--workers", "1") == 0
    assert "2 of 3 cases measured before\n" in capsys.readouterr().out
    pids = {row["case"]: int(row["pid"]) for row in rows(run, "outside")}
    assert list(pids) == ["volume-13", "volume-14", "volume-15"]
    assert len(set(pids.values())) == 3  # the first worker, the one after it was killed, that of the second command
    assert os.getpid() not in pids.values()
    cases = rows(run, "cases")
    given = [float(row["given"]) for row in cases if row["structure"] == "liver"]
    assert given == pytest.approx([1, 1, 1], abs=1e-3)
    assert call("evaluate", *words, "--workers", "0") == 0
    assert rows(run, "cases") == cases
    assert {int(row["pid"]) for row in rows(run, "outside")} == {os.getpid()}
    assert list(memory.iterdir()) == []
