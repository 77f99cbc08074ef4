"""Whole experiment files: all problems at once, defaults, overrides, plugins, the resolved file, the tools' exit."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

import registry
from core import experiment
from core.config import ConfigError
from core.experiment import changes, load
from core.settings import RESUMABLE

ROOT = Path(__file__).resolve().parents[2]
BASE = """\
source: {name: lits, root: data}
store: data/store
split: stratified
dataset: {name: slices, channels: 3}
model: {name: unet, weights: null}
loss: [dice]
optimizer: adamw
"""
SECTIONS = ", ".join(f.name for f in dataclasses.fields(experiment.Experiment) if f.name != "file")
PLUGIN = """\
from core.contracts import Loss
from registry import register

@register("loss", "{name}")
class Mine:
    def __init__(self, classes: int, *, losses: list[Loss] = [], scale: float = 1.0) -> None:
        self.losses = losses
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """A folder with a base file, and a registry that forgets what a test adds."""
    for kind in registry.kinds():
        registry.names(kind)
    state = registry._state
    own = {"components": dict(state.components), "conflicts": dict(state.conflicts), "files": list(state.files)}
    monkeypatch.setattr(registry, "_state", dataclasses.replace(state, **own))
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)


def write(text, name="x.yaml"):
    Path(name).write_text("extends: base.yaml\n" + text)
    return Path(name)


