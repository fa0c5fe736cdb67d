"""What bootstrap cannot use is refused by name: root without its capability, and interfaces that are no tunnel."""

import subprocess
import sys

import pytest
from given_back import RULESET
from lab import GATEWAY_LAN, Lab

pytestmark = pytest.mark.e2e

WITHOUT = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
WITHOUT_RAW = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")
ROOTLESS = ("unshare", "--user", "--map-root-user")
COMMANDS = {
    "bootstrap": ("bootstrap", "--interface", "wg0", "--init", "none", "--yes"),
    "up": ("up",),
    "up --dry-run": ("up", "--dry-run"),
    "down": ("down",),
    "teardown": ("teardown", "--yes"),
    "check host": ("check", "host"),
    "update --reload": ("update", "--reload"),
    "trace": ("trace", "198.51.100.7", "--seconds", "1"),
}


def gfwtools(lab: Lab, prefix: tuple[str, ...], *args: str) -> subprocess.CompletedProcess[str]:
    return lab.gateway.run(*prefix, sys.executable, "-m", "gfwtools", *args, code=None)


def state(lab: Lab) -> str:
    return lab.gateway.run("sh", "-c", f"{RULESET}; ipset list -n; ip rule; cat /etc/resolv.conf").stdout


@pytest.mark.parametrize("backend", ["auto", "iptables", "nftables"])
def test_each_command_without_cap_net_admin_names_it_and_changes_nothing(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        before = state(lab)
        for name, args in COMMANDS.items():
            done = gfwtools(lab, WITHOUT, *args)
            assert done.returncode == 1, name
            assert "CAP_NET_ADMIN" in done.stderr, name
            assert "the kernel has no" not in done.stderr, name
        assert state(lab) == before


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_without_cap_net_raw_no_rule_is_called_missing(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        done = gfwtools(lab, WITHOUT_RAW, "check", "host")
        assert done.returncode == 0
        assert "MISSING" not in done.stdout
        shown = gfwtools(lab, WITHOUT_RAW, "check", "domain", "--live", "blocked.example")
        assert "BROKEN" not in shown.stdout
        if backend == "iptables":
            assert "UNKNOWN   iptables mangle GFWLIST" in done.stdout
            assert "CAP_NET_RAW" in done.stdout
            before = state(lab)
            for command in ("up", "down"):
                refused = gfwtools(lab, WITHOUT_RAW, command)
                assert (refused.returncode, "CAP_NET_RAW" in refused.stderr) == (1, True)
            assert state(lab) == before


def test_status_without_cap_net_admin_names_it_and_calls_nothing_missing() -> None:
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        shown = gfwtools(lab, WITHOUT, "status").stdout
        assert "CAP_NET_ADMIN" in shown
        assert "missing" not in shown


def test_a_first_bootstrap_without_cap_net_admin_names_it_beside_the_other_problems() -> None:
    with Lab() as lab:
        done = gfwtools(lab, WITHOUT, "bootstrap", "--interface", "tun9", "--init", "none", "--yes")
        assert done.returncode == 1
        assert "CAP_NET_ADMIN" in done.stderr
        assert "there is no interface tun9" in done.stderr


def test_root_of_a_user_namespace_hears_that_the_network_is_not_its_own() -> None:
    with Lab() as lab:
        done = gfwtools(lab, ROOTLESS, "bootstrap", "--interface", "wg0", "--init", "none", "--yes")
        assert done.returncode == 1
        assert "CAP_NET_ADMIN does not hold here" in done.stderr


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lo", "lo is not a tunnel: it is the loopback interface"),
        ("lan0", f"lan0 is not a tunnel: it is an Ethernet interface, of the network of {GATEWAY_LAN}/24"),
        ("wan0", "wan0 is not a tunnel: it has the default route, to the ISP"),
        ("br0", "br0 is not a tunnel: it is an Ethernet interface"),
    ],
)
def test_an_interface_that_is_no_tunnel_is_refused_with_the_tunnels_of_the_host(name: str, reason: str) -> None:
    with Lab() as lab:
        lab.gateway.run("sh", "-ec", "ip link add br0 type bridge; ip link set br0 up; ip tuntap add tun9 mode tun")
        done = lab.gateway.gfwtools("bootstrap", "--interface", name, "--init", "none", "--yes", code=1)
        assert reason in done.stderr
        assert "give --interface NAME with a tunnel; there are: wg0, tun9" in done.stderr
        assert "1 problem to fix first" in done.stderr


def test_without_any_tunnel_a_wrong_interface_is_refused_with_what_to_bring_up() -> None:
    with Lab() as lab:
        lab.gateway.run("ip", "link", "del", "wg0")
        done = lab.gateway.gfwtools("bootstrap", "--interface", "lo", "--init", "none", "--yes", code=1)
        assert "bring the tunnel up, and give its name with --interface; there is no tunnel now" in done.stderr


@pytest.mark.parametrize(
    "make",
    [
        "ip tuntap add other mode tun",
        "ip tuntap add other mode tap",
        "ip link add other type vxlan id 7 remote 192.0.2.9 dstport 4789",
    ],
)
def test_a_tunnel_of_another_kind_than_wireguard_is_taken(make: str) -> None:
    with Lab() as lab:
        lab.gateway.run("sh", "-ec", f"{make}; ip address add 10.8.0.2/24 dev other; ip link set other up")
        lab.gateway.gfwtools("bootstrap", "--interface", "other", "--init", "none", "--yes", "--dry-run")
