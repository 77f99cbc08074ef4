"""docs/plugins.md: the components on the page pass their contracts, and the messages are what one sees."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.contracts import KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def blocks(language):
    return [text for found, text in BLOCKS if found == language]


def run(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def folder(tmp_path):
    """A copy of the experiments with the page's files beside them."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    (tmp_path / "my_loss.py").write_text(blocks("python")[0])
    (tmp_path / "experiments" / "mine.yaml").write_text(blocks("yaml")[0])
    return tmp_path


def contracts(folder, file, wanted):
    done = run(
        "-m",
        "pytest",
        ROOT / "tests/contracts",
        "-p",
        "no:cacheprovider",
        "-v",
        "--plugins",
        file,
        "-k",
        wanted,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout.splitlines()[-1]
    return done.stdout


def test_the_loss_passes_the_contract_tests(folder):
    out = contracts(folder, "my_loss.py", "poly1")
    assert "test_loss.py::test_is_finite_with_any_class_absent[poly1-only_0-2d] PASSED" in out


def test_the_example_of_every_kind_passes_its_contract_tests(folder):
    imports, *examples = blocks("python")[1:]
    names = re.findall(r'^@register\("(\w+)", "(\w+)"\)', "\n".join(examples), re.MULTILINE)
    assert sorted(kind for kind, _ in names) == sorted(set(KINDS) - {"loss"})
    (folder / "all.py").write_text("\n\n".join([imports, *examples]))
    out = contracts(folder, "all.py", " or ".join(name for _, name in names))
    assert "test_augment.py::test_each_sample_depends_on_its_own_seed_alone[shift_hu] PASSED" in out
    for kind, name in names:
        assert f"test_every_component.py::test_example_builds_with_what_core_passes_in[{kind}-{name}] PASSED" in out


def test_every_kind_has_its_section_and_says_what_core_offers():
    sections = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL))
    for kind, declaration in KINDS.items():
        offer = sections[kind].partition(".")[0]
        assert offer.startswith("Core offers ")
        assert re.findall(r"`(\w+)`", offer.partition(" to `__init__`")[0]) == list(declaration.runtime), kind


def plan(folder):
    code = (
        "import registry; registry.discover('plugins')\n"
        "from pathlib import Path\n"
        "from core.experiment import load\n"
        "from core.config import ConfigError\n"
        "try:\n    print(load(Path('experiments/mine.yaml')).loss[0].args)\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = run("-c", code, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_experiment_plans(folder):
    assert plan(folder) == "{'epsilon': 2.0}\n"


def test_mistakes_look_as_the_page_says(folder):
    path = folder / "experiments" / "mine.yaml"
    text = path.read_text().replace("epsilon:", "epsilonn:").replace("dice", "dyce")
    path.write_text(text + "optimizer: {lr: fast}\n")
    shown = plan(folder)
    # Losses that came after this page was written are known too.
    shown = re.sub(r"^  known: .*$", "  known: cross_entropy, dice, poly1", shown, flags=re.MULTILINE)
    assert shown == blocks("text")[0]
