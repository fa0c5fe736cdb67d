"""A second Ctrl-C while bootstrap takes its steps back: it waits, and the host is as it was before."""

import os
import shutil
import sys

import pytest
from given_back import BOOTSTRAP, everything, own_files
from lab import TUNNEL, Lab

pytestmark = pytest.mark.e2e

#: The command that restarts dnsmasq, late in bootstrap: the first time it has gfwtools interrupted.
INTERRUPTING = """#!/bin/sh
if [ -e /run/interrupt ]; then
    rm /run/interrupt
    touch /run/going-back
    kill -{first} $PPID
    sleep 1
    exit 0
fi
exec sh /etc/restart-dns-really
"""
#: Stands before a program of the way back: a signal each time that it is run there.
SHIM = """#!/bin/sh
[ -e /run/going-back ] && echo again >>/run/signals && kill -{second} $PPID
exec {real} "$@"
"""


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize(("first", "second"), [("INT", "INT"), ("TERM", "HUP")])
def test_signals_during_the_way_back_leave_nothing_of_bootstrap(backend: str, first: str, second: str) -> None:
    with Lab() as lab:
        lab.configure(backend, "split")
        gateway = lab.gateway
        gateway.write("/etc/restart-dns-really", gateway.read("/etc/restart-dns"))
        gateway.write("/etc/restart-dns", INTERRUPTING.format(first=first))
        for program in ("ipset", "iptables-restore", "ip", "sysctl", "nft"):
            real = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
            gateway.write(f"/run/bin/{program}", SHIM.format(second=second, real=real), 0o755)
        before, before_ours = everything(lab), own_files(lab)
        gateway.write("/run/interrupt", "")
        done = gateway.run_with("/run/bin", sys.executable, "-m", "gfwtools", *BOOTSTRAP, code=None)
        assert done.returncode == 130, done.stderr
        assert "interrupted" in done.stderr
        assert gateway.read("/run/signals").count("again") > 3
        assert everything(lab) == before
        assert own_files(lab) == before_ours
        gateway.run("rm", "/run/going-back")
        gateway.gfwtools(*BOOTSTRAP)
        assert lab.open(lab.client, "blocked.example") == TUNNEL
