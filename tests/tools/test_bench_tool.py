"""tools/bench.py, run as a user does on scans of a few kilobytes: what the report holds, never how fast anything is."""

import importlib.util
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import call, forgotten, make_run

from core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LESION_LOSS = '''
from registry import register


@register("loss", "lesion_mean")
class LesionMean:
    """Mean logit in lesions. Example: {name: lesion_mean}"""

    def __call__(self, logits, target, lesion):
        return (logits[:, 2] * (lesion > 0)).square().mean()
'''


def harness():
    """tests/core/train/harness.py, which lies on the path of other tests only."""
    spec = importlib.util.spec_from_file_location("bench_harness", ROOT / "tests" / "core" / "train" / "harness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An experiment with scans, not yet prepared, and a folder for temporary files beside it."""
    here = tmp_path_factory.mktemp("bench")
    harness().experiment(here, split={"name": "stratified", "test": 0.125, "val": 0.125, "seed": 0})
    (here / "tmp").mkdir()
    return here


def environment(folder):
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    # Torch makes a folder for compiled code wherever temporary files go.
    more = {"TORCHINDUCTOR_CACHE_DIR": str(folder.parent / "inductor")}
    return {**kept, **more, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}


def command(*words):
    return [sys.executable, str(ROOT / "tools" / "bench.py"), *map(str, words)]


def bench(folder, *words, **more):
    return subprocess.run(
        command(*words),
        cwd=folder,
        env={**environment(folder), **more},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def measured(folder, *words):
    """The JSON of a run that worked and left nothing behind, and what it printed."""
    before = {path for path in folder.iterdir() if path.name != "store"}
    done = bench(folder, *words, "--json", "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path for path in folder.iterdir() if path.name not in ("store", "out.json")} == before
    assert list((folder / "tmp").iterdir()) == []
    data = json.loads((folder / "out.json").read_text())
    (folder / "out.json").unlink()
    assert data["bench"] == words[0]
    assert data["command"].endswith(f"bench.py {shlex.join(map(str, words))} --json out.json")
    assert data["cpu"]
    assert (data["cores"] >= 1, data["threads"], data["memory_gb"] > 0) == (True, 1, True)
    assert {"torch", "numpy", "h5py", "hdf5plugin", "nibabel"} <= {k for k, v in data["versions"].items() if v}
    return data, done.stdout


def rows(data, table):
    return {row["row"]: row for row in data["tables"][table]["rows"]}


def assert_speeds(data, table, keys, blocks):
    """These figures of every row are positive, with a value a block, or left out where the row has none."""
    for name, row in rows(data, table).items():
        for key in keys:
            figure = row.get(key)
            if figure is None:
                continue
            values = figure["values"] if isinstance(figure, dict) else [figure]
            assert all(math.isfinite(v) and v > 0 for v in values), (table, name, key)
            if isinstance(figure, dict):
                assert len(values) == blocks
                assert figure["low"] <= figure["median"] <= figure["high"]


def test_loader_against_npy_and_copies_and_by_workers(folder):
    words = ("loader", "small.yaml", "--steps", 2, "--seconds", 0.01, "--blocks", 2, "--workers", "1")
    data, text = measured(folder, *words)
    assert list(data["tables"]) == ["npy", "copy", "workers"]
    assert list(rows(data, "npy")) == ["without transforms", "with the experiment's transforms"]
    assert list(rows(data, "copy")) == ["copy", "loader", ".npy"]
    assert list(rows(data, "workers")) == ["in place", "1 process", "1 thread"]
    assert_speeds(data, "npy", ("loader", "npy", "ratio", "size"), 2)
    assert_speeds(data, "copy", ("rate", "gb", "ratio"), 2)
    assert_speeds(data, "workers", ("rate_false", "ratio_false", "rate_true", "ratio_true"), 2)
    assert rows(data, "copy")["copy"]["ratio"]["values"] == [1, 1]
    assert data["settings"]["images a pass"] == 12
    assert "the loader as the experiment has it, against uncompressed .npy files\n" in text
    assert max(map(len, text.splitlines())) <= 110


def test_loader_with_neighbours_lesions_accumulation_and_threads(folder):
    (folder / "mine.py").write_text(LESION_LOSS)
    more = ("plugins=[small.py, mine.py]", "loss=[dice, lesion_mean]", "dataset.context=1", "transform=[]")
    train = ("train.micro_batch=3", "train.workers=2", "train.worker_start=thread")
    words = ("loader", "small.yaml", *more, *train, "--seconds", 0.01, "--blocks", 1, "--workers", "1")
    data, _ = measured(folder, *words)
    assert list(rows(data, "npy")) == ["without transforms"]
    assert rows(data, "npy")["without transforms"]["workers"] == "2 threads"
    assert data["settings"]["micro_batch"] == 3
    assert "rate_true" not in rows(data, "workers")["in place"]


@pytest.mark.slow
def test_training_loop_against_the_bare_loop(folder):
    every = "plain,transforms,augment,ram,device,both,compile"
    data, text = measured(
        folder, "train", "small.yaml", "--only", every, "--steps", 2, "--blocks", 2, "--peak-tflops", 0.5
    )
    variants = [
        "no augmentation",
        "transforms on the CPU",
        "augmentation on the device",
        "no augmentation, cache ram",
        "no augmentation, cache device",
        "augmentation and cache on the device",
        "no augmentation, torch.compile",
    ]
    assert list(data["tables"]) == ["loop", "step", "between", "arithmetic"]
    assert list(rows(data, "loop")) == [
        *variants[:2],
        "  without hooks and logging",
        *variants[2:],
        "  bare loop, not compiled",
    ]
    assert list(rows(data, "arithmetic")) == variants
    assert_speeds(data, "loop", ("full", "bare", "ratio"), 2)
    assert_speeds(data, "arithmetic", ("gflop", "tflops", "bare_tflops", "share"), 2)
    for row in rows(data, "loop").values():
        assert row["ratio"] is not None
        assert row.get("wait") is None or 0 <= row["wait"] < 1
    step = rows(data, "step")
    assert list(step)[:3] == ["waiting for the loader", "hooks", "reading the metrics"]
    assert all(row["ms"] > 0 for row in list(step.values())[:3])
    between = rows(data, "between")
    assert list(between) == ["checkpoint: the loop waits", "checkpoint: a thread writes", "validation"]
    assert between["checkpoint: the loop waits"]["seconds"]["low"] > 0
    assert 0 < between["validation"]["share"] < 1
    assert "Augmentation on the device: flip, noise, in place of the transforms of these names." in text
    assert "Peak: 0.5 TFLOP/s." in text
    assert not (folder / "run").exists()


def test_training_loop_with_workers_and_accumulation(folder):
    options = ("train.workers=1", "train.micro_batch=3", "hook=[]", "train.clip_norm=null", "train.ema=null")
    data, _ = measured(folder, "train", "small.yaml", *options, "--only", "transforms", "--steps", 1, "--blocks", 1)
    assert list(rows(data, "loop")) == ["transforms on the CPU", "  without hooks and logging"]
    assert (data["settings"]["micro_batch"], data["settings"]["workers"]) == (3, "1 auto")


def test_prepare_against_the_plain_way(folder):
    words = ("prepare", "small.yaml", "--cases", 2, "--blocks", 1, "--processes", "1,2")
    data, text = measured(folder, *words)
    assert list(rows(data, "prepare")) == ["the plain way", "prepare, 1 process", "prepare, 2 processes"]
    assert_speeds(data, "prepare", ("seconds", "speed", "mb", "size", "peak_mb", "memory"), 1)
    assert rows(data, "prepare")["the plain way"]["size"] == 1
    assert data["settings"]["cases"] == ["volume-100", "volume-101"]
    assert "2 scans -> slices on the disk, against the plain way\n" in text
    again, _ = measured(folder, "prepare", "--root", folder / "scans", "--cases", 1, "--processes", 1, "--blocks", 1)
    assert (again["settings"]["source"], again["settings"]["cases"]) == ("lits", ["volume-100"])


def test_predict_with_an_untrained_network(folder):
    data, text = measured(folder, "predict", "small.yaml", "--blocks", 2)
    assert list(rows(data, "speed")) == ["bare network", "inferer", "file to file", "the parts below"]
    assert_speeds(data, "speed", ("rate", "ratio"), 2)
    parts = rows(data, "parts")
    assert sum(row["share"]["values"][0] for row in parts.values()) == pytest.approx(1)
    assert {"reading the scan", "network", "logits back to the scan's grid", "writing the label map"} <= set(parts)
    assert all(parts[name]["ms"]["low"] > 0 for name in ("reading the scan", "network", "writing the label map"))
    assert data["settings"]["weights"] == "untrained"
    assert "Untrained weights: the output is noise" in text


def test_evaluate_a_run_with_its_best_checkpoint(tmp_path):
    (tmp_path / "tmp").mkdir()
    with forgotten():
        make_run(tmp_path)
    overrides = ("postprocess=[{name: drop_small, min_voxels: 3}, largest_component]", "dataset.size=24")
    data, text = measured(tmp_path, "evaluate", "run", *overrides, "--cases", 1, "--blocks", 2)
    assert list(rows(data, "speed")) == ["bare network", "evaluation", "the parts below"]
    assert_speeds(data, "speed", ("rate", "ratio"), 2)
    parts = rows(data, "parts")
    assert list(parts)[5:] == [
        *("post-processing: drop_small", "post-processing: largest_component", "metric: dice", "metric: iou")
    ]
    assert all(row["ms"]["low"] > 0 for row in parts.values())
    assert (data["settings"]["weights"], data["settings"]["cases"]) == ("best.pt", ["volume-11"])
    assert "Untrained" not in text
    again, _ = measured(tmp_path, "predict", "run", *overrides, "--cases", 1, "--blocks", 1)
    assert again["settings"]["weights"] == "best.pt"
    assert list(rows(again, "speed")) == ["bare network", "inferer", "file to file", "the parts below"]


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
    assert list((folder / "tmp").iterdir()) == []


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


def test_a_scan_that_is_gone_is_named(folder, tmp_path):
    (tmp_path / "tmp").mkdir()
    harness().experiment(tmp_path)
    assert bench(tmp_path, "predict", "small.yaml", "--blocks", 1, "--cases", 1).returncode == 0
    (tmp_path / "scans" / "volume-100.nii").unlink()
    done = bench(tmp_path, "predict", "small.yaml", "--blocks", 1)
    assert done.returncode == 2
    path = tmp_path / "scans" / "volume-100.nii"
    assert done.stderr == f"{path}: the scan of case 'volume-100' is no longer there; prepare the store again\n"


def test_a_bad_scan_is_named(folder, tmp_path):
    (tmp_path / "tmp").mkdir()
    harness().experiment(tmp_path)
    path = tmp_path / "scans" / "volume-101.nii"
    path.write_bytes(path.read_bytes()[:3000])
    done = bench(tmp_path, "prepare", "small.yaml", "--cases", 2, "--blocks", 1)
    assert done.returncode == 2
    assert f"  volume-101  {path}: unreadable or cut short (" in done.stderr or "nibabel" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("words", [("train", "--only", "plain"), ("loader", "--seconds", "0.01")], ids=lambda w: w[0])
def test_ctrl_c_leaves_nothing_behind(folder, words):
    process = subprocess.Popen(
        command(words[0], "small.yaml", *words[1:], "--steps", 2, "--blocks", 10**6),
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    sign = {"train": "*/plain/checkpoints/step_*.pt", "loader": "*/*_image.npy"}[words[0]]
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
    assert list((folder / "tmp").iterdir()) == []
