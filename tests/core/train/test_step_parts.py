"""The parts of a training step and of its checkpoints, each by itself."""

import copy
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from core.errors import UserError
from core.settings import EarlyStop
from core.train import checkpoint
from core.train.early import Judge
from core.train.ema import EMA
from core.train.failure import out_of_memory
from core.train.flags import SAVE, SIGNAL, Flags
from core.train.meter import Meter
from core.train.writer import Writer

CPU = torch.device("cpu")


def _put(flags, step, request=0, norm=1.0):
    flags.put(step, [], torch.tensor(norm, dtype=torch.float64), torch.ones(2, dtype=torch.float64), request)


def test_flags_of_one_process_are_due_at_once():
    flags = Flags(CPU)
    _put(flags, 7, SIGNAL, norm=float("nan"))
    (flag,) = flags.read()
    assert (flag.step, flag.request, flag.losses) == (7, SIGNAL, [1.0, 1.0])
    assert flag.norm != flag.norm
    assert flags.read() == []


def test_late_flags_are_read_one_step_late_and_all_of_them_before_a_checkpoint():
    flags = Flags(CPU)
    flags.lag = 1
    _put(flags, 0, SAVE)
    assert flags.read() == []
    _put(flags, 1)
    assert [f.step for f in flags.read()] == [0]
    assert [f.step for f in flags.read(all_of_them=True)] == [1]


def test_flags_keep_the_numbers_of_their_own_step():
    flags = Flags(CPU)
    flags.lag = 1
    norm = torch.tensor(1.0, dtype=torch.float64)
    losses = torch.ones(2, dtype=torch.float64)
    flags.put(0, [], norm, losses, 0)
    norm.fill_(5)
    losses.fill_(5)
    (flag,) = flags.read(all_of_them=True)
    assert (flag.norm, flag.losses) == (1.0, [1.0, 1.0])


def test_the_meter_leaves_out_steps_that_updated_nothing():
    meter = Meter(["loss", "gradient_norm"], CPU)
    meter.add(torch.tensor([2.0, 1.0], dtype=torch.float64), torch.tensor(True))
    meter.add(torch.tensor([float("nan"), float("inf")], dtype=torch.float64), torch.tensor(False))
    meter.add(torch.tensor([4.0, 3.0], dtype=torch.float64), torch.tensor(True))
    assert meter.read() == {"loss": 3.0, "gradient_norm": 2.0}


def test_averaged_weights_follow_by_hand_and_stay_where_nothing_moved():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = EMA(network, 0.9)
    start = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    network(torch.randn(4, 3))
    left = copy.deepcopy(ema.state_dict())
    ema.update(network, 1000, torch.tensor(False))
    assert all(torch.equal(left[k], v) for k, v in ema.state_dict().items() if v.is_floating_point())
    ema.update(network, 1000)
    for key, value in ema.state_dict().items():
        now = network.state_dict()[key]
        wanted = 0.9 * start[key] + 0.1 * now if value.is_floating_point() else now
        torch.testing.assert_close(value, wanted)
    other = EMA(network, 0.9)
    other.load_state_dict(left)
    other.update(network, 1000, torch.tensor(True))
    for key, value in other.state_dict().items():
        torch.testing.assert_close(value, ema.state_dict()[key])


def test_early_stopping_counts_only_improvements_beyond_min_delta():
    judge = Judge(EarlyStop(metric="val/tumour/dice", mode="max", patience=2, min_delta=0.1))
    values = [0.3, 0.35, 0.45, float("nan"), 0.5]
    assert [judge.better({"val/tumour/dice": v}, i) for i, v in enumerate(values)] == [True, False, True, False, False]
    assert judge.best["step"] == 2
    assert judge.patience_is_over()
    assert judge.reason() == "early stopping: val/tumour/dice has not improved in 2 validations"


