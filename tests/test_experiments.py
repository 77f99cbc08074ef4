"""Every experiment plans without data, and its resolved file plans to the same."""

import dataclasses
import re
import typing
from pathlib import Path

import pytest

import registry
from core import config
from core.build import describe_type
from core.config import ConfigError
from core.experiment import Experiment, load
from core.settings import RESUMABLE, EarlyStop, PrepareSettings, TrainSettings

ROOT = Path(__file__).resolve().parents[1]
FOUND = sorted(path.relative_to(ROOT / "experiments").as_posix() for path in (ROOT / "experiments").rglob("*.yaml"))


@pytest.fixture(autouse=True)
def _no_data_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_experiments_are_found():
    assert {"_base.yaml", "quickstart.yaml", "real_ct.yaml", "unet_r34_cedice.yaml"} <= set(FOUND)
    assert len(FOUND) >= 4


@pytest.mark.parametrize("name", FOUND)
def test_plans_without_data(name):
    experiment = load(ROOT / "experiments" / name)
    assert experiment.run == Path("runs") / Path(name).stem
    assert experiment.loss


@pytest.mark.parametrize("name", FOUND)
def test_the_resolved_file_loads_to_the_same_plans(name, tmp_path):
    experiment = load(ROOT / "experiments" / name)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(experiment.resolved())
    again = load(run)
    assert dataclasses.replace(again, run=experiment.run, file=experiment.file) == experiment
    assert load(run / "config.yaml").resolved() == experiment.resolved()


@pytest.mark.parametrize("name", FOUND)
def test_stores_of_different_sources_do_not_meet(name):
    experiment = load(ROOT / "experiments" / name)
    for other in map(load, (ROOT / "experiments" / found for found in FOUND)):
        if other.store == experiment.store:
            assert (other.source.name, other.prepare.compression) == (
                experiment.source.name,
                experiment.prepare.compression,
            )


def test_the_baseline_is_what_the_house_says_it_is():
    baseline = load(ROOT / "experiments" / "unet_r34_cedice.yaml")
    assert (baseline.model.name, baseline.model.args["encoder"], baseline.model.args["weights"]) == (
        "unet", "resnet34", "imagenet",
    )  # fmt: skip
    assert [(p.name, p.keys.weight) for p in baseline.loss] == [("cross_entropy", 1.0), ("dice", 1.0)]
    assert (baseline.optimizer.name, baseline.train.precision, baseline.geometry.repeat) == ("adamw", "bf16", 3)
    assert baseline.train.early_stop.patience is not None


def test_the_quickstart_needs_no_download_and_says_that_it_is_synthetic():
    path = ROOT / "experiments" / "quickstart.yaml"
    quickstart = load(path)
    assert (quickstart.source.name, quickstart.model.args["weights"]) == ("phantom", None)
    assert "PHANTOM" in path.read_text()


@pytest.mark.parametrize("name", FOUND)
def test_every_component_named_exists_under_its_kind(name):
    plain = load(ROOT / "experiments" / name)
    for field in dataclasses.fields(plain):
        for plan in _plans(getattr(plain, field.name)):
            assert (plan.kind, plan.name in registry.names(plan.kind)) == (field.name, True)


def _plans(value):
    return [v for v in (value if isinstance(value, list) else [value]) if hasattr(v, "kind")]


# docs/experiments.md

PAGE = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def rows(page, after):
    """Key, value and default of the first table after a headline."""
    table = page.partition(f"\n{after}\n")[2].partition("|---|")[2].partition("\n\n")[0]
    cells = [re.split(r"(?<!\\)\|", line)[1:4] for line in table.splitlines()[1:]]
    return [tuple(cell.strip().strip("`").replace("\\|", "|") for cell in line) for line in cells]


def expected(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if field.name != "file":
            yield field.name, describe_type(hints[field.name]), _default(field)


def _default(field):
    if field.name == "run":
        return "runs/` and the file's name"
    if field.name == "early_stop":
        return ""
    if "node" in field.metadata:
        return config.parse(config.dump(field.metadata["node"])).plain()
    return "required" if field.default is dataclasses.MISSING else field.default


@pytest.mark.parametrize(
    ("page", "headline", "cls"),
    [
        (PAGE, "## What a file may say", Experiment),
        (TRAINING, "## The keys of `train:`", TrainSettings),
        (TRAINING, "### early_stop", EarlyStop),
        (PAGE, "### prepare", PrepareSettings),
    ],
    ids=["experiment", "train", "early_stop", "prepare"],
)
def test_the_tables_of_the_pages_are_those_of_the_code(page, headline, cls):
    said, true = rows(page, headline), list(expected(cls))
    assert [(key, kind) for key, kind, _ in said] == [(key, kind) for key, kind, _ in true]
    for (key, _, shown), (_, _, default) in zip(said, true, strict=True):
        literal = shown if key in ("run", "early_stop") or default == "required" else config.parse(shown).plain()
        assert literal == default, key


def test_the_page_names_all_that_a_resume_may_change_and_nothing_else():
    listed = PAGE.partition("except for\n")[2].partition("\n\nA schedule")[0]
    assert set(re.findall(r"`([\w.]+)`", listed)) == set(RESUMABLE)


def test_the_experiment_on_the_page_loads(tmp_path):
    (tmp_path / "mine.yaml").write_text(PAGE.partition("```yaml\n")[2].partition("```")[0])
    for name in FOUND:
        (tmp_path / name).write_text((ROOT / "experiments" / name).read_text())
    line = re.search(r"tools/train.py experiments/mine.yaml (.*=.*)", PAGE)[1]
    experiment = load(tmp_path / "mine.yaml", line.split())
    assert (experiment.run, experiment.loss[1].args["smooth"]) == (Path("runs/mine_low"), 2.0)
    assert experiment.train.early_stop.patience == 3


def test_the_mistakes_on_the_page_are_what_one_sees(tmp_path):
    shown = PAGE.partition("each with its place:\n\n```\n")[2].partition("\n```")[0]
    base = ROOT / "experiments" / "quickstart.yaml"
    Path("bad.yaml").write_text(f"extends: {base}\nloss:\n  - {{name: dyce}}\noptimizer: {{lr: fast}}\n")
    with pytest.raises(ConfigError) as caught:
        load("bad.yaml", ["train.epoch=3"])
    seen = str(caught.value)
    for line in shown.splitlines():
        assert line.removesuffix(" ...").removesuffix("cross_entropy, dice") in seen
