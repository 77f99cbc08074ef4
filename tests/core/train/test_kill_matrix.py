"""A training that is killed and resumed ends in the same bits, whatever the conditions.

Sixteen cells in which any two conditions meet. With HEPAR_LONG_TESTS=1 there are 64 more, in which nearly all threes
meet.
"""

import signal
import subprocess
import sys

import pytest
from harness import ROOT, assert_same_run, experiment, last, train, write_scans
from pairwise import cover, meetings, missing

pytestmark = pytest.mark.slow

FACTORS = {
    "ranks": [1, 2, 3, 4],
    "workers": ["none", "thread", "fork", "spawn"],
    "end": ["kill", "kill_validating", "kill_saving", "term"],
    "precision": ["fp32", "bf16", "fp16"],
    "cache": ["none", "ram", "device"],
    "schedule": ["cosine", "plateau", "one_cycle"],
    "accumulate": [1, 2],
    "recompute": [False, True],
    "sampler": ["uniform", "tumour_focused"],
    "changes": ["transform", "augment"],
    "optimizer": ["adamw", "sgd"],
    "saves": ["epochs", "always"],
}
SCHEDULES = {
    "cosine": {"name": "cosine", "warmup_epochs": 1},
    "plateau": {"name": "plateau", "patience": 0},
    "one_cycle": {"name": "one_cycle"},
}
OPTIMIZERS = {"adamw": {"name": "adamw", "lr": 0.01}, "sgd": {"name": "sgd", "lr": 0.05}}
CHANGES = {
    "transform": {"transform": [{"name": "flip"}, {"name": "noise"}]},
    "augment": {"transform": [], "augment": [{"name": "flip"}, {"name": "affine", "p": 0.5}, {"name": "noise"}]},
}
EPOCHS = 3


def _allowed(cell):
    # Samples on the device do not pass through per-sample transforms.
    return (cell.get("cache"), cell.get("changes")) != ("device", "transform")


CELLS = cover(FACTORS, _allowed, size=16, seed=1)


def _id(cell):
    return "-".join(str(level) for level in cell.values())


def test_any_two_conditions_meet_in_a_cell():
    assert len(CELLS) == 16
    assert all(_allowed(cell) for cell in CELLS)
    assert missing(CELLS, FACTORS, _allowed) == []
    # The search is not asked whether it is right: all pairs are counted another way.
    pairs = {frozenset(pair) for cell in CELLS for pair in meetings({k: [v] for k, v in cell.items()}, _allowed)}
    assert len(pairs) == len(meetings(FACTORS, _allowed))


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """A folder with scans and a prepared store."""
    folder = tmp_path_factory.mktemp("scans")
    write_scans(folder / "scans", 12)
    prepare = [sys.executable, str(ROOT / "tools" / "prepare.py"), str(experiment(folder)), "prepare.workers=1"]
    subprocess.run(prepare, check=True, capture_output=True)
    return folder


def _cell_experiment(folder, scans, cell):
    ranks, workers = cell["ranks"], cell["workers"]
    batch = 8 if ranks in (2, 4) else 6
    settings = {
        "epochs": EPOCHS,
        "batch": batch,
        "micro_batch": batch // ranks // cell["accumulate"],
        "log_every": 2,
        "precision": cell["precision"],
        "ema": 0.9,
        "activation_checkpointing": cell["recompute"],
        "save_minutes": 1e-6 if cell["saves"] == "always" else None,
        "workers": {"none": 0, "spawn": 1}.get(workers, 2),
        "worker_start": "auto" if workers == "none" else workers,
    }
    return experiment(
        folder,
        shared=scans,
        dataset={"name": "slices", "channels": 3, "cache": cell["cache"]},
        sampler={"name": cell["sampler"]},
        model={"name": "blocks"},
        optimizer=OPTIMIZERS[cell["optimizer"]],
        schedule=SCHEDULES[cell["schedule"]],
        train=settings,
        **CHANGES[cell["changes"]],
    )


def _killer(cell, steps):
    """The hook that ends the training, and the (step, evaluated step) at which it may go on."""
    at, lag = steps + 2, int(cell["ranks"] > 1)
    before = {(step, steps) for step in range(steps, 2 * steps)} if cell["saves"] == "always" else {(steps, steps)}
    if cell["end"] == "term":
        return f"{{name: signal_at, step: {at}, number: {int(signal.SIGTERM)}}}", {(at + lag, steps)}
    if cell["end"] == "kill_validating":
        # The checkpoint from before the validation may still be under way.
        return "{name: kill_at, validating: 2}", {(2 * steps, steps), *before}
    if cell["end"] == "kill":
        return f"{{name: signal_at, step: {at}}}", {place for place in before if place[0] < at}
    if cell["saves"] == "always":
        return "{name: kill_at, saving: 3}", {(step, 0) for step in range(1, steps + 1)}
    # The third is that of the second epoch before its validation, the fourth after it.
    number = 2 + cell["accumulate"]
    return f"{{name: kill_at, saving: {number}}}", {(steps, steps) if number == 3 else (2 * steps, steps)}


def _check(folder, scans, cell):
    path, ranks = _cell_experiment(folder, scans, cell), cell["ranks"] if cell["ranks"] > 1 else 0
    whole = train(path, f"run={folder / 'whole'}", ranks=ranks)
    assert whole.returncode == 0, whole.stderr
    steps = last(folder / "whole")["step"] // EPOCHS
    assert steps >= 3
    hook, places = _killer(cell, steps)
    cut = train(path, f"hook=[jsonl,{hook}]", ranks=ranks)
    stopped = cell["end"] == "term"
    assert (f"stopped by a signal (step {steps + 2 + (ranks > 1)} of" in cut.stdout) == stopped, cut.stderr
    assert (cut.returncode in (0, 143)) == stopped, cut.stderr
    state = last(folder / "run")
    assert (state["step"], state["evaluated_step"]) in places, cut.stderr
    half_written = list((folder / "run" / "checkpoints").glob("*.partial"))
    assert bool(half_written) or cell["end"] != "kill_saving"
    resumed = train(path, "--resume", ranks=ranks)
    assert resumed.returncode == 0, resumed.stderr
    assert "all steps done" in resumed.stdout
    assert_same_run(folder / "whole", folder / "run")
    assert list((folder / "run" / "checkpoints").glob("*.partial")) == []


@pytest.mark.parametrize("cell", CELLS, ids=_id)
def test_killed_and_resumed_training_ends_in_the_same_bits(tmp_path, scans, cell):
    _check(tmp_path, scans, cell)
