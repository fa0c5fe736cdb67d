"""The present state and the wanted state of every part of the plumbing."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from gfwtools.config.model import Address, Config, Network, PolicyConfig
from gfwtools.plumbing import learned, record, routing, rt_tables, sysctl
from gfwtools.plumbing.backend import BACKENDS, Backend, Marking, seed_files, working_backend
from gfwtools.plumbing.facts import Facts, Interface, families_of, read_facts, seeds_of
from gfwtools.plumbing.plan import Comparison, Piece
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.routing import Routing, RoutingState
from gfwtools.plumbing.rt_tables import NamesState, TableNames
from gfwtools.plumbing.sysctl import Sysctls, SysctlState
from gfwtools.plumbing.this_boot import boot_id
from gfwtools.plumbing.wanted import FULL, Wanted, closed, wanted
from gfwtools.system.commands import Runner
from gfwtools.system.step import Step

__all__ = ["Survey", "look", "look_for_closed", "look_for_down"]


@dataclass(frozen=True)
class Survey:
    """All parts. Of the backends at most one is wanted; what is left of another one goes."""

    facts: Facts | None
    """None on the way down, which must work on a host that has lost its interface or its tools."""
    wanted: Wanted
    record: Record
    names: Comparison[NamesState]
    sysctls: Comparison[SysctlState]
    routing: Comparison[RoutingState]
    backend: Backend | None
    """The one that is wanted; None on the way down."""
    markings: tuple[Marking, ...]
    """Every backend."""
    learned: dict[str, tuple[Address, ...]]
    """Policy -> what dnsmasq has learned: in the kernel now, or saved by ``down``."""

    @cached_property
    def pieces(self) -> list[Piece]:
        """Every piece that is wanted, from the set to the routes."""
        return [
            *(piece for marking in self.markings for piece in marking.pieces()),
            *self.routing.pieces(),
            *self.sysctls.pieces(),
            *self.names.pieces(),
        ]

    @cached_property
    def steps(self) -> list[Step]:
        """Up: the routes are there before a packet is marked. Down: no packet is marked when the routes go."""
        ways = [*self.names.steps(), *self.sysctls.steps(), *self.routing.steps()]
        if self.facts is None:
            marks = [step for marking in self.markings for step in marking.steps()]
            return [*marks, *self.routing.steps(), *self.sysctls.steps(), *self.names.steps()]
        # The new backend marks before the old one stops.
        new_first = sorted(self.markings, key=lambda marking: marking.backend is not self.backend)
        return [*ways, *(step for marking in new_first for step in marking.steps())]

    def held(self, policy: PolicyConfig) -> tuple[tuple[str, int], ...]:
        """The sets of ``policy`` that dnsmasq fills, and how many elements are in each."""
        found = [marking for marking in self.markings if marking.backend is self.backend]
        return tuple(each for marking in found for each in marking.backend.held(marking.there, policy))

    @property
    def is_up(self) -> bool:
        """Some of ours is in the kernel."""
        return any(marking.is_there for marking in self.markings) or bool(self.routing.there.rules)

    def interfaces_down(self, config: Config) -> list[str]:
        """What is wrong with the policies' interfaces, in words."""
        if self.facts is None:
            return []
        known = self.facts.interfaces
        names = dict.fromkeys(policy.interface for policy in config.policies)
        return [_complaint(name, known.get(name)) for name in names if not (name in known and known[name].up)]

    @property
    def makes_sets(self) -> bool:
        """Some of the sets do not exist yet, or are empty: dnsmasq's cache may hold answers whose addresses are in no
        set."""
        return any(marking.lacks_sets for marking in self.markings)

    def next_record(self) -> Record:
        """The record once the steps are done."""
        after = self.record
        for marking in self.markings:
            after = marking.next_record(after)
        # Another program has changed a parameter that differs from our value: the last value before ours counts.
        changed = {
            key: (self.sysctls.there.values[key], value)
            for key, value in self.sysctls.wanted.values.items()
            if self.sysctls.there.values.get(key, value) != value
        }
        was = {**self.record.sysctls, **changed}
        made_folders = self.names.there.text is None and self.names.wanted.text is not None
        return replace(
            after,
            sysctls={item.key: was[item.key] for item in self.wanted.sysctls if item.key in was},
            connmarks=self.wanted.connmarks,
            folders=self.names.wanted.folders if made_folders else self.record.folders,
            sets_made=time.clock_gettime(time.CLOCK_BOOTTIME) if self.makes_sets else self.record.sets_made,
            cache_cleared=self.record.cache_cleared and not self.makes_sets,
        )


def _complaint(name: str, interface: Interface | None) -> str:
    what = "there is no such interface" if interface is None else "it is down"
    return f"{name}: {what}: blocked sites are refused until it is up and `gfwtools up` has run again"