def test_an_unknown_metric_is_named_with_those_there_are():
    judge = Judge(EarlyStop(metric="val/dice"))
    with pytest.raises(UserError, match=r"^train.early_stop.metric: no metric 'val/dice'\n  there are a, b$"):
        judge.check(["b", "a"])


def _state(step):
    return {"step": step, "network": {"w": torch.full((4,), float(step))}}


def test_the_writer_saves_what_was_there_when_it_was_asked(tmp_path):
    seen = []
    writer = Writer(tmp_path, 2, seen.append)
    state = _state(1)
    writer.put(state, best=True)
    state["network"]["w"].fill_(-1)
    writer.wait()
    assert [p.name for p in seen] == ["step_00000001.pt"]
    for name in ("step_00000001.pt", "best.pt"):
        assert checkpoint.load(tmp_path / "checkpoints" / name)["network"]["w"].tolist() == [1.0] * 4


def test_the_writer_keeps_the_last_and_the_best_and_tells_of_each_in_the_callers_thread(tmp_path):
    seen = []
    writer = Writer(tmp_path, 2, lambda path: seen.append((path.name, threading.current_thread())))
    for step in range(1, 6):
        writer.put(_state(step), best=step == 2)
    writer.wait()
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.pt", "step_00000004.pt", "step_00000005.pt"]
    assert checkpoint.load(tmp_path / "checkpoints" / "best.pt")["step"] == 2
    assert [name for name, _ in seen] == [f"step_{n:08d}.pt" for n in range(1, 6)]
    assert {thread for _, thread in seen} == {threading.main_thread()}


def test_an_error_of_the_writer_comes_up_in_the_training_and_earlier_checkpoints_stay(tmp_path):
    writer = Writer(tmp_path, 2, lambda path: None)
    writer.put(_state(1), best=True)
    writer.put({**_state(2), "hooks": {"mine": object()}}, best=True)
    with pytest.raises(checkpoint.CheckpointError, match="a checkpoint may hold tensors"):
        writer.wait()
    assert checkpoint.newest(tmp_path)["step"] == 1
    assert checkpoint.load(tmp_path / "checkpoints" / "best.pt")["step"] == 1
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_what_a_kill_left_is_swept_and_what_cannot_be_read_is_set_aside(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, _state(step), keep=9, best=False)
    folder = tmp_path / "checkpoints"
    (folder / "step_00000004.pt.partial").write_bytes(b"half")
    (folder / "step_00000003.pt").write_bytes(b"broken")
    said = []
    assert checkpoint.newest(tmp_path, said.append)["step"] == 2
    assert said[0].endswith("going back to the one before")
    checkpoint.sweep(tmp_path, 2)
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["step_00000001.pt", "step_00000002.pt", "step_00000003.pt.unreadable"]


def test_the_best_checkpoint_serves_where_no_other_is_readable(tmp_path):
    checkpoint.save(tmp_path, _state(1), keep=1, best=True)
    checkpoint.save(tmp_path, _state(2), keep=1, best=False)
    (tmp_path / "checkpoints" / "step_00000002.pt").write_bytes(b"broken")
    assert checkpoint.newest(tmp_path, lambda text: None)["step"] == 1


def test_out_of_memory_in_the_trial_step_names_the_numbers_and_the_knobs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 78 * 2**30)
    data = SimpleNamespace(micro=12, batch=24, world=2)
    text = str(out_of_memory(RuntimeError("CUDA out of memory.\nmore"), torch.device("cuda", 0), data))
    assert text == (
        "the trial step ran out of memory on cuda:0: micro-batch 12, 78.0 GB used at most of 80.0 GB "
        "(1.0 GB free now).\n"
        "Try train.micro_batch=6 (same batch, more accumulation), train.activation_checkpointing=true, a smaller "
        "dataset.size, or train.precision=bf16. (CUDA out of memory.)"
    )
    alone = str(out_of_memory(RuntimeError("x"), torch.device("cuda", 0), SimpleNamespace(micro=1, batch=1, world=1)))
    assert "Try train.activation_checkpointing=true, a smaller" in alone
