"""A real browser on the server of `make ui`: the list of methods, the charts, the comparison."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, sync_playwright
from source_code import REPOSITORY
from test_tracking import closed_port
from tiny import World

from pemt_core.tracking import connect

sys.path.insert(0, str(REPOSITORY / "docs"))  # the script that makes the screenshots, which is not in a package
from screenshots import CHROMIUM, addresses, open_browser

pytestmark = pytest.mark.browser

PATIENCE = 60_000  # time limit in milliseconds for a page on a busy machine
METHODS = ("pemt", "control")
# Texts to the right of an element: the comparison lays names and values out as two grids without rows
RIGHT_OF = """element => {
    const own = element.getBoundingClientRect(), middle = (own.top + own.bottom) / 2;
    return [...document.querySelectorAll("*")].filter(other => {
        const box = other.getBoundingClientRect();
        const beside = box.left > own.right && box.top < middle && middle < box.bottom;
        return beside && !other.children.length && other.innerText;
    }).map(other => other.innerText);
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, scored: World) -> Iterator[str]:
    """The address of `make ui`, started before its store exists; a report then records its runs."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} is not there")
    folder, port = tmp_path_factory.mktemp("ui"), closed_port()
    address = f"http://127.0.0.1:{port}"
    command = ["make", "--old-file=setup", "ui", f"STORE={folder}", f"PORT={port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        assert f"{address}/#/experiments/1/runs?" in (folder / "log").read_text()
        scored.record(connect("sqlite:///mlflow.db", "pemt", folder, "stop"))
        yield address
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def expected(scored: World) -> dict[str, float]:
    """The mean score of each method over targets and seeds, computed from the result files."""
    means = {}
    for method in METHODS:
        results = [json.loads(path.read_text()) for path in scored.folder.glob(f"scores/*/{method}-*/result.json")]
        assert len(results) == 6
        means[method] = fmean(result["test"]["accuracy"] for result in results)
    assert means["pemt"] != means["control"]
    return means


@pytest.fixture(scope="module")
def page(server: str) -> Iterator[Page]:
    """A page of a fresh browser; afterwards, checks that every request went to the server."""
    requests: list[str] = []
    with sync_playwright() as playwright, open_browser(playwright) as page:
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: requests.append(request.url))
        yield page
    hosts = {urlsplit(url).netloc for url in requests if urlsplit(url).scheme in ("http", "https", "ws", "wss")}
    assert hosts == {urlsplit(server).netloc}


@pytest.fixture(scope="module")
def where(server: str) -> dict[str, str]:
    return addresses(server, "pemt")


def opened(page: Page, address: str, text: str) -> Page:
    """Open `address` and wait for `text`; goes through a blank page, because addresses differ only after the #."""
    page.goto("about:blank")
    page.goto(address)
    page.get_by_text(text, exact=True).first.wait_for()
    return page


def rows_of(page: Page) -> dict[str, dict[str, str]]:
    """{run name: {column: text}}; the grid draws fixed and scrolling columns of a row separately."""
    rows: dict[str, dict[str, str]] = {}
    for cell in page.locator(".ag-row .ag-cell").all():
        row = cell.locator("xpath=..").get_attribute("row-index") or ""
        rows.setdefault(row, {})[cell.get_attribute("col-id") or ""] = cell.inner_text()
    return {cells["attributes.`Run Name`"].split("\n")[-1]: cells for cells in rows.values()}


def test_the_list_nests_cells_below_their_methods(page: Page, where: dict[str, str]) -> None:
    opened(page, where["list"], "pemt k=full")
    assert set(rows_of(page)) == {"pemt k=full", "control k=full", "sources"}
    assert page.get_by_text("Mean over all targets").count() >= 1


def test_the_view_has_a_column_of_means(page: Page, where: dict[str, str], expected: dict[str, float]) -> None:
    opened(page, where["view"], "mean/All")
    page.locator('.ag-row [col-id="metrics.`mean/All`"]').nth(1).wait_for()
    rows = rows_of(page)
    assert set(rows) == {"pemt k=full", "control k=full"}
    for method in METHODS:
        assert float(rows[f"{method} k=full"]["metrics.`mean/All`"]) == pytest.approx(expected[method], abs=1e-4)


def test_a_chart_draws_both_methods(page: Page, where: dict[str, str], expected: dict[str, float]) -> None:
    opened(page, where["charts"], "mean/All")
    card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text="mean/All").first
    card.locator(".bars .point").nth(1).wait_for()
    shown = card.inner_text()
    for method in METHODS:
        assert f"{method} k=full" in shown
        assert f"{expected[method]:.2f}" in shown


def test_the_comparison_shows_both_means(page: Page, where: dict[str, str], expected: dict[str, float]) -> None:
    opened(page, where["compare"], "target/gamma")
    names = page.locator("tr", has_text="Run Name").locator("td").all_inner_texts()
    values = page.get_by_role("link", name="mean/All", exact=True).evaluate(RIGHT_OF)
    shown = {name.strip(): float(value) for name, value in zip(names, values, strict=True)}
    assert shown == {f"{method} k=full": pytest.approx(expected[method], abs=0.01) for method in METHODS}


def test_a_run_shows_its_table_and_its_images(page: Page, where: dict[str, str], expected: dict[str, float]) -> None:
    opened(page, where["run"], "Show more").get_by_text("Show more").first.click()
    best = max(expected, key=lambda method: expected[method])
    table = page.locator("table", has_text="Trained parameters").first
    assert [table.locator("tr", has_text=target).count() for target in World.SCORED] == [1, 1, 1]
    images = page.locator("img[src*=get-artifact]")
    assert images.count() == {"pemt": 2, "control": 1}[best]
    for image in images.all():
        loaded: Any = image.evaluate("image => image.decode().then(() => image.naturalWidth)")
        assert loaded > 100
