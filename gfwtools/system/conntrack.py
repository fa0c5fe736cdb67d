"""The kernel's table of connections (conntrack), over netlink: remove entries, and mark them.

The program ``conntrack`` does the same. Few hosts have it, and it needs the same kernel module, nf_conntrack_netlink.
The words are those of linux/netfilter/nfnetlink_conntrack.h.
"""

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from gfwtools.config.model import Address
from gfwtools.errors import HostError

__all__ = ["Connection", "connections", "forget", "mark"]

_NETLINK_NETFILTER = 12
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8, and IPCTNL_MSG_CT_NEW, _GET and _DELETE
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _MARK, _ID, _ZONE, _MARK_MASK, _STATUS_MASK = 1, 2, 3, 8, 12, 18, 21, 26
_TUPLE_IP, _TUPLE_PROTO, _PROTO_NUM = 1, 2, 1
# CTA_IP_V4_DST, CTA_IP_V6_DST
_DESTINATION: dict[int, type[IPv4Address] | type[IPv6Address]] = {2: IPv4Address, 4: IPv6Address}
_SEEN_REPLY = 1 << 1
_ATTRIBUTE_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_HEADER, _FAMILY, _ATTRIBUTE, _NUMBER = (struct.Struct(f) for f in ("=IHHII", "=BBH", "=HH", ">I"))
_TIMEOUT = 10.0


class Connection(NamedTuple):
    """One connection: whom its first packet was sent to, and whom an answer is sent to, after all translations."""

    destination: Address
    answers_to: Address
    protocol: int
    answered: bool
    """A packet of the other side has been seen."""
    mark: int
    name: bytes
    """What the kernel knows it by."""


def connections() -> list[Connection]:
    """All of them.

    :raises HostError: the kernel does not show them.
    """
    with _kernel() as kernel:
        return list(_entries(kernel, unanswered=False))


def forget(is_stale: Callable[[Connection], bool], *, unanswered: bool = False) -> int:
    """Remove the connections for which ``is_stale`` is true. Their next packets begin new ones.

    :param unanswered: look only at those that no packet of the other side has been seen of.
    :returns: how many were removed.
    :raises HostError: the kernel does not show them.
    """
    with _kernel() as kernel:
        found = [entry for entry in _entries(kernel, unanswered=unanswered) if is_stale(entry)]
        return sum(_change(kernel, _DELETE, entry) for entry in found)


def mark(bits: Callable[[Connection], tuple[int, int] | None]) -> int:
    """Set bits in the marks of connections.

    :param bits: the value and the mask for a connection, or None to leave it.
    :returns: how many were marked.
    :raises HostError: the kernel does not show them.
    """
    with _kernel() as kernel:
        found = [(entry, wanted) for entry in _entries(kernel, unanswered=False) if (wanted := bits(entry))]
        return sum(
            _change(
                kernel,
                _NEW,
                entry,
                _attribute(_MARK, _NUMBER.pack(value)) + _attribute(_MARK_MASK, _NUMBER.pack(mask)),
            )
            for entry, (value, mask) in found
        )


@contextmanager
def _kernel() -> Iterator[socket.socket]:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as kernel:
            kernel.settimeout(_TIMEOUT)
            kernel.bind((0, 0))
            yield kernel
    except OSError as error:
        raise HostError(
            f"the kernel's connections cannot be seen: {error.strerror or error}", "load nf_conntrack_netlink"
        ) from None


def _entries(kernel: socket.socket, *, unanswered: bool) -> Iterator[Connection]:
    what = b""
    if unanswered:
        # A kernel before 5.17 does not know this and lists all of them.
        what = _attribute(_STATUS, _NUMBER.pack(0)) + _attribute(_STATUS_MASK, _NUMBER.pack(_SEEN_REPLY))
    _send(kernel, _GET, _REQUEST | _DUMP, socket.AF_UNSPEC, what)
    for body in _messages(kernel):
        entry = _parse(body)
        if entry and not (unanswered and entry.answered):
            yield entry


def _change(kernel: socket.socket, kind: int, entry: Connection, attributes: bytes = b"") -> bool:
    """Whether it was there."""
    _send(kernel, kind, _REQUEST | _ACK, entry.name[0], entry.name[1:] + attributes)
    try:
        list(_messages(kernel))
    except FileNotFoundError:
        return False
    return True


def _send(kernel: socket.socket, kind: int, flags: int, family: int, attributes: bytes) -> None:
    body = _FAMILY.pack(family, 0, 0) + attributes
    kernel.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)


def _messages(kernel: socket.socket) -> Iterator[bytes]:
    """The bodies of an answer, to its end.

    :raises OSError: the kernel has refused.
    """
    while True:
        data = kernel.recv(1 << 18)
        while len(data) >= _HEADER.size:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : length], data[_align(max(length, _HEADER.size)) :]
            if kind in (_ERROR, _DONE):
                number = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                if number:
                    raise OSError(number, os.strerror(number))
                return
            yield body


def _parse(body: bytes) -> Connection | None:
    """One entry of a dump; None where it has no addresses."""
    found = dict(_attributes(body[_FAMILY.size :]))
    sent, answer = (_tuple(found.get(which, b"")) for which in (_TUPLE_ORIG, _TUPLE_REPLY))
    if sent is None or answer is None:
        return None
    name = b"".join(_attribute(kind, found[kind]) for kind in (_TUPLE_ORIG, _ID, _ZONE) if kind in found)
    return Connection(
        destination=sent[0],
        answers_to=answer[0],
        protocol=sent[1],
        answered=bool(_number(found.get(_STATUS)) & _SEEN_REPLY),
        mark=_number(found.get(_MARK)),
        name=body[:1] + name,
    )


def _tuple(data: bytes) -> tuple[Address, int] | None:
    """The destination and the protocol of one direction."""
    parts = dict(_attributes(data))
    protocol = dict(_attributes(parts.get(_TUPLE_PROTO, b""))).get(_PROTO_NUM, b"\0")[0]
    for kind, value in _attributes(parts.get(_TUPLE_IP, b"")):
        if kind in _DESTINATION:
            return _DESTINATION[kind](value), protocol
    return None


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _ATTRIBUTE_TYPE, data[place + _ATTRIBUTE.size : place + length]
        place += _align(length)


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    nested = 0x8000 if kind in (_TUPLE_ORIG, _TUPLE_REPLY) else 0
    return (_ATTRIBUTE.pack(length, kind | nested) + value).ljust(_align(length), b"\0")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")


def _align(length: int) -> int:
    return (length + 3) & ~3
