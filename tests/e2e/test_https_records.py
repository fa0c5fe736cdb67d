"""An HTTPS record (type 65) holds addresses that get into no set: a client does not see it."""

import itertools
import sys

import pytest
from fresh_host import FreshHost
from lab import CLEAN, GATEWAY_LAN, TUNNEL, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: Priority 1, the name itself, ipv4hint=198.18.0.10 (RFC 9460, section 7.3).
RECORD = "dns-rr=blocked.example,65,00010000040004c612000a\n"
_ASK = """
import sys
import dns.message, dns.query
answer = dns.query.udp(dns.message.make_query(sys.argv[2], "HTTPS"), sys.argv[1], timeout=3)
print(*answer.answer)
"""


def with_record(lab: Lab) -> None:
    lab.far.write("/etc/dnsmasq.conf", lab.far.read("/etc/dnsmasq.conf") + RECORD)
    lab.far.run("sh", "-ec", "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.2; "
                "exec dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid")  # fmt: skip


def https_record(host: FreshHost, server: str) -> str:
    return host.run(sys.executable, "-c", _ASK, server, "blocked.example").stdout.strip()


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_a_client_gets_no_addresses_from_an_https_record(backend: str, layout: str) -> None:
    with Lab() as lab:
        with_record(lab)
        lab.configure(backend, layout)
        lab.bootstrap("--gateway")
        assert "198.18.0.10" in https_record(lab.far, CLEAN)
        assert https_record(lab.client, GATEWAY_LAN) == ""
        assert lab.open(lab.client, "blocked.example") == TUNNEL
