"""docs/sampling.md: what it shows plans, and it names every data set and sampler of slices and patches."""

import re
from pathlib import Path

import pytest

import registry
from core.experiment import load

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sampling.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS)
def test_every_block_plans_on_top_of_the_baseline(text, tmp_path):
    base = ROOT / "experiments" / "unet_r34_cedice.yaml"
    text = text.replace("extends: unet_r34_cedice.yaml\n", "")
    (tmp_path / "mine.yaml").write_text(f"extends: {base}\n{text}")
    experiment = load(tmp_path / "mine.yaml")
    name = re.search(r"(dataset|sampler): {name: (\w+)", text)
    assert getattr(experiment, name[1]).name == name[2]


def test_the_table_has_every_sampler():
    here = {n for n in registry.names("sampler") if registry.get("sampler", n).target.__module__.startswith("plugins.")}
    assert set(re.findall(r"^\| `(\w+)` \| \w", PAGE, re.MULTILINE)) == here
    assert {re.search(r"name: (\w+)", block)[1] for block in BLOCKS if block.startswith("sampler")} == here


def test_the_figures_that_the_log_is_said_to_have_are_those_it_has():
    from core.contracts import Record
    from core.data.drawn import statistics

    figures = statistics([Record("a", "p", 0, 9, 1, (1,), (5.0,))], [0])
    named = set(re.findall(r"`sampler/(\w+)`", PAGE))
    assert len(named) == 6
    assert named <= set(figures)


def test_the_patch_of_data_set_and_inferer_is_one():
    (block,) = [text for text in BLOCKS if "sliding_window" in text]
    assert len(set(re.findall(r"patch: (\[[\d, ]+\])", block))) == 1
