"""Several ranks: the same order and draws, the same rows, one stop for all."""

import json
import re

import pytest
import torch
from harness import experiment, last, metric_rows, train


def _draws(folder):
    """The (index, draw) pairs of every rank and worker, sorted."""
    lines = [line for file in folder.glob("*.txt") for line in file.read_text().splitlines()]
    return sorted(lines)


@pytest.mark.slow
def test_three_ranks_and_spawned_workers_draw_what_one_process_draws(tmp_path):
    def run(name, ranks, *options):
        draws = f"transform=[{{name: write_draws, folder: {tmp_path / name}}}]"
        done = train(path, f"run={tmp_path / ('run_' + name)}", draws, "train.epochs=1", *options, ranks=ranks)
        assert done.returncode == 0, done.stderr
        return _draws(tmp_path / name)

    path = experiment(tmp_path)
    # Every process also loads its first batch once more, for the trial step.
    one, three = run("one", 0), run("three", 3, "train.workers=1", "train.worker_start=spawn")
    assert set(one) == set(three)
    batch, steps = 6, last(tmp_path / "run_one")["step"]
    assert len(one) == len(three) == batch * steps + batch


@pytest.mark.slow
def test_one_checkpoint_gives_the_same_validation_rows_at_one_two_and_three_ranks(tmp_path):
    path = experiment(tmp_path, split={"name": "stratified", "test": 0.13, "val": 0.4, "seed": 0})
    assert train(path, "train.epochs=2").returncode == 0
    state = last(tmp_path / "run")
    found = []
    for ranks in (0, 2, 3):
        # Going on from the last checkpoint with nothing left to train but its validation.
        run = tmp_path / f"run{ranks}"
        (run / "checkpoints").mkdir(parents=True)
        torch.save({**state, "evaluated_step": 0, "world": max(ranks, 1)}, run / "checkpoints" / "step_00000001.pt")
        (run / "config.yaml").write_text((tmp_path / "run" / "config.yaml").read_text())
        done = train(path, "train.epochs=2", f"run={run}", "--resume", ranks=ranks)
        assert done.returncode == 0, done.stderr
        found.append([row for row in metric_rows(run) if "val/loss" in row])
    assert len(found[0]) == 1
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_a_nan_on_one_rank_stops_all_at_the_same_step_and_names_the_samples(tmp_path):
    path = experiment(tmp_path, loss=[{"name": "nan_at", "rank": 1, "call": 5}], transform=[])
    done = train(path, ranks=3)
    assert done.returncode != 0
    # The trial pass under DDP and the trial step are the first two calls, so the fifth is step 2.
    assert re.search(
        r"step 2: the gradient's norm is nan \(loss nan, nan_at nan on rank 1\); nothing was updated", done.stderr
    )
    for name in ("failure.json", "failure_rank1.json", "failure_rank2.json"):
        failure = json.loads((tmp_path / "run" / name).read_text())
        assert failure["step"] == 2
        assert len(failure["samples"]) == 2
        assert failure["samples"][0]["case"].startswith("volume-")


def test_a_nan_in_one_process_ends_without_traceback(tmp_path):
    path = experiment(tmp_path, loss=[{"name": "nan_at", "rank": 0, "call": 2}])
    done = train(path)
    assert done.returncode == 2
    assert (
        "\nstep 0: the gradient's norm is nan (loss nan, nan_at nan on rank 0); nothing was updated. The" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_batch_that_ranks_cannot_share_is_named(tmp_path):
    done = train(experiment(tmp_path), "train.batch=5", "train.micro_batch=2")
    assert done.returncode == 2
    assert "train.micro_batch: 2 does not divide train.batch 5" in done.stderr


def test_a_failing_transform_in_a_worker_shows_its_real_traceback(tmp_path):
    path = experiment(tmp_path, transform=[{"name": "write_draws", "folder": str(tmp_path / "small.py")}])
    done = train(path, "train.workers=1")
    assert done.returncode == 1
    assert "FileExistsError" in done.stderr
    assert "in __call__" in done.stderr


@pytest.mark.slow
def test_augment_gets_the_same_seed_for_a_sample_at_any_number_of_ranks(tmp_path):
    path, found = experiment(tmp_path), []
    for ranks in (0, 2):
        folder = tmp_path / f"seeds{ranks}"
        augment = f"augment=[{{name: write_seeds, folder: {folder}}}]"
        done = train(path, augment, f"run={tmp_path / f'run{ranks}'}", "train.epochs=1", ranks=ranks)
        assert done.returncode == 0, done.stderr
        found.append({line for file in folder.glob("*.txt") for line in file.read_text().splitlines()})
    assert found[0] == found[1]
    assert len(found[0]) == 6 * last(tmp_path / "run0")["step"]


@pytest.mark.slow
def test_a_model_with_parameters_that_it_never_uses_trains_on_two_ranks(tmp_path):
    done = train(experiment(tmp_path, model={"name": "half_used"}), "train.epochs=1", ranks=2)
    assert done.returncode == 0, done.stderr
    assert "all steps done" in done.stdout
