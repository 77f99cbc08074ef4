"""The report in a real browser, from a file, with nothing else beside it."""

import time

import pytest

from core.report.page import write_report
from tests.core.report.fake_evaluation import EVIL, make, make_large


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    make(folder)
    return write_report(folder)


@pytest.fixture
def show(browser):
    """Opens a page; ends with a check that nothing was complained of and nothing asked for."""
    said, asked, tabs = [], [], []

    def opened(path):
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tabs.append(tab)
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        tab.locator("#viewer .place:not(:empty)").wait_for()
        return tab

    yield opened
    assert said == []
    assert len(asked) == len(tabs)
    assert all(url.startswith("file:") for url in asked)
    for tab in tabs:
        tab.close()


@pytest.fixture
def opened(show, made):
    return show(made)


def column(tab, table, place=1):
    rows = f"#{table} tbody tr:not([hidden]) td:nth-child({place})"
    return tab.eval_on_selector_all(rows, "cells => cells.map(c => c.textContent)")


def place(tab):
    return tab.locator("#viewer .place").inner_text()


def pixels(tab, viewer="#viewer"):
    """How many pixels of its picture are nearly of each colour."""
    return tab.locator(f"{viewer} canvas").evaluate(
        """canvas => {
          const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
          copy.drawImage(canvas, 0, 0);
          const data = copy.getImageData(0, 0, canvas.width, canvas.height).data, out = {};
          const colours = { reference: [86, 180, 233], prediction: [230, 159, 0], white: [255, 255, 255] };
          for (const [name, c] of Object.entries(colours)) {
            out[name] = 0;
            for (let i = 0; i < data.length; i += 4)
              out[name] += c.every((value, k) => Math.abs(value - data[i + k]) < 12);
          }
          out.sum = data.reduce((sum, value) => sum + value, 0);
          return out;
        }"""
    )


def test_the_best_the_median_the_worst_and_the_first_missed_lesion_are_shown(opened):
    assert opened.title() == "PHANTOM Report: quick"
    names = opened.locator(".chosen .name")
    names.last.wait_for()
    assert opened.locator(".chosen .place:not(:empty)").count() == 3
    assert [opened.locator(".chosen .rank").nth(i).inner_text() for i in range(3)] == ["Best", "Median", "Worst"]
    assert names.all_inner_texts() == ["case-10", EVIL, "case-1"]
    assert opened.locator("#viewer .name").inner_text() == "case-2"
    assert place(opened) == "slice 14 of 24"
    assert opened.locator("#viewer .said").inner_text() == "missed lesion 2, 7.2 mm"
    assert all(pixels(opened, f".chosen .viewer:nth-child({i})")["reference"] > 20 for i in (1, 2, 3))


def test_lists_sort_numbers_as_numbers_with_blanks_last(opened):
    heading = opened.locator("#cases th button", has_text="case")
    heading.first.click()
    assert column(opened, "cases") == [EVIL, "case-1", "case-2", "case-10", "flagged", "free"]
    distance = opened.get_by_role("button", name="HD95 mm", exact=True)
    distance.click()
    first = column(opened, "cases", 12)
    assert first[3:] == ["", "", ""]
    assert sorted(map(float, first[:3])) == list(map(float, first[:3]))
    distance.click()
    assert column(opened, "cases", 12) == [*first[2::-1], "", "", ""]
    assert opened.locator("#cases th[aria-sort=descending]").count() == 1
    opened.locator("#lesions th button", has_text="mm").first.click()
    assert column(opened, "lesions", 3) == ["5.4", "5.4", "7.2", "9.0", "9.0", "10.8", "14.4", "16.2", "21.6"]


def test_lists_filter_by_kind_and_words(opened):
    lesions, cases = opened.locator("#lesion-bar"), opened.locator("#case-bar")
    lesions.locator("select").select_option("missed")
    assert column(opened, "lesions", 2) == ["missed"] * 3
    lesions.locator("input").fill("case-1 low")
    assert column(opened, "lesions") == ["case-1\u00a0/\u00a02", "case-1\u00a0/\u00a01"]
    assert lesions.locator("output").inner_text() == "2 of 9"
    cases.locator("select").select_option("free")
    assert column(opened, "cases") == ["free", "flagged"]
    cases.get_by_role("button", name="Clear").click()
    assert len(column(opened, "cases")) == 6
    opened.keyboard.press("Escape")
    assert len(column(opened, "lesions")) == 9


def test_a_lesion_is_jumped_to_from_the_list_a_chip_and_by_keys(opened):
    opened.get_by_role("link", name="case-2 / p2").click()
    opened.locator("#viewer .said", has_text="false lesion 2").wait_for()
    assert place(opened) == "slice 17 of 24"
    assert pixels(opened)["white"] > 100  # corners round it
    assert opened.evaluate("document.activeElement.className") == "screen"
    opened.keyboard.press("n")
    opened.locator("#viewer .said", has_text="false lesion 1").wait_for()
    assert opened.locator("#viewer .name").inner_text() == "flagged"
    assert opened.locator("tr[aria-current]").inner_text().startswith("flagged\u00a0/\u00a0p1")
    opened.keyboard.press("p")
    opened.keyboard.press("p")
    opened.locator("#viewer .name", has_text="case-1").wait_for()
    assert place(opened) == "slice 12 of 24"
    opened.locator("#viewer .chip", has_text="missed 9 mm").click()
    opened.locator("#viewer .said", has_text="missed lesion 2").wait_for()
    assert place(opened) == "slice 9 of 24"
    opened.get_by_role("link", name=EVIL, exact=True).click()
    opened.locator("#viewer .name", has_text="script").wait_for()
    assert opened.title() == "PHANTOM Report: quick"


