"""``check domain --live`` names the broken link, and none on a healthy host; the remedy that it prints mends it."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from lab import BLOCKED, CLEAN, ENDPOINT, FREE, ISP_DNS, Lab

pytestmark = pytest.mark.e2e

#: Each backend and each layout once: all four pairs take four minutes, and the layout changes two links only.
HOSTS = [("iptables", "split"), pytest.param(("nftables", "paired"), marks=pytest.mark.variant)]

#: dnsmasq has read the file with its generation, and somebody has taken a name out of it.
ASKS_SOMEBODY_ELSE = (
    "for file in /etc/dnsmasq.d/gfwlist.conf /etc/gfwtools/dns/gfwlist.servers; do "
    "[ ! -e $file ] || sed -i '/=.blocked.example/d' $file; done; sh /etc/restart-dns"
)
#: What is broken -> the link, and by backend how it is broken by hand.
BREAKS: dict[str, tuple[str, dict[str, str]]] = {
    "the client does not ask our dnsmasq": ("client", {"": f"echo nameserver {ISP_DNS} >/etc/resolv.conf"}),
    "the set is missing": (
        "set",
        {
            # nf_tables lets go of the set a moment after the rules are gone.
            "iptables": "iptables -t mangle -F GFWLIST; iptables -t mangle -F GFWLIST_KILL; for i in 1 2 3 4 5 6 7 8 9; do "
            "ipset destroy gfwlist 2>/dev/null && exit 0; sleep 0.1; done; exit 1",
            "nftables": "for c in GFWLIST GFWLIST_KILL; do nft flush chain inet gfwtools $c; done; "
            "nft delete set inet gfwtools gfwlist4",
        },
    ),
    "the clean resolver is not in the set": (
        "set",
        {
            "iptables": f"ipset del gfwlist {CLEAN}",
            "nftables": f"nft delete element inet gfwtools gfwlist_seed4 {{ {CLEAN} }}",
        },
    ),
    "the jump into the chain is missing": (
        "jump",
        {"iptables": "iptables -t mangle -F OUTPUT", "nftables": "nft flush chain inet gfwtools output"},
    ),
    "the chain marks nothing": (
        "mark",
        {"iptables": "iptables -t mangle -F GFWLIST", "nftables": "nft flush chain inet gfwtools GFWLIST"},
    ),
    "the endpoint is in the set and nothing keeps it out of the tunnel": (
        "endpoint",
        {
            "iptables": f"ipset add gfwlist {ENDPOINT}; iptables -t mangle -D GFWLIST -d {ENDPOINT}/32 "
            '-m comment --comment "gfwtools: the peer of wg0 is reached without it" -j RETURN',
            "nftables": f"nft add element inet gfwtools gfwlist4 {{ {ENDPOINT} }}; "
            "nft delete rule inet gfwtools GFWLIST handle "
            "$(nft -a list chain inet gfwtools GFWLIST | sed -n 's/.*the peer of wg0.*# handle //p')",
        },
    ),
    "the tunnel is down": ("tunnel", {"": "ip link set wg0 down"}),
    "the tunnel was down and its route has gone": ("route", {"": "ip link set wg0 down; ip link set wg0 up"}),
    "the route is missing": ("route", {"": "ip route del default dev wg0 table 51820"}),
    "the ip rule is missing": ("ip rule", {"": "ip rule del pref 5181"}),
    "the ip rule comes after another": ("ip rule", {"": "ip rule add pref 100 fwmark 0xca6c lookup main"}),
    "NAT is missing": (
        "nat",
        {
            "iptables": "iptables -t nat -S POSTROUTING | sed -n 's/^-A \\(.*wg0.*\\)/iptables -t nat -D \\1/p' | sh -e",
            "nftables": "nft flush chain inet gfwtools postrouting",
        },
    ),
    "the size of segments is not set": (
        "segments",
        {"iptables": "iptables -t mangle -F POSTROUTING", "nftables": "nft flush chain inet gfwtools leaving"},
    ),
    "the gateway does not forward": ("forwarding", {"": "sysctl -qw net.ipv4.ip_forward=0"}),
    "a firewall lets only known ways through": (
        "forwarding",
        {
            "iptables": "iptables -P FORWARD DROP; iptables -A FORWARD -i lan0 -o wan0 -j ACCEPT; "
            "iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; "
            "iptables -N OTHERS; iptables -A FORWARD -j OTHERS",
            "nftables": "nft -f - <<'END'\ntable inet own { chain way { type filter hook forward priority 0; policy drop; "
            "ct state established,related accept; iifname lan0 oifname { wan0, wan1 } accept; }; }\nEND",
        },
    ),
    "an address is in the cache and not in the set": (
        "in the set",
        {
            "iptables": f"ipset del gfwlist {BLOCKED}",
            "nftables": f"nft delete element inet gfwtools gfwlist4 {{ {BLOCKED} }}",
        },
    ),
    "dnsmasq has not read our file": ("generation", {"": ": >/etc/dnsmasq.d/gfwlist.conf; sh /etc/restart-dns"}),
    "dnsmasq asks somebody else": ("upstream", {"": ASKS_SOMEBODY_ELSE}),
    "dnsmasq does not run": ("dnsmasq", {"": "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.3"}),
}  # fmt: skip


@pytest.fixture(scope="module", params=HOSTS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab() as lab:
        bootstrap(lab, *request.param)
        yield lab


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails half-way leaves no broken host to the next one."""
    yield
    if "lab" in request.fixturenames:
        lab = request.getfixturevalue("lab")
        if broken(live(lab, "blocked.example")):
            lab.far.run("sh", "-c", "ip link set wg0 up; iptables -F INPUT")
            lab.gateway.run(
                "sh",
                "-c",
                "ip link set wg0 up; ip rule del pref 100; echo nameserver 127.0.0.1 >/etc/resolv.conf",
                code=None,
            )
            by_hand(lab, "gfwtools up; gfwtools update; sh /etc/restart-dns")


