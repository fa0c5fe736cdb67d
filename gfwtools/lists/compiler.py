"""Rules -> a :class:`Policy`, and the account of them: every rule read is applied, widened, redundant or dropped.

The account of a rule is not kept. It is made again when it is needed: parsing a list twice costs less than a million
records of what became of its lines.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from enum import Enum
from functools import cached_property
from itertools import compress
from typing import NamedTuple

from gfwtools.config.model import Network
from gfwtools.lists.budget import Budget
from gfwtools.lists.formats import FORMATS, Listing, decoded_text
from gfwtools.lists.locator import Locator, Reason, Target
from gfwtools.lists.policy import Cover, Match, Policy, Ref, Standing
from gfwtools.lists.rule import Rule, Scan
from gfwtools.lists.suffixes import Suffixes, bundled

__all__ = ["Compiled", "Counts", "Outcome", "Problem", "Status", "compile", "compile_lists"]


class Status(Enum):
    """How a rule ended."""

    APPLIED = "applied"  #: as it is written
    WIDENED = "widened"  #: a wider domain than it names is tunnelled
    REDUNDANT = "redundant"  #: the output would be the same without it
    DROPPED = "dropped"  #: it cannot be said to dnsmasq, or may not


class Outcome(NamedTuple):
    """A rule with its end."""

    rule: Rule
    status: Status
    target: Target
    detail: str
    """Why it is redundant or dropped, in words; the empty text otherwise."""


class Counts(NamedTuple):
    """The account of a list; ``read`` is the sum of the rest."""

    read: int
    applied: int
    widened: int
    redundant: int
    dropped: dict[str, int]
    """How many were dropped, by :attr:`Reason.slug`, the most frequent first."""


class Problem(NamedTuple):
    """A line of the user's own lists that does not do what its author may think."""

    ref: Ref
    text: str
    message: str
    decided: bool = False
    """It is understood all the same: on both lists of the user's, where the deny list wins."""

    def __str__(self) -> str:
        return f"{self.ref.source}: line {self.ref.line}: {self.message}"


class _Compiled(NamedTuple):
    policy: Policy
    listing: Listing
    locator: Locator
    read: int
    dropped: Counter[Reason]
    wide: set[str]
    """Blocks that are wider than what the rule for them names."""
    narrow: Locator | None
    """Finds the domains of blocks as they are written; only where there are direct lists."""
    groups: dict[str, int]
    """Blocks of rules that stand for several domains, such as ``google.*`` -> a number of the rule's own."""
    problems: tuple[Problem, ...] = ()
    about: Scan | None = None
    """What was read of the list, where it was read about one name only."""


