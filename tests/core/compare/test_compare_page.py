"""The page of a comparison in a real browser, from a file, with nothing else beside it."""

import re

import pytest

from core.compare.evaluation import load
from core.compare.page import page
from core.compare.result import compare
from tests.core.compare.evaluations import make, make_run

EVIL = '<img src=x onerror="document.title=1">&\''
WHEN = "2026-01-02T03:04+00:00"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    runs = [make_run(root / name, cases=30, seed=i, better=0.4 * i, phantom=True) for i, name in enumerate("ab")]
    return compare(load([*runs, make(root / EVIL.replace("/", ""), 30, seed=7, phantom=True)]))


def test_every_value_is_escaped_and_nothing_is_fetched(made):
    html = page(made, WHEN)
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=&#34;document.title=1&#34;&gt;&amp;&#39;" in html
    assert re.findall(r"""(?:src|href)=["'](?!#)[^"']*""", html) == []
    assert "http" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in html
    assert "PHANTOM: synthetic scans; this describes their generator and says nothing about patients." in html


def test_two_runs_have_no_choice_of_pairs(made):
    html = page(compare(made.evaluations[:2]), WHEN)
    assert 'id="pair"' not in html
    assert ">B - A<" in html


@pytest.fixture
def opened(browser, made, tmp_path):
    file = tmp_path / "comparison.html"
    file.write_text(page(made, WHEN), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(f"file://{file}")
    yield tab
    assert said == []
    context.close()


def test_tables_sort_by_mouse_and_by_key(opened):
    head = opened.locator("#cases th", has_text="tumour Dice, A")
    column = head.evaluate("th => th.cellIndex")
    head.locator("button").click()
    cells = f"#cases tbody tr td:nth-child({column + 1})"
    read = "cells => cells.map(cell => cell.dataset.value).filter(text => text !== '').map(Number)"
    first = opened.eval_on_selector_all(cells, read)
    assert first == sorted(first)
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert opened.eval_on_selector_all(cells, read) == sorted(first, reverse=True)


def test_a_pair_is_chosen(opened):
    shown = opened.locator("[data-pair]:visible")
    assert set(shown.evaluate_all("parts => parts.map(part => part.dataset.pair)")) == {"0-1", "0-2", "1-2"}
    opened.locator("#pair").select_option("1-2")
    assert set(shown.evaluate_all("parts => parts.map(part => part.dataset.pair)")) == {"1-2"}
    assert opened.locator(".said li:visible").count() == 5


def test_lesions_that_one_run_alone_finds(opened, made):
    rows = opened.locator("#lesions tbody tr:visible")
    opened.locator("#pair").select_option("0-1")
    opened.locator("#who").select_option("1")
    expected = next(row.only_b for row in made.found if (row.a, row.b) == (0, 1))
    assert rows.count() == expected
    assert opened.locator("#shown").inner_text() == f"{expected} lesion{'s' * (expected != 1)}"
    assert all(re.match("01", state) for state in rows.evaluate_all("rows => rows.map(row => row.dataset.found)"))
    opened.locator("#who").select_option("none")
    assert rows.count() == next(row.neither for row in made.found if (row.a, row.b) == (0, 1))
    opened.locator("#search").fill("no such case")
    assert rows.count() == 0


def test_a_point_leads_to_its_case(opened, made):
    point = opened.locator(".plot [data-case='17']").first
    assert point.locator("title").text_content().startswith("case_017: A ")
    point.dispatch_event("click", {"bubbles": True})
    row = opened.locator("#cases tr.here")
    assert row.locator("td").first.inner_text() == "case_017"
    opened.locator("#find").fill("case_003")
    assert opened.locator("#cases tbody tr:visible").count() == 1


def test_it_turns_dark_and_light(opened):
    paper = "() => getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(paper)
    opened.locator("#theme").click()
    assert opened.evaluate(paper) != light
