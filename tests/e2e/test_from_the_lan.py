"""``check domain --live --from``: a packet as a LAN client sends it, on a plain interface and on a bridge."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from lab import CLIENT, GATEWAY_LAN, TUNNEL, Lab

pytestmark = pytest.mark.e2e

BACKENDS = ["iptables", "nftables"]
#: The LAN's interface becomes the only port of a bridge, which takes its addresses.
BRIDGE = f"""
ip link add br-lan type bridge
ip address flush dev lan0
ip link set lan0 master br-lan
ip address add {GATEWAY_LAN}/24 dev br-lan
ip address add fd00:1::1/64 dev br-lan nodad
ip link set br-lan up
"""


@pytest.fixture(scope="module", params=BACKENDS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(ipv6=True) as lab:
        lab.configure(request.param)
        lab.bootstrap()
        yield lab


@pytest.fixture(autouse=True)
def _nothing_stays(lab: Lab) -> Iterator[None]:
    """Whatever a test does, the host has the same interfaces, filters and neighbours in the end."""
    before = things(lab)
    yield
    assert things(lab) == before


def things(lab: Lab) -> list[str]:
    links = lab.gateway.run("ip", "-o", "link", "show").stdout
    filters = lab.gateway.run("tc", "qdisc", "show").stdout
    neighbours = lab.gateway.run("ip", "neigh", "show", "dev", "lan0").stdout
    return [
        *(line.split(":")[1] for line in links.splitlines()),
        filters,
        *(line.split()[0] for line in neighbours.splitlines() if not line.startswith((CLIENT, "fd00:1::10 ", "fe80:"))),
    ]


def link(lab: Lab, *args: str, code: int = 0, name: str = "from the LAN") -> dict[str, Any]:
    argv = ("check", "domain", "--live", "--json", *(args or ("--from", "lan0", "blocked.example")))
    text = lab.gateway.gfwtools(*argv, code=code).stdout
    (found,) = [each for each in json.loads(text)["links"] if each["name"] == name]
    assert isinstance(found, dict)
    return found


def crossed(lab: Lab) -> int:
    """Packets of TCP that came out of the tunnel's far end so far."""
    text = lab.far.run("iptables", "-nvxL", "INPUT").stdout
    return sum(int(line.split()[0]) for line in text.splitlines() if "dpt:443" in line)


def test_the_packet_comes_out_of_the_tunnel_and_its_answer_back(lab: Lab) -> None:
    lab.far.run("iptables", "-A", "INPUT", "-i", "wg0", "-p", "tcp", "--dport", "443", "--tcp-flags", "SYN", "SYN")
    before = crossed(lab)
    found = link(lab)
    assert (found["state"], crossed(lab) - before) == ("OK", 1)
    assert found["found"].count("left by wg0; the answer came by wg0 and reached the LAN") == 2
    lab.far.run("iptables", "-F", "INPUT")


def test_a_name_that_is_not_blocked_leaves_directly(lab: Lab) -> None:
    found = link(lab, "--from", "lan0", "free.example")
    assert (found["state"], "left by wan0" in found["found"]) == ("OK", True)


def test_the_packet_takes_no_address_that_a_client_has(lab: Lab) -> None:
    lab.client.run("ip", "address", "add", "192.168.7.254/24", "dev", "eth0")
    try:
        assert "192.168.7.253" in link(lab)["found"]
    finally:
        lab.client.run("ip", "address", "del", "192.168.7.254/24", "dev", "eth0")


def test_a_drop_is_seen_and_the_rule_that_drops_comes_first(lab: Lab) -> None:
    lab.gateway.run("iptables", "-I", "FORWARD", "-o", "wg0", "-j", "DROP")
    try:
        found = link(lab, code=1)
        assert "did not leave this host" in found["found"]
        assert "(depends on: forwarding)" in found["found"]
    finally:
        lab.gateway.run("iptables", "-D", "FORWARD", "-o", "wg0", "-j", "DROP")