class Compiled(_Compiled):
    """A policy and the list that it came from.

    It is no dataclass: to make one takes 1.5 ms of every command, and a named tuple a tenth of that.
    """

    def scan_about(self, domain: str) -> Scan:
        """:meth:`Listing.scan_about`, or all that was read about the one name that this is about."""
        return self.about or self.listing.scan_about(domain)

    @cached_property
    def cover(self) -> Cover:
        return self.policy.cover(self._standing)

    @cached_property
    def unset(self) -> list[str]:
        """:meth:`gfwtools.lists.policy.Policy.unset` for :attr:`cover`."""
        return self.policy.unset(self.cover)

    @cached_property
    def cover_beside(self) -> Cover:
        """The cover that stands beside those of other policies."""
        return self.policy.cover(self._standing, beside=True)

    @cached_property
    def _standing(self) -> Standing:
        return self.policy.standing()

    @cached_property
    def _emitted(self) -> set[str]:
        return set(self.cover.tunnelled)

    @cached_property
    def _freeing(self) -> set[str]:
        """The exceptions without which the output would be another: in the cover themselves, or freeing a block."""
        policy = self.policy
        used = {*self.cover.freed, *self.unset}
        if policy.exceptions or policy.under:
            for name in self._standing.contested:
                match = policy.match(name)
                if match.reason == "exception" and match.matched:
                    used.add(match.matched)
        return used

    @cached_property
    def seeds(self) -> list[Network]:
        return self.policy.seeds()

    @cached_property
    def _used_networks(self) -> tuple[set[Network], set[Network]]:
        """Those that the list blocks and those that it frees, without the ones that change nothing."""
        return self.policy.seeded(), self.policy.freeing()

    @cached_property
    def _excepted(self) -> set[Network]:
        return self.policy.excepted()

    def counts(self) -> Counts:
        """The account in numbers."""
        return self._counts

    @cached_property
    def _counts(self) -> Counts:
        policy = self.policy
        if policy.direct:
            return self._counted_one_by_one()
        blocks = [name for name in self.cover.tunnelled if name in policy.blocks and self._by_list(name)]
        # Each domain is its first rule's, and most rules have one domain.
        wide, groups = self.wide, self.groups
        grouped = [name for name in blocks if name in groups]
        widened = sum(name in wide for name in blocks) - sum(name in wide for name in grouped)
        widened += len({groups[name] for name in grouped if name in wide})
        blocking = len(blocks) - len(grouped) + len({groups[name] for name in grouped})
        freeing = len(self._freeing & policy.exceptions.keys())
        freeing += len(self._freeing & {f"*.{name}" for name in policy.under})
        applied = blocking - widened + freeing + sum(map(len, self._used_networks))
        dropped = {reason.slug: count for reason, count in self.dropped.most_common()}
        redundant = self.read - applied - widened - sum(dropped.values())
        return Counts(self.read, applied, widened, redundant, dropped)

    def _counted_one_by_one(self) -> Counts:
        """With direct lists a rule may stand for its widened domain, for the one that it writes, or for both."""
        ends = Counter(outcome.status for outcome in self.outcomes())
        dropped = {reason.slug: count for reason, count in self.dropped.most_common()}
        return Counts(self.read, ends[Status.APPLIED], ends[Status.WIDENED], ends[Status.REDUNDANT], dropped)

    def _by_list(self, name: str) -> bool:
        """Whether the list's own block decides ``name``, and not the user's entry for the same domain."""
        policy = self.policy
        return not policy.deny or policy.match(name).reason == "list"

    def outcomes(self) -> Iterator[Outcome]:
        """Every rule of the list with its end, in the list's order."""
        line, before = 0, set[object]()
        for rule in self.listing.rules():
            if rule.line != line:
                line = rule.line
                before.clear()
            target = self.locator.locate(rule)
            yield self._outcome(rule, target, before)
            before.update((rule.exception, target.under, name) for name in target.domains)
            before.update((self.narrow, name) for name in self._written(rule))
            before.add((rule.exception, target.network))

    def _written(self, rule: Rule) -> tuple[str, ...]:
        """The domains of a block as it is written, where there are direct lists."""
        return self.narrow.locate(rule).domains if self.narrow and not rule.exception else ()

    def _outcome(self, rule: Rule, target: Target, before: Set[object]) -> Outcome:
        """``before``: what the rules before this one on its line are for; of hosts(5) and dnsmasq.conf(5) a line may
        have many."""
        policy = self.policy
        if target.reason:
            detail = target.reason.sentence + (f" ({target.detail})" if target.detail else "")
            return Outcome(rule, Status.DROPPED, target, detail)
        if target.network:
            return self._address_outcome(rule, target, target.network, before)
        table = policy.under if target.under else policy.exceptions if rule.exception else policy.blocks
        firsts = [
            name
            for name in target.domains
            if table[name] == rule.line and (rule.exception, target.under, name) not in before
        ]
        applied = any(
            policy.narrow[name] == rule.line and (self.narrow, name) not in before and self._narrows(name)
            for name in self._written(rule)
        )
        if not firsts and not applied:
            return Outcome(rule, Status.REDUNDANT, target, f"the same as line {table[target.domains[0]]}")
        if rule.exception:
            name = f"*.{firsts[0]}" if target.under else firsts[0]
            if name in self._freeing:
                return Outcome(rule, Status.APPLIED, target, "")
            return Outcome(rule, Status.REDUNDANT, target, "it frees nothing that is blocked")
        if any(name in self._emitted and self._by_list(name) and not policy.is_direct(name) for name in firsts):
            return Outcome(rule, Status.WIDENED if target.wider else Status.APPLIED, target, "")
        if applied:
            return Outcome(rule, Status.APPLIED, target, "")
        return Outcome(rule, Status.REDUNDANT, target, self._why_redundant(firsts[0]))

    def _narrows(self, name: str) -> bool:
        """Whether ``name``, a block as it is written, tunnels what a direct list would free."""
        found = self.policy.match(name)
        return name in self._emitted and found == Match("tunnel", name, "list") and self.policy.is_direct(name)

    def _address_outcome(self, rule: Rule, target: Target, network: Network, before: Set[object]) -> Outcome:
        policy = self.policy
        first = (policy.freed if rule.exception else policy.networks)[network]
        if first.line != rule.line or (rule.exception, network) in before:
            return Outcome(rule, Status.REDUNDANT, target, f"the same as line {first.line}")
        blocking, freeing = self._used_networks
        if rule.exception:
            if network in freeing:
                return Outcome(rule, Status.APPLIED, target, "")
            return Outcome(rule, Status.REDUNDANT, target, "it frees nothing that is blocked")
        if network not in blocking:
            by = "an exception" if network in self._excepted else "your allow list"
            return Outcome(rule, Status.REDUNDANT, target, f"{by} frees it")
        return Outcome(rule, Status.APPLIED, target, "")

    def _why_redundant(self, name: str) -> str:
        policy = self.policy
        match = policy.match(name)
        if match.reason == "list" and match.matched:
            lines = policy.narrow if policy.is_direct(match.matched) else policy.blocks
            return f"{match.matched} covers it (line {lines[match.matched]})"
        if match.reason == "exception":
            return f"the exception for {match.matched} frees it"
        if match.reason == "direct":
            return f"a direct list has {match.matched}"
        return f"your {match.reason} list decides it ({match.matched})"


