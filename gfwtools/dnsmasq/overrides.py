"""Which lines of the user's decide a listed name in place of ours? Pure: lines and the policies' domains -> overrides.

What overrides what was measured with dnsmasq 2.90:

- The longest domain wins. Of one domain, ``address=`` with an address wins, then ``server=/x/#``; servers are all
  asked, and ``local=`` (also ``address=/x/``) counts only where there is nothing else.
- ``*x`` and ``*.x`` are longer than what is above them, and lose to ``x`` itself.
- Of two set lines for one domain the first one counts.
- Names of hosts files and records of dnsmasq's own come before all of these; so does all of an ``auth-zone``. With
  ``expand-hosts`` a name without a dot in a hosts file has the host's ``domain=`` as well.
- ``alias``, ``bogus-nxdomain``, ``ignore-address`` and ``filter-A`` change what a resolver has answered, for any name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from gfwtools.config.model import Address
from gfwtools.dnsmasq.conf import Line

__all__ = ["CHANGING", "DIRECTIVES", "Asked", "Listed", "Override", "Reach", "changing", "in_conf", "in_hosts", "words"]

#: The directives that can override a listed name; the files that some of them name are read as well.
DIRECTIVES = (
    *("server", "local", "address", "ipset", "nftset", "domain"),
    *("host-record", "cname", "interface-name", "dynamic-host", "auth-zone"),
)
#: The directives that change an answer by its addresses, for every name.
CHANGING = ("alias", "bogus-nxdomain", "ignore-address", "filter-A", "filter-rr")
#: How many lines are shown with their text, and how many ranges of line numbers.
SHOWN, RANGES = 3, 12


class Reach(Enum):
    """The names that an override decides."""

    NAME = "name"  #: the domain alone
    DOMAIN = "domain"  #: the domain and all names below it
    BELOW = "below"  #: the names below the domain
    ENDING = "ending"  #: the names that end with the text


class Override(NamedTuple):
    """A line of the user's that decides a listed name."""

    domain: str
    reach: Reach
    policy: str
    """The policy that lists the name."""
    file: str
    number: int
    """The line in the file; 0 on the command line of dnsmasq."""
    text: str
    is_block: bool = False
    """The name gets no usable address, and only a part of a listed domain is concerned: the user blocks it, as lists
    against advertising do."""
    in_hosts: bool = False
    """The line is one of hosts(5), and may have other names."""

    @property
    def place(self) -> str:
        return f"{self.file} line {self.number}" if self.number else self.file

    def covers(self, name: str) -> bool:
        """Whether ``name`` is one of the names that the line is about. A longer domain of ours may decide it still."""
        if self.reach is Reach.ENDING:
            return name.endswith(self.domain)
        if name == self.domain:
            return self.reach is not Reach.BELOW
        return self.reach is not Reach.NAME and name.endswith(f".{self.domain}")


class Asked(NamedTuple):
    """How a dnsmasq has to treat the names of a policy."""

    servers: frozenset[str]
    """The servers to ask, as ``ADDRESS#PORT`` or ``ADDRESS#PORT@INTERFACE``."""
    keyword: str = ""
    """``ipset`` or ``nftset``; empty where it fills no set."""
    sets: frozenset[str] = frozenset()


class Listed:
    """The domains of all policies' files, as dnsmasq reads them: the longest one decides."""

    def __init__(self, tunnelled: Mapping[str, Iterable[str]], freed: Iterable[str]) -> None:
        """
        :param tunnelled: policy -> its tunnelled domains.
        :param freed: what is direct again; ``*.domain`` where only the names below are.
        """
        self._policies: dict[str, str] = {}
        for policy, domains in tunnelled.items():
            self._policies.update(dict.fromkeys(domains, policy))
        self._policies.update(dict.fromkeys(freed, ""))

    def nearest(self, name: str, *, below: bool = False) -> tuple[str, str]:
        """The longest pattern that covers ``name``, and its policy; both empty where the name is direct.

        :param below: of the names below ``name`` instead.
        """
        policies, rest = self._policies, name
        while rest:
            if (below or rest is not name) and f"*.{rest}" in policies:
                return "", ""  # only exceptions are written so
            policy = policies.get(rest)
            if policy is not None:
                return (rest, policy) if policy else ("", "")
            rest = rest.partition(".")[2]
        return "", ""

    def decides(self, override: Override, name: str) -> bool:
        """Whether the override, and none of our lines with a longer domain, decides ``name``."""
        pattern, policy = self.nearest(name)
        return bool(policy) and override.covers(name) and len(override.domain) >= len(pattern)


