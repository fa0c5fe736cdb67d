"""What cron and the events of the host run while a teardown is under way, and what a run that failed leaves in /run."""

import itertools
import sys

import pytest
from given_back import BOOTSTRAP, everything
from lab import Lab

pytestmark = pytest.mark.e2e

#: Runs where teardown restarts dnsmasq, with the plumbing and the files gone already.
_HOOK = """
{ GFWTOOLS_LOCK_WAIT=0 PYTHON -m gfwtools -q update --offline; echo $? >/run/update
PYTHON -m gfwtools -q up --unless-down; } >/run/log 2>&1
"""


@pytest.mark.parametrize(("backend", "layout"), list(itertools.product(("iptables", "nftables"), ("paired", "split"))))
def test_an_update_and_an_event_of_the_host_bring_nothing_back_during_a_teardown(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.gateway.run("sh", "/etc/restart-dns")
        lab.gateway.gfwtools(*BOOTSTRAP)
        lab.gateway.gfwtools("teardown", "--yes")
        before = everything(lab)
        lab.gateway.gfwtools(*BOOTSTRAP)
        restart = lab.gateway.read("/etc/restart-dns")
        lab.gateway.write("/etc/restart-dns", restart + _HOOK.replace("PYTHON", sys.executable))
        lab.gateway.gfwtools("teardown", "--yes")
        assert lab.gateway.read("/run/update") == "1\n", lab.gateway.read("/run/log")
        lab.gateway.write("/etc/restart-dns", restart, 0o644)
        assert everything(lab) == before
        assert lab.gateway.run("ls", "/run/gfwtools", code=2).stdout == ""


def test_a_bootstrap_that_fails_leaves_no_folder_in_run() -> None:
    with Lab() as lab:
        lab.configure("nftables", "split")
        lab.gateway.run("mkdir", "/etc/cron.d/gfwtools")
        lab.gateway.gfwtools(*BOOTSTRAP, code=1)
        assert lab.gateway.run("ls", "/run/gfwtools", code=2).stdout == ""


_WAITING = """
PYTHON -m gfwtools -q update --reload >/run/log 2>&1 &
until ls -l /proc/$!/fd | grep -q gfwtools/lock; do sleep 0.05; done
rm /etc/dnsmasq.d/00-gfwtools.conf
"""


def test_an_update_that_has_waited_for_a_teardown_does_nothing() -> None:
    with Lab() as lab:
        lab.configure()
        lab.gateway.gfwtools(*BOOTSTRAP)
        files = lab.gateway.run("sha256sum", "/etc/dnsmasq.d/gfwlist.conf").stdout
        script = _WAITING.replace("PYTHON", sys.executable)
        lab.gateway.run("flock", "-o", "/var/lib/gfwtools/lock", "sh", "-ec", script)
        lab.gateway.run("sh", "-c", "until [ -s /run/log ]; do sleep 0.05; done")
        assert "teardown ran while this waited" in lab.gateway.read("/run/log")
        assert lab.gateway.run("sha256sum", "/etc/dnsmasq.d/gfwlist.conf").stdout == files
