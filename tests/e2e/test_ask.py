"""What is made of the answers of a real dnsmasq about itself."""

import sys

import pytest
from fresh_host import FreshHost

pytestmark = pytest.mark.e2e

PRINT = "from gfwtools.dnsmasq.daemon import Daemon; print(Daemon().queries())"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("server=192.0.2.1\nserver=/x.example/192.0.2.2#54\n", "{'192.0.2.1#53': 0, '192.0.2.2#54': 0}"),
        ("", "{}"),
        ("server=192.0.2.1\nno-ident\n", "None"),
        ("no-ident\n", "None"),
    ],
    ids=["upstreams", "no upstream", "no-ident", "no-ident and no upstream"],
)
def test_no_upstream_at_all_is_not_the_same_as_no_ident(lines: str, said: str) -> None:
    with FreshHost() as host:
        host.write("/etc/dnsmasq.conf", f"user=root\nno-resolv\nlisten-address=127.0.0.1\n{lines}")
        host.run("dnsmasq", "--conf-file=/etc/dnsmasq.conf", "--pid-file=/run/dnsmasq/dnsmasq.pid")
        assert host.run(sys.executable, "-c", PRINT).stdout.strip() == said
