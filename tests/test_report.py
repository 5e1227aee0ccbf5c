"""The report: what is packed is what the warehouse says, and the page works in a browser as a reader uses it.

The browser tests share one headless Chromium. Without it they are skipped, and fail where TRENDCAST_REQUIRE_BROWSER is set.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.conftest import REPO, Shop, skip_or_fail
from trendcast.models import model_names
from trendcast.pipeline import Workspace
from trendcast.report import Content, read, render
from trendcast.report.content import Block
from trendcast.report.page import LEVELS, pack

HOSTILE = [
    "<script>window.harmed = 1</script>",
    "<img src=x onerror='window.harmed = 1'>",
    "</script><script>window.harmed = 1</script>",
    "{{data}} ${window.harmed = 1} `'\"&amp;",
    "\u202egnihtyreve\u202c and\nlines",
    "",
    " ",
    "__proto__",
    "constructor",
    "x" * 500,
]


# --- Packing ---


@dataclass
class Unpacked:
    """What the page reads from its data."""

    about: dict[str, Any]
    dates: list[str]
    series: dict[str, list[Any]]
    at: dict[str, list[int]]
    values: dict[str, np.ndarray]
    promotions: np.ndarray | None


def unpack(data: bytes) -> Unpacked:
    """Undo `pack`, written from the description of the layout alone."""
    data = zlib.decompress(data)
    (length,) = struct.unpack_from("<I", data)
    told = json.loads(data[4 : 4 + length])
    offset, n = 4 + length, len(told["series"]["series_id"])
    step = np.array(told["series"]["step"], float)[:, None]
    whole: dict[str, np.ndarray] = {}
    at = {}
    for block in told["blocks"]:
        size = n * len(block["at"])
        low, high = (
            np.frombuffer(data, np.uint8, size, offset + plane * size).reshape(n, -1).astype(int)
            for plane in (0, 1)
        )
        offset += 2 * size
        codes = low + 256 * high
        folded = codes - 1
        values = np.where(folded % 2, -(folded + 1) // 2, folded // 2).astype(float)
        values[codes == 0] = np.nan
        if block["inTime"]:
            values = np.where(np.isnan(values), np.nan, np.nancumsum(values, axis=1))
        if block["base"]:
            values = values + np.nan_to_num(whole[block["base"]])
        whole[block["name"]], at[block["name"]] = values, block["at"]
    promotions = None
    if told["promotions"]:
        promotions = np.frombuffer(data, np.uint8, offset=offset).reshape(n, -1)
        offset += promotions.size
    assert offset == len(data)
    values = {name: each * step for name, each in whole.items()}
    return Unpacked(told["about"], told["dates"], told["series"], at, values, promotions)


def data_of(page: str) -> Unpacked:
    found = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', page)
    assert found
    return unpack(base64.b64decode(found[1]))


def assert_same(values: np.ndarray, packed: np.ndarray, step: np.ndarray) -> None:
    assert np.array_equal(np.isnan(values), np.isnan(packed))
    known = ~np.isnan(values)
    # Each number is rounded on its own: its error is half a step, whatever it was kept as a difference from.
    assert (np.abs(values - packed) <= 0.5001 * step[:, None])[known].all()


def test_unpacking_gives_back_what_was_packed() -> None:
    rng = np.random.default_rng(1)
    n, horizon = 40, 12
    dates = [dt.date(2026, 1, 1) + dt.timedelta(days=i) for i in range(60)]
    scale = 10.0 ** rng.uniform(-6, 9, (n, 1))
    actual = rng.gamma(1, 1, (n, 48)) * scale * rng.choice([0, 1, -1], (n, 48), p=[0.4, 0.55, 0.05])
    actual[rng.random(actual.shape) < 0.1] = np.nan
    actual[:3] = np.nan
    actual[3:5] = 0
    mean = rng.gamma(3, 0.3, (n, horizon)) * scale
    mean[:2] = np.nan
    upper = mean * 1.7
    upper[6] = np.nan
    other = mean * rng.uniform(0.5, 1.5, mean.shape)
    # A model may know series that the forecast in force does not, and the other way round.
    other[1], other[2, 3:] = 1.0, np.nan
    late = list(range(48, 60))
    content = Content(
        about={"run_id": "r"},
        dates=dates,
        series={"series_id": [f"s{i}" for i in range(n)]},
        blocks={
            "actual": Block(list(range(48)), actual),
            "mean": Block(late, mean),
            "upper_80": Block(late, upper, "mean"),
            "model/other": Block(late, other, "mean"),
            "model/short": Block(late[:5], other[:, :5], "mean"),
            "model/none": Block([], np.empty((n, 0)), "mean"),
        },
        promotions=rng.integers(0, 10, (n, 60)).astype(np.uint8),
    )
    got = unpack(pack(content))
    assert got.dates == [str(date) for date in dates]
    step = np.array(got.series["step"])
    for name, block in content.blocks.items():
        assert got.at[name] == block.at
        assert_same(block.values, got.values[name], step)
    assert np.array_equal(got.promotions, content.promotions)
    largest = np.nanmax(
        np.abs(np.hstack([np.nan_to_num(b.values) for b in content.blocks.values()])), 1
    )
    assert (step[largest > 0] <= largest[largest > 0] / LEVELS * 1.0001).all()


# --- The file ---


@pytest.fixture(scope="module")
def written(demo_run: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the demo."""
    path = tmp_path_factory.mktemp("report") / "demo report.html"
    told = demo_run.json("report", "--out", str(path))
    assert told["file"] == str(path) and told["bytes"] == path.stat().st_size
    assert told["n_series"] == told["n_series_total"] == 295
    return path


