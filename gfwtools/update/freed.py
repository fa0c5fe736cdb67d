"""A name that goes directly from now on: its addresses leave the sets, and its connections begin anew.

A set does not know by which name an address came into it. So the local dnsmasq is asked for the name, before the edit
and after it. An address that a listed name has as well stays, as the answer for that one does not bring it back while
a client has it in a cache of its own.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.dnsmasq.resolver import Resolver
from gfwtools.errors import GfwtoolsError
from gfwtools.plumbing import connections, learned, record
from gfwtools.plumbing.apply import apply
from gfwtools.plumbing.backend import backend_of, seed_files
from gfwtools.plumbing.facts import seeds_of
from gfwtools.plumbing.this_boot import boot_id
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner

__all__ = ["Freed", "addresses_of"]

#: Seconds for the answer to a question.
TIMEOUT = 2.0
#: So many other names are asked whether they still have an address, at most; of more it is taken for granted.
OTHERS = 100
#: How many addresses and names are named.
SHOWN = 5

#: Whether a name takes the tunnel by a policy.
IsListed = Callable[[str], bool]


def addresses_of(names: Iterable[str], resolver: Resolver) -> dict[str, frozenset[Address]]:
    """Name -> the addresses that dnsmasq gives it, of both families. A question without an answer adds none."""
    asked = [(name, kind) for name in dict.fromkeys(names) for kind in ("A", "AAAA")]
    with ThreadPoolExecutor(max_workers=16) as pool:
        replies = pool.map(lambda each: resolver.main.ask(*each, timeout=TIMEOUT), asked)
    found: dict[str, set[Address]] = {}
    for (name, _), reply in zip(asked, replies, strict=True):
        found.setdefault(name, set()).update(reply.addresses)
    return {name: frozenset(addresses) for name, addresses in found.items()}


@dataclass
class Freed:
    """The names of a policy that an edit frees."""

    config: Config
    policy: PolicyConfig
    names: Sequence[str]
    runner: Runner

    def __post_init__(self) -> None:
        self._resolver: Resolver = Dnsmasq(self.config, self.runner)
        self._asked = [*dict.fromkeys(each for name in self.names for each in (name, f"www.{name}"))]
        self._known = _warm_answers(self.config, self.policy)
        # The answers of the cache, whose addresses are in the set.
        self._ask(self._asked)

    def _ask(self, names: Iterable[str]) -> None:
        for name, addresses in addresses_of(names, self._resolver).items():
            self._known[name] = self._known.get(name, frozenset()) | addresses

    def release(self, is_listed: IsListed) -> list[str]:
        """After the edit and the reload: take their addresses out of the sets.

        :param is_listed: whether a name still takes the tunnel by this policy.
        :returns: what was done, and what stays, in words.
        :raises GfwtoolsError: the sets cannot be seen or changed.
        """
        self._ask(name for name in self._asked if not is_listed(name))
        freed = (name for name in self._known if self._is_freed(name) and not is_listed(name))
        theirs = frozenset(address for name in freed for address in self._known[name])
        backend = backend_of(self.config, self.runner)
        known = record.load(self.config.paths, boot_id(self.config.paths, self.runner))
        there = backend.observe(self.runner, self.config.policies, known)
        seeds = seeds_of(seed_files(backend, self.config.paths, self.policy), self.policy)
        held = theirs & frozenset(backend.learned(there, self.policy, seeds))
        shared = self._shared(held, is_listed)
        gone = sorted(held - shared.keys(), key=str)
        notes = [
            f"{address} stays in the set: {name} has it as well" for address, name in sorted(shared.items(), key=str)
        ]
        if not gone:
            return notes[:SHOWN]
        apply([backend.forget_step(self.policy, gone)], self.runner)
        learned.drop(self.config, self.policy, gone)
        # What a listed name has of these comes back with the next question, not from the cache.
        self._resolver.clear_caches()
        done = connections.leave(self.config, gone)
        return [f"removed {_shown(gone)} from the set", *(step.what for step in done), *notes[:SHOWN]]

    def _is_freed(self, name: str) -> bool:
        return any(name == freed or name.endswith(f".{freed}") for freed in self.names)

    def _shared(self, addresses: frozenset[Address], is_listed: IsListed) -> Mapping[Address, str]:
        """Those of the addresses that a listed name has now -> that name."""
        others = [name for name, found in self._known.items() if found & addresses and is_listed(name)]
        now = addresses_of(others[:OTHERS], self._resolver)
        now |= {name: self._known[name] for name in others[OTHERS:]}
        by_length = sorted(now, key=len, reverse=True)  # the shortest is named
        return {address: name for name in by_length for address in now[name] & addresses}


def _shown(addresses: Sequence[Address]) -> str:
    more = f" and {len(addresses) - SHOWN} more" if len(addresses) > SHOWN else ""
    return f"{', '.join(map(str, addresses[:SHOWN]))}{more}"


def _warm_answers(config: Config, policy: PolicyConfig) -> dict[str, frozenset[Address]]:
    """Name -> its addresses in the file of the warm-up; nothing where there is none, or it is damaged."""
    found: dict[str, frozenset[Address]] = {}
    with suppress(GfwtoolsError, ValueError, RecursionError, AttributeError, TypeError):
        for name, texts in json.loads(atomic.read(config.paths.warm(policy.name)) or b"{}").items():
            found[str(name)] = frozenset(ip_address(str(text)) for text in texts)
    return found
