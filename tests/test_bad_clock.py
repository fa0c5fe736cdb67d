"""A clock of 1970 (a router without a battery) and of 2099: every command does its work, and the true time heals the rest."""

import subprocess
import sys
from pathlib import Path

import pytest
from faults import Server, good
from paths import FIXTURES

#: ``python -c CLOCK SECONDS ARGUMENT...``: gfwtools with that time of day; a process cannot have a clock of its own.
CLOCK = """
import sys, time
now, broken_down = float(sys.argv.pop(1)), time.gmtime
time.time = lambda: now
time.gmtime = lambda seconds=None: broken_down(now if seconds is None else seconds)
from gfwtools.__main__ import main
main()
"""
TIMES = {"1970": 60.0, "2099": 4_070_908_800.0, "today": 1_795_000_000.0}


def at(year: str, root: Path, *args: str) -> str:
    argv = [sys.executable, "-c", CLOCK, str(TIMES[year]), "--root", str(root), *args]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.parametrize("wrong", ["1970", "2099"])
def test_with_a_wrong_clock_everything_works_and_the_right_one_finds_nothing_amiss(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "etc/gfwtools").mkdir(parents=True)
    body = (FIXTURES / "list.txt").read_bytes()
    with Server(good(body, etag='"1"')) as server:
        (tmp_path / "etc/gfwtools/config.toml").write_text(f'[policy.gfwlist]\nsources = ["{server.url}"]\n')
        for year in (wrong, "today", wrong):
            at(year, tmp_path, "update")
            assert at(year, tmp_path, "check", "domain", "www.google.com").startswith("www.google.com: tunnel")
            assert "-" not in [word[:1] for word in at(year, tmp_path, "status").split() if word[-1:] in "smhd"]
            at(year, tmp_path, "status", "--history")
            assert " -> tunnel (your deny list" in at(year, tmp_path, "deny", f"{len(server.requests)}.example")
