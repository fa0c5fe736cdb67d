"""A question and its answer on the wire (RFC 1035 section 4), without the other parts of a message.

A warm-up asks tens of thousands of questions: a full parser would double its time, and more on a router. Where a
question is watched on its way (:mod:`gfwtools.dnsmasq.origin`), its octets must be known. Every other question goes
through :func:`gfwtools.dnsmasq.client.ask`.
"""

import socket
import struct
from typing import Literal, NamedTuple

__all__ = ["Kind", "Reply", "question", "reply"]

Kind = Literal["A", "AAAA"]
_KINDS: dict[Kind, tuple[int, socket.AddressFamily, int]] = {
    "A": (1, socket.AF_INET, 4),
    "AAAA": (28, socket.AF_INET6, 16),
}
#: Flags of a message, and the place of what is behind its header.
_RECURSION_DESIRED, _ANSWER, _TRUNCATED, _RCODE, _HEADER = 0x0100, 0x8000, 0x0200, 0xF, 12


class Reply(NamedTuple):
    """The parts of an answer that a warm-up needs."""

    rcode: int
    truncated: bool
    """The rest is available by TCP."""
    addresses: tuple[str, ...]
    """The addresses of the kind that was asked for, under any name: an alias has none of its own."""


def question(number: int, name: str, kind: Kind | int) -> bytes:
    """A question for ``name``, in A-labels, with the message's ``number``.

    :param kind: the type of record; as a number where it has no name here.
    :raises ValueError: it is not a domain name.
    """
    labels = name.encode("ascii", "replace").split(b".")
    if not name.isascii() or len(name) > 253 or not all(1 <= len(label) <= 63 for label in labels):
        raise ValueError(f"{name!r} is not a domain name")
    head = struct.pack(">6H", number, _RECURSION_DESIRED, 1, 0, 0, 0)
    body = b"".join(bytes((len(label),)) + label for label in labels)
    return head + body + struct.pack(">B2H", 0, kind if isinstance(kind, int) else _KINDS[kind][0], 1)


def reply(data: bytes, asked: bytes, kind: Kind) -> Reply | None:
    """Read the answer to ``asked``; None where ``data`` is not its answer, or is damaged."""
    wanted, family, size = _KINDS[kind]
    addresses = []
    try:
        number, flags, questions, count = struct.unpack_from(">4H", data)
        place = len(asked)
        if number != int.from_bytes(asked[:2]) or not flags & _ANSWER:
            return None
        # Some leave the question out with an error.
        if data[_HEADER:place].lower() != asked[_HEADER:].lower() and (questions or not flags & _RCODE):
            return None
        for _ in range(count):
            place = _behind_name(data, place)
            found, _, _, length = struct.unpack_from(">2HIH", data, place)
            place += 10 + length
            if place > len(data):
                return None
            if found == wanted and length == size:
                addresses.append(socket.inet_ntop(family, data[place - length : place]))
    except (struct.error, IndexError):
        return None
    return Reply(flags & _RCODE, bool(flags & _TRUNCATED), tuple(addresses))


def _behind_name(data: bytes, place: int) -> int:
    """The place behind a name, which ends with an empty label or with a pointer."""
    while length := data[place]:
        if length >= 0xC0:
            return place + 2
        place += 1 + length
    return place + 1
