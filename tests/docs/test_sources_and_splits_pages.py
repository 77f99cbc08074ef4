"""The pages' examples are nodes that plan, and their links and tables hold."""

import re
from pathlib import Path

import pytest

import registry
from core.build import make_plan
from core.config import parse

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"source": DOCS / "sources.md", "split": DOCS / "splits.md"}


def examples(kind):
    for block in re.findall(r"```yaml\n(.*?)```", PAGES[kind].read_text(encoding="utf-8"), re.DOTALL):
        yield from re.split(rf"^(?={kind}:)", block, flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("kind", PAGES)
def test_every_example_plans_and_every_layout_has_one(kind):
    shown = set()
    for text in examples(kind):
        problems = []
        plan = make_plan(kind, parse(text, "page").value[kind], kind, problems)
        assert problems == [], text
        shown.add(plan.name)
    assert shown >= set(registry.names(kind)) - {"phantom", "dicom"}


@pytest.mark.parametrize("kind", PAGES)
def test_links_lead_to_headings_that_exist(kind):
    for file, heading in re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", PAGES[kind].read_text(encoding="utf-8")):
        text = (DOCS / file).read_text(encoding="utf-8")
        headings = {
            re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        assert not heading or heading in headings, f"{file}#{heading}"
