"""``trace`` proven by packets: each hook in words, and no rule left behind however it ends; ``status`` and ``warm``."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fresh_host import FreshHost
from given_back import RULESET
from lab import BLOCKED, BLOCKED6, CLIENT, FREE, GATEWAY_WAN, TUNNEL, Lab

pytestmark = pytest.mark.e2e

BACKENDS = ["iptables", "nftables"]


@pytest.fixture(params=BACKENDS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab() as lab:
        lab.configure(request.param)
        lab.bootstrap()
        yield lab


@pytest.fixture
def plain() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def ruleset(lab: Lab) -> str:
    return lab.gateway.run("sh", "-c", RULESET).stdout


def started(lab: Lab, *args: str) -> subprocess.Popen[str]:
    """``gfwtools trace`` on the gateway, once it listens."""
    argv = lab.gateway.inside([sys.executable, "-u", "-m", "gfwtools", "trace", *args])
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 10
    # With --json it says nothing before its end.
    while "gfwtools_trace" not in lab.gateway.run("nft", "list", "tables").stdout:
        assert time.monotonic() < deadline, "no trace rules"
        time.sleep(0.05)
    time.sleep(0.5)
    return child


def ended(child: subprocess.Popen[str], code: int = 0) -> str:
    output, errors = child.communicate(timeout=20)
    assert child.returncode == code, f"{child.returncode}: {output}{errors}"
    return output


def visited(lab: Lab, host: FreshHost, address: str, seconds: str = "2") -> list[dict[str, Any]]:
    child = started(lab, address, "--seconds", seconds, "--json")
    lab.visit(host, address, 1)
    document = json.loads(ended(child))
    assert set(document) == {"target", "addresses", "seconds", "note", "packets"}
    packets: list[dict[str, Any]] = document["packets"]
    for packet in packets:
        assert set(packet) == {"direction", "protocol", "flags", "source", "destination", "repeated", "dropped_by",
                               "arrived", "words", "events"}  # fmt: skip
        assert all(set(event) == {"where", "kind", "text", "verdict", "mark"} for event in packet["events"])
    return packets


def words(packets: list[dict[str, Any]], direction: str) -> str:
    return "\n".join(line for p in packets if p["direction"] == direction for line in p["words"])


def test_a_blocked_site_of_this_host_is_marked_routed_again_translated_and_answered(lab: Lab) -> None:
    lab.resolve(lab.gateway, "blocked.example")
    lab.resolve(lab.gateway, "blocked.example", "AAAA")
    before = ruleset(lab)
    packets = visited(lab, lab.gateway, BLOCKED)
    out, back = words(packets, "out"), words(packets, "reply")
    steps = [
        "leaves this host by wan0, unmarked",
        "marked 0xca6c by GFWLIST",
        "routed again to wg0",
        "source rewritten",
        "sent by wg0",
    ]
    places = [out.find(step) for step in steps]
    assert -1 not in places, out
    assert places == sorted(places), out
    assert "arrived on wg0" in back
    assert "accepted: handed to a program of this host" in back
    assert ruleset(lab) == before


def test_a_blocked_site_of_a_client_is_followed_through_the_gateway(lab: Lab) -> None:
    lab.resolve(lab.client, "blocked.example")
    packets = visited(lab, lab.client, BLOCKED)
    out, back = words(packets, "out"), words(packets, "reply")
    for step in ("arrived on lan0", "marked 0xca6c by GFWLIST", "routed to wg0", "source rewritten", "sent by wg0"):
        assert step in out, out
    assert "arrived on wg0" in back
    assert "sent by lan0" in back
    assert any(str(p["source"]).startswith(CLIENT) for p in packets)
    assert any(str(p["destination"]).startswith(TUNNEL) for p in packets)


def test_a_free_site_leaves_unmarked(lab: Lab) -> None:
    out = words(visited(lab, lab.gateway, FREE), "out")
    assert "leaves this host by wan0, unmarked" in out
    assert "marked 0x" not in out.replace("unmarked", "")
    assert "sent by wan0" in out


def test_a_reply_that_a_rule_drops_is_told_with_the_rule(lab: Lab) -> None:
    lab.resolve(lab.gateway, "blocked.example")
    lab.gateway.run("iptables", "-A", "INPUT", "-s", BLOCKED, "-j", "DROP")
    packets = visited(lab, lab.gateway, BLOCKED)
    assert "dropped by INPUT (ip filter)" in words(packets, "reply")
    assert any("ip filter INPUT" in str(p["dropped_by"]) for p in packets)


def test_the_comment_of_a_rule_reaches_no_terminal_raw(plain: Lab) -> None:
    rule = 'udp dport 7 counter drop comment "\x1b[31mred"'
    plain.gateway.run("nft", "add table inet own; add chain inet own out { type filter hook output priority 0; }")
    plain.gateway.run("nft", f"add rule inet own out {rule}")
    try:
        child = started(plain, "198.18.0.77", "--seconds", "2")
        send = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('198.18.0.77', 7))"
        plain.gateway.run(sys.executable, "-c", send, code=None)
        output = ended(child)
    finally:
        plain.gateway.run("nft", "delete table inet own")
    assert "[31mred" in output
    assert "\x1b" not in output


def test_a_reply_that_the_reverse_path_filter_drops_is_told(lab: Lab) -> None:
    lab.resolve(lab.gateway, "blocked.example")
    lab.gateway.run("sysctl", "-qw", "net.ipv4.conf.wg0.rp_filter=1", "net.ipv4.conf.all.rp_filter=1")
    back = words(visited(lab, lab.gateway, BLOCKED, "3"), "reply")
    assert "arrived on wg0" in back
    assert "reverse-path filter" in back


def test_a_name_is_looked_up_and_connected_to(lab: Lab) -> None:
    result = lab.gateway.gfwtools("trace", "blocked.example", "--connect", "--seconds", "2")
    assert f"tracing {BLOCKED}" in result.stdout
    assert "marked 0xca6c by GFWLIST" in result.stdout
    assert max(map(len, result.stdout.splitlines())) < 300


def test_no_packet_is_said_and_is_exit_code_1(plain: Lab) -> None:
    result = plain.gateway.gfwtools("trace", "192.0.2.99", "--seconds", "0.5", code=1)
    assert "no packet to or from 192.0.2.99 within 0.5 s" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_rules_go_however_it_ends(plain: Lab, number: int) -> None:
    before = ruleset(plain)
    child = started(plain, BLOCKED, "--seconds", "60")
    child.send_signal(number)
    ended(child, 130)
    assert ruleset(plain) == before


def test_the_rules_go_even_when_it_is_killed(plain: Lab) -> None:
    before = ruleset(plain)
    child = started(plain, BLOCKED, "--seconds", "60")
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 5
    while ruleset(plain) != before:
        assert time.monotonic() < deadline, "the rules are still there"
        time.sleep(0.05)


def test_the_rules_go_though_the_guard_is_killed(plain: Lab) -> None:
    before = ruleset(plain)
    child = started(plain, BLOCKED, "--seconds", "60")
    guards = plain.gateway.run("pgrep", "-f", "trace_guard.py").stdout.split()
    mine = [pid for pid in guards if is_in(plain, pid)]
    plain.gateway.run("kill", "-KILL", *mine)
    child.send_signal(signal.SIGINT)
    ended(child, 130)
    assert ruleset(plain) == before
    monitors = plain.gateway.run("pgrep", "-fx", "nft monitor trace", code=None).stdout.split()
    assert [pid for pid in monitors if is_in(plain, pid)] == []


def is_in(lab: Lab, pid: str) -> bool:
    """Whether a process is in the gateway's network: other labs have such ones too."""
    return lab.gateway.run("sh", "-c", f"[ /proc/{pid}/ns/net -ef /proc/self/ns/net ]", code=None).returncode == 0


