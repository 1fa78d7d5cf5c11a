"""Files appear whole or not at all, and what killed writers left is cleared away, theirs alone."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffeo._files import alone, check_output, replacing

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and flock")


def in_child(work: Callable[[], None], ready: Callable[[], bool]) -> int:
    """A process that does ``work`` and then waits to be killed."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(1)
    while not ready():
        pass
    return child


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_and_wait(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"half")
        file.flush()
        signal.pause()


def parts(folder: Path) -> list[str]:
    return [name for name in names(folder) if name.endswith(".part")]


@posix
def test_what_a_killed_writer_left_goes_and_a_living_one_s_stays(tmp_path: Path):
    (tmp_path / "out").write_bytes(b"old")
    for mine in (".diffeo-of-mine.part", "diffeo-0123456789abcdef.part", ".diffeo-0123456789abcdef.part.txt"):
        (tmp_path / mine).write_bytes(b"mine")
    theirs = names(tmp_path)
    child = in_child(lambda: write_and_wait(tmp_path / "out"), lambda: len(names(tmp_path)) > len(theirs))
    with replacing(tmp_path / "other") as file:  # while the other one is being written
        file.write(b"whole")
    assert len(names(tmp_path)) == len(theirs) + 2
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "out").read_bytes() == b"old"
    with replacing(tmp_path / "new") as file:
        file.write(b"whole")
    assert names(tmp_path) == sorted([*theirs, "other", "new"])


@posix
def test_a_path_is_held_by_one_process_and_free_when_it_is_killed(tmp_path: Path):
    def hold() -> None:
        with alone(tmp_path / "run") as own:
            assert own
            signal.pause()

    child = in_child(hold, lambda: any(name.endswith(".lock") for name in names(tmp_path)))
    while True:  # until the child has taken it
        with alone(tmp_path / "run") as own:
            if not own:
                break
    with alone(tmp_path / "another") as own:
        assert own
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with alone(tmp_path / "run") as own:
        assert own
    assert names(tmp_path) == []


def test_a_link_and_its_file_are_one_path(tmp_path: Path):
    (tmp_path / "run").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with alone(tmp_path / "run") as one, alone(tmp_path / "link") as other:
        assert (one, other) == (True, False)


def test_a_file_system_without_locks_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fcntl = pytest.importorskip("fcntl")

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unknown)
    (tmp_path / ".diffeo-0123456789abcdef.part").write_bytes(b"who knows")
    with alone(tmp_path / "run") as own:
        assert own
    with replacing(tmp_path / "out") as file:
        file.write(b"whole")
    assert names(tmp_path) == [".diffeo-0123456789abcdef.part", "out"]


def test_a_full_disk_leaves_the_old_file_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "out").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*out"), replacing(tmp_path / "out") as file:
        file.write(b"new")
    assert (tmp_path / "out").read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_went_away_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"gone"), replacing(tmp_path / "gone" / "out"):
        pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path: Path):
    (tmp_path / "out").write_bytes(b"old")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(Exception, match="permission denied"):
            check_output(tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)
