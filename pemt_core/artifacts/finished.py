"""The results of finished trainings, kept by a hash of everything that each depends on.

    <root>/finished/<key>/                the files of a result
    <root>/finished/<key>/finished.json   the SHA-256 of each

DVC removes a stage's output before it runs, and settings may go back to earlier ones: a step takes the result from here
instead of training again. Files are copied, since a hard link would let a change of the output reach the kept file.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import atomic_directory, read_record, sha256_of_file, sha256_of_json, write_record
from pemt_core.artifacts.staging import recover, remove
from pemt_core.errors import ArtifactError

logger = logging.getLogger(__name__)

FOLDER, MANIFEST = "finished", "finished.json"
AGAIN = "train it again"


class FinishedStore:
    """The kept result of one training, in `root`/finished/<key>, where the key is a hash of `inputs`."""

    def __init__(self, root: Path, inputs: Any) -> None:
        self.path = Path(root) / FOLDER / sha256_of_json(inputs)[:32]

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield an empty folder for the files of the result, which is kept whole or not at all."""
        with atomic_directory(self.path) as folder:
            yield folder
            write_record(folder / MANIFEST, {"files": _hashes(folder)})

    def holds(self) -> bool:
        """Whether the result is here. A damaged one is removed with a warning."""
        recover(self.path.parent, self.path.name)
        if not self.path.is_dir():
            return False
        try:
            self._check(self.path)
        except ArtifactError as error:
            logger.warning("%s; it is removed, and the training starts anew", error)
            remove(self.path)
            return False
        return True

    def copy_to(self, folder: Path) -> None:
        """Copy the files of the result to `folder`, which may exist. Raises ArtifactError if a copy is not exact."""
        shutil.copytree(self.path, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
        self._check(folder)
        (folder / MANIFEST).unlink()

    def _check(self, folder: Path) -> None:
        files = read_record(folder / MANIFEST, AGAIN).get("files")
        found = _hashes(folder)
        if found != files:
            raise ArtifactError(f"{self.path}: its files are not those that {MANIFEST} lists; {AGAIN}")


def _hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a folder but its manifest, by the path in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}