def bootstrap(lab: Lab, backend: str, layout: str) -> None:
    # The lab's answers have a TTL of 0: without this nothing would ever be in the cache.
    lab.gateway.write("/etc/dnsmasq.conf", "user=root\nmin-cache-ttl=600\nlog-queries\nlog-facility=/var/log/dns.log\n")
    lab.far.write("/etc/dnsmasq.conf", lab.far.read("/etc/dnsmasq.conf") + "address=/nx.blocked.example/\n")
    lab.far.run("sh", "-ec", "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.2; "
                "exec dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid")  # fmt: skip
    lab.configure(backend, layout)
    lab.bootstrap()
    lab.gateway.wait_for_dns()


#: Seconds for one look, on a busy machine, whatever is silent: links are asked beside one another.
DEADLINE = 10


def live(lab: Lab, *args: str, code: int | None = None) -> dict[str, Any]:
    argv = [sys.executable, "-m", "gfwtools", "check", "domain", "--live", "--json", *args]
    text = lab.gateway.run(*argv, code=code, timeout=DEADLINE).stdout
    found = json.loads(text)
    assert isinstance(found, dict)
    assert set(found) == {"name", "verdict", "links", "broken"}
    assert all(set(item) == {"name", "state", "expected", "found", "remedy"} for item in found["links"])
    return found


def link(chain: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in chain["links"] if item["name"] == name)


def broken(chain: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["name"], item["found"]) for item in chain["links"] if item["state"] == "BROKEN"]


