"""The audit's page in a real browser, from a file, with nothing else beside it."""

import dataclasses
import re

import numpy as np
import pytest

from core.audit.case import Examined
from core.audit.page import page
from core.audit.result import conclude
from core.audit.rules import Finding
from core.audit.thumbnails import LIMIT_BYTES, draw
from core.contracts import Case
from tests.core.audit.bodies import body

EVIL = '<img src=x onerror="document.title=1">&\'"'


def examined(name, liver_ml, *rules, pictures=(), patient="p"):
    case = Case(name, patient, image=f"raw/{name}.nii", label=None)
    row = {
        **{"axes": "LPS", "size_z": 16, "size_y": 96, "size_x": 128, "hu_low": -1024, "hu_high": 900},
        **{"spacing_z_mm": 6.0, "spacing_y_mm": 2.0, "spacing_x_mm": 2.0, "spacing_trusted": True},
        **{"liver_ml": liver_ml, "lesions": 1, "body_width_mm": 310},
    }
    findings = [Finding(rule, f"saw {rule} in {name}", (name,)) for rule in rules]
    return Examined(case, row, findings, image_hash=name, pictures=pictures)


@pytest.fixture(scope="module")
def made():
    image, label = body()
    pictures = draw(image, label, (8, 40, 36), (6, 2, 2))
    cases = [
        examined("b-2", 1500.0, "mirrored_mask", "padding", pictures=pictures, patient="q"),
        examined("a-10", 900.0, "padding", pictures=pictures, patient="r"),
        examined("a-9", None, "windowed", pictures=pictures, patient="s"),
        examined("clean", 12000.0, pictures=pictures, patient="t"),
        dataclasses.replace(examined(EVIL, 3.0, "reader", patient=EVIL), pictures=()),
    ]
    return conclude(EVIL, "name: folder", cases)


def test_every_value_is_escaped_and_nothing_is_fetched(made):
    html = page(made)
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=&#34;document.title=1&#34;&gt;&amp;&#39;&#34;" in html
    assert re.findall(r"""(?:src|href)=["'](?!data:image/webp;base64,|#)[^"']*""", html) == []
    assert "http" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in html


def test_pictures_of_a_case_stay_small_however_noisy_the_scan():
    noise = np.random.default_rng(0).integers(-1000, 1000, (120, 200, 200)).astype(np.int16)
    pictures = draw(noise, None, (60, 100, 100), (1.0, 1.0, 1.0))
    assert sum(len(p.data) for p in pictures) <= LIMIT_BYTES
    assert {(p.width, p.height) for p in pictures} == {(232, 232), (232, 139)}


def test_pictures_keep_the_proportions_in_mm_and_one_scale():
    image, label = body()
    axial, coronal, sagittal = draw(image, label, (8, 40, 36), (6, 2, 2))
    # 122 columns of 2 mm (the body and a margin), 88 rows of 2 mm, 16 slices of 6 mm.
    assert (axial.width, axial.height) == (232, 168)
    assert (coronal.width, coronal.height) == (232, 91)
    assert (sagittal.width, sagittal.height) == (168, 91)


@pytest.fixture
def opened(browser, made, tmp_path):
    """The page, opened from a file; ends with a check that nothing was complained of and nothing asked for."""
    (tmp_path / "audit.html").write_text(page(made), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((tmp_path / "audit.html").as_uri())
    yield tab
    assert said == []
    assert {url[:5] for url in asked} <= {"file:", "data:"}
    assert sum(url.startswith("file:") for url in asked) == 1
    tab.close()


def names(tab):
    return tab.eval_on_selector_all("#cases tbody tr:not([hidden]) a", "links => links.map(a => a.textContent)")


def cards(tab):
    return tab.eval_on_selector_all(".card:not([hidden])", "cards => cards.map(c => c.id)")


def test_it_shows_all_cases_with_pictures_and_findings(opened):
    assert opened.title() == f"Audit: {EVIL}"
    assert names(opened) == ["b-2", "a-10", "a-9", "clean", EVIL]
    assert opened.eval_on_selector_all(".card img", "all => all.every(i => i.complete && i.naturalWidth > 80)")
    assert opened.locator(".card img").count() == 12
    assert "Mask mirrored against its scan" in opened.locator("#case-0").inner_text()
    assert "No picture: the scan cannot be read." in opened.locator("#case-4").inner_text()
    assert opened.locator(".tile[data-show=good]").inner_text().split()[0] == "1"


def test_it_sorts_numbers_as_numbers_and_blanks_last(opened):
    heading = opened.get_by_role("button", name="liver ml", exact=True)
    heading.click()
    assert names(opened) == [EVIL, "a-10", "b-2", "clean", "a-9"]
    assert cards(opened) == ["case-4", "case-1", "case-0", "case-3", "case-2"]
    heading.click()
    assert names(opened) == ["clean", "b-2", "a-10", EVIL, "a-9"]
    opened.get_by_role("button", name="case", exact=True).click()
    assert names(opened)[-4:] == ["a-9", "a-10", "b-2", "clean"]


def test_it_filters_by_severity_finding_and_words(opened):
    opened.locator(".tile[data-show=remark]").click()
    assert names(opened) == ["b-2", "a-10", EVIL]
    opened.locator(".tile[data-show=good]").click()
    assert names(opened) == ["clean"]
    opened.get_by_role("button", name="Clear").click()
    opened.locator("#rule").select_option("padding")
    assert (names(opened), cards(opened)) == (["b-2", "a-10"], ["case-0", "case-1"])
    opened.locator("#search").fill("a-10 PADDING")
    assert names(opened) == ["a-10"]
    assert opened.locator("#shown").inner_text() == "1 of 5 cases"
    opened.keyboard.press("Escape")
    assert len(names(opened)) == 5


def test_the_keyboard_reaches_everything(opened):
    opened.keyboard.press("/")
    opened.keyboard.type("a-")
    assert names(opened) == ["a-10", "a-9"]
    opened.locator("#search").blur()
    for key, card in (("j", "case-1"), ("j", "case-2"), ("j", "case-2"), ("k", "case-1")):
        opened.keyboard.press(key)
        assert opened.evaluate("document.activeElement.id") == card
        assert opened.locator(f"#{card}").evaluate("c => c.getBoundingClientRect().top >= 0")
    opened.keyboard.press("t")
    assert opened.evaluate("document.activeElement.className") == "wide"
    opened.keyboard.press("Escape")
    opened.get_by_role("button", name="liver ml", exact=True).focus()
    opened.keyboard.press("Enter")
    assert names(opened)[0] == EVIL
    link = opened.locator("#findings ~ details a").first
    link.focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "case-0"


def test_a_link_to_a_case_that_is_filtered_away_shows_it(opened):
    opened.locator(".tile[data-show=good]").click()
    opened.locator("details[open] a").first.click()
    assert opened.evaluate("document.activeElement.id") == "case-0"
    assert len(names(opened)) == 5


def test_it_is_dark_where_the_system_is_and_can_be_turned(opened):
    paper = "getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(paper)
    opened.emulate_media(color_scheme="dark")
    dark = opened.evaluate(paper)
    assert (light, dark) == ("rgb(246, 247, 249)", "rgb(20, 23, 27)")
    opened.get_by_role("button", name="Dark or light").click()
    assert opened.evaluate(paper) == light


def test_on_a_narrow_screen_nothing_but_the_table_is_wider_than_it(opened):
    opened.set_viewport_size({"width": 360, "height": 700})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    opened.locator("#case-0 figure button").first.click()
    assert "large" in opened.locator("#case-0").get_attribute("class")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
