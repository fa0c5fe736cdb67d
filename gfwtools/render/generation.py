"""The generation of a file: a digest of what it says, in a form that the dnsmasq that reads it can be asked for.

A file that dnsmasq reads at start has a TXT record with the digest. A ``servers-file`` may hold ``server=`` lines only:
it has the digest as a name that is answered here, and the file that leads to it an address for every other name beside
that one. Measured with dnsmasq 2.90, and after each SIGHUP anew: the name of this generation is NXDOMAIN, that of any
other one has the address. None of these names leaves the host while the file is read; they are below ``invalid``, which
does not exist (RFC 6761 section 6.4).
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from gfwtools.digest import sha256

__all__ = ["Generation", "at_start", "generation_of", "leading", "on_sighup", "stamp_of"]

_ZONE = "gfwtools.invalid"
_STAMP = (
    rb"(?m)^(?:txt-record=(?P<name>[^,\n]+),(?P<digest>[0-9a-f]{16})|"
    rb"server=/(?P<local>[0-9a-f]{16}\.servers\.[^/\n]+)/)$"
)


class Generation(NamedTuple):
    """What to ask a dnsmasq for to see whether it has read a file."""

    name: str
    text: str
    """The TXT record of ``name``; empty where it is proven by ``name`` being NXDOMAIN."""


def at_start(text: str, policy: str) -> str:
    """``text`` as a file that dnsmasq reads at start."""
    return _stamped(text, stamp_of(policy)(_digest(text)))


def stamp_of(policy: str) -> Callable[[str], str]:
    """Makes the line that :func:`at_start` adds, from the digest of a file."""
    return lambda digest: f"txt-record=generation.{policy}.{_ZONE},{digest}\n"


def leading(text: str, policy: str) -> str:
    """``text`` as a file that is read at start and leads to a ``servers-file``."""
    return _stamped(at_start(text, policy), f"address=/servers.{policy}.{_ZONE}/127.0.0.1\n")


def on_sighup(text: str, policy: str) -> str:
    """``text`` as a ``servers-file``."""
    return _stamped(text, f"server=/{_digest(text)}.servers.{policy}.{_ZONE}/\n")


def generation_of(head: bytes) -> Generation | None:
    """The generation of a file by its first lines; None for a file that is not ours."""
    found = re.search(_STAMP, head)
    if found is None:
        return None
    if found["local"]:
        return Generation(found["local"].decode(), "")
    return Generation(found["name"].decode(), found["digest"].decode())


def _digest(text: str) -> str:
    return sha256("".join(_parts(text)[1:]).encode())[:16]


def _stamped(text: str, line: str) -> str:
    head, body = _parts(text)
    return f"{head}{line}{body}"


def _parts(text: str) -> tuple[str, str]:
    """The comments at the head of a file of ours, and the rest."""
    start = 0
    while text.startswith("#", start):
        start = text.find("\n", start) + 1 or len(text)
    return text[:start], text[start:]
