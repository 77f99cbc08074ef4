import re

import pytest

import registry
from core import config
from core.build import make_plan

EVERY = [(kind, name) for kind in registry.kinds() for name in registry.names(kind)]


def test_no_module_of_plugins_is_broken():
    assert registry.broken() == {}


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_docstring_says_what_it_is_and_its_example_plans(kind, name, example):
    first = registry.get(kind, name).doc.partition("\n")[0]
    assert first.strip(" .")
    assert len(first) <= 120
    example(kind, name)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_example_builds_with_what_core_passes_in(kind, name, build):
    assert build(kind, name) is not None


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_written_out_plan_plans_to_itself(kind, name, example):
    plan = example(kind, name)
    problems: list[str] = []
    again = make_plan(kind, config.parse(config.dump(plan.plain())), kind, problems)
    assert problems == []
    assert again == plan


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_argument_is_documented(kind, name):
    described = registry.get(kind, name)
    undocumented = [
        a.name for a in described.arguments if not re.search(rf"^\s+{re.escape(a.name)}:", described.doc, re.MULTILINE)
    ]
    assert undocumented == []


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_name_is_a_snake_case_word(kind, name):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
