"""Three dimensions all the way: patches drawn by lesion, a 3-D network, a sliding window, validation on whole scans."""

import json

import numpy as np
import pytest
import torch
from harness import experiment

import registry
from core.data.prepare import prepare_experiment
from core.experiment import load
from core.infer.run import load_run
from core.train.assemble import assemble
from core.train.objective import Objective

NODES = {
    "dataset": {"name": "patches", "patch": [4, 16, 16], "divisor": 4, "liver": 2, "elsewhere": 1},
    "sampler": {"name": "lesion_balanced", "by": "size", "length": 24},
    "transform": [],
    "model": {"name": "unet_3d", "channels": [4, 8], "strides": [[1, 2, 2]], "deep_supervision": 0},
    "inferer": {"name": "sliding_window", "patch": [4, 16, 16]},
    "train": {"epochs": 4, "batch": 4, "log_every": 6, "workers": 1, "worker_start": "thread", "precision": "bf16"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    registry.discover("plugins")
    path = experiment(tmp_path_factory.mktemp("volumes"), **NODES)
    # Without the plugin file: one process cannot register it twice.
    wanted = load(path, ["plugins=[]", "prepare.workers=1"])
    prepare_experiment(wanted)
    wanted.run.mkdir()
    trainer = assemble(wanted, torch.device("cpu"), say=lambda text: None)
    trainer.fit()
    return trainer


def rows(trainer):
    return [json.loads(line) for line in (trainer.run / "metrics.jsonl").read_text().splitlines()]


def test_a_network_learns_from_patches_and_is_validated_on_whole_scans(trained):
    assert trained.step == 24
    losses = [row["train/loss"] for row in rows(trained) if "train/loss" in row]
    assert losses[-1] < 0.9 * losses[0]
    validated = [row for row in rows(trained) if "val/loss" in row]
    assert len(validated) == 4
    assert validated[-1]["val/loss"] < validated[0]["val/loss"]
    assert 0 < validated[-1]["val/liver/dice"] <= 1


def test_half_of_what_is_drawn_is_anchored_in_a_lesion(trained):
    drawn = [row for row in rows(trained) if "sampler/tumour" in row]
    assert {(row["sampler/tumour"], row["sampler/lesions"]) for row in drawn} == {(0.5, 3.0)}
    (batch,) = trained.data.first()
    assert (batch.image.shape, batch.label.shape) == ((4, 1, 4, 16, 16), (4, 4, 16, 16))
    assert sum(bool((label == 2).any()) for label in batch.label) >= 2


def test_a_validation_gives_the_losses_whole_slices_as_one_volume_with_lesion_ids(trained):
    seen = []

    def probe(logits, target, lesion):
        seen.append((tuple(logits.shape), tuple(target.shape), tuple(lesion.shape)))
        assert torch.equal(lesion > 0, target == 2)
        return logits.sum() * 0 + len(seen)

    validation, kept = trained.evaluate, trained.evaluate.objective
    validation.objective = Objective([("probe", 1.0, probe)])
    try:
        result = validation(trained.network.eval())
    finally:
        validation.objective = kept
    # Scans of 6 slices of 32 x 40: two slices are finished after the first layer of windows, four after the second.
    assert seen == [((1, 3, n, 32, 40), *[(1, n, 32, 40)] * 2) for n in (2, 4)] * 2
    assert result.metrics["val/loss"] == pytest.approx(((2 * 1 + 4 * 2) / 6 + (2 * 3 + 4 * 4) / 6) / 2)


def test_the_run_predicts_what_validation_saw(trained):
    run = load_run(trained.run, "last", "cpu")
    case = trained.evaluate.cases[0]
    labels = run.predict(trained.evaluate.store.volume(case)).labels
    assert labels.shape == (6, 32, 40)
    assert np.isin(labels, (0, 1, 2)).all()
    assert labels.any()
