"""Who answers names here, and at which ports: what is in the way of our dnsmasqs."""

from collections.abc import Iterator
from dataclasses import replace

from gfwtools.config.model import Config
from gfwtools.setup import resolver_facts
from gfwtools.setup.listening import WILDCARDS, other_dnsmasqs, words_of
from gfwtools.setup.port_holders import how_to_end, second_dnsmasqs, who_is
from gfwtools.setup.problem import Problem
from gfwtools.setup.resolver_facts import ResolverFacts
from gfwtools.storage import atomic
from gfwtools.system import questions
from gfwtools.system.commands import Runner
from gfwtools.system.questions import Holder

__all__ = ["resolver"]

_KEEP_OUT = "take it out of dns.listen in config.toml"
_NAME_OTHERS = "set dns.listen in config.toml to the LAN's other addresses"


def resolver(config: Config, runner: Runner) -> Iterator[Problem]:
    facts = resolver_facts.observe(config, runner)
    yield from _port_53(config, runner, facts)
    yield from _second_ports(config, runner)
    if not facts.resolvers and not facts.has_upstream:
        yield Problem(
            "no resolver is known for what is not blocked: neither resolv.conf nor a DHCP lease names one "
            "that is not this host itself",
            'set dns.resolvers in config.toml, such as ["192.168.1.1"]',
        )
    if "0" in facts.values("port"):
        yield Problem("dnsmasq's configuration has port=0, which switches DNS off", "remove that line")
    elif others := [port for port in facts.values("port") if port != "53"]:
        yield Problem(
            f"dnsmasq's configuration has port={others[-1]}, and resolv.conf can name no port", "remove that line"
        )


def _port_53(config: Config, runner: Runner, facts: ResolverFacts) -> Iterator[Problem]:
    """Programs where dnsmasq has to listen. At other addresses they are left alone: dnsmasq binds its own only."""
    yield from _other_dnsmasqs(config, runner, facts)
    lan = config.dns.listen or facts.lan if config.host.gateway else config.dns.listen
    needed = {*WILDCARDS, "127.0.0.1", "::1", *map(str, lan)}
    yield from second_dnsmasqs(config, runner)
    programs: dict[Holder, list[str]] = {}
    for holder in questions.holders(runner):
        # bootstrap has systemd-resolved give up the port.
        if holder.program == "dnsmasq" or holder.program.startswith("systemd-resolve"):
            continue
        if holder.address in needed:
            programs.setdefault(replace(holder, address=""), []).append(holder.address)
    for holder, addresses in programs.items():
        where = ", ".join(dict.fromkeys(addresses))
        yield Problem(
            f"port 53 is held by {who_is(config.paths, holder)} at {where}",
            f"dnsmasq is to answer there: {how_to_end(config.paths, holder)}",
        )


def _other_dnsmasqs(config: Config, runner: Runner, facts: ResolverFacts) -> Iterator[Problem]:
    """Another dnsmasq at an address of the LAN: whose network that is only the owner knows."""
    lan = config.dns.listen or (facts.lan if config.host.gateway else ())
    programs: dict[str, list[str]] = {}
    for holder in other_dnsmasqs(config, runner):
        if holder.address in set(map(str, lan)):
            programs.setdefault(words_of(config.paths, holder), []).append(holder.address)
    for who, addresses in programs.items():
        where = ", ".join(dict.fromkeys(addresses))
        change = _KEEP_OUT if config.dns.listen else _NAME_OTHERS
        yield Problem(
            f"port 53 is held by {who} at {where}",
            f"{change}, or stop that dnsmasq: ours cannot listen there",
        )


def _second_ports(config: Config, runner: Runner) -> Iterator[Problem]:
    """Programs where the second dnsmasqs of the split layout have to listen."""
    for policy in config.policies if config.dns.layout == "split" else ():
        port = config.second_port(policy)
        ours = (atomic.read(config.paths.second_pid(policy.name)) or b"").decode("ascii", "replace").strip()
        for holder in questions.holders(runner, port):
            if holder.address in (*WILDCARDS, "127.0.0.1") and str(holder.pid) != ours:
                who = f"{holder.program} (process {holder.pid})" if holder.program else "another program"
                yield Problem(
                    f"port {port} is held by {who} at {holder.address}",
                    f"end it: the second dnsmasq of policy {policy.name} is to answer there",
                )
