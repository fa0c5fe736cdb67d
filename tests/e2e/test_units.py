"""What the units of systemd run, where they run it otherwise than a shell does: before the tunnel, at shutdown, in a
container. No systemd runs in the lab: a program answers in its place.
"""

import sys

import pytest
from lab import BLOCKED, TUNNEL, Lab

pytestmark = pytest.mark.e2e

BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: As a unit with a sandbox in a container with a boot id of its own: it reads another one.
IN_A_UNIT = f'cat /proc/sys/kernel/random/uuid >/run/other_id; mount --bind /run/other_id {BOOT_ID}; exec "$@"'
SYSTEMCTL = '#!/bin/sh\n[ "$*" = "show --property=SystemState --value" ] && echo stopping\n'


def in_a_unit(lab: Lab, *args: str) -> None:
    lab.gateway.run("unshare", "-m", "sh", "-ec", IN_A_UNIT, "sh", sys.executable, "-m", "gfwtools", *args)


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_who_sees_another_boot_id_puts_rp_filter_back(backend: str) -> None:
    with Lab(rp_filter=1) as lab:
        lab.gateway.run("sysctl", "-qw", "net.ipv4.conf.wg0.rp_filter=1")
        lab.configure(backend)
        in_a_unit(lab, "bootstrap", "--interface", "wg0", "--init", "none", "--yes")
        assert lab.gateway.run("sysctl", "-n", "net.ipv4.conf.wg0.rp_filter").stdout == "2\n"
        lab.gateway.gfwtools("teardown", "--yes")
        assert lab.gateway.run("sysctl", "-n", "net.ipv4.conf.wg0.rp_filter").stdout == "1\n"
        assert lab.gateway.run("ls", "/run/gfwtools", code=2).stdout == ""


def test_up_before_the_tunnel_is_there_has_nothing_for_the_log() -> None:
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        lab.gateway.run("ip", "link", "del", "wg0")
        assert "no such interface" in lab.gateway.gfwtools("-q", "up").stderr
        quiet = lab.gateway.gfwtools("-q", "up", "--tunnel-follows")
        assert quiet.stdout + quiet.stderr == ""


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_at_shutdown_blocked_packets_take_the_tunnel_to_the_end(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        lab.gateway.write("/run/bin/systemctl", SYSTEMCTL, 0o755)
        command = [sys.executable, "-m", "gfwtools", "-q", "down", "--unless-shutdown"]
        lab.gateway.run_with("/run/bin", *command)
        assert lab.visit(lab.client, BLOCKED) == TUNNEL
        assert BLOCKED in lab.gateway.read("/var/lib/gfwtools/gfwlist.learned"), "and what was learned is saved"
        lab.gateway.gfwtools("-q", "down", "--unless-shutdown")
        assert lab.visit(lab.client, BLOCKED) != TUNNEL, "by hand it comes down"


def test_a_tunnel_that_wg_setconf_made_for_all_addresses_can_be_used() -> None:
    """examples/wg0.conf: no wg-quick reads it, so that none sends everything into the tunnel."""
    with Lab() as lab:
        lab.configure()
        lab.gateway.run("install", "-D", "/run/wg.conf", "/etc/wireguard/wg0.conf")
        lab.bootstrap()
        assert lab.open(lab.client, "blocked.example") == TUNNEL


@pytest.mark.parametrize(
    ("backend", "save", "path"),
    [
        ("iptables", "iptables-save", "/etc/iptables/rules.v4"),
        ("nftables", "nft list ruleset", "/etc/nftables.conf"),
    ],
)
def test_teardown_names_the_file_that_brings_saved_rules_back(backend: str, save: str, path: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        lab.gateway.write(path, lab.gateway.run(*save.split()).stdout)
        assert f"{path} was saved with rules of gfwtools in it" in lab.gateway.gfwtools("teardown", "--yes").stderr


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_after_a_power_cut_the_addresses_of_the_last_look_are_in_the_sets_again(backend: str) -> None:
    """A client still holds the answer, and does not ask again."""
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        lab.gateway.gfwtools("-q", "up", "--unless-down")  # what the timer runs
        lab.gateway.run("sh", "-c", "rm -r /run/gfwtools; ip rule flush; ip rule add pref 32766 lookup main; nft flush ruleset; "
                                    "iptables -t mangle -F; iptables -t nat -F; ipset flush; ip route flush table 51820")  # fmt: skip
        leaked = lab.leaked()
        lab.gateway.gfwtools("-q", "up", "--tunnel-follows")
        assert lab.visit(lab.client, BLOCKED) == TUNNEL
        assert lab.leaked() == leaked
        lab.gateway.gfwtools("teardown", "--yes")
        assert "noted" not in lab.gateway.run("ls", "/var/lib/gfwtools").stdout