def by_hand(lab: Lab, script: str) -> None:
    """Run what a user would type."""
    ours = f"{sys.executable} -m gfwtools"
    script = script.replace("gfwtools bootstrap", "gfwtools bootstrap --interface wg0 --init none --yes")
    lab.gateway.run("sh", "-ec", f'gfwtools() {{ {ours} "$@"; }}\n{script}')


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_broken_is_named_and_the_remedy_mends_it(lab: Lab, what: str) -> None:
    name, scripts = BREAKS[what]
    backend = "iptables" if "iptables" in lab.gateway.read("/etc/gfwtools/config.toml") else "nftables"
    assert broken(live(lab, "blocked.example")) == []
    by_hand(lab, scripts[""] if "" in scripts else scripts[backend])
    chain = live(lab, "blocked.example", code=1)
    assert chain["broken"] == name, broken(chain)
    assert not {"peer", "clean resolver", "way"} & {item for item, _ in broken(chain)}  # they only hang on it
    by_hand(lab, link(chain, name)["remedy"])
    chain = live(lab, "blocked.example")
    assert broken(chain) == []


def test_on_a_healthy_host_no_link_is_broken(lab: Lab) -> None:
    for name in ("blocked.example", "free.example", "ok.blocked.example", "endpoint.blocked.example"):
        chain = live(lab, "--connect", name, code=0)
        assert (chain["broken"], broken(chain)) == (None, [])
        assert {item["state"] for item in chain["links"]} <= {"OK", "SKIPPED"}


def test_a_name_that_does_not_exist_is_no_broken_link(lab: Lab) -> None:
    chain = live(lab, "nx.blocked.example", code=0)
    assert "NXDOMAIN" in link(chain, "answer")["found"]
    assert chain["broken"] is None


def test_replies_that_the_reverse_path_filter_drops_show_in_the_kernels_counter(lab: Lab) -> None:
    lab.gateway.run("sysctl", "-qw", "net.ipv4.conf.wg0.rp_filter=1")
    chain = live(lab, "--connect", "blocked.example", code=1)
    assert chain["broken"] == "reverse path"
    assert "IPReversePathFilter" in link(chain, "reverse path")["found"]
    by_hand(lab, link(chain, "reverse path")["remedy"])
    assert broken(live(lab, "--connect", "blocked.example")) == []


def test_a_peer_that_is_silent_is_told_from_a_clean_resolver_that_is(lab: Lab) -> None:
    lab.far.run("ip", "link", "set", "wg0", "down")
    assert live(lab, "blocked.example", code=1)["broken"] == "peer"
    lab.far.run("ip", "link", "set", "wg0", "up")
    # The ends have lost their session, and a handshake that nobody heard is tried again after five seconds only.
    deadline = time.monotonic() + 30
    while live(lab, "blocked.example", code=None)["broken"] == "peer":
        assert time.monotonic() < deadline, "the tunnel does not come up again"
    for target in ("REJECT", "DROP"):
        lab.far.run("iptables", "-F", "INPUT")
        lab.far.run("iptables", "-I", "INPUT", "-i", "wg0", "-p", "udp", "--dport", "53", "-j", target)
        chain = live(lab, "blocked.example", code=1)
        assert chain["broken"] == "clean resolver", (target, chain)
    # A resolver beyond the peer, and it is gone.
    lab.far.run("sh", "-c", f"ip address del {CLEAN} dev lo; sysctl -qw net.ipv4.ip_forward=1")
    assert live(lab, "blocked.example", code=1)["broken"] == "clean resolver"
    lab.far.run("ip", "address", "add", CLEAN, "dev", "lo")
    lab.far.run("iptables", "-F", "INPUT")
    assert broken(live(lab, "blocked.example")) == []


def test_a_clean_resolver_that_refuses_is_broken_and_the_peer_is_not(lab: Lab) -> None:
    restart = (
        "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.2; "
        "exec dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid"
    )
    lab.far.run("sh", "-ec", f"sed -i 's/^address/#&/' /etc/dnsmasq.conf; {restart}")
    try:
        chain = live(lab, "blocked.example", code=1)
    finally:
        lab.far.run("sh", "-ec", f"sed -i 's/^#address/address/' /etc/dnsmasq.conf; {restart}")
    found = link(chain, "clean resolver")
    assert (chain["broken"], found["found"]) == ("clean resolver", f"{CLEAN}#53: A REFUSED; AAAA REFUSED")
    assert found["remedy"].startswith("give another policy.gfwlist.upstream in ")
    assert link(chain, "peer")["state"] == "OK"
    assert broken(live(lab, "blocked.example")) == []


