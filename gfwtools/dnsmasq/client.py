"""Asks a resolver one question as a client does, and compares the answers of two resolvers.

Every question that waits for its answer goes through :func:`ask`. Only a warm-up, which asks ten thousand questions in
one run, has messages of its own (:mod:`gfwtools.dnsmasq.wire`).
"""

import random
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from gfwtools.config.model import Address

__all__ = ["TIMEOUT", "Reply", "Similarity", "ask", "compare", "listed", "poke", "words"]

#: Seconds to wait for a resolver.
TIMEOUT = 2.0
Similarity = Literal["same", "overlapping", "different", "both empty", "missing", "unknown"]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a resolver to one question."""

    kind: str
    rcode: str = ""
    """NOERROR, NXDOMAIN, ...; empty where no readable answer came."""
    addresses: tuple[Address, ...] = ()
    aliases: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    """The strings of TXT records, one after the other."""
    ttl: int | None = None
    """The smallest TTL of the answer's records."""
    error: str = ""
    malformed: bool = False
    """A message came, but it cannot be read."""
    seconds: float = 0.0
    """How long it took."""

    @property
    def answered(self) -> bool:
        """Whether any answer came, also one that cannot be read."""
        return bool(self.rcode) or self.malformed

    @property
    def usable(self) -> bool:
        """Whether the answer gives the records of the name, or says that there are none."""
        return self.rcode in ("NOERROR", "NXDOMAIN")


def ask(
    address: Address | str,
    port: int,
    name: str,
    kind: str,
    timeout: float = TIMEOUT,
    *,
    chaos: bool = False,
    mark: int = 0,
) -> Reply:
    """Ask a question by UDP, and again by TCP where the answer does not fit. Both share one time limit.

    :param kind: the type of record: A, AAAA, TXT, or TYPE65280 for one without a name (RFC 3597 section 5).
    :param chaos: ask in class CHAOS, for facts about the dnsmasq itself such as ``version.bind``.
    :param mark: the firewall mark of what is sent (SO_MARK); 0 for none.
    """
    import dns.exception
    import dns.flags
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype

    started = time.monotonic()
    query = dns.message.make_query(name, kind, "CH" if chaos else "IN")
    try:
        with _marked(address, socket.SOCK_DGRAM, mark) as sock:
            answer = dns.query.udp(query, str(address), timeout=timeout, port=port, ignore_unexpected=True, sock=sock)
        if answer.flags & dns.flags.TC:
            left = max(0.1, timeout - (time.monotonic() - started))
            with _marked(address, socket.SOCK_STREAM, mark) as sock:
                if sock:
                    sock.settimeout(left)
                    sock.connect((str(address), port))
                answer = dns.query.tcp(query, str(address), timeout=left, port=port, sock=sock)
    except dns.exception.Timeout:
        return Reply(kind, error=f"no answer within {timeout:g} s", seconds=time.monotonic() - started)
    except dns.exception.DNSException as error:
        return Reply(kind, error=f"no DNS answer: {error}", malformed=True, seconds=time.monotonic() - started)
    except OSError as error:
        return Reply(kind, error=(error.strerror or str(error)).lower(), seconds=time.monotonic() - started)
    records = [(rrset.rdtype, record) for rrset in answer.answer for record in rrset]
    return Reply(
        kind,
        rcode=dns.rcode.to_text(answer.rcode()),
        addresses=tuple(
            ip_address(record.address) for rdtype, record in records if rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
        ),
        aliases=tuple(
            record.target.to_text(omit_final_dot=True) for rdtype, record in records if rdtype == dns.rdatatype.CNAME
        ),
        texts=tuple(
            string.decode("ascii", "replace")
            for rdtype, record in records
            if rdtype == dns.rdatatype.TXT
            for string in record.strings
        ),
        ttl=min((rrset.ttl for rrset in answer.answer), default=None),
        seconds=time.monotonic() - started,
    )


@contextmanager
def _marked(address: Address | str, kind: socket.SocketKind, mark: int) -> Iterator[socket.socket | None]:
    """A socket whose packets have the mark; None where there is none to set."""
    if not mark:
        yield None
        return
    with socket.socket(socket.AF_INET6 if ":" in str(address) else socket.AF_INET, kind) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        made.setblocking(False)
        yield made


def poke(address: Address | str, port: int, name: str, timeout: float = 0.25) -> None:
    """Ask for a record that no cache has and that adds no address to a set. The answer does not count.

    The type is one for private use (RFC 6895 section 3.1), and differs each time: dnsmasq does not send a question a
    second time while it waits for the answer.
    """
    ask(address, port, name, f"TYPE{random.SystemRandom().randint(65280, 65534)}", timeout)


def compare(local: Reply, clean: Reply) -> Similarity:
    """Compare the local answer with the clean resolver's: "missing" means that only the clean one has addresses."""
    if not (local.usable and clean.usable):
        return "unknown"
    ours, theirs = set(local.addresses), set(clean.addresses)
    if not ours and not theirs:
        return "both empty"
    if not ours:
        return "missing"
    if ours == theirs:
        return "same"
    return "overlapping" if ours & theirs else "different"


def words(replies: Sequence[Reply]) -> str:
    """The replies to A and AAAA in one readable line."""
    return "; ".join(f"{reply.kind} {_one(reply)}" for reply in replies)


def _one(reply: Reply) -> str:
    if reply.error:
        return reply.error
    if not reply.addresses:
        return reply.rcode if reply.rcode != "NOERROR" else "none"
    text = listed(reply.addresses)
    if reply.aliases:
        text += f" by {' -> '.join(reply.aliases)}"
    return text if reply.ttl is None else f"{text} (TTL {reply.ttl:,})"


def listed(addresses: Collection[Address], limit: int = 4) -> str:
    """Some addresses, and how many more there are."""
    shown = ", ".join(map(str, list(addresses)[:limit]))
    return f"{shown} and {len(addresses) - limit} more" if len(addresses) > limit else shown or "none"