def in_conf(
    lines: Sequence[Line], before_ours: int | None, listed: Listed, asked: Mapping[str, Asked]
) -> Iterator[Override]:
    """The overrides in the lines of dnsmasq's configuration that are not ours.

    :param before_ours: how many of the lines dnsmasq reads before ours; None where ours name no domain.
    :param asked: policy -> how its names have to be treated; other policies do not count.
    """
    for place, line in enumerate(lines):
        for domain, reach, is_block, is_weak in _claims(line):
            pattern, policy = _listing(listed, domain, reach)
            if policy not in asked:
                continue
            meets_ours = before_ours is not None and pattern == domain and reach in (Reach.DOMAIN, Reach.ENDING)
            if meets_ours and (is_weak or reach is Reach.ENDING):
                continue
            if _says_ours(line, asked[policy], counts=not meets_ours or place < (before_ours or 0)):
                continue
            text = f"{line.name}={line.value}"
            is_part = pattern != domain or reach is Reach.BELOW
            yield Override(domain, reach, policy, line.file, line.number, text, is_block and is_part)


def in_hosts(file: str, text: str, listed: Listed, domain_of_host: str = "") -> Iterator[Override]:
    """The overrides in a file of hosts(5).

    :param domain_of_host: what dnsmasq adds to names without a dot (``expand-hosts``); empty for nothing.
    """
    for number, line in enumerate(text.split("\n"), 1):
        address, *names = line.partition("#")[0].split() or [""]
        for name in names:
            domain = name.lower().rstrip(".")
            if domain_of_host and "." not in domain:
                domain = f"{domain}.{domain_of_host}"
            pattern, policy = listed.nearest(domain)
            if policy and _is_address(address):
                is_block = _is_nowhere(address) and pattern != domain
                yield Override(domain, Reach.NAME, policy, file, number, f"{address} {name}", is_block, in_hosts=True)


def _listing(listed: Listed, domain: str, reach: Reach) -> tuple[str, str]:
    """The pattern that lists the names of a claim, and its policy."""
    pattern, policy = listed.nearest(domain, below=reach is Reach.BELOW)
    if reach is Reach.ENDING and pattern != domain:  # the names that end with it are below what follows the first dot
        return listed.nearest(domain.partition(".")[2], below=True)
    return pattern, policy


def _claims(line: Line) -> Iterator[tuple[str, Reach, bool, bool]]:
    """What a line decides: domain, reach, whether it gives no usable address, whether ours win for the same domain."""
    name, value = line.name, line.value
    if name in ("server", "local", "address", "ipset", "nftset"):
        if not value.startswith("/"):
            return
        *domains, last = value[1:].split("/")
        is_set = name in ("ipset", "nftset")
        is_local = not last and not is_set
        is_block = (is_local and name == "address") or (name == "address" and (last == "#" or _is_nowhere(last)))
        for text in domains:
            domain, reach = _pattern(text)
            if domain and (not is_set or reach is Reach.DOMAIN):  # sets know no wildcard
                yield domain, reach, is_block, is_local
    elif name == "domain":
        domain, *parts = value.split(",")
        if parts and parts[-1].strip() == "local":  # local=/domain/ beside the rest (dnsmasq(8))
            yield domain.strip().lower(), Reach.DOMAIN, False, True
    elif name == "auth-zone":
        yield value.partition(",")[0].strip().lower().rstrip("."), Reach.DOMAIN, False, False
    elif name == "cname":
        words = [word.strip() for word in value.split(",")]
        words = words[:-1] if words[-1].isdigit() else words
        for text in words[:-1]:
            yield (*_pattern(text, Reach.NAME), False, False)
    else:
        words = [word.strip() for word in value.split(",")]
        words = words[:1] if name != "host-record" else words
        is_block = name == "host-record" and any(map(_is_nowhere, words))
        for text in words:
            if text and not text.isdigit() and not _is_address(text):
                yield text.lower().rstrip("."), Reach.NAME, is_block, False


