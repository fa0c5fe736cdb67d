"""dnsmasq.conf(5) lines. Paired layout: ``server=`` and ``ipset=`` (or ``nftset=``) for every domain. Split layout: the
main dnsmasq has ``server=`` lines only, to a second one that puts every answer of its own into the set.

One domain a line: dnsmasq walks its set entries one by one for each answer, and several domains on one line halve the
queries that it answers a second (docs/how-it-works.md).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address

from gfwtools.config.model import Network, PolicyConfig, Upstream
from gfwtools.lists.policy import Cover
from gfwtools.render import ipset
from gfwtools.render.header import header, written
from gfwtools.render.sets import SetNames

__all__ = ["inline_servers", "paired", "paired_file", "pairs", "second", "servers", "split_main"]

#: The lines of a million patterns, each a text of its own, would take twice the file.
_BATCH = 10_000


def paired(
    cover: Cover,
    policy: PolicyConfig,
    *,
    unset: Iterable[str] = (),
    sets: SetNames | None = None,
    list_date: str = "",
) -> str:
    """The dnsmasq file of a policy.

    An exception needs both of its lines: the longest match wins for sets as well. For one that frees only what is under
    a name the server line decides; dnsmasq 2.90 reads a ``*`` in a set line as a letter, so that its answers still go
    to the set of the name itself. The split layout has no such gap.

    :param unset: domains that need a set line alone (:meth:`gfwtools.lists.policy.Policy.unset`).
    :param sets: the sets of the policy; by default ipset's.
    """
    return paired_file(cover, policy, unset=unset, sets=sets, list_date=list_date).decode()


def paired_file(
    cover: Cover,
    policy: PolicyConfig,
    *,
    unset: Iterable[str] = (),
    sets: SetNames | None = None,
    list_date: str = "",
    stamp: Callable[[str], str] | None = None,
) -> bytes:
    """The same with a ``stamp`` (:func:`gfwtools.render.header.written`)."""
    names = sets or ipset.set_names(policy)
    body = _pairs(cover, policy.upstream, names.directive, names.value, names.direct_value, unset)
    return written(f"policy {policy.name}, paired layout", list_date, body, stamp)


def servers(cover: Cover, policy: PolicyConfig, port: int, *, list_date: str = "") -> str:
    """The ``servers-file`` of the split layout: every domain to the second dnsmasq at ``port``."""
    body = "".join(_servers(cover, port))
    return header(f"policy {policy.name}, split layout: read again on SIGHUP", list_date, body) + body


def split_main(policy: PolicyConfig, servers_file: str) -> str:
    """What the main dnsmasq reads of the configuration folder in the split layout."""
    body = f"servers-file={servers_file}\n"
    return header(f"policy {policy.name}, split layout", "", body) + body


def inline_servers(
    cover: Cover, policy: PolicyConfig, port: int, *, list_date: str = "", stamp: Callable[[str], str] | None = None
) -> bytes:
    """The same for a list that is too long for a ``servers-file``."""
    return written(f"policy {policy.name}, split layout", list_date, _servers(cover, port), stamp)


def _servers(cover: Cover, port: int) -> Iterator[str]:
    return _pairs(cover, (Upstream(ip_address("127.0.0.1"), port),), "", "", "")


def second(
    policy: PolicyConfig,
    port: int,
    pid_file: str,
    sets: SetNames,
    *,
    refused: Iterable[Network] = (),
    records: Iterable[str] = (),
) -> str:
    """The configuration of the second dnsmasq: loopback only, no cache (a cached answer fills no set, and the main
    dnsmasq has one), the clean resolvers, and one set line for every name.

    :param refused: an answer with an address of these networks becomes NXDOMAIN. ``stop-dns-rebind`` is no help here:
        it also takes networks for documentation for private ones, and knows neither shared nor multicast addresses.
    :param records: types of records that are left out of answers.
    """
    types = ",".join(records)
    lines = [
        f"port={port}",
        "listen-address=127.0.0.1",
        "bind-interfaces",
        f"pid-file={pid_file}",
        "no-resolv",
        "no-hosts",
        "cache-size=0",
        "dns-forward-max=1000",
        *(f"server={upstream}" for upstream in policy.upstream),
        f"{sets.directive}=/#/{sets.value}",
        *(f"bogus-nxdomain={network}" for network in refused),
        *([f"filter-rr={types}"] if types else []),
    ]
    body = "".join(f"{line}\n" for line in lines)
    return header(f"policy {policy.name}, the second dnsmasq of the split layout", "", body) + body


def pairs(
    cover: Cover, upstream: Iterable[Upstream], keyword: str, sets: str, direct: str, unset: Iterable[str] = ()
) -> str:
    """The lines themselves; ``sets`` may be empty for no set lines."""
    return "".join(_pairs(cover, upstream, keyword, sets, direct, unset))


def _pairs(
    cover: Cover, upstream: Iterable[Upstream], keyword: str, sets: str, direct: str, unset: Iterable[str] = ()
) -> Iterator[str]:
    """The same in parts."""
    tunnel, free = [("server", str(server)) for server in upstream], [("server", "#")]
    if sets:
        tunnel.append((keyword, sets))
        free.append((keyword, direct))
    yield from _lines(cover.tunnelled, tunnel)
    yield from _lines(cover.freed, free)
    yield from _lines([*unset], free[1:])


def _lines(patterns: Sequence[str], settings: Iterable[tuple[str, str]]) -> Iterator[str]:
    """``KEY=/PATTERN/VALUE`` for each pattern and each (key, value), :data:`_BATCH` patterns at a time."""
    # What stands between a pattern and the same one again: str.join writes all the lines of one at once.
    between = "".join(f"{key}=/\0/{value}\n" for key, value in settings).split("\0")
    for start in range(0, len(patterns), _BATCH):
        yield "".join([pattern.join(between) for pattern in patterns[start : start + _BATCH]])