@pytest.mark.parametrize(("target", "code", "state"), [("ACCEPT", 0, "OK"), ("DROP", 1, "BROKEN")])
def test_the_packet_settles_a_rule_that_is_not_understood(lab: Lab, target: str, code: int, state: str) -> None:
    rule = ["FORWARD", "-i", "lan0", "-m", "u32", "--u32", "0=0x45000000:0x4500ffff", "-j", target]
    lab.gateway.run("iptables", "-P", "FORWARD", "DROP" if target == "ACCEPT" else "ACCEPT")
    lab.gateway.run("iptables", "-I", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
    lab.gateway.run("iptables", "-A", *rule)
    try:
        assert link(lab, "blocked.example", name="forwarding")["state"] == "UNKNOWN"
        assert link(lab, code=code)["state"] == state
        assert link(lab, "--from", "lan0", "blocked.example", code=code, name="forwarding")["state"] == (
            "OK" if state == "OK" else "UNKNOWN"
        )
    finally:
        lab.gateway.run("sh", "-ec", "iptables -F FORWARD; iptables -P FORWARD ACCEPT")
        lab.gateway.gfwtools("up")


def test_an_answer_that_does_not_reach_the_lan_is_seen(lab: Lab) -> None:
    rule = ["FORWARD", "-o", "lan0", "-p", "tcp", "-m", "u32", "--u32", "0=0:0xffffffff", "-j", "DROP"]
    lab.gateway.run("iptables", "-A", *rule)
    try:
        found = link(lab, code=1)
        assert (found["state"], "and did not reach the LAN" in found["found"]) == ("BROKEN", True)
    finally:
        lab.gateway.run("iptables", "-D", *rule)


def test_a_site_that_does_not_answer_is_seen(lab: Lab) -> None:
    lab.far.run("iptables", "-I", "INPUT", "-p", "tcp", "-j", "DROP")
    try:
        found = link(lab, code=1)
        assert "left by wg0 and no answer came within 3 s" in found["found"]
    finally:
        lab.far.run("iptables", "-F", "INPUT")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_stays_when_the_probe_is_killed(lab: Lab, number: signal.Signals) -> None:
    lab.far.run("iptables", "-I", "INPUT", "-p", "tcp", "-j", "DROP")
    try:
        script = (
            "import os, signal, subprocess, sys, time\n"
            "for each in (signal.SIGINT, signal.SIGHUP): signal.signal(each, signal.default_int_handler)\n"
            "argv = [sys.executable, '-m', 'gfwtools', 'check', 'domain', '--live', '--from', 'lan0', 'blocked.example']\n"
            "child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
            "deadline = time.monotonic() + 20\n"
            "while b'gfwprobe' not in subprocess.run(['tc', 'filter', 'show', 'dev', 'gfwprobe0', 'ingress'], "
            "capture_output=True).stdout + subprocess.run(['ip', 'link'], capture_output=True).stdout:\n"
            "    assert time.monotonic() < deadline and child.poll() is None\n"
            f"child.send_signal({int(number)})\n"
            "assert child.wait(10) != 0\n"
        )
        lab.gateway.run(sys.executable, "-c", script)
        deadline = time.monotonic() + 5
        while "gfwprobe" in lab.gateway.run("ip", "link").stdout:
            assert time.monotonic() < deadline, "the device stays"
    finally:
        lab.far.run("iptables", "-F", "INPUT")
        if number is signal.SIGKILL:  # it leaves an entry that ages as any other one does
            lab.gateway.run("ip", "neigh", "flush", "dev", "lan0")


@pytest.mark.parametrize(
    ("hide", "words"),
    [
        ("mount -t tmpfs none /dev/net", "/dev/net/tun: No such file or directory"),
        ("mount --bind /bin/false $(readlink -f $(command -v tc))", "cannot hand a frame to lan0"),
    ],
)
def test_it_is_unknown_where_the_packet_cannot_be_sent(lab: Lab, hide: str, words: str) -> None:
    ours = f"{sys.executable} -m gfwtools check domain --live --json --from lan0 blocked.example"
    done = lab.gateway.run("unshare", "-m", "sh", "-ec", f"{hide}; {ours}")
    (found,) = [each for each in json.loads(done.stdout)["links"] if each["name"] == "from the LAN"]
    assert (found["state"], words in found["found"]) == ("UNKNOWN", True), found


def test_it_is_unknown_without_the_capability_for_raw_sockets(lab: Lab) -> None:
    without = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")
    argv = ("gfwtools", "check", "domain", "--live", "--json", "--from", "lan0", "blocked.example")
    # iptables lists nothing then: other links are not judged here.
    done = lab.gateway.run(*without, sys.executable, "-m", *argv, code=None)
    (found,) = [each for each in json.loads(done.stdout)["links"] if each["name"] == "from the LAN"]
    assert (found["state"], "no packet can be sent at lan0" in found["found"]) == ("UNKNOWN", True), found


def test_an_interface_that_is_none_of_the_lans_is_a_usage_error(lab: Lab) -> None:
    for name in ("nosuch0", "lo", "wg0"):
        told = lab.gateway.gfwtools("check", "domain", "--live", "--from", name, "blocked.example", code=2).stderr
        assert f"--from: {name} is not an interface" in told
    lab.gateway.gfwtools("check", "domain", "--from", "lan0", "blocked.example", code=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bridge_is_no_different(backend: str) -> None:
    with Lab(ipv6=True) as other:
        other.gateway.run("sh", "-ec", BRIDGE)
        other.configure(backend)
        other.bootstrap()
        assert other.open(other.client, "blocked.example") == TUNNEL
        found = link(other, "--from", "br-lan", "blocked.example")
        assert (found["state"], found["found"].count("left by wg0; the answer came by wg0")) == ("OK", 2)
        told = other.gateway.gfwtools("check", "domain", "--live", "--from", "lan0", "blocked.example", code=2).stderr
        assert "for a port of a bridge, the bridge" in told
        other.gateway.run("iptables", "-A", "FORWARD", "-i", "br-lan", "-o", "wg0", "-j", "DROP")
        assert "did not leave this host" in link(other, "--from", "br-lan", "blocked.example", code=1)["found"]
