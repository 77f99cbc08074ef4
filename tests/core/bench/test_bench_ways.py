import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.bench.large import large_case
from core.bench.others import PACKAGES, NnUNet, versions
from core.bench.prepare import Measured, wanted
from core.bench.timing import spread
from core.bench.ways import Prepare, run
from core.contracts import Case
from core.data.store import Store
from core.errors import UserError
from core.settings import PrepareSettings

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Fill:
    """Holds some memory, writes a file, and says where the file is."""

    megabytes: int

    def __call__(self, folder: Path) -> None:
        held = np.ones(self.megabytes << 20, np.uint8)
        (folder / "file").write_text(str(int(held.sum() >> 20)))
        print("nobody sees this", file=sys.stderr)


class Needy:
    def ready(self) -> None:
        self.state = "ready"

    def __call__(self, folder: Path) -> None:
        (folder / "made").write_text(self.state)


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


def test_what_a_way_needs_first_is_there_when_its_turn_comes(tmp_path):
    run(Needy(), tmp_path)
    assert (tmp_path / "made").read_text() == "ready"


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


def test_large_scan_is_one_that_prepare_takes_with_all_its_lesions(tmp_path):
    case = large_case(tmp_path, 9, 3)
    assert case.image.stat().st_size == 352 + 2 * 9 * 512 * 512
    (tmp_path / "store").mkdir()
    Prepare([case], PrepareSettings(), 1)(tmp_path / "store")
    store = Store(tmp_path / "store")
    info = store.info("volume-3")
    assert (info.shape, info.spacing_trusted, info.hu_trusted, info.notes) == ((9, 512, 512), True, True, ())
    assert info.tumour_voxels > 1000
    assert len(store.lesions("volume-3")) >= 3
    assert not np.array_equal(store.image("volume-3", [4]), store.image("volume-3", [5]))


def test_other_system_that_is_not_installed_is_named_before_any_work(monkeypatch):
    monkeypatch.setitem(PACKAGES, "nnunet", "no-such-package")
    with pytest.raises(UserError) as error:
        versions(["nnunet"])
    assert str(error.value) == (
        "--against nnunet: the package no-such-package is not installed here (the project does not need it); "
        "pip install no-such-package, best in an environment of its own, or leave nnunet out"
    )
    assert versions([]) == {}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_plans_for_nnunet_name_the_scans_own_spacing(tmp_path, order):
    spacing = np.array([0.7, 0.8, 2.5])[list(order)]
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([*spacing, 1])), path)
    plans = NnUNet([], -200, 250)._plans(Case("a", "a", path))
    found = plans["configurations"]["3d_fullres"]["spacing"]
    assert found == pytest.approx(spacing[::-1], abs=1e-6)  # its arrays are [Z, Y, X]


def test_what_is_wanted_beside_what_was_measured():
    seconds = {
        "the plain way": spread([4, 5]),
        "prepare, 1 process": spread([2, 2]),
        "prepare, 2 processes": spread([1.5, 2]),
        "the start of 2 processes": spread([0.5, 1]),
        "MONAI's loader to disk": spread([12, 8]),
    }
    measured = Measured()
    measured.sizes = {"the plain way": 1000, "prepare, 1 process": 190}
    measured.images = {"the plain way": 760}
    table = wanted(seconds, measured, [1, 2], ["monai"], 2.25, 1000)
    rows = {row["row"].strip(): (row.get("wanted"), row["measured"]) for row in table.rows}
    assert {name: (want, getattr(found, "values", found)) for name, (want, found) in rows.items()} == {
        "times as fast as the plain way": (">= 1", (2, 2.5)),
        "times as fast as MONAI's loader to disk": (">= 5", (6, 4)),
        "of the size of the plain way's .npy": ("<= 0.25", 0.19),
        "of its float32 images alone": (None, 0.25),
        "2 processes, times as fast as 1": (">= 1.7", (2 / 1.5, 1)),
        "without their start": (None, (2, 2)),
        "their start, s": (None, (0.5, 1)),
        "peak memory at 512x512x1000, in int16 volumes": ("< 3", 2.25),
    }
    assert [row["row"] for row in wanted(seconds, measured, [2], [], None, None).rows] == []
