"""What is there beside what is wanted, for every part of the plumbing."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from gfwtools.config.model import Address, Config
from gfwtools.plumbing import iptables, learned, nftables, record, routing, rt_tables, sysctl
from gfwtools.plumbing.facts import Facts, Interface, families_of, read_facts, seeds_of
from gfwtools.plumbing.iptables import IpsetState, Iptables, IptablesState
from gfwtools.plumbing.nftables import Nftables, NftablesState, NftSet
from gfwtools.plumbing.plan import Comparison, Piece
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.routing import Routing, RoutingState
from gfwtools.plumbing.rt_tables import NamesState, TableNames
from gfwtools.plumbing.sysctl import Sysctls, SysctlState
from gfwtools.plumbing.wanted import Wanted, wanted
from gfwtools.system.commands import Runner
from gfwtools.system.step import Step

__all__ = ["Survey", "look", "look_for_down"]


@dataclass(frozen=True)
class Survey:
    """The five parts. Of the two backends at most one is wanted; what is left of the other one goes."""

    facts: Facts | None
    """None on the way down, which must work on a host that has lost its interface or its tools."""
    wanted: Wanted
    record: Record
    names: Comparison[NamesState]
    sysctls: Comparison[SysctlState]
    routing: Comparison[RoutingState]
    iptables: Comparison[IptablesState]
    nftables: Comparison[NftablesState]
    learned: dict[str, tuple[Address, ...]]
    """Policy -> what dnsmasq has learned: in the kernel now, or saved by ``down``."""

    @cached_property
    def pieces(self) -> list[Piece]:
        """Every piece that is wanted, from the set to the routes."""
        return [
            *self.iptables.pieces(),
            *self.nftables.pieces(),
            *self.routing.pieces(),
            *self.sysctls.pieces(),
            *self.names.pieces(),
        ]

    @cached_property
    def steps(self) -> list[Step]:
        """Up: the routes are there before a packet is marked. Down: no packet is marked when the routes go."""
        ways = [*self.names.steps(), *self.sysctls.steps(), *self.routing.steps()]
        if self.facts is None:
            marks = [*self.iptables.steps(), *self.nftables.steps()]
            return [*marks, *self.routing.steps(), *self.sysctls.steps(), *self.names.steps()]
        # The new backend marks before the old one stops.
        if self.facts.backend == "iptables":
            return [*ways, *self.iptables.steps(), *self.nftables.steps()]
        return [*ways, *self.nftables.steps(), *self.iptables.steps()]

    @property
    def is_up(self) -> bool:
        """Some of ours is in the kernel."""
        there = self.iptables.there
        return bool(there.rules or there.sets or self.nftables.there.exists or self.routing.there.rules)

    def interfaces_down(self, config: Config) -> list[str]:
        """What is wrong with the policies' interfaces, in words."""
        if self.facts is None:
            return []
        known = self.facts.interfaces
        names = dict.fromkeys(policy.interface for policy in config.policies)
        return [_complaint(name, known.get(name)) for name in names if not (name in known and known[name].up)]

    @property
    def makes_sets(self) -> bool:
        """Some of the sets are not there yet, or somebody has emptied them: dnsmasq's cache may hold answers whose
        addresses are in none."""
        iptables, nftables = self.iptables, self.nftables
        return _lacks(iptables.there.sets, iptables.wanted.sets) or _lacks(nftables.there.sets, nftables.wanted.sets)

    def next_record(self) -> Record:
        """The record once the steps are done."""
        there, shall = self.iptables.there, self.iptables.wanted
        base, base_after = there.base or frozenset(), shall.base or frozenset()
        chains = (set(self.record.chains) | (base_after - base)) - (base - base_after)
        # A parameter that is not as we set it is somebody else's again: the last value before ours counts.
        changed = {
            key: (self.sysctls.there.values[key], value)
            for key, value in self.sysctls.wanted.values.items()
            if self.sysctls.there.values.get(key, value) != value
        }
        was = {**self.record.sysctls, **changed}
        made_folders = self.names.there.text is None and self.names.wanted.text is not None
        return replace(
            self.record,
            sysctls={item.key: was[item.key] for item in self.wanted.sysctls if item.key in was},
            chains=tuple(sorted(chains)),
            sets=tuple(sorted(shall.sets)),
            folders=self.names.wanted.folders if made_folders else self.record.folders,
            sets_made=time.clock_gettime(time.CLOCK_BOOTTIME) if self.makes_sets else self.record.sets_made,
            cache_cleared=self.record.cache_cleared and not self.makes_sets,
        )


