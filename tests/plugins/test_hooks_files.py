"""Hooks `jsonl` and `tensorboard`: what is in the files, and what a resume cuts off."""

import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from core.contracts import Example, RunState
from core.report.overlay import side_by_side
from plugins.hook.jsonl import Jsonl
from plugins.hook.tensorboard import TensorBoard

EVERYTHING = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
COST = {"images_per_s": 12.5, "loader_wait": 0.25, "memory_gb": 3.0}


@pytest.fixture(autouse=True)
def _in_the_order_of_their_names(monkeypatch):
    # Files of one second and one process differ in a counter only, and "10" sorts before "9".
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


@pytest.fixture
def at(tmp_path):
    """A state of a run with epochs of two steps."""
    first = RunState(tmp_path, 0, 0, 8, 2, "loss: [dice]\n", cost=COST)

    def state(step, evaluated=0, **more):
        return dataclasses.replace(first, step=step, epoch=step // 2, evaluated_step=evaluated, **more)

    return state


def train(step):
    return {"train/loss": 10.0 + step, "train/gradient_norm": 2.0, "train/lr": 1 / (1 + step)}


def val(step):
    return {"val/loss": 20.0 + step, "val/tumour/dice": 0.5}


def rows(*dice):
    return [
        {"case": f"c{i}", "structure": s, "dice": d}
        for i, d in enumerate(dice)
        for s in ("liver", "tumour", "parenchyma")
    ]


def example():
    label = np.zeros((20, 24), np.uint8)
    label[5:15, 5:15], label[7:10, 7:10] = 1, 2
    return Example("c0", 3, np.where(label > 0, 100, -1000).astype(np.int16), label, np.roll(label, 2, axis=1))


def begin(hook, state):
    hook.on_fit_start(state)
    return hook


def two_epochs_and_a_step(hook, at):
    """Validations after steps 2 and 4; then step 5, which no checkpoint has. Gives the states of the checkpoints."""
    saved = {}
    for step in range(1, 6):
        evaluated = 2 * ((step - 1) // 2)
        hook.on_step_end(at(step, evaluated), train(step))
        saved[step, evaluated] = hook.state_dict() if hasattr(hook, "state_dict") else None
        if step % 2 == 0:
            hook.on_eval_end(at(step, evaluated, examples=[example()]), val(step), rows(1.0, 0.52))
            saved[step, step] = saved[step, evaluated]
    return saved


def read(folder):
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance=EVERYTHING)
    found.Reload()
    return found


def steps(events):
    return [(e.step, e.value) for e in events]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_has_figures_cost_and_configuration(at, tmp_path):
    hook = begin(TensorBoard(), at(0))
    hook.on_step_end(at(1), {})
    hook.on_step_end(at(2), train(2))
    # Not closed: what a killed training leaves is complete all the same.
    found = read(tmp_path)
    expected = {**train(2), "cost/images_per_s": 12.5, "cost/loader_wait": 0.25, "cost/memory_gb": 3.0}
    assert set(found.Tags()["scalars"]) == set(expected)
    for name, value in expected.items():
        ((step, got),) = steps(found.Scalars(name))
        assert (step, got) == (2, pytest.approx(value))
    (text,) = found.Tensors("config/text_summary")
    assert text.tensor_proto.string_val == [b"```yaml\nloss: [dice]\n\n```"]
    hook.on_fit_end(at(2), "all steps done")


def test_tensorboard_has_the_cases_dice_and_the_slices(at, tmp_path):
    hook = begin(TensorBoard(), at(0))
    hook.on_eval_end(at(2, examples=[example()]), val(2), [*rows(1.0, 0.52, 0.54), {"case": "x", "structure": "liver"}])
    found = read(tmp_path)
    assert steps(found.Scalars("val/loss")) == [(2, 22.0)]
    assert set(found.Tags()["histograms"]) == {"val_cases/liver_dice", "val_cases/tumour_dice"}
    (histogram,) = found.Histograms("val_cases/liver_dice")
    value = histogram.histogram_value
    assert (value.num, value.min, value.max) == (3, 0.52, 1.0)
    filled = {round(top, 6): n for top, n in zip(value.bucket_limit, value.bucket, strict=True) if n}
    assert filled == {0.55: 2, 1.0: 1}
    (picture,) = found.Images("examples/c0_slice_3")
    assert np.array_equal(Image.open(io.BytesIO(picture.encoded_image_string)), side_by_side(example()))
    assert picture.step == 2


def test_tensorboard_draws_nothing_if_told_so(at, tmp_path):
    hook = begin(TensorBoard(images=False), at(0))
    hook.on_eval_end(at(2, examples=[example()]), val(2), rows(1.0))
    assert read(tmp_path).Tags()["images"] == []


@pytest.mark.parametrize(
    ("step", "evaluated", "validations"),
    [
        pytest.param(4, 4, [2, 4], id="after-the-validation"),
        pytest.param(4, 2, [2], id="before-the-validation-of-its-step"),
        pytest.param(3, 2, [2], id="within-an-epoch"),
    ],
)
def test_resuming_hides_what_the_checkpoint_knows_nothing_of(at, tmp_path, step, evaluated, validations):
    saved = two_epochs_and_a_step(begin(TensorBoard(), at(0)), at)
    hook = TensorBoard()
    hook.load_state_dict(saved[step, evaluated])
    begin(hook, at(step, evaluated, resumed_from=step))
    found = read(tmp_path)
    expected = list(range(1, step + 1))
    assert steps(found.Scalars("train/loss")) == [(s, 10.0 + s) for s in expected]
    assert [s for s, _ in steps(found.Scalars("cost/loader_wait"))] == expected
    assert steps(found.Scalars("val/loss")) == [(s, 20.0 + s) for s in validations]
    for events in (found.Histograms("val_cases/liver_dice"), found.Images("examples/c0_slice_3")):
        assert [e.step for e in events] == validations
    # Going on: every step and every validation is there once.
    for again in range(step, 6):
        if again > step:
            hook.on_step_end(at(again), train(again))
        if again % 2 == 0 and again not in validations:
            hook.on_eval_end(at(again, examples=[example()]), val(again), rows(1.0))
    found = read(tmp_path)
    assert steps(found.Scalars("train/loss")) == [(s, 10.0 + s) for s in range(1, 6)]
    assert steps(found.Scalars("val/loss")) == [(2, 22.0), (4, 24.0)]
    assert len(found.Tensors("config/text_summary")) == 1


def test_resuming_without_a_checkpoint_begins_anew(at, tmp_path):
    two_epochs_and_a_step(begin(TensorBoard(), at(0)), at)
    hook = begin(TensorBoard(), at(0, resumed_from=0))
    hook.on_step_end(at(1), {"train/loss": 7.0})
    found = read(tmp_path)
    assert steps(found.Scalars("train/loss")) == [(1, 7.0)]
    assert found.Scalars("val/loss") == []
    assert {text.step for text in found.Tensors("config/text_summary")} == {0}


def test_a_file_that_a_kill_cut_short_does_not_hide_what_follows(at, tmp_path):
    saved = two_epochs_and_a_step(begin(TensorBoard(), at(0)), at)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    hook = TensorBoard()
    hook.load_state_dict(saved[4, 4])
    begin(hook, at(4, 4, resumed_from=4)).on_step_end(at(5, 4), {"train/loss": 7.0})
    assert steps(read(tmp_path).Scalars("train/loss"))[-2:] == [(4, 14.0), (5, 7.0)]


def test_a_failure_closes_tensorboard_opened_or_not(at, tmp_path):
    TensorBoard().on_failed(at(0), RuntimeError("too early"))
    hook = begin(TensorBoard(), at(0))
    hook.on_failed(at(1), RuntimeError("no"))
    assert len(read(tmp_path).Tensors("config/text_summary")) == 1


def test_jsonl_has_a_row_a_log_and_a_row_a_validation(at, tmp_path):
    hook = begin(Jsonl(), at(0))
    hook.on_step_end(at(1), {})
    hook.on_step_end(at(2), train(2))
    hook.on_eval_end(at(2), {"val/loss": math.nan}, rows(1.0))
    first, second = lines(tmp_path)
    assert first == {"step": 2, "epoch": 1, **train(2)}
    assert (second["step"], second["epoch"], math.isnan(second["val/loss"])) == (2, 1, True)


@pytest.mark.parametrize(
    ("step", "evaluated", "kept"),
    [
        pytest.param(4, 4, "t1 t2 v2 t3 t4 v4", id="after-the-validation"),
        pytest.param(4, 2, "t1 t2 v2 t3 t4", id="before-the-validation-of-its-step"),
        pytest.param(3, 2, "t1 t2 v2 t3", id="within-an-epoch"),
        pytest.param(0, 0, "", id="no-checkpoint-yet"),
    ],
)
def test_resuming_cuts_jsonl_back_to_what_the_checkpoint_knows_of(at, tmp_path, step, evaluated, kept):
    two_epochs_and_a_step(begin(Jsonl(), at(0)), at)
    begin(Jsonl(), at(step, evaluated, resumed_from=step))
    assert " ".join(("v" if "val/loss" in row else "t") + str(row["step"]) for row in lines(tmp_path)) == kept
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "cut", [b'{"step": 2, "epoch": 1, "train/lo', b'{"step": 2, "epoch": 1, "x": "\xc3', b"\0\0\0", b"7"]
)
def test_a_line_that_a_kill_cut_short_goes(at, tmp_path, cut):
    hook = begin(Jsonl(), at(0))
    hook.on_step_end(at(1), train(1))
    path: Path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + cut)
    begin(Jsonl(), at(4, 4, resumed_from=4)).on_step_end(at(5), train(5))
    assert path.read_bytes().startswith(whole)
    assert [row["step"] for row in lines(tmp_path)] == [1, 5]
