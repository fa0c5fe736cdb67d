"""A verdict rests on what the running dnsmasq has read, not on what was written or restarted."""

import itertools
import re

import pytest
from fresh_host import RESTART
from lab import TUNNEL, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: A host with Debian's package has it, whoever starts dnsmasq.
DEFAULTS = "CONFIG_DIR=/etc/dnsmasq.d,.dpkg-dist,.dpkg-old,.dpkg-new\n"
#: Nothing but the program and its own file: no ``-7``.
PLAIN_RESTART = re.sub(r"CONFIG_DIR=\n.*\n", "CONFIG_DIR=\n", RESTART)


def plain(lab: Lab, backend: str, layout: str) -> None:
    """A host whose restart command starts dnsmasq without a folder, and that has Debian's defaults all the same."""
    lab.configure(backend, layout)
    lab.gateway.write("/etc/default/dnsmasq", DEFAULTS)
    lab.gateway.write("/etc/restart-dns", PLAIN_RESTART)


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_bootstrap_has_a_dnsmasq_that_is_started_plainly_read_the_folder(backend: str, layout: str) -> None:
    with Lab() as lab:
        plain(lab, backend, layout)
        lab.bootstrap()
        assert lab.open(lab.gateway, "blocked.example") == TUNNEL
        assert "conf-dir=/etc/dnsmasq.d/,*.conf" in lab.gateway.read("/etc/dnsmasq.conf")
