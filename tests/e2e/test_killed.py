"""SIGKILL at moments of a bootstrap and of a teardown: the next teardown leaves the host as it was before."""

import os
import sys
from pathlib import Path

import pytest
from given_back import BOOTSTRAP, everything, own_files
from lab import TUNNEL, Lab

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
TEARDOWN = ("teardown", "--yes")
#: At how many moments, spread evenly; GFWTOOLS_KILLS=1000 takes each.
MOMENTS = int(os.environ.get("GFWTOOLS_KILLS", "6"))
HOSTS = pytest.mark.parametrize(
    ("backend", "layout"), [("iptables", "split"), pytest.param("nftables", "paired", marks=pytest.mark.variant)]
)


def killed(lab: Lab, number: int, *arguments: str) -> int:
    """Kill ``gfwtools ARGUMENT...`` before its change of that number; 0 gives the number of its changes."""
    done = lab.gateway.run(sys.executable, HERE / "killed.py", str(number), *arguments, code=None)
    if number == 0:
        assert done.returncode == 0, done.stderr
        return int(done.stderr.splitlines()[-1])
    assert done.returncode in (0, -9, 137), done.stderr
    return number


def names(lab: Lab) -> list[str]:
    """The files of the tool itself, of which what is in them may differ: what was learned, and when."""
    return [line.split()[1] for line in own_files(lab).splitlines()]


def moments(changes: int) -> list[int]:
    return sorted({1 + index * changes // MOMENTS for index in range(min(MOMENTS, changes))})


@HOSTS
def test_a_killed_bootstrap_is_undone_by_teardown_or_done_by_the_next(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.gateway.run("sh", "/etc/restart-dns")
        lab.gateway.gfwtools(*BOOTSTRAP)  # what a first run makes once (tables of iptables) is there from now on
        lab.gateway.gfwtools(*TEARDOWN)
        before, ours = everything(lab), names(lab)
        changes = killed(lab, 0, *BOOTSTRAP)
        lab.gateway.gfwtools(*TEARDOWN)
        assert everything(lab) == before
        for number in moments(changes):
            killed(lab, number, *BOOTSTRAP)
            lab.gateway.gfwtools(*TEARDOWN)
            assert everything(lab) == before, f"killed before change {number} of {changes}, then teardown"
        for number in moments(changes)[1::2]:
            killed(lab, number, *BOOTSTRAP)
            lab.gateway.gfwtools(*BOOTSTRAP)
            assert lab.open(lab.client, "blocked.example") == TUNNEL, number
            lab.gateway.gfwtools(*TEARDOWN)
            assert everything(lab) == before, f"killed before change {number} of {changes}, then a second one"
        assert names(lab) == ours


@HOSTS
def test_a_killed_teardown_is_finished_by_the_next(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.gateway.run("sh", "/etc/restart-dns")
        lab.gateway.gfwtools(*BOOTSTRAP)
        lab.gateway.gfwtools(*TEARDOWN)
        before = everything(lab)
        lab.gateway.gfwtools(*BOOTSTRAP)
        changes = killed(lab, 0, *TEARDOWN)
        assert everything(lab) == before
        for number in moments(changes):
            lab.gateway.gfwtools(*BOOTSTRAP)
            killed(lab, number, *TEARDOWN)
            lab.gateway.gfwtools(*TEARDOWN)
            assert everything(lab) == before, f"killed before change {number} of {changes}"
