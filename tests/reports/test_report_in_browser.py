"""The page of a report in a real browser: headless Chromium."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import make_run, make_whole_run

from fed_ist.datasets.data_set import open_data
from fed_ist.encoder.embeddings import MaskSpec
from fed_ist.images.source import Reading
from fed_ist.planning.plan import Question
from fed_ist.reports.kept_images import draw_kept
from fed_ist.reports.run import write_run_report
from fed_ist.traffic.links import choose_links

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip(
        "needs Chromium: install it with `sudo apt install chromium`", allow_module_level=True
    )
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: install it with `pip install '.[dev]'`"
)

BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
TIMES = {"s": 1.0, "min": 60.0, "h": 3600.0, "days": 86_400.0}
UNITS = {"": 1.0, "%": 0.01, **BYTES, **TIMES}


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def report(tmp_path, make_config) -> Path:
    """Three runs side by side, one of them unfinished."""
    settings = [
        ("zebra", {"num_rounds": 2}, 3),
        ("ant", {"num_rounds": 2, "strategy": "fedavg"}, 3),
        ("cut", {"num_rounds": 9}, 2),
    ]
    runs = [
        make_run(tmp_path, name, make_config(**changes), n_rows, with_summary=True)
        for name, changes, n_rows in settings
    ]
    return write_run_report(runs, tmp_path / "out", Question(0.5), choose_links(["wifi", "nb-iot"]))


@pytest.fixture
def open_page(browser):
    """Opens a page; what the browser complains of or asks of a network fails the test."""
    contexts, complaints = [], []

    def note_request(request: "sync_api.Request") -> None:
        if not request.url.startswith(("file:", "data:")):
            complaints.append(request.url)

    def open_one(path: Path, width: int = 1200, scheme: str = "light") -> "sync_api.Page":
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", note_request)
        page.goto(path.as_uri())
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def look_up(data, key):
    """What a JSON pointer points at."""
    for step in key.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        data = data[int(name)] if isinstance(data, list) else data[name]
    return data


def agrees(text: str, value: object) -> bool:
    """Whether a text shows a value, to the last digit that it has."""
    if value is None or isinstance(value, bool):
        return text == {None: "-", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return text == " ".join(value.split())
    found = re.fullmatch(r"(-?[\d,]+(?:\.(\d+))?)(?:e(-?\d+))?\s*(%|[A-Za-z]+|)", text)
    if not found or found[4] not in UNITS:
        return False
    number, digits, power, unit = found.groups()
    factor = UNITS[unit] * 10.0 ** int(power or 0)
    last_digit = factor * 10.0 ** -len(digits or "")
    return abs(float(number.replace(",", "")) * factor - float(value)) <= 0.5001 * last_digit


def test_agrees_can_fail():
    assert agrees("97.2%", 0.9716)
    assert agrees("1.23 kB", 1234)
    assert not agrees("97.2%", 0.9706)
    assert not agrees("1.23 kB", 1240)


def test_every_figure_of_the_page_is_that_of_the_json(open_page, report):
    data = json.loads(report.with_name("report.json").read_text())
    for path in (report, write_run_report([Path(data["runs"][0]["path"])], None)):
        page = open_page(path)
        embedded = json.loads(page.locator("#report").text_content())
        assert embedded == json.loads(path.with_name("report.json").read_text())
        cells = page.eval_on_selector_all(
            "[data-key]",
            "all => all.map(e => "
            "[e.dataset.key, e.dataset.value, e.textContent.trim(), e.tagName])",
        )
        assert len(cells) > 100
        planned = [key for key, *_ in cells if key.startswith("/plan/")]
        # Ways with their names, a time on each of two links, and all columns on each.
        assert len(planned) == (7 * (2 + 2) + 2 * 7 * 13 if path == report else 0)
        for key, value, text, tag in cells:
            expected = look_up(embedded, key)
            assert value == (expected if isinstance(expected, str) else json.dumps(expected)), key
            shown = text.rsplit(" ", 1)[1] if tag == "circle" else text
            assert agrees(shown, expected), (key, text)
        # Numbers in tables without a key would escape this: there is none.
        assert page.locator("td:not([data-key])").filter(has_text=re.compile(r"\d")).count() == 0


def test_points_of_the_plots_lie_where_their_values_say(open_page, report):
    page = open_page(report)
    places = page.eval_on_selector_all(
        "figure:first-of-type circle",
        "all => all.map(e => [Number(e.dataset.value), Number(e.getAttribute('cy'))])",
    )
    (low, low_y), (high, high_y) = min(places), max(places)
    assert (low, high) == (0.55, 0.6)  # where the classifier still guessed is left out
    for value, y in places:
        assert y == pytest.approx(low_y + (value - low) / (high - low) * (high_y - low_y), abs=0.1)


def test_tables_sort_by_click_and_by_keyboard(open_page, report):
    page = open_page(report)
    table = page.locator("table").first
    first = table.locator("tbody tr td:first-child")
    assert first.all_text_contents() == ["zebra", "ant", "cut"]
    table.get_by_role("button", name="run", exact=True).click()
    assert first.all_text_contents() == ["ant", "cut", "zebra"]
    header = table.locator("th").first
    assert header.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")  # the button that was clicked has the focus
    assert first.all_text_contents() == ["zebra", "cut", "ant"]
    assert header.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") is None
    assert table.locator("th").nth(1).get_attribute("aria-sort") == "ascending"
    page.get_by_text("All rounds").click()
    rounds = page.get_by_role("region", name="All rounds").locator("table")
    rounds.get_by_role("button", name="to all nodes", exact=True).click()
    sent = rounds.locator("[data-key$='/bytes_down']").all_text_contents()
    assert sent == ["20\xa0B"] * 3 + ["2.20\xa0kB"] * 5  # by number, not by letter


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_is_wider_than_the_screen(open_page, report, width):
    page = open_page(report, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for box in page.locator("figure svg[role=img]").all():
        assert box.bounding_box()["width"] <= width
    # A letter of a plot is no smaller than 10 px.
    scale = page.locator("figure svg[role=img]").first.bounding_box()["width"] / 360
    assert 12 * scale >= 9.5


@pytest.mark.parametrize("width", [390, 1280])
def test_no_open_table_and_no_picture_of_one_run_leaves_the_screen(
    open_page, tmp_path, make_config, image_folder, width
):
    run = make_whole_run(tmp_path, "run", make_config(num_rounds=2), 3)
    spec = MaskSpec("fixed", 0.5, "raw", 64, 8, 0, ())
    (run / "kept.png").write_bytes(
        draw_kept(open_data(str(image_folder), "", Reading(), None).test, spec)
    )
    page = open_page(write_run_report([run], None, Question(0.5), choose_links(None)), width)
    boxes = page.locator("table:visible, .matrix, .strip, figure svg[role=img]").all()
    assert len(boxes) > 5
    for box in boxes:
        place = box.bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_no_open_table_of_five_runs_leaves_the_screen(open_page, tmp_path, make_config, width):
    names = [f"a-rather-long-name-{i}" for i in range(5)]
    changes = [{"seed": i, "batch_size": 8 + i, "strategy": "fedavg"} for i in range(5)]
    runs = [
        make_whole_run(tmp_path, name, make_config(num_rounds=2, **change), 3)
        for name, change in zip(names, changes, strict=True)
    ]
    page = open_page(write_run_report(runs, tmp_path / "out"), width)
    tables = page.locator("table:visible").all()
    assert len(tables) >= 4
    for table in tables:
        place = table.bounding_box()
        assert place["x"] + place["width"] <= width


@pytest.mark.parametrize(("scheme", "page_is_dark"), [("light", False), ("dark", True)])
def test_colours_follow_the_reader_and_can_be_read(open_page, report, scheme, page_is_dark):
    page = open_page(report, scheme=scheme)

    def luminance(selector: str, name: str) -> float:
        colour = page.eval_on_selector(selector, f"e => getComputedStyle(e).{name}")
        channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    back = luminance("body", "backgroundColor")
    assert (back < 0.1) == page_is_dark
    # WCAG 2.1: 4.5 for text, 3 for parts of graphics.
    for selector, name, least in (
        ("body", "color", 4.5),
        (".note", "color", 4.5),
        ("figure svg text", "fill", 4.5),
        (".s0 .curve", "stroke", 3),
        (".s1 .curve", "stroke", 3),
        (".s2 .curve", "stroke", 3),
    ):
        bright, dark = sorted((luminance(selector, name), back), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= least, selector


def test_the_page_prints_black_on_white_with_whole_tables(open_page, report, tmp_path):
    page = open_page(report, scheme="dark")
    pdf = page.pdf(format="A4", path=tmp_path / "page.pdf")
    assert pdf.startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 680, "height": 900})  # A4 within its margins, in CSS px
    style = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
    assert page.eval_on_selector("body", style) == ["rgb(255, 255, 255)", "rgb(26, 26, 26)"]
    tables = page.locator("table:visible")
    assert tables.count() == 4  # what is folded stays off paper
    for i in range(4):
        box = tables.nth(i).bounding_box()
        assert box["x"] + box["width"] <= 680
        assert box["height"] > 0
    # No number is broken into lines: a row of them is as high as one line of text.
    rows = page.get_by_role("region", name="On links").locator("tbody tr").all()
    assert {row.bounding_box()["height"] < 25 for row in rows} == {True}
    assert page.eval_on_selector(".scroll", "e => getComputedStyle(e).overflowX") == "visible"


def test_tables_of_comparisons_sort_too(open_page, tmp_path):
    from fed_ist.reports.accuracy_figure import draw_accuracy
    from fed_ist.reports.page import Cell, Page, Picture, Section, render_html

    rows = (("a", "4.94 MB"), ("b", "100 kB"), ("c", "never"), ("d", "36.6 MB"))
    cells = tuple(tuple(map(Cell, row)) for row in rows)
    picture = Picture(draw_accuracy([], "none"), "x.png", "none")
    section = Section("IID", 3, picture, header=("method", "bytes"), rows=cells)
    path = tmp_path / "compare.html"
    path.write_text(render_html(Page("Comparison", (section,))))
    page = open_page(path)
    for expected in (["b", "a", "d", "c"], ["d", "a", "b", "c"]):  # never comes last either way
        page.get_by_role("button", name="bytes").click()
        assert page.locator("tbody td:first-child").all_text_contents() == expected
