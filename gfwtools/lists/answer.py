"""The answer to ``check domain NAME``: the verdict, and every line of a list that it rests on."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gfwtools.config.model import PolicyConfig
from gfwtools.errors import InvalidNameError
from gfwtools.lists.compiler import Compiled
from gfwtools.lists.decode import text_of
from gfwtools.lists.hostname import to_ascii
from gfwtools.lists.policy import Cover, Match

__all__ = ["Answer", "RuleRef", "answer", "decide", "name_in"]


class RuleRef(NamedTuple):
    """A line that decided."""

    source: str
    line: int
    text: str


class Answer(NamedTuple):
    """What happens to a name, and why."""

    name: str
    match: Match
    rules: tuple[RuleRef, ...]
    policy: PolicyConfig

    @property
    def server(self) -> str | None:
        """The resolver that dnsmasq asks; None for the host's usual one."""
        return ",".join(map(str, self.policy.upstream)) if self.match.verdict == "tunnel" else None

    def to_json(self, sets: Sequence[str]) -> dict[str, Any]:
        """The object that ``check domain --json`` prints.

        :param sets: those that the policy's addresses get into.
        """
        return {
            "name": self.name,
            "verdict": self.match.verdict,
            "matched": self.match.matched,
            "reason": self.match.reason,
            "rules": [rule._asdict() for rule in self.rules],
            "server": self.server,
            "sets": list(sets) if self.match.verdict == "tunnel" else [],
            "policy": self.policy.name,
        }


def name_in(text: str) -> str:
    """The host name that a person means: a name in any spelling, or the host of a URL.

    :raises InvalidNameError: there is none.
    """
    text = text.strip()
    if "://" in text:
        try:
            host = urlsplit(text).hostname or ""
        except ValueError:
            host = ""
    else:
        host = re.split(r"[/?#]", text, maxsplit=1)[0].rpartition("@")[2]
        name, colon, port = host.rpartition(":")
        if colon and (port.isdigit() or not port) and ":" not in name:
            host = name
    # As lists write it: what is under a name is decided by the name.
    host = host.removeprefix("*.").removeprefix(".")
    if not host:
        raise InvalidNameError(f"{text[:60]!r} names no host")
    if ":" in host or host.rpartition(".")[2].isdigit():
        with suppress(ValueError):
            address = ip_address(host.removeprefix("[").removesuffix("]").partition("%")[0])
            raise InvalidNameError(f"{str(address)!r} is an address, not a name; run: gfwtools check ip {address}")
        raise InvalidNameError(f"{host[:60]!r} is an address or a number, not a name")
    return to_ascii(host)


def answer(name: str, compiled: Sequence[tuple[PolicyConfig, Compiled]]) -> Answer:
    """What happens to ``name``, a name in A-labels, and every line that this rests on."""
    policy, decided = decide(name, compiled)
    match = decided.policy.match(name)
    return Answer(name, match, tuple(_rules(match, decided)), policy)


def decide(name: str, compiled: Sequence[tuple[PolicyConfig, Compiled]]) -> tuple[PolicyConfig, Compiled]:
    """The policy that decides about ``name``, a name in A-labels.

    dnsmasq reads the files of all policies as one: of everything that they say, the longest domain decides.
    """
    if len(compiled) > 1:
        pattern, index = _longest(name, [candidate.cover_beside for _, candidate in compiled])
        if pattern is not None:
            return compiled[index]
    return compiled[0]


def _longest(name: str, covers: Sequence[Cover]) -> tuple[str | None, int]:
    """The longest pattern of all files that covers ``name``, and whose it is; of the very same one, the first's."""
    owners: dict[str, int] = {}
    for index, cover in enumerate(covers):
        for pattern in cover.patterns:
            owners.setdefault(pattern, index)
    rest = name
    while rest:
        under = f"*.{rest}"
        if rest != name and under in owners:
            return under, owners[under]
        if rest in owners:
            return rest, owners[rest]
        rest = rest.partition(".")[2]
    return None, 0


def _rules(match: Match, compiled: Compiled) -> Iterator[RuleRef]:
    """The lines that gave the matched domain."""
    if match.matched is None:
        return
    tables = {"deny": compiled.policy.deny, "allow": compiled.policy.allow, "direct": compiled.policy.direct}
    if match.reason in tables:
        ref = tables[match.reason][match.matched]
        data = text_of(Path(ref.source).read_bytes()).split("\n")
        yield RuleRef(ref.source, ref.line, data[ref.line - 1].strip())
        return
    under = match.matched.startswith("*.")
    domain = match.matched.removeprefix("*.")
    source, locator, exception = compiled.listing.source, compiled.locator, match.reason == "exception"
    if compiled.narrow and not exception and compiled.policy.is_direct(domain):
        locator = compiled.narrow
    names, lines, rules = compiled.scan_about(domain)
    found = []
    if not exception:
        domains = locator.domains(names)
        found += [
            RuleRef(source, line, f"||{name}")
            for name, line, its in zip(names, lines, domains, strict=True)
            if its == domain
        ]
    for rule in rules:
        if rule.exception == exception:
            target = locator.locate(rule)
            if domain in target.domains and target.under == under:
                found.append(RuleRef(source, rule.line, rule.text))
    yield from sorted(set(found))  # a line of hosts(5) can say a name twice
