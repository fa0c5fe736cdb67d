"""One at a time, and the lock's file tells who and how it went."""

import os
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gfwtools.errors import FetchError, LockedError, StoreError
from gfwtools.storage.lock import Run, last_run, lock


def test_the_second_waits_for_the_lock(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with lock(tmp_path / "lock", wait=5):
            order.append("second")

    with lock(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.15)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_that_stays_held_is_an_error_that_says_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    expected = re.escape(f"{path}: still held by process {os.getpid()} (")
    with lock(path), pytest.raises(LockedError, match=expected), lock(path, wait=0.1):
        pass


@pytest.mark.parametrize(("wait", "said"), [(0.1, r"\) after waiting 0\.1 s; try"), (0, r"\); try")])
def test_a_lock_that_stays_held_says_how_long_we_waited_if_we_did(tmp_path: Path, wait: float, said: str) -> None:
    with lock(tmp_path / "lock"), pytest.raises(LockedError, match=said), lock(tmp_path / "lock", wait=wait):
        pass


def test_the_lock_tells_how_the_last_run_ended_and_when(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert last_run(path) is None
    with pytest.raises(FetchError), lock(path):
        raise FetchError("no mirror\nanswered")
    failed = last_run(path)
    assert failed
    assert failed.error == "no mirror answered"
    assert abs(datetime.now(UTC) - datetime.fromisoformat(failed.date)) < timedelta(minutes=1)
    with lock(path):
        running = last_run(path)
    assert running
    assert running.running
    ended = last_run(path)
    assert ended
    assert (ended.error, ended.running) == ("", False)


def test_the_lock_tells_of_a_run_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4194305\n2026-08-06T05:00:00+00:00\nrunning\n")
    assert last_run(tmp_path / "lock") == Run("2026-08-06T05:00:00+00:00", "it was killed")


def test_the_lock_of_another_version_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4194305             \n")
    assert last_run(tmp_path / "lock") is None


@pytest.mark.parametrize("option", ["", "--source="])
def test_the_password_in_the_holders_command_line_is_not_told(tmp_path: Path, option: str) -> None:
    words = ["sh", "-c", "echo; read _", f"{option}http://me:SECRET@mirror.example/l"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()  # before, the kernel may not have its words yet
        with lock(tmp_path / "lock"):
            (tmp_path / "lock").write_text(f"{holder.pid}\n")
            with pytest.raises(LockedError) as caught, lock(tmp_path / "lock", wait=0):
                pass
        holder.communicate(b"\n")
    assert f"{option}http://***@mirror.example/l" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_the_lock_is_free_again_when_its_holder_was_killed(tmp_path: Path) -> None:
    program = "import sys, time; from pathlib import Path; from gfwtools.storage.lock import lock\n"
    program += "with lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)\n"
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    with lock(tmp_path / "lock", wait=0):
        pass


def test_the_lock_can_be_read_by_all_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with lock(tmp_path / "lock"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o644


def test_a_damaged_lock_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("1" * 5000 + "\n2026-08-06T05:00:00+00:00\nrunning\n")
    assert last_run(path) == Run("2026-08-06T05:00:00+00:00", "it was killed")
    path.write_text("x\n" * (1 << 20))
    assert last_run(path) is None


def test_a_lock_that_is_another_name_of_a_file_leaves_that_file_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious\n")
    os.link(tmp_path / "precious", tmp_path / "lock")
    with pytest.raises(StoreError, match=r"has a second name \(a hard link\); remove it: rm "), lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "precious").read_text() == "precious\n"


def test_a_pipe_in_place_of_the_lock_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(StoreError, match="is not a regular file"), lock(tmp_path / "lock"):
        pass
