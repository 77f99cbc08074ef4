import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from core.bench.ways import run
from core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Fill:
    """Holds some memory, writes a file, and says where the file is."""

    megabytes: int

    def __call__(self, folder: Path) -> None:
        held = np.ones(self.megabytes << 20, np.uint8)
        (folder / "file").write_text(str(int(held.sum() >> 20)))
        print("nobody sees this", file=sys.stderr)


class Killed:
    def __call__(self, folder: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Refused:
    def __call__(self, folder: Path) -> None:
        raise UserError("case 'a' is bad")


class Broken:
    def __call__(self, folder: Path) -> None:
        raise KeyError("a")


def test_seconds_and_peak_of_a_process_of_its_own(tmp_path, capfd):
    small, large = run(Fill(1), tmp_path), run(Fill(201), tmp_path)
    assert (tmp_path / "file").read_text() == "201"
    assert small.seconds > 0
    assert 190 < large.peak_mb - small.peak_mb < 230
    assert "nobody sees this" not in capfd.readouterr().err


def test_what_goes_wrong_in_the_process_comes_back(tmp_path):
    with pytest.raises(UserError, match="case 'a' is bad"):
        run(Refused(), tmp_path)
    with pytest.raises(UserError, match=r"the process that prepared was killed \(exit -9\); was memory short\?"):
        run(Killed(), tmp_path)
    with pytest.raises(RuntimeError, match="KeyError: 'a'"):
        run(Broken(), tmp_path)


def test_the_measured_process_holds_no_torch():
    # It imports the tool, as every process does that is spawned, and what it is to run.
    code = (
        "import runpy, sys; runpy.run_path('tools/bench.py', run_name='__mp_main__'); import core.bench.ways; "
        "raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
