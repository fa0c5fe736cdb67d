"""The answer to ``check domain NAME``: the verdict, and every line of a list that it rests on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gfwtools.compiler import Compiled
from gfwtools.config import Config, PolicyConfig
from gfwtools.errors import InvalidNameError
from gfwtools.names import to_ascii
from gfwtools.policy import Match
from gfwtools.rules import Rule

__all__ = ["Answer", "RuleRef", "answer", "name_in"]


class RuleRef(NamedTuple):
    """A line that decided."""

    source: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What happens to a name, and why."""

    name: str
    match: Match
    rules: tuple[RuleRef, ...]
    policy: PolicyConfig

    @property
    def server(self) -> str | None:
        """The resolver that dnsmasq asks; None for the host's usual one."""
        return ",".join(map(str, self.policy.upstream)) if self.match.verdict == "tunnel" else None

    @property
    def sets(self) -> list[str]:
        return [self.policy.set] if self.match.verdict == "tunnel" else []

    def to_json(self) -> dict[str, Any]:
        """The object that ``check domain --json`` prints."""
        return {
            "name": self.name,
            "verdict": self.match.verdict,
            "matched": self.match.matched,
            "reason": self.match.reason,
            "rules": [rule._asdict() for rule in self.rules],
            "server": self.server,
            "sets": self.sets,
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
        host = text.partition("/")[0]
        name, colon, port = host.rpartition(":")
        if colon and port.isdigit() and ":" not in name:
            host = name
    if not host:
        raise InvalidNameError(f"{text[:60]!r} names no host")
    if ":" in host or host.rpartition(".")[2].isdigit():
        raise InvalidNameError(f"{host[:60]!r} is an address or a number, not a name")
    return to_ascii(host)


def answer(name: str, compiled: list[tuple[PolicyConfig, Compiled]], config: Config) -> Answer:
    """What happens to ``name``, a name in A-labels.

    Where several policies tunnel it, the longer domain decides, then the order of the tables.
    """
    best: tuple[PolicyConfig, Compiled, Match] | None = None
    for policy, candidate in compiled:
        match = candidate.policy.match(name)
        if best is None or _weight(match) > _weight(best[2]):
            best = policy, candidate, match
    assert best is not None
    policy, decided, match = best
    return Answer(name, match, tuple(_rules(match, decided, config, policy)), policy)


def _weight(match: Match) -> tuple[bool, int]:
    return match.verdict == "tunnel", len(match.matched or "")


def _rules(match: Match, compiled: Compiled, config: Config, policy: PolicyConfig) -> Iterator[RuleRef]:
    """The lines that gave the matched domain."""
    if match.matched is None:
        return
    if match.reason in ("deny", "allow"):
        table = compiled.policy.deny if match.reason == "deny" else compiled.policy.allow
        ref = table[match.matched]
        data = config.paths.root.joinpath(ref.source).read_text("utf-8", "replace").split("\n")
        yield RuleRef(ref.source, ref.line, data[ref.line - 1].strip())
        return
    under = match.matched.startswith("*.")
    domain = match.matched.removeprefix("*.")
    for rule in compiled.listing.rules():
        if _may_mean(rule, domain) and rule.exception == (match.reason == "exception"):
            target = compiled.locator.locate(rule)
            if domain in target.domains and target.under == under:
                yield RuleRef(compiled.listing.source, rule.line, rule.text)


def _may_mean(rule: Rule, domain: str) -> bool:
    """A cheap look before a dear one: most rules are plain names, and none of those means a foreign domain."""
    host = rule.host
    return (
        host.endswith(domain) or not host.isascii() or "*" in host or rule.anchor.value == "regex" or host[-1:] == "."
    )
