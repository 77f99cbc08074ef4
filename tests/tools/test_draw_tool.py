"""tools/draw.py: pictures and tables of what samplers draw, without training."""

import re

import pytest
from PIL import Image
from tiny_run import call, forgotten, make_run

import registry
from core.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("draw")
    with forgotten():
        make_run(root)
        yield root


def test_it_draws_the_experiments_sampler_beside_the_run(root, capsys):
    assert call("draw", root / "run", "sampler.name=tumour_focused", "train.batch=2", "--epoch", "3") == 0
    said = capsys.readouterr().out
    assert "sampler tumour_focused on dataset slices, epoch 3 (PHANTOM: synthetic scans)\n" in said
    assert "samples    4, 4 different ones of 4; 50.0 % tumour, 50.0 % liver, 0.0 % empty\n" in said
    assert said.endswith(f"written to {root}/run_drawn.png\n\n")
    assert Image.open(root / "run_drawn.png").size == (1500, 960)
    assert sorted(path.name for path in (root / "run").iterdir()) == ["checkpoints", "config.yaml", "split.json"]


def test_all_draws_each_sampler_that_applies_and_says_why_another_does_not(root, tmp_path, capsys):
    # A case without tumour: what draws tumour does not apply.
    out = tmp_path / "new" / "drawn.png"
    split = "split={name: file, train: [volume-15], val: [], test: []}"
    words = ("run=none", split, "train.batch=2", "--all", "--out", out)
    assert call("draw", root / "tiny.yaml", *words) == 0
    said = capsys.readouterr().out
    drawn = {path.stem.removeprefix("drawn_") for path in out.parent.iterdir()}
    assert {"uniform", "case_balanced", "hard_examples"} <= drawn
    refused = set(re.findall(r"^(\w+) does not apply: none of the 4 training samples", said, re.MULTILINE))
    assert refused == {"tumour_focused", "lesion_balanced"}
    assert drawn | refused == set(registry.names("sampler"))
    assert "note: it follows the loss, and nothing has been trained: all samples count alike\n" in said


def test_a_negative_epoch_is_refused(root):
    with pytest.raises(UserError, match=r"^--epoch must not be negative, got -1$"):
        call("draw", root / "run", "--epoch", "-1")
