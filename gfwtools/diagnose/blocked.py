"""Is a name that goes directly blocked here? What comes directly is compared with what comes through the tunnel.

Large sites give other addresses to other resolvers: different answers alone say nothing. One sign is never a verdict. A
site counts as blocked where a connection fails directly that works through the tunnel, and one more sign agrees.
"""

import errno
import socket
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from pathlib import Path

from gfwtools.config.model import Address, PolicyConfig
from gfwtools.diagnose.link import Link, LinkState
from gfwtools.dnsmasq import client
from gfwtools.dnsmasq.client import Reply
from gfwtools.plumbing.facts import Interface

__all__ = ["NAME", "Answers", "Reached", "Try", "blocked_link", "forged_addresses", "judge", "probe"]

#: The name of the link.
NAME = "blocked"
#: Seconds for one connection with its handshake, and how many addresses of an answer are tried.
TIMEOUT = 3.0
MOST = 2
HTTPS, HTTP = 443, 80
EXPECTED = "it works from here, or nowhere"
_FORGED = Path(__file__).parent.parent / "data" / "forged.txt"
_OK, _BROKEN, _UNKNOWN, _SKIPPED = LinkState.OK, LinkState.BROKEN, LinkState.UNKNOWN, LinkState.SKIPPED


class Reached(IntEnum):
    """How far a connection came."""

    NOTHING = 0
    CONNECTED = 1
    """The TCP handshake."""
    ANSWERED = 2
    """A TLS handshake with the name, though its certificate is not trusted; or an answer to HTTP."""
    TRUSTED = 3
    """A TLS handshake with a certificate for the name."""


@dataclass(frozen=True, slots=True)
class Try:
    """One connection that was tried."""

    address: Address
    port: int
    tunnelled: bool
    reached: Reached
    said: str
    """How it ended, in words."""
    named: bool = True
    """Whether the name was given to the site; without it a filter of names lets the handshake pass."""
    made: bool = True
    """Whether it was tried at all: a host without a route, or without the right to mark packets, sees nothing."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The addresses of a name: as this host's resolver and as the clean resolver gives them."""

    local: tuple[Address, ...]
    clean: tuple[Address, ...]
    rcode: str = "NOERROR"
    """What this host's resolver said."""


def forged_addresses() -> frozenset[Address]:
    """The addresses that are known from forged answers (``data/forged.txt``)."""
    lines = _FORGED.read_text(encoding="utf-8").split("\n")
    return frozenset(ip_address(line) for line in lines if line and not line.startswith("#"))


# ---------------------------------------------------------------- the judgement, pure


def judge(name: str, answers: Answers, tries: Sequence[Try], forged: frozenset[Address]) -> Link:
    """The verdict over everything that was seen."""
    made = [each for each in tries if each.made]
    direct = [each for each in made if not each.tunnelled and each.named and each.address in answers.local]
    working = max(direct, key=lambda each: each.reached, default=None)
    if working and working.reached is Reached.TRUSTED:
        return _works(working)
    used = {port: best for port in (HTTPS, HTTP) if (best := _through_the_tunnel(made, answers, port))}
    if not used:
        return _without_comparison(answers, tries, working)
    connections: list[str] = []
    for port, best in used.items():
        here = [each for each in direct if each.port == port]
        if any(each.reached >= best.reached for each in here):
            if port == HTTPS:
                break  # what a browser takes works; the other port is only redirected there
            continue
        connections += [f"{_words(each)} directly; {_words(best)} through the tunnel" for each in here[:1]]
        connections += _more_about(port, best, made, answers)
    signs = [*connections, *_signs_of(answers, forged)]
    shown = [*signs, _difference(answers)] if _difference(answers) else signs
    if connections and len(signs) > 1:
        return Link(NAME, _BROKEN, EXPECTED, f"looks blocked here: {'; '.join(shown)}", f"gfwtools deny {name}")
    if not connections and working and working.reached >= Reached.ANSWERED:
        return _works(working, shown)
    if not signs:
        why = next((each.said for each in tries if not each.made), "no direct connection was tried")
        return Link(NAME, _UNKNOWN, EXPECTED, f"not compared: {why}")
    return Link(NAME, _UNKNOWN, EXPECTED, f"not enough for a verdict: {'; '.join(shown)}")