def compile_lists(
    listing: Listing,
    *,
    allow: Iterable[Listing] = (),
    deny: Iterable[Listing] = (),
    direct: Iterable[Listing] = (),
    granularity: str = "registrable",
    suffixes: Suffixes | None = None,
    about: str | None = None,
) -> Compiled:
    """Compile a fetched list and the user's.

    :param direct: lists of domains that are known to work directly. No block is widened over them.
    :param granularity: ``registrable`` or ``host``: what a block of the fetched list is widened to. Exceptions and the
        user's own domains stay as they are written.
    :param about: a name in A-labels: the policy need only be right for it and the domains above it. What surely says
        nothing about them is not read, and the account is not one of the whole list.
    :raises ListError: the fetched list has more rules, or more costly ones, than are read.
    """
    suffixes = suffixes or bundled()
    locator = Locator(suffixes, granularity)
    policy = Policy()
    blocks = policy.blocks
    dropped: Counter[Reason] = Counter()
    wide: set[str] = set()
    groups: dict[str, int] = {}
    problems = _merge_user_lists(policy, allow, deny, Locator(suffixes, trusted=True))
    narrow: Locator | None = None
    if granularity == "registrable":  # at that of a host nothing is widened
        problems += _merge_direct_lists(policy, direct, Locator(suffixes, trusted=True), about)
    if policy.direct:
        narrow = Locator(suffixes, "host")
    # Of what covers a name, all but a rule for a whole top-level domain has the name's last two labels.
    part = listing.scan_about(".".join(about.split(".")[-2:])) if about else None
    read = 0
    first, locate = blocks.setdefault, locator.locate
    budget = Budget()
    for names, lines, rules in [part] if part else listing.scan():
        read += len(names)
        budget.rules(len(names))
        domains = locator.domains(names)
        if refused := locator.refused(domains):
            dropped.update(refused[domain] for domain in domains if domain in refused)
            kept = [domain not in refused for domain in domains]
            names, lines, domains = (
                list(compress(names, kept)),
                list(compress(lines, kept)),
                list(compress(domains, kept)),
            )
        for domain, line in zip(domains, lines, strict=True):
            first(domain, line)
        if narrow:
            for name, line in zip(names, lines, strict=True):
                policy.narrow.setdefault(name, line)
        wide.update(
            domain
            for line, name, domain in zip(lines, names, domains, strict=True)
            if name != domain and blocks[domain] == line
        )
        for rule in rules:
            read += 1
            budget.rule(rule)
            line = rule.line
            found, wider, under, network, reason, _ = locate(rule)
            if reason:
                dropped[reason] += 1
            elif network:
                (policy.freed if rule.exception else policy.networks).setdefault(network, Ref(listing.source, line))
                budget.networks(len(policy.networks) + len(policy.freed))
            elif rule.exception:
                for name in found:
                    (policy.under if under else policy.exceptions).setdefault(name, line)
            else:
                for name in found:
                    if line < blocks.get(name, line + 1):  # a plain block of a later line may be there
                        blocks[name] = line
                        (wide.add if wider else wide.discard)(name)
                        if len(found) > 1:
                            groups[name] = read
                for name in narrow.locate(rule).domains if narrow else ():
                    policy.narrow[name] = min(line, policy.narrow.get(name, line))
    return Compiled(policy, listing, locator, read, dropped, wide, narrow, groups, tuple(problems), part)


