"""``gfwtools deny`` and ``allow`` with the real dnsmasq: a name changes sides, or nothing does."""

import itertools
import json

import pytest
from fresh_host import RESTART
from lab import POISON, TUNNEL, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
DENY = "/etc/gfwtools/deny.txt"
ALLOW = "/etc/gfwtools/allow.txt"
#: An address that no listed name has, and the one of the blocked site.
ALONE, SHARED = "198.18.0.77", "198.18.0.10"
#: A name that no list has, that the ISP lies about, and whose site only the tunnel reaches.
UNLISTED = "fresh.example"


def with_unlisted(lab: Lab) -> None:
    """The far end's resolver knows the blocked site by one more name; the ISP's resolver lies about that one too."""
    for host, address in ((lab.far, "198.18.0.10"), (lab.isp, POISON)):
        host.write("/etc/dnsmasq.conf", f"{host.read('/etc/dnsmasq.conf')}address=/{UNLISTED}/{address}\n")
        host.run("sh", "-ec", "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.2; "
                 "exec dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid")  # fmt: skip


def with_failing_restart(lab: Lab) -> None:
    """dnsmasq has to be restarted, and cannot be while the name is denied."""
    fails = f"grep -q {UNLISTED} {DENY} && {{ echo it does not start >&2; exit 1; }}\n"
    lab.gateway.write("/etc/restart-dns", fails + RESTART)
    lab.gateway.run("sh", "-c", "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.2")  # a signal is not enough


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_a_denied_name_opens_through_the_tunnel_at_once_and_not_after_its_removal(backend: str, layout: str) -> None:
    with Lab() as lab:
        with_unlisted(lab)
        lab.configure(backend, layout)
        lab.bootstrap()
        assert lab.resolve(lab.gateway, UNLISTED) == POISON
        told = lab.gateway.gfwtools("deny", UNLISTED).stdout
        assert f"{UNLISTED}: direct (no list names it) -> tunnel (your deny list has {UNLISTED})" in told
        assert lab.open(lab.gateway, UNLISTED) == TUNNEL
        assert lab.open(lab.client, UNLISTED) == TUNNEL
        assert "as before" in lab.gateway.gfwtools("deny", UNLISTED).stdout
        lab.gateway.gfwtools("deny", "--remove", UNLISTED)
        assert lab.resolve(lab.gateway, UNLISTED) == POISON


def sets_with(lab: Lab, address: str) -> list[str]:
    sets: list[str] = json.loads(lab.gateway.gfwtools("check", "ip", address, "--json").stdout)["sets"]
    return sets


def with_name(lab: Lab, name: str, address: str) -> None:
    """The far end's resolver has a name; the ISP's resolver lies about it."""
    for host, known in ((lab.far, address), (lab.isp, POISON)):
        host.write("/etc/dnsmasq.conf", f"{host.read('/etc/dnsmasq.conf')}address=/{name}/{known}\n")


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_addresses_of_an_allowed_name_leave_the_set_unless_a_listed_name_has_them(backend: str, layout: str) -> None:
    with Lab() as lab:
        with_name(lab, "alone.example", ALONE)
        with_unlisted(lab)
        lab.configure(backend, layout)
        lab.bootstrap()
        lab.gateway.gfwtools("deny", UNLISTED, "alone.example")
        lab.gateway.gfwtools("warm")
        assert lab.resolve(lab.client, "alone.example") == ALONE
        lab.visit(lab.client, ALONE, 0.1)
        assert sets_with(lab, ALONE)
        assert sets_with(lab, SHARED)
        told = lab.gateway.gfwtools("allow", UNLISTED, "alone.example").stdout
        assert f"removed {ALONE} from the set" in told
        assert "removed from conntrack" in told
        assert f"{SHARED} stays in the set: blocked.example has it as well" in told
        assert not sets_with(lab, ALONE)
        assert lab.open(lab.client, "blocked.example") == TUNNEL


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_teardown_leaves_no_learned_address_for_the_next_bootstrap(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        words = ("ipset", "add", "gfwlist", ALONE)
        if backend == "nftables":
            words = ("nft", "add", "element", "inet", "gfwtools", "gfwlist4", f"{{ {ALONE} }}")
        lab.gateway.run(*words)
        assert sets_with(lab, ALONE)
        lab.gateway.gfwtools("teardown", "--yes")
        lab.bootstrap()
        assert not sets_with(lab, ALONE)


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_a_reload_that_fails_puts_the_list_back_and_says_so(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.bootstrap()
        before = lab.gateway.read(DENY)
        with_failing_restart(lab)
        told = lab.gateway.gfwtools("deny", UNLISTED, code=1).stderr
        assert "it does not start" in told
        assert f"the old files are back and in use; {DENY} is as before" in told
        assert lab.gateway.read(DENY) == before


def test_where_a_name_cannot_be_moved_both_lists_are_as_before_and_it_says_so() -> None:
    with Lab() as lab:
        lab.gateway.write(ALLOW, f"{UNLISTED}\n")
        lab.configure()
        lab.bootstrap()
        before = lab.gateway.read(DENY)
        with_failing_restart(lab)
        told = lab.gateway.gfwtools("deny", UNLISTED, code=1).stderr
        assert f"{DENY} and {ALLOW} are as before" in told
        assert (lab.gateway.read(ALLOW), lab.gateway.read(DENY)) == (f"{UNLISTED}\n", before)


def test_an_edit_counts_though_the_lines_of_the_user_cannot_be_read_after_it() -> None:
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        lab.gateway.run("sh", "-ec", "rm -f /etc/hosts; mkdir /etc/hosts")
        told = lab.gateway.gfwtools("deny", "www.blocked.example").stderr
        assert "/etc/hosts: not a regular file" in told
        assert lab.gateway.read(DENY).endswith("www.blocked.example\n")
