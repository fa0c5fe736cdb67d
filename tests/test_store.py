"""Files: whole or not at all, whatever goes wrong."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from failing_calls import EIO, failing

from gfwtools.errors import StoreError
from gfwtools.storage import atomic
from gfwtools.storage.lock import lock


def test_files_are_written_whole_with_mode_0644_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        changed = atomic.write_all({tmp_path / "a/b/one": b"1", tmp_path / "two": b"2"})
    finally:
        os.umask(previous)
    assert changed == [tmp_path / "a/b/one", tmp_path / "two"]
    assert (tmp_path / "a/b/one").read_bytes() == b"1"
    assert (tmp_path / "two").stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.rglob(".gfwtools*"))


def test_a_file_that_is_as_it_should_be_is_not_touched(tmp_path: Path) -> None:
    atomic.write_all({tmp_path / "one": b"1"})
    before = (tmp_path / "one").stat()
    assert atomic.write_all({tmp_path / "one": b"1"}) == []
    assert (tmp_path / "one").stat().st_mtime_ns == before.st_mtime_ns
    assert (tmp_path / "one").stat().st_ino == before.st_ino


def test_a_symbolic_link_at_a_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "one").symlink_to(tmp_path / "secret")
    atomic.write_all({tmp_path / "one": b"1"})
    assert not (tmp_path / "one").is_symlink()
    assert (tmp_path / "secret").read_text() == "secret"


def test_when_one_file_cannot_be_staged_none_is_changed(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("old")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="nothing was changed"):
        atomic.write_all({tmp_path / "one": b"new", tmp_path / "file/two": b"2"})
    assert (tmp_path / "one").read_text() == "old"
    assert not list(tmp_path.rglob(".gfwtools*"))


def test_when_one_file_cannot_be_renamed_those_before_it_go_back(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("old")
    (tmp_path / "three").mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(StoreError, match="nothing was changed"):
        atomic.write_all({tmp_path / "one": b"new", tmp_path / "two": b"2", tmp_path / "three": b"3"})
    assert (tmp_path / "one").read_text() == "old"
    assert not (tmp_path / "two").exists()
    assert not list(tmp_path.rglob(".gfwtools*"))


def test_when_a_folder_cannot_be_flushed_the_renames_are_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_text("old")
    failing("fsync", lambda number: number == 3, monkeypatch, EIO)  # after those of the two files
    expected = f"{tmp_path}: cannot write there: Input/output error; nothing was changed"
    with pytest.raises(StoreError, match=f"^{re.escape(expected)}$"):
        atomic.write_all({tmp_path / "one": b"new", tmp_path / "two": b"2"})
    assert (tmp_path / "one").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_cannot_be_put_back_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_text("old")
    failing("fsync", lambda number: number >= 3, monkeypatch, EIO)
    expected = f"{tmp_path}: cannot write there: Input/output error; {tmp_path}/one could not be put back"
    with pytest.raises(StoreError, match=f"^{re.escape(expected)}$"):
        atomic.write_all({tmp_path / "one": b"new", tmp_path / "two": b"2"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one": "new"}


@pytest.mark.e2e
def test_on_a_full_disk_nothing_is_changed_and_the_reason_is_told(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        atomic.write_all({tmp_path / "one": b"old"})
        with pytest.raises(StoreError, match="No space left on device; nothing was changed"):
            atomic.write_all({tmp_path / "one": b"new", tmp_path / "two": b"x" * 200_000})
        assert (tmp_path / "one").read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.e2e
def test_on_a_read_only_file_system_nothing_is_changed_and_the_reason_is_told(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(StoreError, match="Read-only file system"):
            atomic.write_all({tmp_path / "one": b"1"})
        with pytest.raises(StoreError, match="Read-only file system"), lock(tmp_path / "lock"):
            pass
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_killed_at_any_moment_each_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    program = (
        "import sys, itertools; from pathlib import Path; from gfwtools.storage import atomic\n"
        "folder = Path(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "for n in itertools.count():\n"
        "    atomic.write_all({folder / name: (str(n % 10) * 20000).encode() for name in ('one', 'two')})\n"
    )
    for delay in (0.005, 0.011, 0.023, 0.037):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for name in ("one", "two"):
            if (tmp_path / name).exists():
                data = (tmp_path / name).read_bytes()
                assert len(data) == 20000
                assert len(set(data)) == 1
    atomic.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"one", "two"}


def test_of_all_devices_only_dev_null_is_read(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    assert atomic.read(tmp_path / "null") == b""
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(StoreError, match="not a regular file"):
        atomic.read(tmp_path / "zero", limit=1)