def test_a_peer_that_has_just_told_much_is_not_taken_for_a_silent_one(lab: Lab) -> None:
    """A kernel sends one address six ICMP errors at once, and then one a second (icmp(7))."""
    lab.far.run("iptables", "-I", "INPUT", "-i", "wg0", "-p", "udp", "--dport", "53", "-j", "DROP")
    many = f"import socket; s = socket.socket(2, 2); [s.sendto(b'', ('{CLEAN}', port)) for port in range(33500, 33540)]"
    lab.gateway.run(sys.executable, "-c", many)
    assert live(lab, "blocked.example", code=1)["broken"] == "clean resolver"
    lab.far.run("iptables", "-F", "INPUT")
    assert broken(live(lab, "blocked.example")) == []


def test_a_resolver_that_never_answers_costs_two_seconds_and_is_said_so(lab: Lab) -> None:
    lab.gateway.run("sh", "-c", "kill -STOP $(cat /run/dnsmasq/dnsmasq.pid)")
    try:
        chain = live(lab, "blocked.example", code=1)
    finally:
        lab.gateway.run("sh", "-c", "kill -CONT $(cat /run/dnsmasq/dnsmasq.pid)")
    assert chain["broken"] == "dnsmasq"
    assert link(chain, "dnsmasq")["found"] == "no answer within 2 s"


def test_a_poisoned_answer_is_called_so(lab: Lab) -> None:
    by_hand(lab, ASKS_SOMEBODY_ELSE)
    answer = link(live(lab, "blocked.example", code=1), "answer")
    assert answer["state"] == "BROKEN"
    assert "poisoned; the clean resolver says 198.18.0.10" in answer["found"]
    by_hand(lab, answer["remedy"])
    assert broken(live(lab, "blocked.example")) == []


def test_check_ip_says_which_set_and_which_way_and_who_brought_it_there(lab: Lab) -> None:
    live(lab, "blocked.example", code=0)
    lab.gateway.write("/var/lib/gfwtools/gfwlist.warm.json", json.dumps({"warm.blocked.example": [BLOCKED]}))
    text = lab.gateway.gfwtools("check", "ip", "--json", BLOCKED, CLEAN, FREE, "2001:db8:bad::10").stdout
    blocked, clean, free, six = map(json.loads, text.splitlines())
    assert blocked["sets"] in (["gfwlist"], ["gfwlist4"])
    assert {"warm.blocked.example", "blocked.example"} <= set(blocked["names"])
    assert (blocked["mark"], blocked["device"], blocked["ok"]) == (0xCA6C, "wg0", True)
    assert clean["device"] == "wg0"
    assert (free["policy"], free["sets"], free["device"]) == (None, [], "wan0")
    assert (six["sets"], six["device"], six["ok"]) == (["gfwlist6"], None, True)  # refused, as it shall be
    lab.gateway.gfwtools("check", "ip", "198.18.0.0/24", code=2)


def test_check_ip_finds_an_address_in_a_network_of_the_seed() -> None:
    for backend in ("iptables", "nftables"):
        with Lab() as lab:
            lab.configure(backend, more='seeds = ["91.108.4.0/22"]\n')
            lab.bootstrap()
            found = json.loads(lab.gateway.gfwtools("check", "ip", "--json", "91.108.5.6").stdout)
            assert found["sets"] == (["gfwlist"] if backend == "iptables" else ["gfwlist_seed4"])
            assert found["device"] == "wg0"


def test_a_host_that_was_never_bootstrapped_is_said_so_and_how() -> None:
    with Lab() as lab:
        chain = live(lab, "google.com", code=1)
        assert chain["broken"] == "host"
        assert "never bootstrapped" in link(chain, "host")["found"]
        assert link(chain, "host")["remedy"] == "gfwtools bootstrap --interface wg0"
