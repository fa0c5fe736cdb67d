"""Which resolvers does this host ask for a name? Seen on the wire: a counter does not tell whom dnsmasq believes."""

import random
import socket
import struct
import time
from array import array
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple

from gfwtools.config.model import Address, PolicyConfig
from gfwtools.dnsmasq import wire
from gfwtools.dnsmasq.daemon import Daemon

__all__ = ["answers_itself", "strangers"]

#: Seconds until dnsmasq, and a second one behind it, have sent on a question.
SETTLE = 0.5
#: packet(7) and linux/filter.h; the socket module of Python has only some of them.
_ETH_P_ALL, _OUTGOING, _ATTACH_FILTER, _STATISTICS, _SOL_PACKET = 0x0003, 4, 26, 6, 263
#: Where a filter finds the protocol and the direction of a packet (linux/filter.h, SKF_AD_OFF).
_PROTOCOL, _DIRECTION = 0xFFFFF000, 0xFFFFF004
#: The header of a DNS message, and bits of its third octet (RFC 1035 section 4.1.1).
_HEADER, _ANSWER, _AUTHORITATIVE = 12, 0x80, 0x04
_UDP, _IPV4, _IPV6 = 17, 0x0800, 0x86DD


def strangers(daemon: Daemon, name: str, policy: PolicyConfig, servers: Collection[str]) -> tuple[str, ...] | None:
    """The resolvers that are asked for a listed name beside those of the policy.

    :param servers: those that the main dnsmasq shall ask.
    :returns: None where it cannot be seen: no permission, or a resolver on this host asks others in its turn.
    """
    if any(_is_local(upstream.address) for upstream in policy.upstream):
        return None
    seen = _watch(daemon, name, random.SystemRandom().randint(65280, 65534), times=2)
    if seen is None:
        return None
    return tuple(sorted(seen.servers - {*servers, *map(str, policy.upstream)}))


def answers_itself(daemon: Daemon, name: str) -> bool:
    """Whether dnsmasq has an IPv4 address for the name from its configuration or a hosts file, so that it asks no one.

    Such an answer is authoritative. One from its cache is not, and one of another server comes by a question. It is
    asked twice: a client's question may have gone out just before, and ours then gets the same answer.
    """
    return all(_is_own_answer(_watch(daemon, name, "A", times=1)) for _ in range(2))


class _Seen(NamedTuple):
    """What happened when dnsmasq was asked."""

    servers: frozenset[str]
    """Where the questions went, as ``ADDRESS#PORT``."""
    answer: bytes
    """What dnsmasq answered; empty where it did not in time."""


def _is_own_answer(seen: _Seen | None) -> bool:
    if seen is None or seen.servers or len(seen.answer) < _HEADER:
        return False
    return bool(seen.answer[2] & _AUTHORITATIVE) and int.from_bytes(seen.answer[6:8]) > 0


def _watch(daemon: Daemon, name: str, kind: wire.Kind | int, times: int) -> _Seen | None:
    """Ask dnsmasq, and see where it sends the question.

    A question that is to be sent on has a type of record for private use (RFC 6895 section 3.1): no cache has it, and
    no client asks the same. To a question that is repeated at once dnsmasq asks every server that it has for the name
    (forward.c, "retry on existing query"), and not only the one that it prefers at the moment.

    :returns: None where packets cannot be captured, or some were lost.
    """
    family = socket.AF_INET6 if ip_address(daemon.address).version == 6 else socket.AF_INET
    question = wire.question(random.getrandbits(16), name, kind)
    found, answer = set(), b""
    try:
        with _capture(question) as capture, socket.socket(family, socket.SOCK_DGRAM) as client:
            client.connect((daemon.address, daemon.port))
            for _ in range(times):
                client.send(question)
            client.settimeout(SETTLE)
            with suppress(TimeoutError, ConnectionError):
                answer = client.recv(4096)  # by then everything has been sent
            capture.settimeout(0.05)
            deadline = time.monotonic() + SETTLE
            with suppress(TimeoutError):
                while time.monotonic() < deadline:
                    found.add(_destination(capture.recv(2048), question))
            _, lost = struct.unpack("II", capture.getsockopt(_SOL_PACKET, _STATISTICS, 8))
    except OSError:
        return None
    return None if lost else _Seen(frozenset(found - {"", str(daemon)}), answer)


def _is_local(address: Address) -> bool:
    """Whether an address is this host's: a socket can be bound to it."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as trial:
        trial.bind((str(address), 0))
        return True
    return False


def _destination(packet: bytes, question: bytes) -> str:
    """Where a packet with the question goes; empty for another packet."""
    if packet[0] >> 4 == 4:
        start, family, address = (packet[0] & 0xF) * 4, socket.AF_INET, packet[16:20]
    else:
        start, family, address = 40, socket.AF_INET6, packet[24:40]
    message = packet[start + 8 :]
    # dnsmasq gives each question a number of its own, and may change the case of the name (since 2.91).
    wanted = question[_HEADER:]
    if message[2] & _ANSWER or message[_HEADER : _HEADER + len(wanted)].lower() != wanted.lower():
        return ""
    (port,) = struct.unpack_from(">H", packet, start + 2)
    return f"{socket.inet_ntop(family, address)}#{port}"


def _capture(question: bytes) -> socket.socket:
    """A socket for the packets that leave this host, by any interface, with the first letters of the question."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    try:
        program = array("B", _filter(question[_HEADER : _HEADER + 4]))
        address, size = program.buffer_info()
        made.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", size // 8, address))
    except BaseException:
        made.close()
        raise
    return made


def _filter(head: bytes) -> bytes:
    """A classic BPF program (the kernel's filter.rst): it keeps a busy host's other packets out of the socket."""
    letters = 0x20202020
    wanted = struct.unpack(">I", head)[0] | letters
    load, load_byte, load_at_x = 0x20, 0x30, 0x40
    equal, or_, header_to_x, ret, set_x = 0x15, 0x44, 0xB1, 0x06, 0x01
    steps = [
        (load, 0, 0, _DIRECTION),
        (equal, 0, 13, _OUTGOING),
        (load, 0, 0, _PROTOCOL),
        (equal, 0, 4, _IPV4),
        (load_byte, 0, 0, 9),
        (equal, 0, 9, _UDP),
        (header_to_x, 0, 0, 0),
        (equal, 4, 4, _UDP),
        (equal, 0, 6, _IPV6),
        (load_byte, 0, 0, 6),
        (equal, 0, 4, _UDP),
        (set_x, 0, 0, 40),
        (load_at_x, 0, 0, 8 + _HEADER),
        (or_, 0, 0, letters),
        (equal, 1, 0, wanted),
        (ret, 0, 0, 0),
        (ret, 0, 0, 2048),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
