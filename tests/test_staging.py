"""Atomic writes among processes: kills, process ids that repeat, locks, links, mount points, small disks."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file

from pemt_core.artifacts.files import atomic_directory, atomic_file, read_json, write_json
from pemt_core.artifacts.staging import recover
from pemt_core.errors import ArtifactError, FileError, PemtError, file_errors_named
from pemt_core.report.files import write_files

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
WRITE = """
import os, signal, sys, time
from pathlib import Path
from pemt_core.artifacts.files import atomic_directory, atomic_file

def killed_after_the_first(rename):
    def renames(*paths):
        rename(*paths)
        os.kill(os.getpid(), signal.SIGKILL)
    return renames

kind, path = sys.argv[1:]
if kind == "between":
    os.rename = killed_after_the_first(os.rename)
with (atomic_file if kind == "file" else atomic_directory)(Path(path)) as place:
    (place if kind == "file" else place / "x.json").write_text('"new"')
    if kind != "between":
        print("writing", flush=True)
        time.sleep(60)
"""


def writer(kind: str, path: Path, *prefix: str) -> "subprocess.Popen[str]":
    """A process that stays in the middle of a write ("file", "folder"), or is killed between two renames."""
    command = [*prefix, sys.executable, "-c", WRITE, kind, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == ("" if kind == "between" else "writing\n")
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def folder_with(path: Path, text: str) -> Path:
    with atomic_directory(path) as folder:
        (folder / "x.json").write_text(f'"{text}"')
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Leftovers


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_writer_removes_what_a_killed_one_left_but_nothing_of_a_live_one(tmp_path: Path, kind: str) -> None:
    alive, dead = writer(kind, tmp_path / "out"), writer(kind, tmp_path / "out")
    before = names(tmp_path)
    kill(dead)
    others = {".other.12ab.tmp", ".out.notes.tmp"}
    for name in others:
        (tmp_path / name).write_text("x")
    (tmp_path / ".out.12ab.tmp").write_text("its lock was removed")
    with (atomic_file if kind == "file" else atomic_directory)(tmp_path / "out") as place:
        (place if kind == "file" else place / "x.json").write_text('"mine"')
    left = names(tmp_path) - others - {"out"}
    assert left < before
    assert len(left) == 2  # new content and lock of the live writer
    kill(alive)
    recover(tmp_path)
    assert names(tmp_path) == {"out", ".out.notes.tmp"}


def test_a_container_with_the_same_process_id_writes_after_a_kill(tmp_path: Path) -> None:
    """Process 1 of a new process namespace, twice."""
    for _ in range(2):
        process = writer("folder", tmp_path / "out", *NAMESPACE)
        assert len(names(tmp_path)) == 2  # its lock and its new content
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        process.communicate()
    folder_with(tmp_path / "out", "whole")
    assert names(tmp_path) == {"out"}


def test_a_live_writer_in_another_namespace_is_left_alone(tmp_path: Path) -> None:
    other = writer("folder", tmp_path / "out", *NAMESPACE)
    held = names(tmp_path)
    folder_with(tmp_path / "out", "mine")
    assert names(tmp_path) == held | {"out"}
    kill(other)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077], ids=oct)
def test_new_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    """Those of safetensors too, whose writer leaves them to their owner; a program stays executable."""
    before = os.umask(umask)
    try:
        with atomic_directory(tmp_path / "folder") as folder, atomic_file(tmp_path / "file") as file:
            (folder / "inner").mkdir()
            for path in (folder / "inner" / "tensors", folder / "tensors", file):
                save_file({"a": torch.ones(1)}, path)
            (folder / "program").touch(0o700)
    finally:
        os.umask(before)
    found = {path.name: path.stat().st_mode & 0o777 for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    assert found == {"file": 0o666 & ~umask, "tensors": 0o666 & ~umask, "program": 0o700 | (0o666 & ~umask)}
    assert (tmp_path / "folder/inner/tensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_content_that_a_kill_left_aside_comes_back(tmp_path: Path) -> None:
    """Even if the next write fails, or the next use is a read."""
    out = folder_with(tmp_path / "out", "old")
    for use in ("write", "read"):
        process = writer("between", out)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert not out.exists()
        if use == "write":
            with pytest.raises(FileNotFoundError), atomic_directory(out) as folder:
                (folder / "x.json").read_text()  # the new folder is empty
        assert read_json(out / "x.json") == "old"
        assert names(tmp_path) == {"out"}


def test_content_aside_stays_there_while_another_writer_may_fill_its_place(tmp_path: Path) -> None:
    other = writer("folder", tmp_path / "out")
    folder_with(tmp_path / ".out.12ab.old", "old")
    recover(tmp_path)
    assert ".out.12ab.old" in names(tmp_path)
    kill(other)
    recover(tmp_path)
    assert names(tmp_path) == {"out"}
    assert read_json(tmp_path / "out" / "x.json") == "old"


def test_a_replaced_folder_is_replaced_again_by_a_slower_writer(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "out") as slow:
        (slow / "x.json").write_text('"slow"')
        folder_with(tmp_path / "out", "fast")
    assert read_json(tmp_path / "out" / "x.json") == "slow"
    assert names(tmp_path) == {"out"}


def test_without_file_locks_only_old_entries_are_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network file systems, where flock fails."""

    def refused(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    for token, age in (("12ab", 25), ("34cd", 1)):
        for suffix in ("tmp", "lock"):
            (tmp_path / f".out.{token}.{suffix}").write_text("x")
        os.utime(tmp_path / f".out.{token}.lock", (time.time() - age * 3600,) * 2)
    folder_with(tmp_path / "out", "new")
    assert names(tmp_path) == {"out", ".out.34cd.tmp", ".out.34cd.lock"}


# Links


def test_a_link_is_followed_each_time(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.symlink_to("big/folder")
    file.symlink_to("big/file")
    for text in ("first", "second"):  # the first time, the links lead to nothing
        folder_with(folder, text)
        write_json(file, text)
        assert read_json(tmp_path / "big" / "folder" / "x.json") == read_json(tmp_path / "big" / "file") == text
    assert folder.is_symlink()
    assert file.is_symlink()
    assert names(tmp_path / "big") == {"folder", "file"}
    writer("between", folder).communicate()
    assert read_json(folder / "x.json") == "second"


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone" / "out")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("out", "circle"):
        for write in (folder_with, write_json):
            with pytest.raises(ArtifactError, match=rf"{name}: a link to {tmp_path}/.*; create that folder, or remove"):
                write(tmp_path / name, "x")


def test_a_link_into_a_cache_is_replaced_not_followed(tmp_path: Path) -> None:
    """DVC's cache, with cache.type symlink: its files are read-only and shared."""
    cached = tmp_path / "cached"
    cached.write_text('"cached"')
    cached.chmod(0o444)
    (tmp_path / "x.json").symlink_to(cached)
    write_json(tmp_path / "x.json", "new")
    assert read_json(cached) == "cached"
    assert read_json(tmp_path / "x.json") == "new"
    assert not (tmp_path / "x.json").is_symlink()


# What the system refuses


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_mount_point_is_named(mounted: Path) -> None:
    with pytest.raises(ArtifactError, match=f"^{mounted}: cannot be written .*it is a mount point; mount the folder"):
        folder_with(mounted, "x")
    assert names(mounted.parent) == {"mounted"}
    folder_with(mounted / "x", "x")


def test_a_read_only_file_system_is_named(mounted: Path) -> None:
    folder_with(mounted / "x", "x")
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    for write in (folder_with, write_json):
        with pytest.raises(ArtifactError, match=r"cannot be written \(Read-only file system\); write to another"):
            write(mounted / "x" if write is folder_with else mounted / "x" / "x.json", "y")
    assert read_json(mounted / "x" / "x.json") == "x"


@pytest.mark.parametrize("kind", ["a folder in place of a file", "a file in place of a folder", "a file above"])
def test_what_is_in_the_way_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "a folder in place of a file":
        path.mkdir()
        with pytest.raises(ArtifactError, match=f"^{path}: is a folder; expected a file or nothing"):
            write_json(path, 1)
    else:
        path.write_text("x")
        written = path if kind == "a file in place of a folder" else path / "y"
        with pytest.raises(ArtifactError, match=f"^{written}: (is a file; expected a folder|cannot be written)"):
            folder_with(written, "x")
    assert names(tmp_path) == {"x"}


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(ArtifactError, match=r"^/dev/null: is not a regular file; expected a file or nothing"):
        write_json(Path("/dev/null"), 1)
    assert Path("/dev/null").is_char_device()


def test_an_unreadable_description_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(ArtifactError, match=r"x\.json: not readable \(Is a directory\)"):
        read_json(tmp_path / "x.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "long.json").write_text("1" * 5_000)
    for name in ("deep", "long"):
        with pytest.raises(ArtifactError, match=rf"{name}\.json: not readable as JSON"):
            read_json(tmp_path / f"{name}.json")


def test_an_error_in_a_new_folder_names_the_folder(mounted: Path) -> None:
    with (
        pytest.raises(ArtifactError, match=f"^{mounted}/out/x.json: the disk is full"),
        atomic_directory(mounted / "out") as folder,
    ):
        write_json(folder / "x.json", "x" * 300_000)
    assert names(mounted) == set()


def test_files_of_a_report_are_written_all_or_none(mounted: Path) -> None:
    """The third does not fit."""
    write_files(mounted, {"a": "old", "b": b"old"})
    with pytest.raises(ArtifactError, match="c: the disk is full"):
        write_files(mounted, {"a": "new", "b": "new", "c": b"x" * 300_000})
    assert {name: (mounted / name).read_text() for name in names(mounted)} == {"a": "old", "b": "old"}
    write_files(mounted, {"a": "new", "b": "new"})
    assert {name: (mounted / name).read_text() for name in names(mounted)} == {"a": "new", "b": "new"}


def test_many_writers_of_one_folder_leave_one_whole(tmp_path: Path) -> None:
    """Eight processes replace a folder at once, and read it between."""
    program = """
import sys
from pathlib import Path
from pemt_core.artifacts.files import atomic_directory
for n in range(40):
    with atomic_directory(Path(sys.argv[1])) as folder:
        for name in "ab":
            (folder / name).write_text(f"{sys.argv[2]} {n}")
"""
    with ExitStack() as running:
        processes = [
            running.enter_context(subprocess.Popen([sys.executable, "-c", program, tmp_path / "out", str(n)]))
            for n in range(4)
        ]
    assert [process.returncode for process in processes] == [0] * 4
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out" / "a").read_text() == (tmp_path / "out" / "b").read_text()


def test_links_in_a_circle_end_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(PemtError, match="circle"):
        read_json(tmp_path / "circle" / "x.json")
    with pytest.raises(FileError, match="circle"), file_errors_named():
        (tmp_path / "circle").resolve(strict=True)
