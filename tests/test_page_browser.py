"""The HTML page of a report in headless Chromium: it sorts, filters and pages, without network access."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from petl_bench.report.page import page
from tests import pages
from tests.processes import wait_until

PROGRAMS = ("chromium", "chromedriver")
pytestmark = pytest.mark.skipif(
    None in map(shutil.which, PROGRAMS),
    reason="a browser is needed: chromium and chromedriver (Debian: apt install chromium chromium-driver)",
)
MANY = 10_000


class Browser:
    """A page as its reader has it: found by what is on it, changed by mouse and keys."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def cells(self, table: str, column: str) -> list[str]:
        """Visible texts of a column, in the order of the rows that are shown."""
        return self.run(
            """const table = document.querySelector(arguments[0]);
            const named = [...table.querySelectorAll("th[data-column]")];
            const number = named.find((head) => head.innerText.trim() === arguments[1]).dataset.column;
            const rows = [...table.tBodies[0].rows].filter((row) => row.checkVisibility());
            return rows.map((row) => row.cells[number].innerText.split(/ (?:second )?best$/)[0].trim());""",
            table,
            column,
        )

    def head(self, table: str, column: str) -> WebElement:
        heads = self.driver.find_elements(By.CSS_SELECTOR, f"{table} th[data-column]")
        (found, *_) = [head for head in heads if head.text.strip() == column]
        return found

    def press(self, table: str, column: str) -> None:
        self.head(table, column).find_element(By.TAG_NAME, "button").click()

    def ask(self, box: str, query: str, answer: str) -> None:
        """Types a filter; what is announced must begin with the answer."""
        self.one(box).send_keys(Keys.CONTROL + "a")
        self.one(box).send_keys(Keys.BACKSPACE + query)
        output = f"{box} + output"
        wait_until(lambda: self.one(output).text.startswith(answer), seconds=10)

    def logged(self, kind: str) -> list[dict[str, Any]]:
        return self.driver.get_log(kind)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    profile = tmp_path_factory.mktemp("profile")
    flags = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    for flag in [*flags, f"--user-data-dir={profile}", "--window-size=1280,900"]:
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages report.html (beside its store), hostile.html and many.html."""
    folder = tmp_path_factory.mktemp("pages & more")  # what a URL has to quote
    report = pages.report(folder)
    first = report.results[0]
    many = [
        dataclasses.replace(first, run_id=f"{n:012x}", seed=n, acc=n * 37 % MANY / MANY) for n in range(MANY)
    ]
    contents = {
        "report": report,
        "hostile": pages.hostile(),
        "many": dataclasses.replace(report, results=many, sections=[]),
    }
    for name, content in contents.items():
        (folder / f"{name}.html").write_text(page(content), encoding="utf-8")
    return folder


def opened(driver: webdriver.Chrome, path: Path) -> Iterator[Browser]:
    """A page anew; afterwards, whatever was done on it: no complaint, and nothing asked of any network."""
    driver.get("about:blank")
    for kind in ("browser", "performance"):
        driver.get_log(kind)  # those of earlier tests
    driver.get(path.as_uri())
    browser = Browser(driver)
    yield browser
    assert browser.logged("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.logged("performance")]
    requests = [m["params"]["request"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    urls = {request["url"] for request in requests if not request["url"].startswith("data:")}
    assert urls == {path.as_uri()}


@pytest.fixture
def report(driver: webdriver.Chrome, folder: Path) -> Iterator[Browser]:
    yield from opened(driver, folder / "report.html")


@pytest.fixture
def hostile(driver: webdriver.Chrome, folder: Path) -> Iterator[Browser]:
    yield from opened(driver, folder / "hostile.html")


@pytest.fixture
def many(driver: webdriver.Chrome, folder: Path) -> Iterator[Browser]:
    yield from opened(driver, folder / "many.html")


ACCURACY = "#results .scroll:nth-of-type(2) table"
COST = "#results .scroll:nth-of-type(3) table"
RUNS = "#runs-table table"


def number(text: str) -> float:
    return float(text.replace(" ± ", " ").split(maxsplit=1)[0].replace(",", ""))


def test_the_headline_is_on_the_first_screen_of_a_phone(report: Browser) -> None:
    report.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        corners = "const r = arguments[0].getBoundingClientRect(); return [r.left, r.right, r.bottom]"
        left, right, bottom = report.run(corners, report.one(".headline strong"))
        assert left >= 0
        assert right <= 390
        assert bottom <= 844
        _, right, _ = report.run(corners, report.head(ACCURACY, "mean of groups"))
        assert right <= 390  # a column that is seen without scrolling to the side
    finally:
        report.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("column", ["surfaces", "mean of groups", "bits"])
def test_sorting_by_click(report: Browser, column: str) -> None:
    before = report.cells(ACCURACY, column)
    holes = before.count("-")
    values = sorted(number(text) for text in before if text != "-")
    assert len(set(values)) > 2
    for direction in (1, -1):
        report.press(ACCURACY, column)
        after = report.cells(ACCURACY, column)
        assert [number(text) for text in after[: len(values)]] == values[::direction]
        assert after[len(values) :] == ["-"] * holes
        sort = report.head(ACCURACY, column).get_attribute("aria-sort")
        assert sort == ("ascending" if direction == 1 else "descending")
    report.press(ACCURACY, "adapter")
    assert report.head(ACCURACY, column).get_attribute("aria-sort") is None


def test_sorting_by_keyboard_with_thousands_and_holes(report: Browser) -> None:
    for column, key in [("file bytes", Keys.ENTER), ("bits per weight", Keys.SPACE)]:
        before = report.cells(COST, column)
        values = sorted(number(text) for text in before if text != "-")
        button = report.head(COST, column).find_element(By.TAG_NAME, "button")
        report.run("arguments[0].focus()", button)
        for direction in (1, -1):
            report.driver.switch_to.active_element.send_keys(key)
            after = report.cells(COST, column)
            assert [number(text) for text in after if text != "-"] == values[::direction]
            assert after.index("-") == len(values) if "-" in before else len(after) == len(values)
    assert any("," in text for text in report.cells(COST, "file bytes"))
    assert "-" in report.cells(COST, "bits per weight")


def test_sorting_is_stable(report: Browser) -> None:
    for column in ("seed", "adapter", "task"):
        report.press(RUNS, column)
    found = [report.cells(RUNS, column) for column in ("task", "adapter", "seed")]
    lines = list(zip(*found, strict=True))
    assert len(set(lines)) > 40
    assert lines == sorted(lines)


def test_filtering_rows(report: Browser) -> None:
    box = "#filter-1"
    assert report.one(f"{box} + output").text == "7 of 7 rows"
    assert report.one(f"{box} + output").get_attribute("aria-live") == "polite"
    report.ask(box, "LoRA", "3 of 7 rows")
    assert report.cells(ACCURACY, "adapter") == report.cells(COST, "adapter") == ["lora"] * 3
    report.ask(box, "bits=4", "2 of 7 rows")
    assert report.cells(ACCURACY, "bits") == ["4", "4"]
    report.ask(box, "lora bits=1.0", "1 of 7 rows")
    assert report.cells(COST, "bits") == ["1"]
    report.ask(box, "bits=3", "0 of 7 rows")  # not 32
    report.ask(box, "bits_per_weight=32", "2 of 7 rows")
    report.ask(box, '"a b"', "0 of 7 rows")
    report.ask(box, "breadth=3", "0 of 7 rows; no column “breadth” (columns: adapter, hidden, bits, digits, ")
    report.ask(box, "", "7 of 7 rows")
    assert len(report.cells(ACCURACY, "adapter")) == 7


def test_a_filter_stays_while_rows_are_sorted(report: Browser) -> None:
    report.ask("#filter-1", "lora", "3 of 7 rows")
    report.press(ACCURACY, "bits")
    report.press(ACCURACY, "bits")
    assert report.cells(ACCURACY, "bits") == ["32", "4", "1"]
    report.ask("#filter-runs", "adapter=lora seed=2 hidden=16", "14 of 104 rows")
    report.press(RUNS, "accuracy %")
    assert len(report.cells(RUNS, "seed")) == 14
    assert set(report.cells(RUNS, "seed")) == {"2"}


def test_paging(report: Browser) -> None:
    pager = report.one(".pager")
    previous, following = pager.find_elements(By.TAG_NAME, "button")
    first = report.cells(RUNS, "run_id")
    assert "1 to 100 of 104" in pager.text
    following.click()
    assert "101 to 104 of 104" in pager.text
    rest = report.cells(RUNS, "run_id")
    assert (len(first), len(rest), len({*first, *rest})) == (100, 4, 104)
    following.click()
    assert report.cells(RUNS, "run_id") == rest
    previous.click()
    assert report.cells(RUNS, "run_id") == first
    following.click()
    report.ask("#filter-runs", "device=made-up adapter=linear", "15 of 104 rows")  # from its first page
    assert len(report.cells(RUNS, "run_id")) == 15


def test_details_and_files_of_a_run(report: Browser, folder: Path) -> None:
    ids = report.cells(RUNS, "run_id")
    report.one(f"{RUNS} tbody tr:nth-child(2) td button").click()
    dialog = report.one("dialog")
    assert dialog.is_displayed()
    names = [found.text for found in dialog.find_elements(By.TAG_NAME, "dt")]
    values = [found.text for found in dialog.find_elements(By.TAG_NAME, "dd")]
    row = json.loads((folder / "store #1" / ids[1] / "row.json").read_text())
    shown = dict(zip(names, values, strict=True))
    assert set(shown) == set(row)
    assert (shown["run_id"], shown["device"], shown["acc_val"]) == (ids[1], "made-up", "-")
    assert float(shown["acc"]) == row["acc"]
    report.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    urls = report.run(f"return [...document.querySelectorAll('{RUNS} tbody a')].map((link) => link.href)")
    paths = [Path(unquote(urlsplit(url).path)) for url in urls]
    assert [path.parent.name for path in paths] == [run_id for run_id in ids for _ in range(2)]
    assert {path.name for path in paths} == {"spec.json", "adapter.safetensors"}
    assert all(path.is_file() and path.is_relative_to(folder) for path in paths)


@pytest.mark.parametrize("name", ["report", "hostile"])
def test_a_phone_scrolls_tables_and_not_the_page(name: str, request: pytest.FixtureRequest) -> None:
    browser: Browser = request.getfixturevalue(name)
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.run("for (const closed of document.querySelectorAll('details')) closed.open = true")
        assert browser.run("return document.documentElement.scrollWidth") <= 360
        table = browser.run("return document.querySelector('#results .scroll').scrollWidth")
        assert table > 360
        browser.run("document.querySelector('#results .scroll').scrollLeft = 200")
        assert (
            browser.run("return document.querySelector('#results tbody th').getBoundingClientRect().left")
            >= 0
        )
        browser.one(f"{RUNS} td button").click()
        assert browser.run("return document.documentElement.scrollWidth") <= 360
        assert browser.run(
            "const d = document.querySelector('dialog'); return d.scrollWidth <= d.clientWidth"
        )
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_names_are_shown_and_never_run(hostile: Browser) -> None:
    assert hostile.driver.title == pages.ATTACK
    for selector in ["h1", "#warnings li", ".notes li", ".comparisons li", "figcaption", ".footnotes li"]:
        assert hostile.one(selector).text == pages.ATTACK
    assert hostile.one("img").get_attribute("alt") == pages.ATTACK
    assert hostile.cells(RUNS, "run_id") == [pages.ATTACK, pages.ATTACK + "2"]
    assert hostile.cells(RUNS, "task") == [pages.ATTACK, pages.ATTACK + "2"]
    assert hostile.cells("#published table", pages.ATTACK) == [pages.ATTACK]
    links = hostile.driver.find_elements(By.CSS_SELECTOR, f"{RUNS} tbody a")
    assert [link.text for link in links] == ["spec", "spec"]  # the runs have no adapter file
    hostile.one(f"{RUNS} td button").click()
    assert hostile.one("dialog h3").text == f"Run {pages.ATTACK}"
    assert pages.ATTACK in [found.text for found in hostile.one("dialog dl").find_elements(By.TAG_NAME, "dd")]
    hostile.one("dialog button").click()
    hostile.ask("#filter-runs", "onerror {{7*7}}", "2 of 2 rows")
    assert hostile.run("return [...document.links].every((link) => link.protocol === 'file:')")
    assert hostile.run("return document.images.length") == 1
    assert hostile.run("return window.hit === undefined")


def test_figures_are_drawn(report: Browser) -> None:
    assert report.run("const i = document.images[0]; return [i.complete, i.naturalWidth]") == [True, 640]


def test_ten_thousand_runs(many: Browser) -> None:
    assert many.one("#filter-runs + output").text == "10,000 of 10,000 rows"
    assert len(many.cells(RUNS, "seed")) == 100
    many.press(RUNS, "seed")
    many.press(RUNS, "seed")
    assert many.cells(RUNS, "seed") == [str(n) for n in range(MANY - 1, MANY - 101, -1)]
    many.press(RUNS, "accuracy %")
    lowest = [f"{100 * (n / MANY):.1f}" for n in range(100)]
    assert many.cells(RUNS, "accuracy %") == lowest
    many.ask("#filter-runs", "seed=7777", "1 of 10,000 rows")
    assert many.cells(RUNS, "run_id") == [f"{7777:012x}"]


def test_without_scripts_the_tables_can_be_read(driver: webdriver.Chrome, folder: Path) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        for browser in opened(driver, folder / "report.html"):
            assert "need JavaScript" in browser.one("noscript").text
            assert len(browser.driver.find_elements(By.CSS_SELECTOR, f"{ACCURACY} tbody tr")) == 7
            assert not browser.one(".filter").is_displayed()
            assert not browser.one("#runs-table").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
