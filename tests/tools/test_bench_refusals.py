"""tools/bench.py: what cannot be measured is said, and nothing is left behind."""

import os
import signal
import subprocess
import time

import pytest
from tiny_bench import bench, command, environment, left_behind, make_bench
from tiny_run import call

from core.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("train", "--steps", 100, "--only", "plain"),
            "--steps 100: a block has to fit into an epoch, which has 4 steps; want fewer steps, or a smaller "
            "train.batch\n",
        ),
        (("loader", "train.bath=3"), "command line  train.bath: no such key, did you mean 'batch'?\n"),
        (
            ("train", "transform=[]", "--only", "augment"),
            "--only augment: the experiment has no augmentation, nor transforms of the same names, so there is nothing "
            "to measure\n",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_and_exits_2(folder, words, message):
    done = bench(folder, words[0], "small.yaml", *words[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert left_behind(folder) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("loader", "absent.yaml"), "absent.yaml: no such file"),
        (("predict", "--device", "cuda:x"), "--device cuda:x: want cpu, cuda or cuda:1 ("),
        (("train", "--json", "no/out.json"), "--json no/out.json: no such folder: no"),
        (("train", "--json", "tmp"), "--json tmp: a folder; want a file"),
        (("prepare", "--root", "absent"), "source 'lits': absent: no such folder"),
    ],
)
def test_files_and_devices_that_are_not_there(folder, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError) as caught:
        call("bench", *words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("train", "--only", "plan"),
            "argument --only: no 'plan', did you mean 'plain'?; there are plain, transforms, ",
        ),
        (("loader", "--blocks", "0"), "argument --blocks: want a number of at least 1, got '0'\n"),
        (("loader", "--workers", "1,x"), "argument --workers: want a number of at least 1, got 'x'\n"),
        (("loader", "a.yaml", "b.yaml"), "bench.py: error: want one experiment, got a.yaml b.yaml\n"),
        (("loader", "--blcks", "2"), "bench.py: error: unrecognized arguments: --blcks"),
        (("speed",), "argument loader|train|prepare|predict|evaluate: invalid choice: 'speed'"),
        ((), "the following arguments are required: loader|train|prepare|predict|evaluate\n"),
    ],
)
def test_arguments_that_make_no_sense(capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        call("bench", *words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_several_processes_are_refused(folder):
    done = bench(folder, "train", "small.yaml", RANK="0", WORLD_SIZE="2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "a benchmark measures one process: start it with python, not with torchrun\n"


def test_a_scan_that_is_gone_is_named(tmp_path):
    make_bench(tmp_path)
    assert bench(tmp_path, "predict", "small.yaml", "--blocks", 1, "--cases", 1).returncode == 0
    (tmp_path / "scans" / "volume-100.nii").unlink()
    done = bench(tmp_path, "predict", "small.yaml", "--blocks", 1)
    assert done.returncode == 2
    path = tmp_path / "scans" / "volume-100.nii"
    assert done.stderr == f"{path}: the scan of case 'volume-100' is no longer there; prepare the store again\n"


def test_a_bad_scan_is_named(tmp_path):
    make_bench(tmp_path)
    path = tmp_path / "scans" / "volume-101.nii"
    path.write_bytes(path.read_bytes()[:3000])
    done = bench(tmp_path, "prepare", "small.yaml", "--cases", 2, "--blocks", 1)
    assert done.returncode == 2
    assert (
        f"  volume-101  {path}: cut short: its header promises 15712 bytes, the file has 3000; copy it again"
        in done.stderr
    )
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [("train", "--only", "plain", "--steps", 2), ("loader", "--seconds", 0.01), ("prepare",)],
    ids=lambda w: w[0],
)
def test_ctrl_c_leaves_nothing_behind(folder, words):
    process = subprocess.Popen(
        command(words[0], "small.yaml", *words[1:], "--blocks", 10**6),
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    sign = {"train": "*/plain/checkpoints/step_*.pt", "loader": "*/*_image.npy", "prepare": "*/*/*.npy"}[words[0]]
    until = time.monotonic() + 120
    while not list((folder / "tmp").glob(f"hepar_bench_{sign}")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors
    assert left_behind(folder) == []
