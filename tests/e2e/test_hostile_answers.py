"""The owner of a listed name chooses its records. They lead no packet into the tunnel or out of it that should not go
there; in the split layout no private address reaches a client. The second dnsmasq answers the first one alone."""

import itertools
import json
import sys
from collections.abc import Iterator

import pytest
from fresh_host import HERE, FreshHost
from lab import CLEAN, FREE, GATEWAY_LAN, GATEWAY_WAN, GATEWAY_WAN6, ISP_DNS, TUNNEL, Lab
from nets import ANSWERED, NONE, asked

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: Label below the listed domain -> the address that its owner gives it.
NOT_SITES = {
    "private": "10.44.0.9",
    "lan": "192.168.7.20",
    "shared": "100.64.0.9",
    "loopback": "127.0.0.9",
    "zero": "0.0.0.0",
    "link": "169.254.7.7",
    "multicast": "239.1.2.3",
    "reserved": "240.0.0.9",
    "local6": "fd00:1::99",
    "linked6": "fe80::99",
    "mapped6": "::ffff:10.0.0.9",
    "loopback6": "::1",
}
OWN = {"isp": ISP_DNS, "wan": GATEWAY_WAN, "wan6": GATEWAY_WAN6}
#: A network at the other end of the tunnel, which the configuration names.
OFFICE = "192.168.58.7"
#: Priority 1, the name itself, ipv4hint=198.18.0.10 (RFC 9460, section 7.3).
HINT = "00010000040004c612000a"
_ASK = """
import json, sys
import dns.message, dns.query, dns.rcode
server, kind, *names = sys.argv[1:]
def ask(name):
    answer = dns.query.udp(dns.message.make_query(name, kind), server, timeout=3)
    return [str(item) for found in answer.answer for item in found]
print(json.dumps({name: ask(name) for name in names}))
"""


def ask(host: FreshHost, server: str, kind: str, *names: str) -> dict[str, list[str]]:
    return dict(json.loads(host.run(sys.executable, "-c", _ASK, server, kind, *names).stdout))


def name_of(label: str) -> str:
    return f"{label}.blocked.example"


def poison(lab: Lab) -> None:
    """The clean resolver gives what the owner chose, and every packet with the policy's mark is counted."""
    chosen = {**NOT_SITES, **OWN, "office": OFFICE}
    lines = [f"address=/{name_of(label)}/{address}\n" for label, address in chosen.items()]
    lines += [f"dns-rr=blocked.example,{kind},{HINT}\n" for kind in (64, 65)]
    for host, more in ((lab.far, lines), (lab.isp, [f"dns-rr=free.example,65,{HINT}\n"])):
        host.write("/etc/dnsmasq.conf", host.read("/etc/dnsmasq.conf") + "".join(more))
        host.run("sh", "-ec", "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.2; "
                 "exec dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid")  # fmt: skip
    for tool in ("iptables", "ip6tables"):
        for address in {**NOT_SITES, **OWN}.values():
            if (":" in address) == (tool == "ip6tables") and address not in ("0.0.0.0", "::ffff:10.0.0.9"):
                rule = ("-d", address, "-m", "mark", "--mark", "0xca6c")
                lab.gateway.run(tool, "-t", "mangle", "-A", "POSTROUTING", *rule)


def marked(lab: Lab) -> int:
    packets = 0
    for tool in ("iptables", "ip6tables"):
        text = lab.gateway.run(tool, "-t", "mangle", "-nvxL", "POSTROUTING").stdout
        packets += sum(int(line.split()[0]) for line in text.splitlines()[2:] if "gfwtools" not in line)
    return packets


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture(scope="module")
def lab(pair: tuple[str, str]) -> Iterator[Lab]:
    with Lab(ipv6=True) as lab:
        lab.configure(*pair, more='routes = ["192.168.58.0/24"]\n')
        lab.bootstrap("--gateway")
        poison(lab)
        yield lab


