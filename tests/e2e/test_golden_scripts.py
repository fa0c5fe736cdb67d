"""The commands of ``up`` and ``bootstrap`` for a table of configurations (golden_files.py says how they are kept).

A host of their own has the interfaces; nothing is changed there, so that one does for all. The files are below a root.
"""

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh_host import FreshHost
from golden_files import agree, cases_kept
from paths import FIXTURES
from trees import Tree, plant

pytestmark = pytest.mark.e2e

#: Two tunnels: wg0 has IPv4 alone, wg1 both families. The LAN's router advertises itself.
LINKS = """
for name in wan0 lan0; do
    ip link add $name type veth peer name far-$name
    for end in $name far-$name; do ip link set $end addrgenmode none; ip link set $end up; done
done
ip address add 203.0.113.2/30 dev wan0; ip -6 address add 2001:db8:1::2/64 dev wan0 nodad
ip address add 192.168.7.1/24 dev lan0; ip -6 address add fd00:1::1/64 dev lan0 nodad
ip route add default via 203.0.113.1
ip -6 route add default via 2001:db8:1::1 dev wan0 proto ra
sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.ip_forward=0 \
    net.ipv6.conf.all.forwarding=0 net.ipv6.conf.wan0.accept_ra=1
"""
TUNNEL = """
for try in $(seq 200); do ip link show {name} >/dev/null 2>&1 && wg show {name} >/dev/null 2>&1 && break; sleep 0.02; done
wg genkey >/run/{name}.key
wg set {name} private-key /run/{name}.key peer $(wg genkey | wg pubkey) endpoint {endpoint} allowed-ips 0.0.0.0/0,::/0
ip link set {name} addrgenmode none
for address in {addresses}; do ip address add $address dev {name}; done
ip link set {name} mtu 1420 up
sysctl -qw net.ipv4.conf.{name}.rp_filter=1
"""
BACKENDS = ("iptables", "nftables")
#: What a policy may have beside the rest.
MORE = {
    "ipv4": ('interface = "wg0"\n', ""),
    "ipv6": ('interface = "wg1"\n', ""),
    "two": ('interface = "wg1"\n', '[policy.work]\nset = "office"\nmark = 0xbeef\ntable = 51900\ninterface = "wg0"\n'),
    "seeds": ('interface = "wg1"\nseeds = ["91.108.4.0/22", "2001:db8:7::/48"]\nroutes = ["192.168.58.0/24"]\n', ""),
    "snat": ('interface = "wg1"\nnat = "snat:10.8.0.2"\n', ""),
    "missing": ('interface = "wg9"\n', ""),
}
UPS = [
    *itertools.product(BACKENDS, ("host", "gateway"), ("ipv4", "ipv6", "two")),
    *itertools.product(BACKENDS, ("gateway",), ("seeds", "snat", "missing")),
]
BOOTSTRAPS = [
    *itertools.product(BACKENDS, ("paired", "split"), ("host", "gateway"), ("ipv4", "ipv6")),
    *itertools.product(BACKENDS, ("paired", "split"), ("gateway",), ("two",)),
]
#: Options, on a host without any configuration.
FRESH = {
    "systemd": ("--init", "systemd", "--backend", "iptables"),
    "systemd-split": ("--init", "systemd", "--backend", "nftables", "--layout", "split", "--gateway"),
    "openrc": ("--init", "openrc", "--backend", "nftables"),
    "openrc-split": ("--init", "openrc", "--backend", "iptables", "--layout", "split", "--interface", "wg1"),
    "warm": ("--init", "none", "--backend", "iptables", "--warm"),
}
#: Who else writes resolv.conf or is asked there.
RESOLVERS: dict[str, Tree] = {
    "resolved": {
        "etc/resolv.conf": "-> ../run/systemd/resolve/stub-resolv.conf",
        "run/systemd/resolve/stub-resolv.conf": "nameserver 127.0.0.53\n",
        "run/systemd/resolve/resolv.conf": "nameserver 192.0.2.53\nnameserver 2001:db8::53\n",
    },
    "networkmanager": {"etc/NetworkManager/NetworkManager.conf": "[main]\n"},
    "dhcpcd": {"etc/dhcpcd.conf": "# theirs\n"},
    "openresolv": {"etc/resolvconf.conf": "# theirs\n"},
    "resolvconf": {"etc/resolvconf/resolv.conf.d/head": "# theirs\n"},
    "dnsmasq": {"etc/dnsmasq.conf": "server=192.0.2.54\ncache-size=150\nconf-dir=/etc/dnsmasq.d/,*.conf\n"},
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[FreshHost]:
    with FreshHost() as host:
        host.run("sh", "-ec", LINKS)
        for name, endpoint, addresses in (
            ("wg0", "198.51.100.51:51820", "10.7.0.2/24"),
            ("wg1", "[2001:db8:e::1]:51820", "10.8.0.2/24 fd00:8::2/64"),
        ):
            host.start("wireguard-go", "--foreground", name)
            host.run("sh", "-ec", TUNNEL.format(name=name, endpoint=endpoint, addresses=addresses))
        yield host


#: The program as `make install` leaves it.
INSTALLED = "/opt/gfwtools/bin/python3 -I /usr/local/bin/gfwtools"


def configured(root: Path, backend: str, layout: str, place: str, more: str) -> None:
    policy, others = MORE[more]
    text = (
        f'[dns]\nlayout = "{layout}"\n[host]\nbackend = "{backend}"\ngateway = {str(place == "gateway").lower()}\n'
        f'[policy.gfwlist]\nsources = ["{FIXTURES}/list.txt"]\n{policy}{others}'
    )
    plant(root, {"etc/gfwtools/config.toml": text})


def printed(gateway: FreshHost, root: Path, *args: str) -> str:
    """What a command prints, with neither the root nor the place of the program in it."""
    plant(root, {"etc/cron.d/theirs": "", "etc/iproute2/rt_tables.d/theirs.conf": "100\tthem\n"})
    if not (root / "etc/resolv.conf").is_symlink():
        plant(root, {"etc/resolv.conf": "nameserver 192.0.2.53\n"})
    text = gateway.gfwtools("--root", str(root), *args, "--dry-run").stdout
    own = Path(sys.executable).parent
    text = re.sub(rf"{own}/python[0-9.]* -I {own}/gfwtools", INSTALLED, text)
    return text.replace(str(root), "")


@pytest.mark.parametrize(("backend", "place", "more"), UPS)
def test_up_runs_the_commands_that_are_kept(
    gateway: FreshHost, tmp_path: Path, backend: str, place: str, more: str
) -> None:
    configured(tmp_path, backend, "paired", place, more)
    if more == "seeds":  # and what the list has of addresses
        gateway.gfwtools("--root", str(tmp_path), "update")
    agree("up", f"{backend}-{place}-{more}", printed(gateway, tmp_path, "up"))


@pytest.mark.parametrize(("backend", "layout", "place", "more"), BOOTSTRAPS)
def test_bootstrap_writes_and_runs_what_is_kept(
    gateway: FreshHost, tmp_path: Path, backend: str, layout: str, place: str, more: str
) -> None:
    configured(tmp_path, backend, layout, place, more)
    script = printed(gateway, tmp_path, "bootstrap", "--init", "none")
    agree("bootstrap", f"{backend}-{layout}-{place}-{more}", script)


@pytest.mark.parametrize("case", FRESH)
def test_the_options_of_bootstrap_come_to_what_is_kept(gateway: FreshHost, tmp_path: Path, case: str) -> None:
    agree("bootstrap", case, printed(gateway, tmp_path, "bootstrap", *FRESH[case]))


@pytest.mark.parametrize("case", RESOLVERS)
def test_beside_each_resolver_bootstrap_does_what_is_kept(gateway: FreshHost, tmp_path: Path, case: str) -> None:
    plant(tmp_path, RESOLVERS[case])
    configured(tmp_path, "nftables", "split", "gateway", "ipv6")
    agree("bootstrap", f"beside-{case}", printed(gateway, tmp_path, "bootstrap", "--init", "none"))


def test_every_script_that_is_kept_is_one_that_is_compared() -> None:
    assert cases_kept("up", map("-".join, UPS))
    assert cases_kept("bootstrap", [*map("-".join, BOOTSTRAPS), *FRESH, *(f"beside-{case}" for case in RESOLVERS)])
