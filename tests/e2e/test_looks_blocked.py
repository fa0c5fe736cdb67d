"""``check domain --live`` of a name that no list has: is it blocked here? Healthy names stay healthy."""

import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from fresh_host import HERE
from lab import POISON, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: At the far end: the ISP drops what goes there directly.
DROPPED, DROPPED_TOO, DENIED = "198.18.0.77", "198.18.0.78", "198.18.0.79"
#: At the far end, and reached directly as well.
OPEN = "198.51.100.52"
#: A site that the ISP's customers reach, as a network of caches has one at each ISP.
CACHE = "198.51.100.81"
#: Nothing answers there, at no port.
QUIET = "198.51.100.53"
#: Name -> what the ISP's resolver says, and what the clean one says.
NAMES = {
    "forged.example": (POISON, DROPPED),
    "denied.example": (POISON, DENIED),
    "dropped.example": (DROPPED, DROPPED),
    "filtered.example": (OPEN, OPEN),
    "cached.example": (CACHE, DROPPED_TOO),
    "quiet.example": (QUIET, QUIET),
    "old.example": ("198.51.100.80", "198.51.100.80"),
}


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab() as lab:
        _with_sites(lab)
        lab.configure(*request.param)
        lab.bootstrap()
        yield lab


def _with_sites(lab: Lab) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert(*NAMES).private_key_and_cert_chain_pem.bytes().decode()
    lab.gateway.write("/etc/ssl/certs/ca-certificates.crt", authority.cert_pem.bytes().decode())
    addresses = {lab.far: (DROPPED, DROPPED_TOO, DENIED, OPEN), lab.isp: (CACHE,)}
    for host, its in addresses.items():
        host.write("/etc/site.pem", certificate)
        for address in (*its, *((QUIET,) if host is lab.far else ())):
            host.run("ip", "address", "add", f"{address}/32", "dev", "wan0" if host is lab.far else "lo")
        host.start(sys.executable, HERE / "web_site.py", "/etc/site.pem", "filtered.example", *its, ready=True)
    # The forged answer leads to a host that resets every connection.
    lab.isp.run("iptables", "-I", "INPUT", "-d", POISON, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
    for host, which in ((lab.isp, 0), (lab.far, 1)):
        lines = "".join(f"address=/{name}/{answers[which]}\n" for name, answers in NAMES.items())
        host.write("/etc/dnsmasq.conf", host.read("/etc/dnsmasq.conf") + lines)
        host.run("sh", "-ec", "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.2; "
                 "exec dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid")  # fmt: skip


def live(lab: Lab, name: str, code: int = 0) -> dict[str, Any]:
    """The link of a block."""
    found = json.loads(lab.gateway.gfwtools("check", "domain", "--live", "--json", name, code=code).stdout)
    assert found["broken"] == ("blocked" if code else None), found
    link = next(item for item in found["links"] if item["name"] == "blocked")
    assert isinstance(link, dict)
    return link


def test_a_forged_answer_whose_site_works_through_the_tunnel_looks_blocked(lab: Lab) -> None:
    link = live(lab, "forged.example", code=1)
    assert link["state"] == "BROKEN"
    assert f"{POISON} port 443: refused directly; {DROPPED} port 443: TLS through the tunnel" in link["found"]
    assert f"the answers differ: {POISON} here, {DROPPED} by the clean resolver" in link["found"]
    assert link["remedy"] == "gfwtools deny forged.example"


def test_the_verdict_is_the_last_line_and_denying_the_name_opens_it(lab: Lab) -> None:
    told = lab.gateway.gfwtools("check", "domain", "--live", "denied.example", code=1).stdout
    verdict = "looks blocked here; to send it through the tunnel: gfwtools deny denied.example"
    assert told.splitlines()[-1] == verdict
    lab.gateway.gfwtools("deny", "denied.example")
    try:
        assert lab.resolve(lab.client, "denied.example") == DENIED
        told = lab.gateway.gfwtools("check", "domain", "--live", "denied.example").stdout
        assert told.splitlines()[-1] == "nothing is broken"
    finally:
        lab.gateway.gfwtools("deny", "--remove", "denied.example")


def test_an_honest_answer_whose_packets_are_dropped_looks_blocked(lab: Lab) -> None:
    found = live(lab, "dropped.example", code=1)["found"]
    assert f"{DROPPED} port 443: silence directly; {DROPPED} port 443: TLS through the tunnel" in found
    assert f"{DROPPED} port 80: silence directly; {DROPPED} port 80: an answer through the tunnel" in found


def test_a_connection_that_is_reset_for_its_name_looks_blocked(lab: Lab) -> None:
    found = live(lab, "filtered.example", code=1)["found"]
    assert f"{OPEN} port 443: reset directly; {OPEN} port 443: TLS through the tunnel" in found
    assert f"{OPEN} answers TLS directly where the name is left out" in found


@pytest.mark.parametrize("name", ["cached.example", "old.example", "quiet.example"])
def test_a_name_that_is_not_blocked_is_not_called_blocked(lab: Lab, name: str) -> None:
    assert live(lab, name)["state"] == "OK"
    told = lab.gateway.gfwtools("check", "domain", "--live", name).stdout
    assert told.splitlines()[-1] == "nothing is broken"


def test_without_the_tunnel_it_is_not_known_and_said_so(lab: Lab) -> None:
    lab.gateway.run("ip", "link", "set", "wg0", "down")
    try:
        link = live(lab, "forged.example")
        assert (link["state"], link["found"]) == ("UNKNOWN", "not compared: wg0 is not up")
        told = lab.gateway.gfwtools("check", "domain", "--live", "forged.example").stdout
        assert told.splitlines()[-1] == "nothing is broken in what could be checked; not checked: blocked"
        assert live(lab, "cached.example")["state"] == "OK"
    finally:
        lab.gateway.run("ip", "link", "set", "wg0", "up")
        lab.gateway.gfwtools("up")


def test_without_an_answer_of_the_clean_resolver_it_is_not_known(lab: Lab) -> None:
    lab.far.run("iptables", "-I", "INPUT", "-i", "wg0", "-p", "udp", "--dport", "53", "-j", "DROP")
    try:
        link = live(lab, "forged.example")
        assert (link["state"], link["found"]) == ("UNKNOWN", "not compared: the clean resolver: no answer within 2 s")
    finally:
        lab.far.run("iptables", "-D", "INPUT", "-i", "wg0", "-p", "udp", "--dport", "53", "-j", "DROP")


def test_looking_puts_nothing_into_a_set(lab: Lab) -> None:
    before = lab.leaked()
    live(lab, "dropped.example", code=1)
    assert lab.leaked() > before  # the direct connections left by the WAN
    assert lab.visit(lab.gateway, DROPPED, 0.5) == "error: timed out"
