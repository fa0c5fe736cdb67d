"""A host that lacks a part: files and plumbing agree, and what is wrong is said with the way out."""

import pytest
from lab import TUNNEL, Lab

pytestmark = pytest.mark.e2e

WITHOUT_IPSET = """#!/bin/sh
if [ "$1" = --version ]; then
    /run/real-dnsmasq --version | sed 's/ ipset/ no-ipset/'
else
    exec /run/real-dnsmasq "$@"
fi
"""


def test_without_iptables_both_the_files_and_the_plumbing_are_for_nftables() -> None:
    with Lab() as lab:
        lab.configure("auto")
        lab.gateway.run("sh", "-c", 'mount --bind /dev/null "$(readlink -f "$(command -v iptables-save)")"')
        lab.bootstrap()
        assert "nftset=" in lab.gateway.read("/etc/dnsmasq.d/gfwlist.conf")
        assert lab.open(lab.client, "blocked.example") == TUNNEL


def test_with_a_dnsmasq_without_ipset_files_and_plumbing_are_for_nftables() -> None:
    # A user's own `auto`, which bootstrap does not rewrite: update decides it again.
    with Lab() as lab:
        lab.configure("auto")
        real = lab.gateway.run("sh", "-c", 'readlink -f "$(command -v dnsmasq)"').stdout.strip()
        lab.gateway.write("/run/without", WITHOUT_IPSET, 0o755)
        lab.gateway.run("sh", "-c", f"cp -p {real} /run/real-dnsmasq && mount --bind /run/without {real}")
        lab.bootstrap()
        lab.gateway.gfwtools("update", "--offline", "--reload")
        assert "nftset=" in lab.gateway.read("/etc/dnsmasq.d/gfwlist.conf")
        assert lab.open(lab.client, "blocked.example") == TUNNEL


def test_a_bootstrap_that_leaves_a_piece_not_ok_says_how_to_undo_it() -> None:
    with Lab() as lab:
        lab.configure()
        lab.gateway.run("ip", "link", "set", "wg0", "down")
        told = lab.bootstrap(code=1).stderr.splitlines()
        assert any("MISMATCH: interface wg0: it is down; fix: ip link set wg0 up" in line for line in told)
        assert "the host is set up, but 1 piece is not OK" in told[-1]
        assert told[-1].endswith("gfwtools teardown")


def test_an_update_while_the_tunnel_is_down_is_taken_and_says_so() -> None:
    # dnsmasq cannot even send its question: that it asked nobody is no proof that it would ask somebody else.
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        lab.gateway.run("ip", "link", "set", "wg0", "down")
        lab.gateway.write("/etc/list.txt", lab.gateway.read("/etc/list.txt") + "||new.example\n")
        told = lab.gateway.gfwtools("update", "--reload", "--force")
        assert "did not answer; is the tunnel up?" in told.stdout + told.stderr
        assert "new.example" in lab.gateway.read("/var/lib/gfwtools/gfwlist.domains")
        lab.gateway.run("ip", "link", "set", "wg0", "up")
        lab.gateway.gfwtools("up")
        assert lab.open(lab.client, "blocked.example") == TUNNEL