def look(config: Config, runner: Runner, endpoints: Mapping[str, Address] = MappingProxyType({})) -> Survey:
    """Look at the host, and at what the configuration wants of it.

    :param endpoints: interface -> an endpoint that it gets in a moment, besides those that it has.
    :raises HostError: a tool is missing, or the configuration does not fit the host.
    :raises StoreError: one of our files cannot be read.
    """
    facts = read_facts(config, runner)
    backend = working_backend(config, runner)
    known = record.load(config.paths, boot_id(config.paths, runner))
    there = _observe(config, runner, known)
    saved = learned.load(config)
    found = [(marking, _learned(config, marking)) for marking in there]
    for marking, held in found:
        if marking.backend is not backend:  # it goes, and what dnsmasq has learned stays
            for name, addresses in held.items():
                saved[name] = tuple(dict.fromkeys((*saved[name], *addresses)))
    if not any(any(held.values()) for _, held in found):
        # A power cut, or a program that flushes what is not its own.
        for policy in config.policies:
            saved[policy.name] = saved[policy.name] or learned.noted(config, policy)
    interfaces = {name: _with_endpoint(each, endpoints.get(name)) for name, each in facts.interfaces.items()}
    full = frozenset(policy.name for policy in config.policies if _is_full(policy, backend, there))
    facts = replace(facts, interfaces=interfaces, seeds=_seeds(config, backend), learned=saved, full=full)
    shall = wanted(config, facts)
    names = rt_tables.observe(config.paths, known.folders)
    values = sysctl.observe(runner, [*(item.key for item in shall.sysctls), *known.sysctls])
    return Survey(
        facts=facts,
        wanted=shall,
        record=known,
        names=Comparison(TableNames(), names, names.with_names(shall.table_names)),
        sysctls=Comparison(Sysctls(), values, SysctlState.of(shall, values.before(known))),
        routing=Comparison(Routing(), routing.observe(runner, facts.families, shall), RoutingState.of(shall)),
        backend=backend,
        markings=tuple(
            replace(marking, wanted=backend.want(shall, facts.families, marking.there))
            if marking.backend is backend
            else marking
            for marking in there
        ),
        learned=saved,
    )


def _is_full(policy: PolicyConfig, backend: Backend, markings: list[Marking]) -> bool:
    there = next(marking.there for marking in markings if marking.backend is backend)
    return any(count >= FULL for _, count in backend.held(there, policy))


def _with_endpoint(interface: Interface, endpoint: Address | None) -> Interface:
    known = interface.endpoints
    return interface if endpoint is None or endpoint in known else replace(interface, endpoints=(*known, endpoint))


def _observe(config: Config, runner: Runner, known: Record) -> list[Marking]:
    """Every backend, with nothing of it wanted."""
    markings = []
    for backend in BACKENDS.values():
        there = backend.observe(runner, config.policies, known)
        markings.append(Marking(backend, there, backend.nothing(there, known)))
    return markings


def _seeds(config: Config, backend: Backend) -> dict[str, tuple[Network, ...]]:
    paths = config.paths
    return {policy.name: seeds_of(seed_files(backend, paths, policy), policy) for policy in config.policies}


def _learned(config: Config, marking: Marking) -> dict[str, tuple[Address, ...]]:
    """Policy -> what dnsmasq has put into the sets of a backend."""
    backend, seeds = marking.backend, _seeds(config, marking.backend)
    return {
        policy.name: backend.learned(marking.there, policy, seeds[policy.name], learned.MOST)
        for policy in config.policies
    }


def look_for_down(config: Config, runner: Runner) -> Survey:
    """Look at the host, where nothing of ours is wanted.

    :raises StoreError: one of our files cannot be read.
    """
    known = record.load(config.paths, boot_id(config.paths, runner))
    there = _observe(config, runner, known)
    found = [_learned(config, marking) for marking in there]
    names = rt_tables.observe(config.paths, known.folders)
    values = sysctl.observe(runner, known.sysctls)
    return Survey(
        facts=None,
        wanted=Wanted(),
        record=known,
        names=Comparison(TableNames(), names, names.with_names(())),
        sysctls=Comparison(Sysctls(), values, values.before(known)),
        routing=Comparison(Routing(), routing.observe(runner, families_of(runner), Wanted()), RoutingState()),
        backend=None,
        markings=tuple(there),
        learned={
            policy.name: tuple(address for addresses in found for address in addresses[policy.name])
            for policy in config.policies
        },
    )


def look_for_closed(config: Config, runner: Runner, before: Survey) -> Survey:
    """Look at the host, where nothing of ours is wanted but the sets, and the chain that drops what goes there.

    :param before: :func:`look`.
    :raises StoreError: one of our files cannot be read.
    """
    facts, down = before.facts, look_for_down(config, runner)
    assert facts is not None
    shall = closed(config, facts)
    markings = tuple(
        replace(marking, wanted=marking.backend.want(shall, facts.families, marking.there))
        if marking.backend is before.backend
        else marking
        for marking in down.markings
    )
    return replace(down, wanted=shall, backend=before.backend, markings=markings, learned=before.learned)