def _works(working: Try, beside: Sequence[str] = ()) -> Link:
    return Link(NAME, _OK, EXPECTED, "; ".join([f"it works from here: {_words(working)}", *beside]))


def _without_comparison(answers: Answers, tries: Sequence[Try], working: Try | None) -> Link:
    """The verdict where no connection through the tunnel works."""
    if working and working.reached >= Reached.ANSWERED:
        return _works(working)
    unmade = next((each.said for each in tries if not each.made), "")
    if set(answers.local) & set(answers.clean) and not unmade:
        found = f"the clean resolver's address; nothing answers at port {HTTPS} or {HTTP}, through the tunnel either"
        return Link(NAME, _OK, EXPECTED, found)
    why = unmade or "nothing answers, neither directly nor through the tunnel"
    return Link(NAME, _UNKNOWN, EXPECTED, f"not compared: {why}")


def _difference(answers: Answers) -> str:
    """Different answers in words; they support other signs, and are none alone."""
    if not answers.local or set(answers.local) & set(answers.clean):
        return ""
    here, there = client.listed(answers.local, MOST), client.listed(answers.clean, MOST)
    return f"the answers differ: {here} here, {there} by the clean resolver"


def _through_the_tunnel(made: Sequence[Try], answers: Answers, port: int) -> Try | None:
    """The best connection through the tunnel to an address that the clean resolver gives; None where none works."""
    found = [each for each in made if each.tunnelled and each.port == port and each.address in answers.clean]
    best = max(found, key=lambda each: each.reached, default=None)
    return best if best and best.reached >= Reached.ANSWERED else None


def _more_about(port: int, best: Try, made: Sequence[Try], answers: Answers) -> list[str]:
    """More signs at a port where no direct connection to the local answer works."""
    signs = []
    for each in made:
        if each.port != port:
            continue
        if not each.named and each.reached >= Reached.ANSWERED:
            signs.append(f"{each.address} answers TLS directly where the name is left out")
        if not each.named or each.reached >= best.reached:
            continue
        if each.tunnelled and each.address in answers.local and each.address not in answers.clean:
            signs.append(f"{each.address} is not the site's: {_words(each)} through the tunnel too")
        elif not each.tunnelled and each.address in answers.clean and each.address not in answers.local:
            signs.append(f"{_words(each)} directly, as the clean resolver gives it")
    return signs


def _signs_of(answers: Answers, forged: frozenset[Address]) -> list[str]:
    """What the answers show by themselves."""
    signs = []
    known = [address for address in answers.local if address in forged and address not in answers.clean]
    if known:
        signs.append(f"{client.listed(known)} is known from forged answers")
    unreal = [address for address in answers.local if not address.is_global and address not in known]
    if unreal and any(address.is_global for address in answers.clean):
        signs.append(f"{client.listed(unreal)} is no address of the Internet")
    if not answers.local:
        clean = client.listed(answers.clean, MOST)
        signs.append(f"no address here ({answers.rcode}), {clean} by the clean resolver")
    return signs


def _words(each: Try) -> str:
    return f"{each.address} port {each.port}: {each.said}"


# ---------------------------------------------------------------- what is looked at


def blocked_link(name: str, policy: PolicyConfig, local: Sequence[Reply], tunnel: Interface | None) -> Link:
    """Compare what comes directly with what comes through the tunnel.

    :param local: what this host's resolver says to A and AAAA.
    """
    if all(reply.error for reply in local):
        return Link(NAME, _SKIPPED, EXPECTED, "this host's resolver does not answer")
    with ThreadPoolExecutor(max_workers=16) as pool:
        asked = [
            pool.submit(client.ask, server.address, server.port, name, kind, mark=policy.mark)
            for server in policy.upstream[:MOST]
            for kind in ("A", "AAAA")
            if tunnel and tunnel.up
        ]
        addresses = [address for reply in local for address in reply.addresses]
        # Nobody but the site has a certificate for the name that is trusted: mostly there is nothing more to ask.
        first = list(pool.map(lambda address: probe(name, address, HTTPS, 0), _some(addresses)))
        if any(each.reached is Reached.TRUSTED for each in first):
            return judge(name, Answers(tuple(addresses), ()), first, frozenset())
        if tunnel is None or not tunnel.up:
            return Link(NAME, _UNKNOWN, EXPECTED, f"not compared: {policy.interface} is not up")
        clean = [future.result() for future in asked]
        if not any(reply.usable for reply in clean):
            said = clean[0].error or clean[0].rcode
            return Link(NAME, _UNKNOWN, EXPECTED, f"not compared: the clean resolver: {said}")
        answers = _answers(local, clean, carries_ipv6=tunnel.carries(6))
        if not answers.clean:
            return Link(NAME, _SKIPPED, EXPECTED, "the clean resolver has no address to compare with")
        tries = [*first, *_compared(pool, name, policy.mark, answers, first)]
    return judge(name, answers, tries, forged_addresses())


