"""The owner of a listed name chooses its addresses. None of the host's own and of private networks enters the tunnel."""

import itertools
import sys

import pytest
from fresh_host import HERE
from lab import FREE, GATEWAY_WAN, GATEWAY_WAN6, ISP_DNS, TUNNEL, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: Label below the listed domain -> the address that its owner gives it.
CHOSEN = {
    "private": "10.44.0.9",
    "lan": "192.168.7.20",
    "shared": "100.64.0.9",
    "loopback": "127.0.0.9",
    "zero": "0.0.0.9",
    "link": "169.254.7.7",
    "multicast": "239.1.2.3",
    "reserved": "240.0.0.9",
    "wan": GATEWAY_WAN,
    "local6": "fd00:1::99",
    "linked6": "fe80::99",
    "wan6": GATEWAY_WAN6,
}
NAMES = {label: f"{label}.blocked.example" for label in CHOSEN}
RESOLVER = f"isp.blocked.example/{ISP_DNS}"


def poisoned(lab: Lab) -> None:
    """The clean resolver gives what the owner chose, and every packet with the policy's mark is counted."""
    lines = [f"address=/{NAMES[label]}/{address}\n" for label, address in CHOSEN.items()]
    lab.far.write("/etc/dnsmasq.conf", lab.far.read("/etc/dnsmasq.conf") + "".join(lines) + f"address=/{RESOLVER}\n")
    lab.far.run("sh", "-ec", "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.2; "
                "exec dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid")  # fmt: skip
    for tool in ("iptables", "ip6tables"):
        for address in (*CHOSEN.values(), ISP_DNS):
            if (":" in address) == (tool == "ip6tables"):
                lab.gateway.run(
                    tool, "-t", "mangle", "-A", "POSTROUTING", "-d", address, "-m", "mark", "--mark", "0xca6c"
                )


def marked(lab: Lab) -> int:
    packets = 0
    for tool in ("iptables", "ip6tables"):
        text = lab.gateway.run(tool, "-t", "mangle", "-nvxL", "POSTROUTING").stdout
        packets += sum(int(line.split()[0]) for line in text.splitlines()[2:] if "gfwtools" not in line)
    return packets


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_an_address_that_is_no_site_of_the_internet_never_gets_the_mark(backend: str, layout: str) -> None:
    with Lab(ipv6=True) as lab:
        lab.configure(backend, layout)
        lab.bootstrap("--gateway")
        poisoned(lab)
        for name in (*NAMES.values(), "isp.blocked.example"):
            lab.resolve(lab.client, name)
        for host in (lab.gateway, lab.client):
            host.run(sys.executable, HERE / "send.py", *CHOSEN.values())
        assert lab.resolve(lab.client, "another.free.example") == FREE
        assert marked(lab) == 0
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        assert lab.open(lab.gateway, "blocked.example") == TUNNEL


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_private_seed_of_the_configuration_still_takes_the_tunnel(backend: str) -> None:
    with Lab() as lab:
        lab.far.run("ip", "address", "add", "10.44.0.9", "dev", "lo")
        lab.far.start(sys.executable, HERE / "site.py", "10.44.0.9", ready=True)
        lab.configure(backend, more='seeds = ["10.44.0.0/24"]\n')
        lab.bootstrap("--gateway")
        assert lab.visit(lab.client, "10.44.0.9") == TUNNEL
        assert lab.visit(lab.gateway, "10.44.0.9") == TUNNEL
