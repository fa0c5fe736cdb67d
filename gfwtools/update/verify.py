"""Checks the running dnsmasq with blocked names: it must ask the clean resolver and no other, and an address must enter
the set.
"""

import time
from ipaddress import ip_address

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.dnsmasq.resolver import Resolver
from gfwtools.errors import ResolverError
from gfwtools.plumbing.backend import backend_of
from gfwtools.render.backends import TEXTS
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner
from gfwtools.update.values import PolicyUpdate

__all__ = ["require_daemons", "verify"]

#: Seconds until a reloaded dnsmasq must ask the clean resolver for a blocked name, and have its address in the set.
SETTLE = 2.0
#: How many blocked names are tried before their answers count as wrong: the user may have an address= line for one.
SAMPLES = 3


def require_daemons(config: Config, resolver: Resolver) -> None:
    """Wait until the daemons that were just restarted or signalled answer, and have read their files.

    :raises ResolverError: one does not.
    """
    if not resolver.main.wait():
        raise ResolverError(
            f"dnsmasq does not answer at {resolver.main} (from its port= and listen-address=)",
            "run: gfwtools check host",
        )
    for policy in config.policies:
        second = resolver.second(policy)
        if second and not second.wait():
            raise ResolverError(
                f"the second dnsmasq of {policy.name} does not answer at {second}, though it was restarted",
                "run: gfwtools check host",
            )
    if unread := resolver.wait_until_read(config.policies):
        raise ResolverError(unread[0].detail, unread[0].remedy)


def verify(config: Config, update: PolicyUpdate, resolver: Resolver, runner: Runner) -> list[str]:
    """Ask for blocked names: dnsmasq must ask the clean resolver and no other, and an address must enter the set.

    A clean resolver that does not answer (the tunnel is down) is reported. The update does not fail for it.

    :returns: notes for the user.
    :raises ResolverError: dnsmasq asks another resolver, or fills no set.
    """
    policy = update.policy
    daemon, upstreams = resolver.main, set(resolver.asks(policy))
    problem: ResolverError | None = None
    silent = ""
    for name in _samples(config, update, resolver):
        addresses = _asked_there(daemon, name, upstreams)
        if addresses is None:
            problem = ResolverError(f"dnsmasq does not ask {', '.join(sorted(upstreams))} for {name}")
        elif others := resolver.strangers(policy, name):
            what = f"for {name} this host also asks {', '.join(others)}, whose answers can be forged"
            problem = ResolverError(what, f"run: gfwtools check domain --live {name}")
        elif not addresses:
            silent = silent or name
        elif _lands(config, policy, addresses, runner):
            return []
        else:
            what = f"{name} has {addresses[0]}, which did not get into set {policy.set}"
            problem = ResolverError(what, "run: gfwtools check host")
    if problem and not silent:
        raise problem
    if silent:
        return [f"note: {_why_silent(policy, silent)}"]
    return []


def _why_silent(policy: PolicyConfig, name: str) -> str:
    """Why dnsmasq had no address. Each clean resolver is asked: dnsmasq says REFUSED also where it cannot send."""
    said = {str(upstream): Daemon(str(upstream.address), upstream.port).ask(name).rcode for upstream in policy.upstream}
    refusals = [f"{upstream} says {rcode}" for upstream, rcode in said.items() if rcode in ("REFUSED", "SERVFAIL")]
    if not refusals and any(said.values()):
        return f"{name} has no address, so set {policy.set} could not be checked"
    if not refusals:
        return f"the resolver of policy {policy.name} did not answer; is the tunnel up?"
    return f"for {name} {', '.join(refusals)}; give another policy.{policy.name}.upstream, then run this again"


def _samples(config: Config, update: PolicyUpdate, resolver: Resolver) -> list[str]:
    """Blocked names to ask for: a new one first, then a well-known one, then others of the list.

    Names that a line of the user's decides prove nothing about ours.
    """
    overrides = resolver.overrides()
    candidates = _candidates(config, update)
    return [name for name in candidates if not any(override.covers(name) for override in overrides)][:SAMPLES]


def _candidates(config: Config, update: PolicyUpdate) -> list[str]:
    data = atomic.read(config.paths.domains(update.policy.name)) or b""
    # No list of them: there may be a million.
    usual = [name for name in ("google.com", "wikipedia.org", "youtube.com") if f"\n{name}\n".encode() in b"\n" + data]
    places = range(0, len(data), max(1, len(data) // (4 * SAMPLES)))
    lines = [data[data.rfind(b"\n", 0, place) + 1 : data.find(b"\n", place)].decode() for place in places]
    some = [name for name in dict.fromkeys(lines) if "." in name]  # a top-level domain has no address of its own
    return list(dict.fromkeys([*update.added[:1], *usual[:1], *some]))


def _asked_there(daemon: Daemon, name: str, upstreams: set[str]) -> list[str] | None:
    """The addresses of ``name``, none where no answer came, or None where another resolver was asked for it."""
    deadline = time.monotonic() + SETTLE
    while True:
        before = daemon.queries()
        reply = daemon.ask(name)
        after = daemon.queries()
        addresses = list(map(str, reply.addresses))
        if after is None:  # no-ident is set: it says nothing of itself
            return addresses
        earlier = before or {}
        if any(after.get(upstream, 0) > earlier.get(upstream, 0) for upstream in upstreams):
            return addresses
        if time.monotonic() >= deadline:
            # While the tunnel's interface is down, a question cannot be sent: no upstream's count grows, and dnsmasq
            # itself says REFUSED.
            unsent = before == after and upstreams <= after.keys() and daemon.ask(name).rcode == "REFUSED"
            return [] if unsent else None
        time.sleep(0.05)


def _lands(config: Config, policy: PolicyConfig, addresses: list[str], runner: Runner) -> bool:
    """Whether one of the addresses gets into the policy's set in time."""
    backend = backend_of(config, runner)
    sets = TEXTS[backend.name].names(policy).learned[:1]  # of IPv4, as the addresses are
    deadline = time.monotonic() + SETTLE
    while True:
        if any(backend.holding(runner, sets, ip_address(address)) for address in addresses):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
