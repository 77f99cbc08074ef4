"""docs/augmentation.md: what it shows plans and passes its contract tests; what it says of the families is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import registry
from core import config
from core.build import build, make_plan

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "augmentation.md").read_text(encoding="utf-8")


def example(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


def test_the_list_of_augments_is_built():
    nodes = config.parse(example("yaml"), "page").value["augment"].value
    problems = []
    plans = [make_plan("augment", node, f"augment[{i}]", problems) for i, node in enumerate(nodes)]
    assert problems == []
    assert [build(plan) is not None for plan in plans] == [True] * 7


def test_the_first_five_lines_are_transforms_too_without_shear():
    text = example("yaml").replace(", shear_deg: [-5, 5]", "")
    nodes = config.parse(text, "page").value["augment"].value
    problems = []
    for i, node in enumerate(nodes):
        make_plan("transform", node, f"transform[{i}]", problems)
    assert [problem.split(": ")[1].splitlines()[0] for problem in problems] == [
        "unknown transform 'low_resolution'",
        "unknown transform 'cutout'",
    ]


def test_the_table_has_every_component_of_both_families():
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE, re.MULTILINE))
    here = {
        kind: {n for n in registry.names(kind) if registry.get(kind, n).target.__module__.startswith("plugins.")}
        for kind in ("transform", "augment")
    }
    assert set(rows) == here["transform"] | here["augment"]
    for name, row in rows.items():
        _, transform, augment, _ = (cell.strip() for cell in row.split("|"))
        assert (transform != "-", augment != "-") == (name in here["transform"], name in here["augment"])


@pytest.mark.slow
def test_the_component_of_the_page_passes_its_contract_tests(tmp_path):
    (tmp_path / "my_augment.py").write_text(example("python"))
    command = [sys.executable, "-m", "pytest", str(ROOT / "tests/contracts"), "--plugins", "my_augment.py", "-v"]
    command += ["-p", "no:cacheprovider", "-k", "table_off"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_augment.py::test_never_makes_the_host_wait_for_a_value_on_the_device[table_off] PASSED" in done.stdout


def test_every_file_that_the_page_names_is_there():
    for name in re.findall(r"\]\(([\w./]+)\)", PAGE):
        assert (ROOT / "docs" / name).is_file(), name