@pytest.fixture(scope="module")
def page_text(written: Path) -> str:
    return written.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def unpacked(page_text: str) -> Unpacked:
    return data_of(page_text)


def test_the_file_has_the_warehouse_s_numbers(demo_run: Shop, unpacked: Unpacked) -> None:
    bands = ("mean", "lower_95", "lower_80", "upper_80", "upper_95")
    queries = {
        (
            "actual",
            *bands,
        ): "select series_id, ds, actual, mean, lower_95, lower_80, upper_80, upper_95 "
        "from analytics_marts.rpt_forecast_fan",
        (
            "model/ridge",
        ): 'select series_id, target_date as ds, mean as "model/ridge" from analytics_trendcast.forecasts '
        "where model = 'ridge' and run_id = (select max(run_id) from analytics_marts.fct_forecasts)",
        ("fold/2/mean",): 'select series_id, target_date as ds, mean as "fold/2/mean" '
        "from analytics_marts.int_champion_backtests where fold = 2",
    }
    row = {name: i for i, name in enumerate(unpacked.series["series_id"])}
    place = {date: i for i, date in enumerate(unpacked.dates)}
    step = np.array(unpacked.series["step"], float)
    n_compared = 0
    for columns, sql in queries.items():
        rows = demo_run.query(sql)
        for name in columns:
            expected = np.full((len(row), len(place)), np.nan)
            for each in rows:
                if each[name] is not None:
                    expected[row[each["series_id"]], place[str(each["ds"])]] = each[name]
            got = np.full_like(expected, np.nan)
            got[:, unpacked.at[name]] = unpacked.values[name]
            assert_same(expected, got, step)
            n_compared += int(np.isfinite(got).sum())
    assert n_compared > 295 * (90 + 7 * 28)


