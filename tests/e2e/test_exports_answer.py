"""The exports for other resolvers: the real unbound and smartdns ask for each name whom the policy says."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from firewall_programs import need
from fresh_host import FreshHost
from stub_resolver import address

import gfwtools
from gfwtools.config.checks import parse_upstream
from gfwtools.config.model import PolicyConfig
from gfwtools.lists.policy import Policy
from gfwtools.render.exports import EXPORTS, Said
from gfwtools.render.exports.values import Meaning

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
CLEAN, ISP = "10.1", "10.2"
LIST = "||google.com\n||blocked.example.com\n||a.org\n@@||free.a.org\n||例え.jp\n||github.io\n"

UNBOUND = """server:
    interface: 127.0.0.1
    port: 53
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "/run"
    pidfile: "/run/unbound.pid"
    do-not-query-localhost: no
    module-config: "iterator"
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@5302
include: "/etc/export"
"""
SMARTDNS = """bind 127.0.0.1:53
server 127.0.0.1:5302
speed-check-mode none
dualstack-ip-selection no
conf-file /etc/export
"""


def exported(format: str, policy: Policy) -> Said:
    usual, clean = parse_upstream("127.0.0.1#5302"), parse_upstream("127.0.0.1#5301")
    return EXPORTS[format].render(
        Meaning(policy.cover(), policy.seeds(), PolicyConfig(upstream=(clean,)), "gfwlist,gfwlist6", (usual,))
    )


@contextmanager
def resolving(format: str, policy: Policy) -> Iterator[FreshHost]:
    """A host on which the program answers on port 53, with a clean resolver and an ISP's beside it."""
    need(format)
    with FreshHost() as host:
        host.stub_resolver(5301, CLEAN)
        host.stub_resolver(5302, ISP)
        host.write("/etc/export", exported(format, policy).text)
        if format == "unbound":
            host.write("/etc/resolver.conf", UNBOUND)
            host.run("unbound-checkconf", "/etc/resolver.conf")
            host.start("unbound", "-d", "-c", "/etc/resolver.conf")
        else:
            host.run("ipset", "create", "gfwlist", "hash:net")
            host.run("ipset", "create", "gfwlist6", "hash:net", "family", "inet6")
            host.write("/etc/resolver.conf", SMARTDNS)
            host.start("smartdns", "-f", "-c", "/etc/resolver.conf", "-p", "/run/smartdns.pid")
        host.wait_for_dns()
        yield host


def asked(host: FreshHost, name: str) -> str:
    done = host.run(sys.executable, HERE / "ask.py", "127.0.0.1", "53", stdin=name)
    return done.stdout


def is_lost(name: str, said: Said) -> bool:
    return any(name == lost or name.endswith(f".{lost}") for lost in said.lost)


def near(policy: Policy) -> list[str]:
    listed = {*policy.blocks, *policy.exceptions, *policy.deny, *policy.allow}
    return sorted({name for at in listed for name in (at, f"www.{at}", f"not{at}")} | {"example.com", "example.org"})


@pytest.mark.parametrize("format", ["unbound", "smartdns"])
def test_a_resolver_asks_for_each_name_whom_the_policy_says(format: str) -> None:
    policy = gfwtools.compile(LIST, deny=["again.free.a.org"], allow=["direct.google.com"])
    with resolving(format, policy) as host:
        names = [name for name in near(policy) if not is_lost(name, exported(format, policy))]
        assert len(names) > 20
        for name in names:
            net = CLEAN if policy.match(name).verdict == "tunnel" else ISP
            assert f'"{address(name, net)}"' in asked(host, name), name
        if format == "smartdns":
            deadline = time.monotonic() + 5
            tunnelled = [name for name in names if policy.match(name).verdict == "tunnel"]
            wanted = {address(name, CLEAN) for name in tunnelled}
            while (found := members(host)) != wanted:
                assert time.monotonic() < deadline, found ^ wanted
                time.sleep(0.1)


def members(host: FreshHost) -> set[str]:
    saved: subprocess.CompletedProcess[str] = host.run("ipset", "save", "gfwlist")
    return {line.split()[2] for line in saved.stdout.splitlines() if line.startswith("add")}
