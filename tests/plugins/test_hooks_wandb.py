"""Hook `wandb`, offline, with the real package; its files are read back."""

import dataclasses
import json
import struct
import sys

import numpy as np
import pytest
import wandb
from wandb.proto import wandb_internal_pb2 as proto

from core.contracts import Example, RunState
from core.errors import UserError
from plugins.hook.wandb import Wandb

CONFIG = "optimizer: {name: adamw, lr: 3e-4}\nloss: [{name: dice}]\n"


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path / "nobody"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.teardown()  # it reads the environment once


@pytest.fixture
def state(tmp_path):
    (tmp_path / "run").mkdir()
    return RunState(tmp_path / "run", 0, 0, 8, 2, CONFIG, cost={"loader_wait": 0.25})


def at(state, step, **more):
    return dataclasses.replace(state, step=step, epoch=step // 2, **more)


def stored(run):
    """The records of every offline run below `run`: blocks of 32 KiB, each record as one or more fragments."""
    wandb.teardown()  # as at the end of the process: until then wandb's own process may still be writing
    found = []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        data, place, part, records = path.read_bytes(), 7, b"", []
        assert data[:4] == b":W&B"
        while place + 7 <= len(data):
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            if kind == 0 or place % 32768 > 32768 - 7:
                place += 32768 - place % 32768
                continue
            part += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last fragment
                records.append(proto.Record.FromString(part))
                part = b""
        found.append(records)
    return found


def history(records):
    rows = [r.history.item for r in records if r.WhichOneof("record_type") == "history"]
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row} for row in rows]


def one(records, kind):
    return next(getattr(r, kind) for r in records if r.WhichOneof("record_type") == kind)


def train(hook, state, steps):
    for step in steps:
        hook.on_step_end(at(state, step), {"train/loss": 1 / step} if step % 2 == 0 else {})


def rows(*dice):
    return [{"case": f"c{i}", "structure": "liver", "dice": d} for i, d in enumerate(dice)]


def test_offline_run_in_the_run_directory_has_our_metrics_and_configuration(state):
    hook = Wandb(project="liver", mode="offline")
    hook.on_fit_start(state)
    train(hook, state, (1, 2))
    hook.on_eval_end(at(state, 2), {"val/loss": 0.5}, rows(0.5, 1.0))
    hook.on_fit_end(at(state, 2), "all steps done")
    (records,) = stored(state.run)
    logged, validated = history(records)
    assert {k: v for k, v in logged.items() if not k.startswith("_")} == {
        "step": 2,
        "epoch": 1,
        "train/loss": 0.5,
        "cost/loader_wait": 0.25,
    }
    assert (validated["step"], validated["val/loss"]) == (2, 0.5)
    assert sum(validated["val_cases/liver_dice/values"]) == 2
    run = one(records, "run")
    assert (run.project, run.display_name, run.run_id) == ("liver", "run", hook.state_dict()["id"])
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["optimizer"] == {"name": "adamw", "lr": 0.0003}
    assert config["loss"] == [{"name": "dice"}]
    assert one(records, "exit").exit_code == 0


def test_a_resumed_run_goes_on_as_the_same_one(state):
    first = Wandb(mode="offline", run_name="mine")
    first.on_fit_start(state)
    train(first, state, (1, 2, 3, 4))
    saved = first.state_dict()
    first.on_failed(at(state, 4), RuntimeError("no"))
    second = Wandb(mode="offline", run_name="mine")
    second.load_state_dict(json.loads(json.dumps(saved)))
    second.on_fit_start(at(state, 2, resumed_from=2))
    train(second, state, (3, 4))
    second.on_fit_end(at(state, 4), "all steps done")
    runs = stored(state.run)
    assert {one(records, "run").run_id for records in runs} == {saved["id"]}
    assert {one(records, "run").display_name for records in runs} == {"mine"}
    # Each process has a folder of its own; two within one second share it.
    exits = [r.exit.exit_code for records in runs for r in records if r.WhichOneof("record_type") == "exit"]
    assert exits[-1] == 0
    assert [row["step"] for row in history(runs[-1])][-1] == 4


@pytest.mark.parametrize("images", [False, True])
def test_slices_leave_this_computer_only_if_told_so(state, images):
    hook = Wandb(mode="offline", images=images)
    hook.on_fit_start(state)
    label = np.ones((20, 20), np.uint8)
    example = Example("c0", 3, np.zeros((20, 20), np.int16), label, label)
    hook.on_eval_end(at(state, 2, examples=[example]), {"val/loss": 0.5}, [])
    hook.on_fit_end(at(state, 2), "all steps done")
    pictures = [path.name for path in state.run.rglob("*.png")]
    assert len(pictures) == int(images)
    assert all(name.startswith("c0_slice_3") for name in pictures)
    (row,) = history(stored(state.run)[0])
    assert ("examples/c0_slice_3/path" in row) == images


def test_the_environment_may_say_offline(state, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    hook = Wandb()
    hook.on_fit_start(state)
    hook.on_fit_end(state, "all steps done")
    assert len(stored(state.run)) == 1


def test_without_a_login_it_says_what_to_do(state):
    with pytest.raises(UserError) as caught:
        Wandb(mode="online").on_fit_start(state)
    assert str(caught.value).startswith("hook wandb: ")
    assert str(caught.value).endswith("\n  log in with `wandb login`, or set mode: offline (or WANDB_MODE=offline)")


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        Wandb()
    assert str(caught.value) == 'the package wandb is not installed; pip install -e ".[wandb]"'


def test_a_failure_before_the_run_was_begun_is_no_second_one(state):
    Wandb(mode="offline").on_failed(state, RuntimeError("too early"))
    assert list(state.run.iterdir()) == []
