"""tools/components.py: what is listed, what one component's page says, and how mistakes look."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import registry
from core import config
from core.build import make_plan
from core.contracts import KINDS

ROOT = Path(__file__).resolve().parents[2]
GOOD = '''
from registry import register

@register("loss", "tool_mine")
class Mine:
    """A loss of ours (Somebody et al. 2024). It has a second sentence.

    Args:
        scale: factor.

    Example: {name: tool_mine, scale: 2.0}
    """

    def __init__(self, *, scale: float, mode: str | None = None) -> None:
        pass
'''


def show(*arguments, cwd=ROOT):
    settings = {k: v for k, v in os.environ.items() if k != "HEPAR_TRACEBACK"}
    command = [sys.executable, str(ROOT / "tools" / "components.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, check=False)


def shown(*arguments, cwd=ROOT):
    done = show(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 100
    return done.stdout


def refusal(*arguments, cwd=ROOT):
    done = show(*arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def own_page(monkeypatch, capsys):
    """The page of a component, in this process (a process for each component would take minutes)."""
    sys.path.insert(0, str(ROOT / "tools"))
    import components

    def page(*arguments):
        monkeypatch.setattr(sys, "argv", ["components.py", *arguments])
        assert components.main() == 0
        return capsys.readouterr().out

    yield page
    sys.path.remove(str(ROOT / "tools"))


def test_all_kinds_are_listed_with_counts_from_any_folder(tmp_path):
    rows = [line.split(maxsplit=2) for line in shown(cwd=tmp_path).splitlines() if re.match(r"[a-z]+ +\d", line)]
    assert [row[0] for row in rows] == list(KINDS)
    counts = {row[0]: int(row[1]) for row in rows}
    assert counts["loss"] == sum(1 for name in registry.names("loss") if _inside("loss", name))
    assert all(len(row) == 3 for row in rows)


def _inside(kind, name):
    return registry.get(kind, name).target.__module__.startswith("plugins.")


def test_the_components_of_a_kind_are_listed_with_their_first_line():
    text = shown("loss")
    assert "  dice           Soft Dice over the foreground classes (Milletari et al. 2016, arXiv:1606.04797)" in text
    assert "  cross_entropy  Cross-entropy" in text


def test_a_page_says_what_there_is_to_know():
    text = shown("loss", "dice")
    assert text == shown("loss/dice")
    line = registry.get("loss", "dice").line
    for part in (
        f"loss dice   (plugins/loss/dice.py:{line})\n",
        "  smooth  float                   default 1.0\n  absent  one of 'count', 'skip'  default count\n",
        "core's own keys of every loss: node:\n  weight  float  default 1.0\n",
        "core offers to a loss: classes\n  this one asks for: classes\n",
        "example:\n  loss:\n    - {name: dice, smooth: 1.0, absent: count}\n",
    ):
        assert part in text


@pytest.mark.parametrize("kind", [k for k in KINDS if registry.names(k)])
def test_every_page_fits_and_its_example_is_valid(kind, own_page):
    for name in registry.names(kind):
        text = own_page(kind, name)
        assert max(map(len, text.splitlines())) <= 100, name
        assert "(no docstring)" not in text
        example = config.parse(text.partition("\nexample:\n")[2], f"{kind} {name}").value[kind]
        problems = []
        nodes = example.value if isinstance(example.value, list) else [example]
        assert make_plan(kind, nodes[0], kind, problems), problems


def test_a_file_of_ones_own_is_described_with_required_arguments(tmp_path):
    (tmp_path / "mine.py").write_text(GOOD)
    assert "  tool_mine      A loss of ours (Somebody et al. 2024)\n" in shown(
        "loss", "--plugins", "mine.py", cwd=tmp_path
    )
    text = shown("loss", "tool_mine", "--plugins", tmp_path / "mine.py", cwd=tmp_path)
    assert text.startswith("loss tool_mine   (mine.py:")
    assert "  scale  float        required\n  mode   word | null  default null\n" in text
    assert "  this one asks for: nothing\n" in text


def test_an_unknown_kind_is_refused_with_a_suggestion():
    assert refusal("los") == (
        "unknown kind 'los', did you mean 'loss'?\n"
        "  known: source, split, dataset, transform, augment, sampler, window, model, loss, optimizer,\n"
        "    schedule, inferer, metric, postprocess, hook\n"
    )


def test_a_component_in_the_place_of_a_kind_says_where_it_is():
    assert refusal("unet").startswith(
        "unknown kind 'unet'; it is the name of a component: model unet\n  known: source, "
    )


def test_an_unknown_name_is_refused_with_a_suggestion():
    assert refusal("loss", "dyce").startswith("unknown loss 'dyce', did you mean 'dice'?\n  known: cross_entropy, dice")


def test_a_plugin_that_is_asked_for_must_import(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert refusal("--plugins", "no.py", cwd=tmp_path) == "--plugins no.py: no such file: no.py\n"
    text = refusal("loss", "--plugins", "broken.py", cwd=tmp_path)
    assert text.startswith("--plugins broken.py: ")
    assert text.endswith("broken.py cannot be imported: ZeroDivisionError: division by zero (broken.py:1)\n")


def test_plugins_that_do_not_import_are_named_at_the_end(own_page, monkeypatch):
    monkeypatch.setitem(
        registry._state.broken, "plugins.loss.mine", "NameError: name 'torhc' is not defined (mine.py:3)"
    )
    assert own_page("loss").endswith(
        "\n\ncould not be imported:\n  plugins.loss.mine: NameError: name 'torhc' is not defined (mine.py:3)\n"
    )


def test_a_name_that_two_places_claim_does_not_hide_the_others(own_page, monkeypatch):
    monkeypatch.setitem(
        registry._state.conflicts, ("loss", "dice"), "loss 'dice' is registered twice: a.py:1 and b.py:1"
    )
    text = own_page("loss")
    assert "  dice           cannot be used: loss 'dice' is registered twice: a.py:1 and b.py:1\n" in text
    assert "  cross_entropy  Cross-entropy" in text
