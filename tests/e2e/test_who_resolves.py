"""``check host``, ``check domain --live`` and the C library agree on who resolves names for the host."""

import json
from collections.abc import Iterator

import pytest
from lab import BLOCKED, GATEWAY_LAN, ISP_DNS, TUNNEL, Lab

pytestmark = pytest.mark.e2e

#: /etc/resolv.conf -> whether its first resolver is our dnsmasq. It listens at 127.0.0.1, ::1 and the LAN's address.
FILES = {
    "nameserver 127.0.0.1\n": True,
    f"nameserver {GATEWAY_LAN}\n": True,
    "nameserver ::1\n": True,
    "": True,  # resolv.conf(5): the host itself
    "# empty\nsearch example.net\n": True,
    "nameserver 127.1\n": True,  # inet_aton(3)
    "nameserver 127.0.0.1 # ours\n": True,
    "nameserver not-an-address\nnameserver 127.0.0.1\n": True,
    f" nameserver {ISP_DNS}\nnameserver 127.0.0.1\n": True,  # a blank before the keyword
    f"nameserver {ISP_DNS}\nnameserver 127.0.0.1\n": False,
    "nameserver 127.0.0.53\n": False,
    f"nameserver {TUNNEL}\n": False,  # an address of its own, where nobody listens
    "nameserver fd00:1::1\n": False,
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.configure()
        text = lab.gateway.read("/etc/gfwtools/config.toml")
        lab.gateway.write(
            "/etc/gfwtools/config.toml", text.replace("[dns]\n", f'[dns]\nlisten = ["::1", "{GATEWAY_LAN}"]\n')
        )
        lab.bootstrap()
        yield lab


@pytest.mark.parametrize("text", FILES, ids=[repr(text) for text in FILES])
def test_both_checks_say_of_the_hosts_resolver_what_the_c_library_does(lab: Lab, text: str) -> None:
    lab.gateway.write("/etc/resolv.conf", text)
    assert by_the_c_library(lab) is FILES[text]
    assert by_check_host(lab) is FILES[text]
    assert by_check_domain(lab) is FILES[text]


def by_the_c_library(lab: Lab) -> bool:
    """Only our dnsmasq knows the true address of a blocked name."""
    return BLOCKED in lab.gateway.run("getent", "ahostsv4", "blocked.example", code=None).stdout


def by_check_host(lab: Lab) -> bool:
    findings = json.loads(lab.gateway.gfwtools("check", "host", "--json", code=None).stdout)
    (found,) = (finding for finding in findings if finding["name"] == "this host's resolver")
    return bool(found["state"] == "OK")


def by_check_domain(lab: Lab) -> bool:
    said = lab.gateway.gfwtools("check", "domain", "--live", "--json", "blocked.example", code=None).stdout
    (link,) = (link for link in json.loads(said)["links"] if link["name"] == "client")
    return bool(link["state"] == "OK")