def test_a_monitor_that_does_not_start_is_told_and_leaves_no_rule_behind(plain: Lab) -> None:
    before = ruleset(plain)
    script = '#!/bin/sh\n[ "$1" = monitor ] || exec /usr/sbin/nft "$@"\necho no such thing >&2\nexit 1\n'
    plain.gateway.write("/run/bin/nft", script, 0o755)
    argv = [sys.executable, "-m", "gfwtools", "trace", BLOCKED, "--seconds", "2"]
    result = plain.gateway.run_with("/run/bin", *argv, code=1)
    assert "nft monitor trace: no such thing" in result.stderr
    assert ruleset(plain) == before


def test_a_second_trace_at_the_same_time_is_refused(plain: Lab) -> None:
    child = started(plain, BLOCKED, "--seconds", "60")
    try:
        result = plain.gateway.gfwtools("trace", FREE, "--seconds", "0.5", code=1)
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=20)
    assert "held by process" in result.stderr


def test_a_site_is_seen_by_the_isp_as_before(plain: Lab) -> None:
    child = started(plain, FREE, "--seconds", "2")
    assert plain.visit(plain.gateway, FREE) == GATEWAY_WAN
    ended(child)


# ---------------------------------------------------------------- status and warm: the numbers are the kernel's


@pytest.fixture(params=["iptables-paired", "iptables-split", "nftables-paired", "nftables-split"])
def wired(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab() as lab:
        lab.configure(*request.param.split("-"))
        lab.bootstrap()
        yield lab


def status(wired: Lab) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(wired.gateway.gfwtools("status", "--json").stdout)
    return document


def test_a_healthy_host_has_no_finding_and_what_it_tunnels_is_counted(wired: Lab) -> None:
    assert wired.open(wired.client, "blocked.example") == TUNNEL
    before = status(wired)
    assert before["bootstrapped"]
    assert before["findings"] == []
    assert wired.visit(wired.client, BLOCKED) == TUNNEL
    (one,), (two,) = before["policies"], status(wired)["policies"]
    assert two["marked"]["packets"] > one["marked"]["packets"]
    assert two["marked"]["bytes"] > one["marked"]["bytes"]
    assert two["tunnel"]["received"] > one["tunnel"]["received"]
    assert two["tunnel"]["sent"] > one["tunnel"]["sent"]
    assert two["tunnel"]["handshake_age"] < 60
    text = wired.gateway.gfwtools("status").stdout
    assert "pieces are OK" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_broken_is_on_the_screen(wired: Lab) -> None:
    wired.gateway.run("ip", "rule", "del", "pref", "5181")
    assert any("5181" in finding["name"] for finding in status(wired)["findings"])
    assert "MISSING ip rule 5181" in wired.gateway.gfwtools("status").stdout


def test_without_its_tunnel_the_screen_is_there_all_the_same(wired: Lab) -> None:
    wired.gateway.run("ip", "link", "set", "wg0", "down")
    document = status(wired)
    assert document["policies"][0]["tunnel"]["up"] is False
    assert any(finding["name"] == "interface wg0" for finding in document["findings"])


def test_after_warm_a_client_with_an_address_from_elsewhere_is_tunnelled(wired: Lab) -> None:
    # bootstrap has asked for the name itself: the address goes from the set, and the answer from the caches.
    forget = (
        f"ipset -q del gfwlist {BLOCKED} || nft delete element inet gfwtools gfwlist4 {{ {BLOCKED} }}; "
        "cat /run/dnsmasq/dnsmasq.pid /run/gfwtools/dns-*.pid 2>/dev/null | xargs kill -HUP"
    )
    wired.gateway.run("sh", "-c", forget)
    assert wired.visit(wired.client, BLOCKED, 1).startswith("error: ")
    (found,) = json.loads(wired.gateway.gfwtools("warm", "--json").stdout)
    assert found["answered"] >= 1
    assert found["failed"] == 0
    assert wired.visit(wired.client, BLOCKED) == TUNNEL
    warmed = json.loads(wired.gateway.read("/var/lib/gfwtools/gfwlist.warm.json"))
    assert warmed["blocked.example"] == [BLOCKED, BLOCKED6]
    report = json.loads(wired.gateway.gfwtools("check", "ip", BLOCKED, "--json").stdout)
    assert "blocked.example" in report["names"]
    assert "names were asked for within the last hour" in wired.gateway.gfwtools("warm").stdout


def test_bootstrap_with_warm_fills_the_sets_now_and_after_each_update(plain: Lab) -> None:
    plain.configure("nftables", "split")
    assert "gfwlist: 2 answered" in plain.bootstrap("--warm").stdout
    assert BLOCKED in plain.gateway.run("nft", "list", "set", "inet", "gfwtools", "gfwlist4").stdout
    plain.gateway.write("/etc/gfwtools/deny.txt", "another.example\n")
    output = plain.gateway.gfwtools("update", "--offline", "--reload").stdout
    assert "2 names were asked for within the last hour and skipped" in output
    assert plain.gateway.gfwtools("-q", "update", "--offline", "--reload").stdout == ""
