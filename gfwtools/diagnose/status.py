"""``status``: the state of this host, as data and as one JSON object.

The shape of the object (every key is always there; null for what is not known)::

    {"bootstrapped", "readable", "problem", "checked", "checked_age", "error",
     "layout", "backend", "manager", "init",
     "services": [{"name", "enabled", "running"}],
     "policies": [{"policy", "interface", "source", "starter", "list_date", "list_age", "updated", "updated_age",
                   "domains", "counts", "added", "removed",
                   "sets": [{"name", "size"}],
                   "marked": {"packets", "bytes"},
                   "tunnel": {"up", "handshake_age", "received", "sent"},
                   "history": [{"date", "source", "digest", "counts", "domains", "added", "removed"}]}],
     "findings": [{"name", "state", "detail", "remedy"}], "pieces"}

Ages are seconds. ``checked`` is when the last update ended, also one that found nothing new or failed (``error``); a
policy's ``updated`` is when its files last changed. ``findings`` is null where the kernel's state cannot be read;
``pieces`` says how many there are, with those that are OK.
"""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.diagnose.host import check
from gfwtools.dnsmasq.conf import is_wired
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.errors import HostError
from gfwtools.plumbing.backend import Backend, backend_of
from gfwtools.plumbing.plan import Piece, State
from gfwtools.setup import boot
from gfwtools.storage.lock import Run, last_run
from gfwtools.storage.state import Change, PolicyState, read_state
from gfwtools.system import questions
from gfwtools.system.commands import Runner
from gfwtools.system.init import Init, detect_init

__all__ = ["NOT_READABLE", "Marked", "PolicyStatus", "Service", "Status", "Tunnel", "age_of", "iso_date", "status"]

NOT_READABLE = "not readable, run as root"


