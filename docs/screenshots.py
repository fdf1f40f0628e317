"""Take the screenshots of MLflow for docs/mlflow.md: `make ui`, then `python docs/screenshots.py`.

Needs the development dependencies and Chromium. The screenshots show the runs of the server's store.
"""

import argparse
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import Page, Playwright, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
PICTURES = {"view": 460, "charts": 900, "compare": 820}  # page to pixels of height
FIRST = "mean/All"  # a text that every page shows once it is drawn
SETTLED = 3000  # milliseconds until a page has drawn what follows its texts


@contextmanager
def open_browser(playwright: Playwright) -> Iterator[Page]:
    """Open a page in Chromium with a temporary profile, without MLflow's assistant, which would open on its own."""
    with TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=FLAGS, viewport={"width": 1400, "height": 900}
        )
        context.add_init_script(NO_ASSISTANT)
        yield context.pages[0]
        context.close()


def addresses(server: str, experiment: str) -> dict[str, str]:
    """Return the pages of an experiment's newest methods: list, view, charts, compare, and run, for the best method."""
    found = _ask(server, f"experiments/get-by-name?experiment_name={experiment}", None)
    number = found["experiment"]["experiment_id"]
    newest = "tags.`pemt.current` = 'true' AND tags.`pemt.method` != ''"
    search = {"experiment_ids": [number], "filter": newest, "order_by": ["metrics.`mean/All` DESC"]}
    runs = [run["info"]["run_id"] for run in _ask(server, "runs/search", search)["runs"]]
    training = "workflowType=machine_learning"
    return {
        "list": f"{server}/#/experiments/{number}/runs?{training}",
        "view": f"{server}/#/experiments/{number}/runs?viewStateShareKey=methods&{training}",
        "charts": f"{server}/#/experiments/{number}/runs?compareRunsMode=CHART&{training}",
        "compare": f'{server}/#/compare-runs?runs={json.dumps(runs)}&experiments=["{number}"]&{training}',
        "run": f"{server}/#/experiments/{number}/runs/{runs[0]}?{training}",
    }


def _ask(server: str, what: str, values: Any) -> Any:
    data = None if values is None else json.dumps(values).encode()
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/{what}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:5055", help="address that `make ui` serves")
    parser.add_argument("--experiment", default="pemt")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    pages = addresses(arguments.server, arguments.experiment)
    with sync_playwright() as playwright, open_browser(playwright) as page:
        for name, height in PICTURES.items():
            path = arguments.output / f"mlflow_{name}.png"
            page.goto("about:blank")
            page.goto(pages[name])
            page.set_viewport_size({"width": 1400, "height": height})
            page.get_by_text(FIRST, exact=True).first.wait_for()
            if name == "compare":  # fold the sections between the runs' names and their metrics
                for section in ("Visualizations", "Parameters"):
                    page.get_by_text(section, exact=True).first.click()
            page.wait_for_timeout(SETTLED)
            page.screenshot(path=path)
            with Image.open(path) as picture:
                picture.convert("RGB").quantize().save(path, optimize=True)
            print(path)


if __name__ == "__main__":
    main()
