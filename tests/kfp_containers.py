"""Executes runs of kfp_server.py on the Docker engine, with everything in one folder.

Each run is a separate process that executes this file, because the configuration of kfp.local is global to a process.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from kfp_server import Executor, StepsFailedError

from pipelines.command import load
from pipelines.local import LocalRunError, run_locally


def containers(params: Path, root: Path) -> Executor:
    """An executor for these settings whose containers write to `root`; their output goes to `root / "runs.log"`."""

    def execute(package: Path, parameters: dict[str, Any]) -> None:
        command = [sys.executable, __file__, package, json.dumps(parameters), params, root]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        root.mkdir(exist_ok=True)
        with (root / "runs.log").open("a") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode:
            last = (done.stdout.splitlines() or [""])[-1]
            raise (
                StepsFailedError(*json.loads(last))
                if last.startswith("[")
                else StepsFailedError(("engine", done.stderr))
            )

    return execute


def main(package: str, parameters: str, params: str, root: str) -> None:
    """Execute one run. If steps failed, the last line names them and their messages."""
    settings, _ = load(Path(params))
    before = set(Path(root).glob("runs/*"))
    try:
        run_locally(Path(package), json.loads(parameters), settings, Path(root))
    except LocalRunError:
        folders = set(Path(root).glob("runs/*")) - before
        files = sorted((p for folder in folders for p in folder.rglob("error.txt")), key=lambda p: p.stat().st_mtime)
        print(f"\n{json.dumps([(path.parent.name, path.read_text().strip()) for path in files])}")
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