@dataclass(frozen=True, slots=True)
class Marked:
    """Packets and bytes that the chain has marked since it was made."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A policy's interface: ``handshake_age`` in seconds, the rest in bytes; None where WireGuard reports none."""

    up: bool
    handshake_age: int | None = None
    received: int | None = None
    sent: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """What bootstrap has enabled; ``running`` is None where that says nothing: it waits for an event, or the init
    system is not the one that runs this host."""

    name: str
    enabled: bool
    running: bool | None


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """One policy: its list, and what the kernel has of it (None where that was not read)."""

    policy: PolicyConfig
    state: PolicyState
    list_age: int | None = None
    updated_age: int | None = None
    sets: tuple[tuple[str, int | None], ...] | None = None
    """Name -> how many elements; None for a set that is not there."""
    marked: Marked | None = None
    tunnel: Tunnel | None = None

    @property
    def last(self) -> Change | None:
        return self.state.history[-1] if self.state.history else None

    def to_json(self) -> dict[str, Any]:
        last = self.last
        return {
            "policy": self.policy.name,
            "interface": self.policy.interface,
            "source": self.state.source or None,
            "starter": self.state.starter,
            "list_date": self.state.list_date or None,
            "list_age": self.list_age,
            "updated": self.state.updated or None,
            "updated_age": self.updated_age,
            "domains": self.state.domains,
            "counts": self.state.counts,
            "added": last.added if last else None,
            "removed": last.removed if last else None,
            "sets": None if self.sets is None else [{"name": name, "size": size} for name, size in self.sets],
            "marked": asdict(self.marked) if self.marked else None,
            "tunnel": asdict(self.tunnel) if self.tunnel else None,
            "history": [change._asdict() for change in self.state.history],
        }


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that the screen shows."""

    bootstrapped: bool
    readable: bool
    """The kernel's state could be read."""
    problem: str
    """What could not be looked at, and why; empty where all could."""
    last_run: Run | None
    """The last update, whether or not it found something new."""
    layout: str
    backend: str
    manager: str
    init: str
    policies: tuple[PolicyStatus, ...]
    services: tuple[Service, ...] = ()
    findings: tuple[Piece, ...] | None = None
    """Those that are not OK."""
    pieces: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The object that ``status --json`` prints."""
        findings = None if self.findings is None else [finding.to_json() for finding in self.findings]
        return {
            "bootstrapped": self.bootstrapped,
            "readable": self.readable,
            "problem": self.problem or None,
            "checked": self.last_run.date if self.last_run else None,
            "checked_age": age_of(iso_date(self.last_run.date)) if self.last_run else None,
            "error": (self.last_run.error or None) if self.last_run else None,
            "layout": self.layout,
            "backend": self.backend,
            "manager": self.manager,
            "init": self.init,
            "services": [asdict(service) for service in self.services],
            "policies": [policy.to_json() for policy in self.policies],
            "findings": findings,
            "pieces": self.pieces,
        }


def status(config: Config, runner: Runner, *, root: bool | None = None) -> Status:
    """Look at the files and, as root, at the kernel. Nothing is changed.

    :param root: whether this is root; by default what the process is.
    :raises StoreError: the state cannot be read.
    """
    readable = os.geteuid() == 0 if root is None else root
    known = read_state(config.paths.state)
    bootstrapped = is_wired(config)
    backend = backend_of(config, runner)
    found: list[Piece] | None = None
    problem = known.problem
    if not readable:
        problem = problem or NOT_READABLE
    elif bootstrapped:
        try:
            found = check(config, runner)
        except HostError as error:
            problem = problem or str(error)
    init = detect_init(config.root)
    return Status(
        bootstrapped=bootstrapped,
        readable=readable,
        problem=problem,
        last_run=last_run(config.paths.lock),
        layout=config.dns.layout,
        backend=backend.name,
        manager=Dnsmasq(config, runner).manager,
        init=init,
        services=_services(config, init, runner) if bootstrapped else (),
        policies=tuple(
            _policy(policy, known.of(policy.name), backend, runner, readable=readable) for policy in config.policies
        ),
        findings=None if found is None else tuple(f for f in found if f.state is not State.OK),
        pieces=None if found is None else len(found),
    )


def _services(config: Config, init: Init, runner: Runner) -> tuple[Service, ...]:
    there = boot.observe(config, init, runner)
    return tuple(
        Service(
            service.name,
            service.name in there.enabled,
            # One that only answers to an event need not run.
            service.name in there.running if there.live and service.starts else None,
        )
        for service in boot.services(config, init)
    )


def _policy(
    policy: PolicyConfig, state: PolicyState, backend: Backend, runner: Runner, *, readable: bool
) -> PolicyStatus:
    list_age, updated_age = age_of(_list_date(state.list_date)), age_of(iso_date(state.updated))
    if not readable:
        return PolicyStatus(policy, state, list_age, updated_age)
    sets = marked = None
    # Without the tool the value is unknown, not missing.
    if all(map(runner.has, backend.listing_tools)):
        sets = backend.sizes(runner, policy)
        marked = _marked(policy, backend.counters(runner))
    tunnel = _tunnel(policy.interface, runner) if runner.has("ip") else None
    return PolicyStatus(policy, state, list_age, updated_age, sets, marked, tunnel)


def _marked(policy: PolicyConfig, counters: Iterable[tuple[int, int, int]]) -> Marked | None:
    """What was counted by the rules that set the policy's mark, of both families."""
    ours = [(packets, octets) for packets, octets, mark in counters if mark == policy.mark]
    return Marked(sum(packets for packets, _ in ours), sum(octets for _, octets in ours)) if ours else None


def _tunnel(interface: str, runner: Runner) -> Tunnel | None:
    """None where there is no such interface."""
    links = json.loads(runner.ask("ip", "-j", "link", "show", "dev", interface) or "[]")
    if not links:
        return None
    received, sent = questions.transferred(runner, interface) or (None, None)
    return Tunnel(
        up="UP" in links[0].get("flags", ()),
        handshake_age=questions.handshake_age(runner, interface),
        received=received,
        sent=sent,
    )


def _list_date(text: str) -> datetime | None:
    """The date in a list's header (RFC 5322, or ISO 8601, as some lists have it)."""
    with suppress(ValueError, TypeError, OverflowError):  # a year of eleven digits
        return parsedate_to_datetime(text)
    return iso_date(text)


def iso_date(text: str) -> datetime | None:
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text)
    return None


def age_of(date: datetime | None) -> int | None:
    if date is None:
        return None
    with suppress(OverflowError, OSError, ValueError):
        return max(0, int(time.time() - date.timestamp()))
    return None