def _compared(pool: ThreadPoolExecutor, name: str, mark: int, answers: Answers, first: Sequence[Try]) -> list[Try]:
    """All other connections to the addresses of both answers, side by side."""
    wanted = dict.fromkeys((*_some(answers.local), *_some(answers.clean)))
    done = {(each.address, each.port, 0) for each in first}
    ways = [(address, port, way) for address in wanted for port in (HTTPS, HTTP) for way in (0, mark)]
    futures = [pool.submit(probe, name, *way) for way in ways if way not in done]
    futures += [
        pool.submit(probe, name, each.address, HTTPS, 0, named=False)
        for each in first
        if each.reached is Reached.CONNECTED
    ]
    return [future.result() for future in futures]


def _answers(local: Sequence[Reply], clean: Sequence[Reply], *, carries_ipv6: bool) -> Answers:
    """The answers of the one family that is compared: IPv4 where the clean resolver has it."""
    version = 4 if any(a.version == 4 for reply in clean for a in reply.addresses) or not carries_ipv6 else 6

    def of(replies: Sequence[Reply]) -> tuple[Address, ...]:
        return tuple(dict.fromkeys(a for reply in replies for a in reply.addresses if a.version == version))

    rcode = next(
        (reply.rcode for reply in local if reply.rcode and reply.kind == ("A" if version == 4 else "AAAA")), ""
    )
    return Answers(of(local), of(clean), rcode)


def _some(addresses: Sequence[Address]) -> list[Address]:
    """The addresses that are tried. What means this host itself is no site's."""
    return [address for address in addresses if not (address.is_loopback or address.is_unspecified)][:MOST]


def probe(name: str, address: Address, port: int, mark: int, *, named: bool = True) -> Try:
    """Open one connection, within :data:`TIMEOUT` seconds: with TLS at port 443, with HTTP at any other.

    :param mark: what sends it into the tunnel; 0 for the direct way.
    :param named: whether TLS gives the site the name.
    """
    deadline = time.monotonic() + TIMEOUT
    reached = Reached.NOTHING
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET

    def ended(said: str, *, made: bool = True) -> Try:
        return Try(address, port, bool(mark), reached, said, named, made)

    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            if mark:
                try:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
                except PermissionError:
                    return ended("run as root: nobody else may mark a packet", made=False)
            connection.settimeout(TIMEOUT)
            try:
                connection.connect((str(address), port))
            except (ConnectionError, TimeoutError):
                raise
            except OSError as error:
                if error.errno == errno.EHOSTUNREACH:  # a firewall on the way says so (RFC 1812 section 5.2.7.1)
                    return ended("rejected on the way")
                # No route of this host, or a rule of its own.
                return ended((error.strerror or str(error)).lower(), made=False)
            reached = Reached.CONNECTED
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            if port == HTTPS:
                with _context(named).wrap_socket(connection, server_hostname=name if named else None):
                    reached = Reached.TRUSTED if named else Reached.ANSWERED
                    return ended("TLS")
            request = f"HEAD / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode("ascii"))
            if not connection.recv(1):
                return ended("closed without an answer")
            reached = Reached.ANSWERED
            return ended("an answer")
    except ssl.SSLCertVerificationError as error:
        reached = Reached.ANSWERED
        return ended(f"a certificate that is not trusted ({error.verify_message})")
    except ConnectionRefusedError:
        return ended("refused")
    except ConnectionError:
        return ended("reset")
    except TimeoutError:
        return ended("silence")
    except ssl.SSLError as error:
        return ended(f"no TLS ({(error.reason or 'closed').lower().replace('_', ' ')})")
    except (OSError, ValueError) as error:
        return ended(str(error).lower())


def _context(named: bool) -> ssl.SSLContext:
    """Without a name there is nothing to compare a certificate with."""
    context = ssl.create_default_context()
    if not named:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
