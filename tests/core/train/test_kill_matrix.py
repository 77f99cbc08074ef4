"""A training that is killed and resumed ends in the same bits, whatever the conditions.

Sixteen cells in which any two conditions meet (loading in place, without a cache, is test_resume.py's). With
HEPAR_LONG_TESTS=1 there are 48 more, in which nearly all threes meet.
"""

import os
import signal
import subprocess
import sys

import pytest
from harness import ROOT, assert_same_run, experiment, last, train, write_scans
from pairwise import cover, meetings, missing

pytestmark = pytest.mark.slow

FACTORS = {
    "ranks": [1, 2, 3, 4],
    "loading": ["device", "thread", "fork", "spawn"],
    "end": ["kill", "kill_validating", "kill_saving", "term"],
    "precision": ["fp32", "bf16", "fp16"],
    "cache": ["none", "ram"],
    "schedule": ["cosine", "plateau", "one_cycle"],
    "accumulate": [1, 2],
    "recompute": [False, True],
    "sampler": ["uniform", "tumour_focused", "follower"],
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
SAMPLES = 24  # an epoch's
BATCH = {1: 6, 2: 8, 3: 6, 4: 8}  # by ranks


def _allowed(cell):
    # Samples that are kept on the device are in no other cache, and pass through no transforms.
    return cell.get("loading") != "device" or (cell.get("cache") != "ram" and cell.get("changes") != "transform")


CELLS = cover(FACTORS, _allowed, size=16, seed=0)
# The search takes half a minute.
LONG_WANTED = os.environ.get("HEPAR_LONG_TESTS") == "1"
LONG = cover(FACTORS, _allowed, size=48, strength=3, seed=1, moves=1200, starts=1) if LONG_WANTED else []


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
    ranks, loading = cell["ranks"], cell["loading"]
    settings = {
        "epochs": EPOCHS,
        "batch": BATCH[ranks],
        "micro_batch": BATCH[ranks] // ranks // cell["accumulate"],
        "log_every": 2,
        "precision": cell["precision"],
        "ema": 0.9,
        "activation_checkpointing": cell["recompute"],
        "save_minutes": 1e-6 if cell["saves"] == "always" else None,
        "workers": {"device": 0, "spawn": 1}.get(loading, 2),
        "worker_start": "auto" if loading == "device" else loading,
    }
    return experiment(
        folder,
        shared=scans,
        dataset={"name": "slices", "channels": 3, "cache": "device" if loading == "device" else cell["cache"]},
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
    # While the training goes on, the last checkpoint may still be under way.
    before = {(step, steps) for step in range(steps, 2 * steps)} if cell["saves"] == "always" else {(steps, steps)}
    if cell["end"] == "term":
        return f"{{name: signal_at, step: {at}, number: {int(signal.SIGTERM)}}}", {(at + lag, steps)}
    if cell["end"] == "kill":
        return f"{{name: signal_at, step: {at}}}", {(steps, 0), *(place for place in before if place[0] < at)}
    # In half of the cells the checkpoint before the validation, else the one after it, whose metric row is there.
    saving = "saving_before" if cell["accumulate"] == 1 else "saving_after"
    doing = "validating" if cell["end"] == "kill_validating" else saving
    return f"{{name: kill_at, doing: {doing}}}", {(2 * steps, steps), *before}


def _check(folder, scans, cell):
    path, ranks = _cell_experiment(folder, scans, cell), cell["ranks"] if cell["ranks"] > 1 else 0
    steps = SAMPLES // BATCH[cell["ranks"]]
    hook, places = _killer(cell, steps)
    whole = train(path, f"run={folder / 'whole'}", ranks=ranks)
    assert whole.returncode == 0, whole.stderr
    assert last(folder / "whole")["step"] == EPOCHS * steps
    cut = train(path, f"hook=[jsonl,{hook}]", ranks=ranks)
    stopped = cell["end"] == "term"
    assert (f"stopped by a signal (step {steps + 2 + (ranks > 1)} of" in cut.stdout) == stopped, cut.stderr
    assert (cut.returncode in (0, 143)) == stopped, cut.stderr
    state = last(folder / "run")
    assert (state["step"], state["evaluated_step"]) in places, cut.stderr
    half_written = list((folder / "run" / "checkpoints").glob("*.partial"))
    assert half_written or cell["end"] != "kill_saving"
    resumed = train(path, "--resume", ranks=ranks)
    assert resumed.returncode == 0, resumed.stderr
    assert "all steps done" in resumed.stdout
    assert_same_run(folder / "whole", folder / "run")
    assert list((folder / "run" / "checkpoints").glob("*.partial")) == []


@pytest.mark.parametrize("cell", CELLS, ids=_id)
def test_killed_and_resumed_training_ends_in_the_same_bits(tmp_path, scans, cell):
    _check(tmp_path, scans, cell)


@pytest.mark.long
def test_nearly_any_three_conditions_meet_in_the_long_set():
    assert len(missing(LONG, FACTORS, _allowed, 3)) < 0.03 * len(meetings(FACTORS, _allowed, 3))


@pytest.mark.long
@pytest.mark.parametrize("cell", LONG, ids=_id)
def test_killed_and_resumed_training_ends_in_the_same_bits_in_more_cells(tmp_path, scans, cell):
    _check(tmp_path, scans, cell)
