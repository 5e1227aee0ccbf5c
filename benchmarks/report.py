"""The report of a thousand series: its size, and how long until the page in a browser is ready.

``python -m benchmarks.report --data DIR [--series 1000] [--runs 3] [--json]``. A generated shop is run once, in DIR/report_shop,
with a backtest of three folds. Needs Chromium, chromedriver and selenium (in the extra dev).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.common import Report, arguments, median, say
from benchmarks.generated import generated
from trendcast.report import write

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


def main() -> None:
    """Measure and print."""
    parser = arguments("Size of the report, and how long until it is ready.")
    parser.add_argument("--series", type=int, default=1000)
    args = parser.parse_args()
    workspace = generated(
        args.data.resolve() / "report_shop",
        args.series,
        backtest=True,
        models=["classical", "ridge", "lightgbm", "ensemble"],
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        seconds = []
        for _ in range(args.runs):
            start = time.perf_counter()
            told = write(workspace, file, limit=args.series)
            seconds.append(time.perf_counter() - start)
        say("opening it ...")
        ready = [opened(file) for _ in range(args.runs)]
    report = Report("report")
    report.figures = {
        "series": told["n_series"],
        "megabytes": round(told["bytes"] / 1e6, 3),
        "seconds_to_write": round(median(seconds), 2),
        "seconds_until_ready": round(median(ready), 3),
    }
    report.print(as_json=args.json)


def opened(file: Path) -> float:
    """Open the page in a new browser; return the seconds from the request until it takes input."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            start = time.perf_counter()
            driver.get(file.as_uri())
            WebDriverWait(driver, 60, poll_frequency=0.01).until(
                lambda d: (
                    d.execute_script("return document.documentElement.dataset.ready") == "true"
                )
            )
            return time.perf_counter() - start
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