def test_an_address_that_is_no_site_of_the_internet_never_gets_the_mark(lab: Lab) -> None:
    names = [name_of(label) for label in (*NOT_SITES, *OWN)]
    for kind in ("A", "AAAA"):
        ask(lab.client, GATEWAY_LAN, kind, *names)
    for host in (lab.gateway, lab.client):
        host.run(sys.executable, HERE / "send.py", *NOT_SITES.values(), GATEWAY_WAN, GATEWAY_WAN6)
    assert lab.resolve(lab.client, "another.free.example") == FREE, "dnsmasq asks the ISP's resolver"
    assert marked(lab) == 0
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    assert lab.open(lab.gateway, "blocked.example") == TUNNEL


def test_in_the_split_layout_no_client_gets_an_address_that_is_no_site(lab: Lab, pair: tuple[str, str]) -> None:
    names = {name_of(label): address for label, address in NOT_SITES.items()}
    four, six = ([name for name, address in names.items() if (":" in address) is is_six] for is_six in (False, True))
    got = {**ask(lab.client, GATEWAY_LAN, "A", *four, name_of("office")), **ask(lab.client, GATEWAY_LAN, "AAAA", *six)}
    assert got.pop(name_of("office")) == [OFFICE], "the user allows it"
    assert got == {name: [] if pair[1] == "split" else [address] for name, address in names.items()}


def test_a_client_gets_no_addresses_from_a_record_of_another_type(lab: Lab) -> None:
    for kind in ("HTTPS", "SVCB"):
        assert "198.18.0.10" in ask(lab.far, CLEAN, kind, "blocked.example")["blocked.example"][0]
        assert ask(lab.client, GATEWAY_LAN, kind, "blocked.example") == {"blocked.example": []}


def test_in_the_split_layout_other_names_keep_their_https_records(lab: Lab, pair: tuple[str, str]) -> None:
    assert bool(ask(lab.client, GATEWAY_LAN, "HTTPS", "free.example")["free.example"]) is (pair[1] == "split")


def test_the_second_dnsmasq_answers_root_and_the_first_one_alone(lab: Lab, pair: tuple[str, str]) -> None:
    if pair[1] == "split":
        second = "127.0.0.1#5354"
        for user in (65534, 1000):
            assert asked(lab.gateway, second, user=user) == {second: NONE}
        assert asked(lab.gateway, second) == {second: ANSWERED}
    assert asked(lab.gateway, "127.0.0.1", user=1000) == {"127.0.0.1": ANSWERED}, "the first one answers all"


def test_check_host_finds_all_well(lab: Lab) -> None:
    assert "pieces are OK" in lab.gateway.gfwtools("check", "host").stdout


def test_with_stop_rebind_for_all_names_only_those_of_the_user_have_private_addresses() -> None:
    with Lab(ipv6=True) as lab:
        lab.configure("iptables", "paired")
        text = lab.gateway.read("/etc/gfwtools/config.toml")
        keys = f'[dns]\nstop_rebind = "all"\nrebind_ok = ["{name_of("lan")}"]\n'
        lab.gateway.write("/etc/gfwtools/config.toml", text.replace("[dns]\n", keys))
        lab.bootstrap("--gateway")
        poison(lab)
        names = [name_of(label) for label in ("private", "loopback", "zero", "link", "lan")]
        answers = ask(lab.client, GATEWAY_LAN, "A", *names)
        assert answers == {**{name: [] for name in names}, name_of("lan"): [NOT_SITES["lan"]]}
        assert lab.open(lab.client, "blocked.example") == TUNNEL


@pytest.mark.parametrize("backend", ["iptables", pytest.param("nftables", marks=pytest.mark.variant)])
def test_a_private_seed_of_the_configuration_still_takes_the_tunnel(backend: str) -> None:
    with Lab() as lab:
        lab.far.run("ip", "address", "add", "10.44.0.9", "dev", "lo")
        lab.far.start(sys.executable, HERE / "site.py", "10.44.0.9", ready=True)
        lab.configure(backend, more='seeds = ["10.44.0.0/24"]\n')
        lab.bootstrap("--gateway")
        assert lab.visit(lab.client, "10.44.0.9") == TUNNEL
        assert lab.visit(lab.gateway, "10.44.0.9") == TUNNEL
