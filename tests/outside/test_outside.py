"""Components written outside the repository: found, named in messages, and tested by the contract tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(*arguments, path=(), cwd=ROOT):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT])), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def contracts(*arguments, path=(), cwd=ROOT):
    return run("-m", "pytest", ROOT / "tests/contracts", "-p", "no:cacheprovider", *arguments, path=path, cwd=cwd)


def test_contract_tests_pick_up_a_single_file(tmp_path):
    shutil.copy(HERE / "one_file.py", tmp_path / "mine.py")
    done = contracts("--plugins", "mine.py", "-k", "soft_iou or fill_holes", "-v", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for test in (
        "test_loss.py::test_is_finite_with_any_class_absent[soft_iou-only_0-2d] PASSED",
        "test_postprocess.py::test_is_idempotent_where_it_says_so[fill_holes-busy] PASSED",
    ):
        assert test in done.stdout


def test_contract_tests_pick_up_an_installed_package(installed):
    done = contracts("-k", "mean_absolute or patient_balanced or voxel_excess", "-v", path=[installed])
    assert done.returncode == 0, done.stdout + done.stderr
    for test in (
        "test_loss.py::test_is_finite_and_differentiable_with_every_voxel_ignored[mean_absolute]",
        "test_sampler.py::test_length_is_the_same_in_every_epoch[patient_balanced]",
        "test_metric.py::test_measures_every_case_in_rows_named_after_it[voxel_excess-normal]",
    ):
        assert f"{test} PASSED" in done.stdout


def test_contract_tests_refuse_a_loss_that_is_not_finite_without_a_class(tmp_path):
    broken = (
        (HERE / "one_file.py").read_text().replace("(both + self.smooth) / (either + self.smooth)", "both / g.sum()")
    )
    (tmp_path / "mine.py").write_text(broken)
    done = contracts("--plugins", "mine.py", "-k", "test_loss and soft_iou", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
    assert "test_is_finite_with_any_class_absent[soft_iou-only_0-2d]" in done.stdout


def test_a_file_that_is_not_there_is_said_in_one_line(tmp_path):
    done = contracts("--plugins", "nowhere.py", cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr.strip() == "ERROR: --plugins nowhere.py: no such file: nowhere.py"