def _pattern(text: str, plain: Reach = Reach.DOMAIN) -> tuple[str, Reach]:
    """A domain as dnsmasq writes it. ``#`` stands for every name and is shorter than any domain."""
    domain = text.strip().lower().rstrip(".")
    if domain == "#":
        return "", plain
    if domain.startswith("*."):
        return domain[2:], Reach.BELOW
    if domain.startswith("*"):
        return domain[1:], Reach.ENDING
    return domain.lstrip("."), plain


def _says_ours(line: Line, asked: Asked, *, counts: bool) -> bool:
    """Whether a line changes nothing for a name of the policy: it has our server, or our sets, or does not count."""
    last = line.value.rpartition("/")[2]
    if line.name in ("server", "local") and last:
        return _server(last) in asked.servers
    if line.name in ("ipset", "nftset"):
        if line.name != asked.keyword or not counts:
            return True
        return asked.sets <= {word.strip() for word in last.split(",")}
    return False


def _server(text: str) -> str:
    """``ADDRESS[#PORT][@WAY]`` of a ``server=`` line as ``ADDRESS#PORT[@WAY]``."""
    server, at, way = text.partition("@")
    address, _, port = server.partition("#")
    with suppress(ValueError):
        address = str(ip_address(address))
    return f"{address}#{port or 53}{at}{way}"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_nowhere(text: str) -> bool:
    """An address that no packet is sent to: a name that has it is blocked."""
    with suppress(ValueError):
        address = ip_address(text)
        return address.is_unspecified or address.is_loopback
    return False


def changing(lines: Sequence[Line], name: str, policy: str, clean: Sequence[Address]) -> Iterator[Override]:
    """The lines that change the clean resolver's answer for ``name``.

    :param clean: the addresses of that answer.
    """
    for line in lines:
        if line.name in CHANGING and any(_changes(line, address) for address in clean):
            text = f"{line.name}={line.value}" if line.value else line.name
            yield Override(name, Reach.NAME, policy, line.file, line.number, text)


def _changes(line: Line, address: Address) -> bool:
    if line.name in ("filter-A", "filter-rr"):  # without AAAA a name still has an address
        kinds = {"A"} if line.name == "filter-A" else {word.strip().upper() for word in line.value.split(",")}
        return address.version == 4 and bool(kinds & {"A", "ANY"})
    with suppress(ValueError):
        if line.name != "alias":
            return address in ip_network(line.value.strip(), strict=False)
        old, _, *mask = (word.strip() for word in line.value.split(","))
        first, _, last = old.partition("-")
        if last:
            return address.version == 4 and int(ip_address(first)) <= int(address) <= int(ip_address(last))
        return address in ip_network(f"{first}/{mask[0]}" if mask else first, strict=False)
    return False


# ---------------------------------------------------------------- words


def words(overrides: Sequence[Override]) -> str:
    """The first overrides with their places, and the places of the others."""
    shown = [f"{override.place}: {override.text[:200]}" for override in overrides[:SHOWN]]
    files: dict[str, list[int]] = {}
    for override in overrides[SHOWN:]:
        files.setdefault(override.file, []).append(override.number)
    return "; ".join([*shown, *(f"and {file} line {_ranges(numbers)}" for file, numbers in files.items())])


def _ranges(numbers: Iterable[int]) -> str:
    """Line numbers such as ``3, 7-9``."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    more = f" and {len(ranges) - RANGES:,} more places" if len(ranges) > RANGES else ""
    return ", ".join("-".join(map(str, some)) for some in ranges[:RANGES]) + more