def _lacks(there: Mapping[str, IpsetState] | Mapping[str, NftSet], wanted: Mapping[str, IpsetState | NftSet]) -> bool:
    """Whether a set is missing, or holds nothing of what it should hold from the start."""
    return any(
        name not in there or (shall.elements and set(shall.elements).isdisjoint(there[name].elements))
        for name, shall in wanted.items()
    )


def _complaint(name: str, interface: Interface | None) -> str:
    what = "there is no such interface" if interface is None else "it is down"
    return f"{name}: {what}: blocked sites are refused until it is up and `gfwtools up` has run again"


def look(config: Config, runner: Runner) -> Survey:
    """Look at the host, and at what the configuration wants of it.

    :raises HostError: a tool is missing, or the configuration does not fit the host.
    :raises StoreError: one of our files cannot be read.
    """
    facts = read_facts(config, runner)
    known = record.load(config.paths, record.boot_id(runner))
    by_iptables = iptables.observe(runner, [*iptables.set_names(config.policies), *known.sets])
    by_nftables = nftables.observe(runner)
    facts = replace(facts, learned=_learned(config, facts, by_iptables, by_nftables))
    shall = wanted(config, facts)
    names = rt_tables.observe(config.paths, known.folders)
    values = sysctl.observe(runner, [*(item.key for item in shall.sysctls), *known.sysctls])
    if facts.backend == "iptables":
        iptables_wanted = IptablesState.of(shall, facts.families, by_iptables)
        nftables_wanted = NftablesState()
    else:
        iptables_wanted = by_iptables.nothing(known)
        nftables_wanted = NftablesState.of(shall)
    return Survey(
        facts=facts,
        wanted=shall,
        record=known,
        names=Comparison(TableNames(), names, names.with_names(shall.table_names)),
        sysctls=Comparison(Sysctls(), values, SysctlState.of(shall, values.before(known))),
        routing=Comparison(Routing(), routing.observe(runner, facts.families, shall), RoutingState.of(shall)),
        iptables=Comparison(Iptables(), by_iptables, iptables_wanted),
        nftables=Comparison(Nftables(), by_nftables, nftables_wanted),
        learned=dict(facts.learned),
    )


def _learned(
    config: Config, facts: Facts, by_iptables: IptablesState, by_nftables: NftablesState
) -> dict[str, tuple[Address, ...]]:
    """What ``down`` has saved, and what is in the sets of the backend that goes."""
    saved = learned.load(config)
    for policy in config.policies:
        if facts.backend == "iptables":
            leaving = Nftables().learned(by_nftables, policy)
        else:
            leaving = Iptables().learned(by_iptables, policy, facts.seeds[policy.name])
        saved[policy.name] = tuple(dict.fromkeys((*saved[policy.name], *leaving)))
    return saved


def look_for_down(config: Config, runner: Runner) -> Survey:
    """Look at the host, where nothing of ours is wanted.

    :raises StoreError: one of our files cannot be read.
    """
    known = record.load(config.paths, record.boot_id(runner))
    by_iptables = iptables.observe(runner, [*iptables.set_names(config.policies), *known.sets])
    by_nftables = nftables.observe(runner)
    names = rt_tables.observe(config.paths, known.folders)
    values = sysctl.observe(runner, known.sysctls)
    return Survey(
        facts=None,
        wanted=Wanted(),
        record=known,
        names=Comparison(TableNames(), names, names.with_names(())),
        sysctls=Comparison(Sysctls(), values, values.before(known)),
        routing=Comparison(Routing(), routing.observe(runner, families_of(runner), Wanted()), RoutingState()),
        iptables=Comparison(Iptables(), by_iptables, by_iptables.nothing(known)),
        nftables=Comparison(Nftables(), by_nftables, NftablesState()),
        learned={
            policy.name: (
                *Iptables().learned(by_iptables, policy, seeds_of(config.paths, policy, "iptables")),
                *Nftables().learned(by_nftables, policy),
            )
            for policy in config.policies
        },
    )
