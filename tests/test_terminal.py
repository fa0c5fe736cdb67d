"""What is drawn on a terminal fits, goes away, and neither holds the work up nor fails it."""

import io
import os
import re
import subprocess
import sys
import termios

import pytest
from terminals import environment, terminal, without_controls, written

from gfwtools.cli.terminal import cells, has_colours, shorten

#: Reports three steps of a long piece of work, by a label of Chinese characters, and looks at the drawing in between.
WORK = """
import sys, time
from gfwtools.cli.terminal import progress
with progress(lambda done, total: f"{done:,} of {total:,}", quiet="quiet" in sys.argv) as advance:
    for done in (1, 400_000, 1_000_000):
        if advance:
            advance("黑名单" * 12, done, 1_000_000)
            time.sleep(0.3)
print("done")
"""


def lines_of(text: str) -> list[str]:
    """Each state of the line that is redrawn."""
    return [line for line in re.split(r"[\r\n]+", without_controls(text)) if line.strip()]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_bar_is_on_one_line_of_the_terminal(columns: int) -> None:
    drawn = lines_of(written(["-c", WORK], columns))
    assert len(drawn) >= 4  # the three and the last word
    assert all(cells(line) < columns for line in drawn)
    assert "黑名" in drawn[0]
    assert "1,000,000 of 1,000,000" in drawn[-2]


def test_a_terminal_without_a_size_is_taken_for_one_of_80_columns() -> None:
    assert max(map(cells, lines_of(written(["-c", WORK], 0)))) < 80


def test_a_terminal_that_is_too_narrow_for_a_bar_gets_none() -> None:
    assert lines_of(written(["-c", WORK], 40)) == ["done"]


def test_at_the_end_the_bar_is_gone_and_the_cursor_back() -> None:
    assert written(["-c", WORK], 80).endswith("\r\x1b[K\x1b[?25hdone\r\n")


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_move_its_cursor_gets_no_bar(term: str) -> None:
    assert written(["-c", WORK], 80, TERM=term) == "done\r\n"


def test_who_wants_quiet_gets_no_bar() -> None:
    assert written(["-c", WORK, "quiet"], 80) == "done\r\n"


def test_a_pipe_gets_no_bar() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, env=environment(), check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.fixture
def work() -> str:
    """The work says on standard output that it is done while its bar may still be there."""
    return WORK.replace('print("done")', "").rstrip() + '\n    print("done", flush=True)\nprint("gone", flush=True)\n'


def test_a_terminal_that_is_stopped_does_not_hold_the_work_up(work: str) -> None:
    with terminal(80) as (_, theirs):
        termios.tcflow(theirs, termios.TCOOFF)  # Ctrl-S
        child = subprocess.Popen(
            [sys.executable, "-c", work], stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment()
        )
        assert child.stdout
        assert child.stdout.readline() == "done\n"
        termios.tcflow(theirs, termios.TCOON)
        assert child.communicate(timeout=60) == ("gone\n", None)
        assert child.returncode == 0


def test_a_terminal_that_is_gone_fails_nothing(work: str) -> None:
    with terminal(80) as (ours, theirs):
        child = subprocess.Popen(
            [sys.executable, "-c", work], stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment()
        )
        os.close(ours)
        assert child.communicate(timeout=60) == ("done\ngone\n", None)
        assert child.returncode == 0


def test_a_chinese_character_takes_two_columns_and_a_combining_one_none() -> None:
    assert cells("a名e\u0301") == 4
    assert shorten("a名名", 4) == "a名"
    assert shorten("a名名", 0) == ""


def test_a_stream_that_is_no_terminal_has_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert not has_colours(io.StringIO())