def test_the_file_has_the_marts_figures(demo_run: Shop, unpacked: Unpacked) -> None:
    (totals,) = demo_run.query(
        """
        select (select sum(mean) from analytics_marts.fct_forecasts) as expected,
            (select count(*) from analytics_marts.fct_alerts) as alerts,
            (select count(*) from analytics_marts.fct_reorder_recommendations) as reorder,
            (select wape from analytics_marts.fct_forecast_accuracy
                where model = 'ridge' and demand_class = 'all' and lead_bucket = 'all') as wape
        """
    )
    about = unpacked.about
    assert sum(v or 0 for v in about["total"]["mean"]) == pytest.approx(
        totals["expected"], rel=1e-3
    )
    assert sum(unpacked.series["expected"]) == pytest.approx(totals["expected"], rel=1e-3)
    assert sum(row["n"] for row in about["alerts"]["counts"]) == totals["alerts"] > 0
    assert sum(row["n"] for row in about["reorder"]["counts"]) == totals["reorder"] == 295
    (ridge,) = (row for row in about["accuracy"] if row["model"] == "ridge")
    assert ridge["wape"] == pytest.approx(totals["wape"], rel=1e-3)
    # What the forecast is made of adds up to it; of so few series every member has an explanation.
    for i in (0, 100, 294):
        parts = unpacked.series["explained"][i]
        near = 28 * unpacked.series["step"][i]
        assert {"level", "season", "calendar"} <= set(parts)
        assert set(parts).isdisjoint(model_names())
        expected = unpacked.series["expected"][i]
        assert sum(parts.values()) == pytest.approx(expected, rel=1e-3, abs=near)
    assert unpacked.promotions is not None and unpacked.promotions.max() == 9
    assert any("Thanksgiving" in each["name"] for each in about["holidays"])


def test_only_the_file_s_own_scripts_may_run(page_text: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page_text)
    assert policy and "default-src 'none'" in policy[1] and "unsafe-eval" not in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", page_text, re.DOTALL)
    assert len(scripts) == 2
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = re.search(r"script-src ([^;]+);", policy[1])
    assert allowed and allowed[1].split() == [f"'sha256-{digest}'" for digest in digests]
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", page_text, flags=re.DOTALL)
    assert not re.findall(r"\b(?:src|href|action)\s*=\s*[\"']?[^#\"'\s]+", markup)
    assert not re.search(r"@import|url\(", page_text[: page_text.index("</style>")])
    assert "innerHTML" not in scripts[1] and "insertAdjacentHTML" not in scripts[1]


def test_the_limit_keeps_those_with_most_revenue(
    demo_run: Shop, tmp_path: Path, unpacked: Unpacked
) -> None:
    out = tmp_path / "few.html"
    told = demo_run.run("report", "--limit", "12", "--out", str(out))
    assert told.returncode == 0, told.stderr
    assert "12 of 295 series" in told.stdout
    few = data_of(out.read_text(encoding="utf-8"))
    assert few.series["series_id"] == unpacked.series["series_id"][:12]
    assert few.about["n_series"] == 295 and few.about["total"] == unpacked.about["total"]
    assert demo_run.run("report", "--limit", "0").returncode == 2


def test_no_report_without_a_run(make_shop: Callable[..., Shop], tmp_path: Path) -> None:
    day = {"order_id": "1", "product_id": "tea", "ordered_at": "2026-01-01", "quantity": 1}
    out = tmp_path / "r.html"
    done = make_shop([day]).run("report", "--out", str(out))
    assert done.returncode == 1
    assert "no committed run" in done.stderr and "trendcast run" in done.stderr
    assert not out.exists()


def test_a_missing_mart_is_named(demo_run: Shop, copied: Callable[[Shop], Shop]) -> None:
    shop = copied(demo_run)
    with duckdb.connect(shop.path) as connection:
        connection.execute("drop table analytics_marts.fct_reorder_recommendations")
    done = shop.run("report")
    assert done.returncode == 1
    assert "fct_reorder_recommendations" in done.stderr and "trendcast_marts" in done.stderr


def test_what_cannot_be_written_leaves_the_old_file(
    demo_run: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = demo_run.run("report", "--out", str(tmp_path / "no folder" / "r.html"))
    assert done.returncode == 1 and "--out" in done.stderr and "Traceback" not in done.stderr
    old = tmp_path / "r.html"
    old.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    done = demo_run.run("report", "--out", str(old))
    assert done.returncode == 1 and "No space left" in done.stderr
    assert old.read_text() == "old" and os.listdir(tmp_path) == ["r.html"]


def test_text_can_be_read_in_both_themes() -> None:
    """WCAG AA: 4.5 to 1 for text, on the panels and the page."""
    css = (REPO / "trendcast" / "report" / "report.css").read_text()

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    themes = re.findall(r":root(?:\[[^]]*\])? \{([^}]*)\}", css)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", theme))
        for text in ("text", "quiet", "accent", "warm", "good"):
            for under in ("page", "panel", "faint"):
                light, dark = sorted((luminance(colours[text]), luminance(colours[under])))[::-1]
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, under)


