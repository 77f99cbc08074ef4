"""tools/bench.py: what its reports hold, never how fast anything is."""

import pytest
from tiny_bench import assert_speeds, make_bench, measured, rows
from tiny_run import forgotten, make_run

LESION_LOSS = '''
from registry import register


@register("loss", "lesion_mean")
class LesionMean:
    """Mean logit in lesions. Example: {name: lesion_mean}"""

    def __call__(self, logits, target, lesion):
        return (logits[:, 2] * (lesion > 0)).square().mean()
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"))


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


@pytest.mark.slow
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
    overrides += ("metric=[dice, iou]",)
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
