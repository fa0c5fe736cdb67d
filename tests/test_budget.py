"""How much of a hostile list is read: memory and time are bounded, and what is too much is refused early."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gfwtools.errors import ListError
from gfwtools.lists.budget import MOST_RULES
from gfwtools.lists.compiler import compile_lists
from gfwtools.lists.decode import MAX_LINES, decode
from gfwtools.lists.formats import FORMATS, Listing
from gfwtools.lists.rule import MAX_LINE

MEGABYTE = 2**20
LIMIT = 500 * 1000**2


@pytest.mark.parametrize("format", FORMATS)
def test_a_line_beyond_the_limit_is_dropped_and_counted(format: str) -> None:
    compiled = compile_lists(Listing("list", "||" + "a." * MAX_LINE + "com\n", format))
    assert compiled.counts().dropped == {"name": 1}
    (outcome,) = compiled.outcomes()
    assert len(outcome.rule.text) == MAX_LINE
    assert "8,197 characters" in outcome.detail


@pytest.mark.parametrize(
    ("text", "format", "message"),
    [
        ("1.1.1.1" + " a.b" * 900 + "\n", "hosts", "rules"),
        ("||例{n}子.com\n", "autoproxy", "other scripts"),
        ("||a*.b{n}.com\n", "autoproxy", "wildcards"),
        ("/a{n}\\.com/\n", "autoproxy", "expressions"),
    ],
)
def test_a_list_with_too_much_to_read_is_refused(text: str, format: str, message: str) -> None:
    lines = (
        text.replace("{n}", str(number)) for number in range(MOST_RULES // 900 + 1 if format == "hosts" else 100_000)
    )
    with pytest.raises(ListError, match=message):
        compile_lists(Listing("list", "".join(lines), format))


def test_a_list_with_too_many_addresses_is_refused() -> None:
    text = "".join(f"2{number >> 16}.{number >> 8 & 255}.{number & 255}.1\n" for number in range(70_000))
    with pytest.raises(ListError, match="32,768 addresses and networks"):
        compile_lists(Listing("list", text, "domains"))


def test_a_list_of_more_lines_than_are_read_is_refused_before_one_is() -> None:
    with pytest.raises(ListError, match="lines"):
        decode(b"a\n" * (MAX_LINES + 1), base64=False)


@pytest.mark.parametrize("line", ["||" + "a." * (11 * MEGABYTE), "a\n" * (11 * MEGABYTE), "\n" * (23 * MEGABYTE)])
def test_twenty_megabytes_of_nothing_take_less_than_half_a_gigabyte(line: str, tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_text(f"||a.com\n{line}\n")
    command = [sys.executable, "-m", "gfwtools", "--root", str(tmp_path), "update", "--source", str(source)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
    )
    assert "Traceback" not in done.stderr
    assert "not enough memory" not in done.stderr
    assert done.returncode in (0, 1), done.stderr