# --- In a browser ---

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next((found for name in names if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        skip_or_fail(
            "chromium and chromedriver are not installed: the report was NOT opened in a browser",
            "TRENDCAST_REQUIRE_BROWSER",
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver)) as started:
        yield started


class Page:
    """The report, open in a browser."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.get(path.as_uri())
        WebDriverWait(self.browser, 60).until(
            lambda _: self.js("return document.documentElement.dataset.ready") == "true"
        )
        self.js("document.documentElement.style.scrollBehavior = 'auto'")

    def js(self, script: str, *given: Any) -> Any:
        return self.browser.execute_script(script, *given)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        found: list[str] = self.js(script, selector)
        return found

    def table_row(self, date: str) -> dict[str, str]:
        """The row of a date in the table beside the chart, opened if need be."""
        self.js("document.getElementById('table-details').open = true")
        # What unfolds is told to the page after the script that unfolded it.
        WebDriverWait(self.browser, 30).until(lambda _: self.texts("#figures-table thead th"))
        heads = self.texts("#figures-table thead th")
        cells: list[str] = self.js(
            "return [...document.querySelectorAll('#figures-table tbody tr')]"
            ".map((row) => [...row.children].map((e) => e.textContent)).find((row) => row[0] === arguments[0])",
            date,
        )
        return dict(zip(heads, cells, strict=True))

    def errors(self) -> list[Any]:
        return list(self.browser.get_log("browser"))

    def requested(self) -> list[str]:
        told = [
            json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")
        ]
        sent = [m["params"] for m in told if m["method"] == "Network.requestWillBeSent"]
        # The browser's own first page is no business of the report's.
        ours = [params for params in sent if params["documentURL"].startswith("file://")]
        return [params["request"]["url"] for params in ours]


@pytest.fixture
def page(chromium: webdriver.Chrome) -> Iterator[Page]:
    """A page that, whatever is done to it, complains of nothing and loads nothing but its own file."""
    opened = Page(chromium)
    opened.errors(), opened.requested()
    yield opened
    assert opened.errors() == []
    requested = opened.requested()
    assert requested and all(url.startswith("file://") for url in requested)


def number(text: str) -> float:
    return float(text.replace(",", "").replace("–", "nan"))


def test_it_opens_on_the_portfolio(page: Page, written: Path, unpacked: Unpacked) -> None:
    page.open(written)
    assert page.browser.title == f"Forecast report, run {unpacked.about['run_id']}"
    expected, error, covered, alerts, reorder = page.texts("#cards dd")
    assert number(re.sub(r"quantity.*", "", expected)) == round(
        sum(unpacked.about["total"]["mean"][-28:])
    )
    assert error.startswith(f"{100 * unpacked.about['serving']['wape']:.1f}%")
    assert covered.startswith(f"{100 * unpacked.about['serving']['coverage_80']:.1f}%")
    assert alerts.startswith(str(sum(row["n"] for row in unpacked.about["alerts"]["counts"])))
    assert reorder.startswith("0") and "295 series without a stock count" in reorder
    assert "Stock is not counted for 295 series" in page.text("#reorder-note")
    assert len(page.texts("#accuracy tbody tr")) == 6 == len(page.texts("#coverage circle[r]")) / 4
    assert (
        page.texts("#alerts tbody tr")
        and page.texts("#risers .open")
        and page.texts("#fallers .open")
    )
    assert page.js("return document.querySelectorAll('#total canvas, #fan canvas').length") == 2


def test_search_filter_and_sort(page: Page, written: Path, unpacked: Unpacked) -> None:
    page.open(written)
    names = unpacked.series["series_id"]
    assert page.text("#name") == names[0] and page.text("#count") == "295 series"
    page.find("#search").send_keys("frozen PI")
    matching = [n for n in names if "frozen" in n.lower() and "pi" in n.lower()]
    assert page.texts("#rows .row b") == matching != []
    assert page.text("#name") == matching[0]
    assert page.text("#count") == f"{len(matching)} of 295 series"
    page.find("#search").send_keys(" nowhere")
    assert "No series matches" in page.text("#rows") and page.text("#name") == matching[0]
    page.find("#search").send_keys(Keys.CONTROL + "a", Keys.DELETE)
    Select(page.find("#filters select")).select_by_visible_text("lumpy")
    lumpy = [n for n, c in zip(names, unpacked.series["demand_class"], strict=True) if c == "lumpy"]
    assert page.text("#count") == f"{len(lumpy)} of 295 series"
    Select(page.find("#sort")).select_by_visible_text("Most alerts")
    alerts = dict(zip(names, unpacked.series["alerts"], strict=True))
    listed = page.texts("#rows .row b")
    assert [alerts[n] for n in listed] == sorted((alerts[n] for n in lumpy), reverse=True)[
        : len(listed)
    ]
    # A mover that the filters hide is shown all the same.
    mover = page.texts("#risers .open")[0]
    page.js("document.querySelector('#risers .open').click()")
    assert page.text("#name") == mover
    assert page.text("#rows .row[aria-selected='true'] b") == mover


def test_the_keyboard_goes_through_the_list(page: Page, written: Path, unpacked: Unpacked) -> None:
    page.open(written)
    names = unpacked.series["series_id"]
    page.find("#search").send_keys(Keys.ARROW_DOWN)
    assert page.js("return document.activeElement.id") == "list"
    listed = page.find("#list")
    for keys, place in (
        *(([Keys.ARROW_DOWN] * 3, 3), ([Keys.ARROW_UP], 2), ([Keys.END], 294)),
        *(([Keys.ARROW_DOWN], 294), ([Keys.PAGE_UP], None), ([Keys.HOME], 0)),
    ):
        listed.send_keys(*keys)
        if place is not None:
            assert page.text("#name") == names[place]
        active = page.js(
            "return document.getElementById('list').getAttribute('aria-activedescendant')"
        )
        assert page.text(f"#{active} b") == page.text("#name")
        # In view, and only what is near is in the page at all.
        assert page.js(
            "const [a, b] = [arguments[0], 'list'].map((id) => document.getElementById(id).getBoundingClientRect());"
            "return a.top >= b.top - 1 && a.bottom <= b.bottom + 1",
            active,
        )
        assert len(page.texts("#rows .row")) < 30
    page.find("#next").click()
    assert page.text("#name") == names[1]


def test_the_chart_tells_what_the_table_says(page: Page, written: Path, demo_run: Shop) -> None:
    page.open(written)
    fan = page.find("#fan")
    page.js("arguments[0].focus()", fan)
    for name in ("model/ridge", "model/lstm"):
        page.js("document.querySelector(`[name='${arguments[0]}']`).click()", name)
    fan.send_keys(Keys.ARROW_RIGHT)
    told = page.text("#readout")
    row = page.table_row("2018-01-01")
    assert told.startswith("Mon 2018-01-01 · expected ")
    for text in (
        f"expected {row['Expected']} ·",
        f"80% {row['80% from']} to {row['80% to']}",
        f"95% {row['95% from']} to {row['95% to']}",
        f"ridge {row['ridge']} ·",
        f"lstm {row['lstm']} ·",
        "New Year's Day",
    ):
        assert text in told
    (truth,) = demo_run.query(
        f"select mean, upper_95 from analytics_marts.rpt_forecast_fan where ds = date '2018-01-01' "
        f"and series_id = '{page.text('#name')}' and kind = 'forecast'"
    )
    assert number(row["Expected"]) == pytest.approx(truth["mean"], rel=0.01)
    assert number(row["95% to"]) == pytest.approx(truth["upper_95"], rel=0.01)
    fan.send_keys(Keys.ARROW_LEFT)
    assert page.text("#readout").startswith("Sun 2017-12-31 · actual ")
    assert f"backtest {page.table_row('2017-12-31')['Backtest 1']}" in page.text("#readout")
    # With the pointer.
    page.js("arguments[0].scrollIntoView({block: 'center'})", fan)
    over = page.find("#fan .u-over")
    ActionChains(page.browser).move_to_element(over).perform()
    pointed = page.text("#readout")
    date = re.match(r"\w{3} (\d{4}-\d\d-\d\d) · actual ([\d.,]+)", pointed)
    assert date and page.table_row(date[1])["Actual"] == date[2]
    page.js("document.querySelector(\"[name='intervals']\").click()")
    page.js("arguments[0].focus()", fan)
    fan.send_keys(Keys.END)
    assert "2018-01-28" in page.text("#readout") and "80%" not in page.text("#readout")


def test_the_page_unpacks_every_number(page: Page, written: Path, unpacked: Unpacked) -> None:
    page.open(written)
    blocks = {"Actual": "actual", "Expected": "mean", "80% from": "lower_80", "95% to": "upper_95"}
    blocks |= {"Backtest 3": "fold/3/mean", "ridge": "model/ridge", "lstm": "model/lstm"}
    for i in (0, 1, 2):
        page.table_row("2018-01-01")
        heads, *rows = page.js(
            "return [...document.querySelectorAll('#figures-table tr')].map((row) => [...row.children].map((e) => e.textContent))"
        )
        assert [row[0] for row in rows] == unpacked.dates[::-1]
        for head, name in blocks.items():
            column = [number(row[heads.index(head)] or "nan") for row in rows[::-1]]
            expected = np.full(len(rows), np.nan)
            expected[unpacked.at[name]] = unpacked.values[name][i]
            # As many decimals are shown as a number of its size has.
            shown = np.where(
                np.abs(expected) >= 100, 0.5, np.where(np.abs(expected) >= 10, 0.05, 0.005)
            )
            assert np.array_equal(np.isnan(column), np.isnan(expected))
            assert np.nanmax(np.abs(column - expected) - shown) < 1e-6, (i, head)
        page.find("#next").click()


def test_the_parts_of_the_regression_add_up(page: Page, written: Path) -> None:
    page.open(written)
    *parts, total = [number(text) for text in page.texts("#bars .bar > span:last-child")]
    assert len(parts) >= 3 and sum(parts) == pytest.approx(total, abs=len(parts))


def test_dark_and_light(page: Page, written: Path) -> None:
    page.open(written)
    ground = "return getComputedStyle(document.body).backgroundColor"
    before = page.js(ground)
    button = page.find("#theme")
    button.click()
    assert page.js(ground) != before and button.get_attribute("aria-pressed") == "true"
    assert page.js("return document.querySelectorAll('#total canvas, #fan canvas').length") == 2
    button.click()
    assert page.js(ground) == before and button.get_attribute("aria-pressed") == "false"


def test_a_phone_needs_no_sideways_scrolling(page: Page, written: Path) -> None:
    page.open(written, 360, 740)
    width = "return document.documentElement.scrollWidth"
    assert page.js(width) == 360
    page.table_row("2018-01-01")
    assert page.js(width) == 360
    page.js("document.getElementById('theme').click()")
    assert page.js(width) == 360
    # Nothing sticks out and is merely cut off, but for what lies in a box that scrolls.
    outside = page.js(
        "return [...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > 361 && "
        "!e.closest('.scroll, .list, .hidden, .uplot')).map((e) => e.tagName + '.' + e.className)"
    )
    assert outside == []


def test_focus_is_seen_wherever_it_goes(page: Page, written: Path) -> None:
    page.open(written)
    seen = []
    for _ in range(14):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        seen.append(
            page.js(
                "const e = document.activeElement; const s = getComputedStyle(e);"
                "return [e.id || e.className || e.textContent, s.outlineStyle, parseFloat(s.outlineWidth)]"
            )
        )
    assert len({name for name, *_ in seen}) >= 6
    assert all(style == "solid" and width >= 3 for _, style, width in seen), seen


def test_hostile_names_are_text(page: Page, demo_run: Shop, tmp_path: Path) -> None:
    content = read_demo(demo_run, limit=len(HOSTILE))
    content = named(content, dict(zip(content.series["series_id"], HOSTILE, strict=True)))
    path = tmp_path / "hostile.html"
    path.write_text(render(content), encoding="utf-8")
    page.open(path)
    assert page.texts("#rows .row b") == HOSTILE
    for name in HOSTILE:
        assert page.text("#name") == name
        page.find("#list").send_keys(Keys.ARROW_DOWN)
    assert set(page.texts("#reorder tbody td:first-child")) & set(HOSTILE)
    assert page.js("return document.querySelectorAll('main script, main img').length") == 0
    assert page.js("return window.harmed") is None
    assert (
        page.text("#facts").count("<b>&") == 1 and page.texts("#filters option").count("<b>&0") == 1
    )
    assert page.js("return document.documentElement.scrollWidth") <= 1280


def read_demo(shop: Shop, *, limit: int = 5, without: Collection[str] = ()) -> Content:
    """What the report shows of the demo; `without` names models that a project could have switched off."""
    with shop.entered():
        workspace = Workspace.open(
            project_dir=shop.project_dir, profiles_dir=REPO / "profiles", vars=shop.vars
        )
        kept = {k: v for k, v in workspace.project.relations.items() if k not in without}
        with workspace.connect() as warehouse:
            return read(warehouse, replace(workspace.project, relations=kept), limit=limit)


def named(content: Content, names: dict[str, str]) -> Content:
    """The content with other names for its series, and markup wherever the shop has text."""
    about = json.loads(json.dumps(content.about))
    for part in ("alerts", "reorder"):
        for row in about[part]["rows"]:
            row["series_id"] = names.get(row["series_id"], row["series_id"])
            for key in {"subject", "message", "supplier", "action", "alert"} & row.keys():
                row[key] = f"<img src=x onerror='window.harmed = 1'>{row[key]}"
    for each in about["holidays"]:
        each["name"] = f"<b>{each['name']}"
    about["run_id"] = "<script>window.harmed = 1</script>"
    departments = content.series.get("attribute/department") or content.series["series_id"]
    series = content.series | {
        "series_id": [names[name] for name in content.series["series_id"]],
        "attribute/department": [f"<b>&{i % 3}" for i in range(len(departments))],
    }
    return replace(content, about=about, series=series)


def test_the_smallest_shop_has_a_report(page: Page, small_run: Shop, tmp_path: Path) -> None:
    """One series, one model, no products, promotions or revenue."""
    out = tmp_path / "small.html"
    told = small_run.json("report", "--out", str(out))
    assert told["n_series"] == 1
    page.open(out)
    assert page.text("#name") == "only" and page.text("#count") == "1 series"
    assert len(page.texts("#accuracy tbody tr")) == len(page.texts("#coverage circle")) / 4 >= 1
    assert "nan" not in page.text("main").lower() and "undefined" not in page.text("main")


def test_marts_that_are_switched_off_are_said_to_be(
    page: Page, demo_run: Shop, tmp_path: Path
) -> None:
    content = read_demo(
        demo_run, without={"fct_alerts", "fct_reorder_recommendations", "ftr_known"}
    )
    assert content.promotions is None
    path = tmp_path / "less.html"
    path.write_text(render(content), encoding="utf-8")
    page.open(path)
    off = "This mart is switched off in the dbt project."
    assert page.text("#alert-counts") == off == page.text("#reorder-note")
    assert "Most alerts" not in page.texts("#sort option")
    assert page.texts("#toggles label") and "Promotions" not in page.texts("#toggles label")


def test_a_script_that_is_not_the_file_s_own_does_not_run(
    chromium: webdriver.Chrome, written: Path
) -> None:
    page = Page(chromium)
    page.open(written)
    page.errors()
    page.js(
        "const e = document.createElement('script'); e.textContent = 'window.harmed = 1'; document.body.append(e);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"https://example.org/x.png\">')"
    )
    assert page.js("return window.harmed") is None
    refused: list[Any] = []

    def both(_: Any) -> bool:
        refused.extend(page.errors())
        return len(refused) >= 2

    WebDriverWait(chromium, 30).until(both)
    assert all("Content Security Policy" in entry["message"] for entry in refused)
