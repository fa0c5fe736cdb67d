"""/run is empty after a boot: what our files name there is made before it is needed, whoever starts dnsmasq."""

import itertools

import pytest
from fresh_host import RESTART
from lab import TUNNEL, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: What a reboot leaves: no process, no rule, no set, nothing in /run but what systemd-tmpfiles would make for others.
_REBOOT = """
for pid in /run/dnsmasq/dnsmasq.pid /run/gfwtools/*.pid; do
    [ -e "$pid" ] || continue
    number=$(cat "$pid")
    kill "$number"
    while grep -qs '^State:.[^ZX]' "/proc/$number/status"; do sleep 0.01; done
done
nft flush ruleset
ipset destroy 2>/dev/null || ipset list -n | xargs -r -n 1 ipset destroy
for family in -4 -6; do ip $family rule del pref 5180; ip $family rule del pref 5181; ip $family route flush table 51820; done
iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE
find /run -mindepth 1 -maxdepth 1 ! -name 'wg*' ! -name 'wireguard' -exec rm -rf {} +
"""
#: A user's own start: it makes the folder of its own pid file, and knows nothing of ours.
START = RESTART.replace("# Restart every", "mkdir -p /run/dnsmasq\n# Restart every", 1)


def reboot(lab: Lab) -> None:
    lab.gateway.run("sh", "-c", _REBOOT, code=None)
    assert "gfwtools" not in lab.gateway.run("ls", "/run").stdout


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_after_a_reboot_up_makes_what_the_users_own_start_of_dnsmasq_needs(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.gateway.write("/etc/restart-dns", START)
        lab.configure(backend, layout)
        lab.bootstrap()
        reboot(lab)
        lab.gateway.gfwtools("up")
        lab.gateway.run("sh", "/etc/restart-dns")
        assert lab.open(lab.client, "blocked.example") == TUNNEL


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_an_update_makes_the_folder_of_a_second_dnsmasq_that_does_not_run(backend: str) -> None:
    with Lab() as lab:
        lab.gateway.write("/etc/restart-dns", START)
        lab.configure(backend, "split")
        lab.bootstrap()
        lab.gateway.run("sh", "-c", "kill $(cat /run/gfwtools/dns-gfwlist.pid); sleep 0.3; rm -rf /run/gfwtools")
        lab.gateway.gfwtools("update", "--reload")
        assert lab.open(lab.client, "blocked.example") == TUNNEL


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_folder_of_dnsmasqs_configuration_in_run_comes_back_with_the_list(backend: str) -> None:
    with Lab() as lab:
        restart = START.replace(
            "conf-file=/etc/dnsmasq.conf", "conf-file=/etc/dnsmasq.conf --conf-dir=/run/dns.d,*.conf"
        )
        lab.gateway.write("/etc/restart-dns", restart)
        lab.configure(backend)
        text = lab.gateway.read("/etc/gfwtools/config.toml")
        lab.gateway.write("/etc/gfwtools/config.toml", text.replace("[dns]\n", '[dns]\nconf_dir = "/run/dns.d"\n'))
        lab.bootstrap()
        reboot(lab)
        lab.gateway.gfwtools("up")
        assert lab.gateway.run("ls", "-d", "/run/dns.d").stdout == "/run/dns.d\n"


@pytest.mark.parametrize("layout", ["paired", "split"])
def test_teardown_and_a_failed_bootstrap_leave_no_folder_in_run(layout: str) -> None:
    with Lab() as lab:
        lab.configure("nftables", layout)
        lab.bootstrap()
        lab.gateway.gfwtools("teardown", "--yes")
        assert "gfwtools" not in lab.gateway.run("ls", "/run").stdout
        lab.gateway.write("/etc/restart-dns", "exit 7\n")
        lab.bootstrap(code=1)
        assert "gfwtools" not in lab.gateway.run("ls", "/run").stdout