def refusal(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(write(text), overrides)
    return str(caught.value)


def known(kind):
    return ", ".join(registry.names(kind))


def test_all_problems_of_a_file_and_of_the_command_line_are_shown_at_once():
    text = "loss:\n  - {name: dyce}\n  - {name: dice, smoth: 1}\noptimizer:\n  lr: 1\n  lr: fast\ntrain: {seed: 012}\n"
    assert refusal(text, "optimizer.lr=fast", "train.batch=0", "sampelr.name=uniform", "loss[7].smooth=1") == (
        "8 problems in the experiment\n"
        "x.yaml:7  optimizer.lr: given twice (first at x.yaml:6)\n"
        "x.yaml:8  train.seed: a number may not begin with 0: 012; write 12 or '012'\n"
        "command line  loss[7].smooth: 'loss' has 2 entries: [0] to [1]\n"
        f"command line  sampelr: no such key, did you mean 'sampler'?\n  known: {SECTIONS}\n"
        f"x.yaml:3  loss[0].name: unknown loss 'dyce', did you mean 'dice'?\n  known: {known('loss')}\n"
        "x.yaml:4  loss[1].smoth: loss 'dice' has no such argument, did you mean 'smooth'?\n"
        f"  it has: smooth, absent, weight   ({registry.get('loss', 'dice').place})\n"
        "command line  optimizer.lr: want float, got 'fast'\n"
        "command line  train: batch must be at least 1, got 0"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train: {epoch: 3}", "x.yaml:2  train.epoch: no such key, did you mean 'epochs'?\n  known: epochs, "),
        ("train: 5", "x.yaml:2  train: want a mapping, got 5"),
        ("train: {early_stop: {mode: mxa}}", "x.yaml:2  train.early_stop.mode: want one of 'min', 'max', got 'mxa'"),
        (
            "train: {early_stop: {patience: 0}}",
            "x.yaml:2  train.early_stop: patience must be at least 1 or null, got 0",
        ),
        ("train: {workers: -1}", "x.yaml:2  train: workers must not be negative, got -1"),
        ("train: {ema: 1.5}", "x.yaml:2  train: ema must lie between 0 and 1, got 1.5"),
        ("train: {timeout_s: 0}", "x.yaml:2  train: timeout_s must be positive, got 0.0"),
        ("train:\n  batch: 9\n  micro_batch: 4", "x.yaml:4  train.micro_batch: 4 does not divide train.batch 9"),
        ("prepare: {workers: 0}", "x.yaml:2  prepare: workers must be at least 1 or null, got 0"),
        ("store: 5", "x.yaml:2  store: want path, got 5"),
        ("loss: []", "x.yaml:2  loss: want at least one loss"),
        ("file: x", "x.yaml:2  file: no such key\n  known: source, "),
        ("sampler: null", "x.yaml:2  sampler: want a component such as {name: ...}, got null"),
        ("name: mine", "x.yaml:2  name: no such key"),
        ("plugins: [5]", "x.yaml:2  plugins[0]: want word, got 5"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(text, problem):
    assert refusal(text).startswith(f"1 problem in the experiment\n{problem}")


def test_all_wrong_numbers_of_a_section_are_named_each_with_its_own_place():
    assert refusal("train:\n  epochs: 0\n  batch: 0", "train.ema=2") == (
        "3 problems in the experiment\n"
        "x.yaml:3  train: epochs must be at least 1, got 0\n"
        "x.yaml:4  train: batch must be at least 1, got 0\n"
        "command line  train: ema must lie between 0 and 1, got 2.0"
    )


def test_missing_sections_are_named():
    Path("x.yaml").write_text("store: a\n")
    with pytest.raises(ConfigError) as caught:
        load("x.yaml")
    required = ("source", "split", "dataset", "model", "loss", "optimizer")
    assert caught.value.problems == [f"x.yaml:1  {name}: missing" for name in required]


def test_sections_that_no_file_gives_have_defaults_that_overrides_reach():
    plain = load(write(""))
    assert (plain.sampler.name, plain.window.name) == ("uniform", "hu_window")
    assert [p.name for p in plain.metric if p.keys.validate] == ["dice", "iou", "lesions"]
    given = load(write(""), ["inferer.batch=4", "metric[1].validate=false", "window.low=-100", "train.epochs=3"])
    assert (given.inferer.args["batch"], given.metric[1].keys.validate, given.window.args["low"]) == (4, False, -100)
    assert given.metric[0].keys.validate
    assert load(write("inferer: {batch: 3}\n")).inferer.args["batch"] == 3


def test_the_run_is_named_after_the_file_unless_said_otherwise():
    assert load(write("", "mine.yaml")).run == Path("runs/mine")
    assert load(write(""), ["run=runs/other"]).run == Path("runs/other")


def test_an_override_swaps_a_component_and_old_arguments_do_not_leak():
    path = write("sampler: {name: tumour_focused, tumour_fraction: 0.4}\n")
    assert load(path, ["sampler=uniform"]).sampler.plain() == {"name": "uniform"}
    longer = load(path, ["sampler.length=7", "sampler.name=tumour_focused"])
    assert longer.sampler.plain() == {"name": "tumour_focused", "tumour_fraction": 0.4, "length": 7}


# the resolved file and run directories


def test_a_run_directory_loads_to_the_same_plans_and_is_its_own_run(tmp_path):
    first = load(write("train: {early_stop: {patience: 3}}\ntransform: [{name: affine}]\n"), ["optimizer.lr=1e-5"])
    run = tmp_path / "moved"
    run.mkdir()
    (run / "config.yaml").write_text(first.resolved())
    again = load(run)
    assert again.run == run
    assert dataclasses.replace(again, run=first.run, file=first.file) == first
    assert load(run, ["train.batch=4"]).train.batch == 4


def test_every_key_is_written_out_in_the_resolved_file():
    text = load(write("")).resolved()
    for word in ("inferer:", "early_stop:", "timeout_s: 1800.0", "smooth: 1.0", "weight: 1.0", "divisor: 32"):
        assert word in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert caught.value.problems == [f"{tmp_path}: a folder, but not a run directory (it has no config.yaml)"]


# plugins


def test_plugin_files_are_relative_to_the_file_that_says_them_and_the_resolved_file_loads_from_anywhere(
    tmp_path, monkeypatch
):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.py").write_text(PLUGIN.format(name="test_deep"))
    (tmp_path / "deep" / "base.yaml").write_text("extends: ../base.yaml\nplugins: [mine.py]\n")
    Path("x.yaml").write_text(
        "extends: deep/base.yaml\nloss: [{name: test_deep, weight: 2, losses: [dice, {name: cross_entropy}]}]\n"
    )
    loaded = load("x.yaml")
    assert loaded.plugins == [str(tmp_path / "deep" / "mine.py")]
    assert [p.name for p in loaded.loss[0].args["losses"]] == ["dice", "cross_entropy"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(loaded.resolved())
    monkeypatch.chdir("/")
    assert load(tmp_path / "run").loss == loaded.loss


def test_a_plugin_on_the_command_line_is_relative_to_the_current_folder(tmp_path):
    Path("cli.py").write_text(PLUGIN.format(name="test_cli"))
    loaded = load(write(""), ["plugins=cli.py", "loss[0]=test_cli"])
    assert (loaded.loss[0].name, loaded.plugins) == ("test_cli", [str(tmp_path / "cli.py")])


def test_a_plugin_that_does_not_import_is_named_with_its_place_and_its_line(tmp_path):
    Path("broken.py").write_text("import numpy\n\nnumpy.pi / 0\n")
    text = refusal("plugins:\n  - base.py\n  - broken.py\n  - no_such_package\n")
    assert text == (
        "3 problems in the experiment\n"
        f"x.yaml:3  plugins[0]: no such file: {tmp_path}/base.py\n"
        f"x.yaml:4  plugins[1]: {tmp_path}/broken.py cannot be imported: "
        "ZeroDivisionError: float division by zero (broken.py:3)\n"
        "x.yaml:5  plugins[2]: no_such_package cannot be imported: "
        "ModuleNotFoundError: No module named 'no_such_package'"
    )


# what a resume may change


@pytest.mark.parametrize(
    "override",
    ["run=b", "hook=[]", "store=b", "source.root=b", "prepare.workers=1", "train.epochs=99", "train.max_steps=9",
     "train.max_minutes=1", "train.keep_last=9", "train.log_every=9", "train.workers=0", "train.worker_start=spawn",
     "train.timeout_s=9", "train.early_stop.patience=9"],
)  # fmt: skip
def test_what_a_resume_may_change(override):
    old, new = load(write("")), load(write(""), [override])
    assert new != old
    assert changes(old, new) == []
    assert any(override.startswith(key) for key in RESUMABLE)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["optimizer.lr=2e-3"], ["optimizer.lr: 0.001 in the run, 0.002 now"]),
        (["train.early_stop.mode=max"], ["train.early_stop.mode: min in the run, max now"]),
        (["train.clip_norm=null"], ["train.clip_norm: 12.0 in the run, null now"]),
        (["loss[0].weight=2"], ["loss[0].weight: 1.0 in the run, 2.0 now"]),
        (["loss[0].absent=skip", "train.epochs=9"], ["loss[0].absent: count in the run, skip now"]),
        (["split.seed=1", "train.batch=16"], ["split.seed: 0 in the run, 1 now", "train.batch: 32 in the run, 16 now"]),
        (["dataset.size=[64, 32]"], ["dataset.size: null in the run, [64, 32] now"]),
    ],
)
def test_any_other_change_is_named_with_both_values(overrides, named):
    old = load(write(""), ["optimizer.lr=1e-3"])
    assert changes(old, load(write(""), ["optimizer.lr=1e-3", *overrides])) == named


def test_an_added_entry_is_named():
    old, new = load(write("")), load(write("loss: [dice, cross_entropy]\n"))
    assert "loss[1].name: absent in the run, cross_entropy now" in changes(old, new)


# the tools' exit


def tool(body, **environment):
    program = f"from core import experiment, errors\ndef main():\n    {body}\nexperiment.run_tool(main)\n"
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    settings = {k: v for k, v in settings.items() if v}
    return subprocess.run([sys.executable, "-c", program], env=settings, capture_output=True, text=True, check=False)


def test_a_users_error_is_printed_without_a_traceback_and_exits_2():
    done = tool("raise errors.UserError('what is wrong')", HEPAR_TRACEBACK="")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "what is wrong\n")


def test_the_traceback_is_shown_on_demand():
    done = tool("raise errors.UserError('what is wrong')", HEPAR_TRACEBACK="1")
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.endswith("what is wrong\n")


def test_an_interruption_exits_130_and_any_other_error_keeps_its_traceback():
    assert tool("raise KeyboardInterrupt").returncode == 130
    broken = tool("raise RuntimeError('a bug')")
    assert broken.returncode == 1
    assert "Traceback (most recent call last)" in broken.stderr


def test_a_reader_that_goes_away_is_no_traceback():
    code = "from core import experiment\nexperiment.run_tool(lambda: print('x' * 1_000_000) or 0)"
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
        tool.stdout.close()
        assert tool.stderr.read() == b""
        assert tool.wait(60) == 1