def _merge_user_lists(
    policy: Policy, allow: Iterable[Listing], deny: Iterable[Listing], locator: Locator
) -> list[Problem]:
    problems: list[Problem] = []
    sides: Sequence[tuple[Iterable[Listing], dict[str, Ref], dict[Network, Ref]]] = (
        (deny, policy.deny, policy.denied),
        (allow, policy.allow, policy.allowed),
    )
    for listings, names, networks in sides:
        for listing in listings:
            for rule in listing.rules():
                ref = Ref(listing.source, rule.line)
                target = locator.locate(rule)
                if target.reason:
                    message = target.detail or target.reason.sentence
                    problems.append(Problem(ref, rule.text, message))
                elif target.network:
                    networks.setdefault(target.network, ref)
                for name in target.domains:
                    names.setdefault(name, ref)
    for name in policy.allow.keys() & policy.deny.keys():
        ref, other = policy.allow[name], policy.deny[name]
        problems.append(Problem(ref, name, f"{name} is in {other.source} line {other.line} too; deny wins", True))
    for network in policy.allowed.keys() & policy.denied.keys():
        ref, other = policy.allowed[network], policy.denied[network]
        problems.append(
            Problem(ref, str(network), f"{network} is in {other.source} line {other.line} too; deny wins", True)
        )
    return sorted(problems)


#: The lines of a direct list that name no domain are reported, so many; the rest is counted.
_SHOWN = 3


def _merge_direct_lists(
    policy: Policy, listings: Iterable[Listing], locator: Locator, about: str | None
) -> list[Problem]:
    problems: list[Problem] = []
    for listing in listings:
        wrong: list[Problem] = []
        for rule in listing.rules_about(about) if about else listing.rules():
            ref = Ref(listing.source, rule.line)
            target = locator.locate(rule)
            if target.reason:
                wrong.append(Problem(ref, rule.text, target.detail or target.reason.sentence))
            elif target.network:
                wrong.append(Problem(ref, rule.text, f"{target.network} is an address; your allow list takes those"))
            elif rule.exception:
                wrong.append(Problem(ref, rule.text, f"an exception for {target.domains[0]}: a direct list has none"))
            else:
                for name in target.domains:
                    policy.direct.setdefault(name, ref)
        problems += wrong[:_SHOWN]
        if len(wrong) > _SHOWN:
            more = len(wrong) - _SHOWN
            problems.append(Problem(wrong[_SHOWN].ref, "", f"{more:,} lines from here on name no domain"))
    return problems


def compile(
    text: str | bytes,
    *,
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
    direct: Iterable[str] = (),
    granularity: str = "registrable",
    format: str = "autoproxy",
) -> Policy:
    """Compile a list, as published or decoded, into a :class:`Policy`.

    :param allow: domains that are always direct.
    :param deny: domains that are always tunnelled.
    :param direct: domains that are known to work directly: no block is widened over them.
    :param granularity: ``registrable`` (example.co.uk from any host under it) or ``host``.
    :param format: one of :data:`gfwtools.lists.formats.FORMATS`.
    :raises ListError: the text is base64 that is broken, or its checksum is wrong.
    :raises ValueError: no such format or granularity, or a line of ``allow``, ``deny`` or ``direct`` is no domain.
    """
    if granularity not in ("registrable", "host"):
        raise ValueError(f"{granularity!r} is no granularity; give registrable or host")
    if format not in FORMATS:
        raise ValueError(f"{format!r} is no format; give {', '.join(FORMATS)}")
    sides = (("allow", allow), ("deny", deny), ("direct", direct))
    users = {name: [side] if isinstance(side, str) else list(side) for name, side in sides}
    compiled = compile_lists(
        Listing("list", decoded_text(text, format), format),
        allow=[Listing("allow", "\n".join(users["allow"]), "domains")],
        deny=[Listing("deny", "\n".join(users["deny"]), "domains")],
        direct=[Listing("direct", "\n".join(users["direct"]), "domains")],
        granularity=granularity,
    )
    wrong = [problem for problem in compiled.problems if not problem.decided]
    if wrong:
        raise ValueError("; ".join(map(str, wrong)))
    return compiled.policy
