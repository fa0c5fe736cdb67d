"""``host.backend = "auto"``: dnsmasq's files and the plumbing are for one backend, whatever the host lacks."""

import pytest
from lab import TUNNEL, Lab

pytestmark = pytest.mark.e2e


def test_without_iptables_both_the_files_and_the_plumbing_are_for_nftables() -> None:
    with Lab() as lab:
        lab.configure("auto")
        lab.gateway.run("sh", "-c", 'mount --bind /dev/null "$(readlink -f "$(command -v iptables-save)")"')
        lab.bootstrap()
        assert "nftset=" in lab.gateway.read("/etc/dnsmasq.d/gfwlist.conf")
        assert lab.open(lab.client, "blocked.example") == TUNNEL