def test_slices_scroll_by_wheel_keys_and_slider(opened):
    screen = opened.locator("#viewer .screen")
    box = screen.bounding_box()
    opened.mouse.move(box["x"] + 100, box["y"] + 100)
    before = opened.evaluate("scrollY")
    opened.mouse.wheel(0, 100)  # not in the viewer yet: the page scrolls
    opened.wait_for_timeout(300)
    assert place(opened) == "slice 14 of 24"
    assert opened.evaluate("scrollY") > before
    screen.click()
    before = opened.evaluate("scrollY")
    opened.mouse.wheel(0, -100)
    opened.locator("#viewer .place", has_text="slice 15 of 24").wait_for()
    opened.mouse.wheel(0, 100)
    opened.mouse.wheel(0, 100)
    opened.locator("#viewer .place", has_text="slice 13 of 24").wait_for()
    assert opened.evaluate("scrollY") == before
    for key, slice_ in (
        ("ArrowUp", 14),
        ("ArrowLeft", 13),
        ("End", 23),
        ("PageDown", 13),
        ("Home", 0),
        ("ArrowDown", 0),
    ):
        screen.press(key)
        assert place(opened) == f"slice {slice_} of 24"
    slider = opened.locator("#viewer input[type=range]")
    slider.press("ArrowRight")
    assert place(opened) == "slice 1 of 24"
    assert slider.get_attribute("aria-valuetext") == "slice 1 of 24"


def test_windows_modes_zoom_and_hiding_change_the_picture(opened):
    screen = opened.locator("#viewer .screen")
    assert screen.evaluate("s => s.closest('.viewer').querySelector('[data-zoom]').textContent") == "2\u00d7"
    screen.press("1")
    plain = pixels(opened)
    assert (plain["reference"], plain["prediction"]) == (0, 0)
    sums = set()
    for window in ("liver", "soft", "wide"):
        opened.locator("#viewer select").select_option(window)
        sums.add(pixels(opened)["sum"])
    assert len(sums) == 3
    seen = {}
    for key, name in (("2", "reference"), ("3", "prediction"), ("4", "both"), ("5", "errors")):
        screen.press(key)
        seen[name] = pixels(opened)
        pressed = opened.locator("#viewer [data-mode-of][aria-pressed=true]")
        assert pressed.get_attribute("data-mode-of") == name
    assert seen["reference"]["reference"] > 100
    assert seen["reference"]["prediction"] == 0
    assert seen["prediction"]["reference"] == 0
    assert seen["prediction"]["prediction"] > 100
    assert min(seen["both"]["reference"], seen["both"]["prediction"], seen["errors"]["reference"]) > 100
    screen.press("h")
    assert pixels(opened)["reference"] == 0
    assert "overlay hidden" in opened.locator("#viewer .said").inner_text()
    screen.press("h")
    before = pixels(opened)["sum"]
    screen.press("z")
    assert opened.locator("#viewer [data-zoom]").inner_text() == "4\u00d7"
    assert pixels(opened)["sum"] != before


def test_it_is_dark_where_the_system_is_and_fits_a_narrow_screen(opened):
    paper = "getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(paper)
    opened.emulate_media(color_scheme="dark")
    assert (light, opened.evaluate(paper)) == ("rgb(246, 247, 249)", "rgb(20, 23, 27)")
    opened.get_by_role("button", name="Dark or light").click()
    assert opened.evaluate(paper) == light
    opened.set_viewport_size({"width": 360, "height": 700})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_images_the_labels_are_shown(show, tmp_path):
    make(tmp_path, [("a", [(12, 44, 60, 12, "partly")])], image=False, trusted=True)
    tab = show(write_report(tmp_path))
    assert "no image" in tab.locator("#viewer .said").inner_text()
    assert pixels(tab)["reference"] > 100


def test_131_cases_of_100_slices_stay_below_60_mb_and_open(show, tmp_path):
    make_large(tmp_path)
    path = write_report(tmp_path)
    size = path.stat().st_size
    assert 30e6 < size < 60e6
    begun = time.perf_counter()
    tab = show(path)
    print(f"{size / 1e6:.1f} MB, first picture after {time.perf_counter() - begun:.2f} s")
    assert tab.locator("#cases tbody tr").count() == 131
    facts = "JSON.parse(document.getElementById('facts-of-views').textContent)"
    assert tab.evaluate(f"Object.values({facts}).map(f => f.z.length)") == [100] * 131
    tab.get_by_role("link", name="volume-130", exact=True).click()
    tab.locator("#viewer .name", has_text="volume-130").wait_for()
    assert pixels(tab)["prediction"] > 100
