"""Domain names as dnsmasq reads them: lower case A-labels."""

from itertools import groupby
from unicodedata import category

from gfwtools.errors import InvalidNameError
from gfwtools.lists.pattern import pattern

__all__ = ["CANARY", "LOCAL", "MAX_NAME", "PLAIN", "has_loose_hyphen", "is_plain", "to_ascii"]

# RFC 1035 section 2.3.4: a label has 1 to 63 octets, a name 253 without the root's dot. Underscores are in real host
# names; a hyphen at either end is as well ("-.tumblr.com"), and clients may ask for it. One byte beyond these stops
# dnsmasq at start.
_NAME = pattern(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_LABEL = pattern(r"[a-z0-9_-]{1,63}")

# What many a hosts file that is published as a list has at its head.
_IP6 = ("localhost", "loopback", "localnet", "mcastprefix", "allnodes", "allrouters", "allhosts")
#: Top-level domains that only this host or its LAN can answer for, or nothing at all. The clean resolver abroad would
#: learn the names of the LAN. Left out is "example": RFC 6761 section 6.5 wants it treated as any other name.
LOCAL = frozenset(
    [
        *("localhost", "localdomain", "broadcasthost", *(f"ip6-{name}" for name in _IP6)),  # RFC 6761, hosts(5)
        "local",  # RFC 6762, multicast DNS
        *("intranet", "internal", "private", "corp", "home", "lan"),  # RFC 6762 appendix G; ICANN keeps .internal free
        "arpa",  # the names of addresses, home.arpa (RFC 8375), resolver.arpa (RFC 9462)
        *("invalid", "test"),  # RFC 6761; dnsmasq is asked below "invalid" what it has read
        *("alt", "onion"),  # RFC 9476, RFC 7686: no names of DNS
        "wpad",  # clients ask for it as it is, to find a proxy
    ]
)
#: What asks for the name has a question to this host's own resolver: Firefox whether it may ask another one instead
#: (Mozilla's canary domain; bootstrap answers it).
CANARY = "use-application-dns.net"


def _no_local() -> str:
    """Looking back at the end takes three quarters of the time that a pattern of the last label does, and once for all
    names of one length less than once for each name."""
    endings = sorted((rf"\.{name}" for name in LOCAL), key=lambda ending: (len(ending), ending))
    return "".join(f"(?<!{'|'.join(names)})" for _, names in groupby(endings, key=len))


#: Two labels or more, none with a hyphen at an end, the last one neither a number, so that no address is taken for a
#: name, nor one of :data:`LOCAL`.
PLAIN = r"[a-z0-9_][a-z0-9_-]{0,62}+(?:(?<!-)\.[a-z0-9_][a-z0-9_-]{0,62}+)++(?<![0-9-])" + _no_local()
_PLAIN = pattern(PLAIN)

MAX_NAME = 253


def is_plain(name: str) -> bool:
    """Whether ``name`` is surely a name as :func:`to_ascii` would give it, no address, and none of the LAN's."""
    return _PLAIN.fullmatch(name) is not None and len(name) <= MAX_NAME


def has_loose_hyphen(name: str) -> bool:
    """Whether a label of ``name`` begins or ends with a hyphen (RFC 952): in a list that is a slip."""
    return "-." in name or ".-" in name or name.startswith("-") or name.endswith("-")


def to_ascii(name: str) -> str:
    """``name`` in lower case, its labels as A-labels (UTS 46, RFC 5891), without a trailing dot.

    :raises InvalidNameError: it is no domain name; the message says why, in one line.
    """
    if len(name) <= MAX_NAME and _NAME.fullmatch(name):
        return name
    if len(name) > 4 * MAX_NAME:
        raise InvalidNameError(f"{name[:20]!r}... is {len(name)} characters long, a name has at most {MAX_NAME}")
    if not name.isascii():
        name = _encode(name)
    name = name.lower()
    if name.endswith("."):
        name = name[:-1]
    if len(name) > MAX_NAME:
        raise InvalidNameError(f"{name[:20]!r}... has {len(name)} octets, a name has at most {MAX_NAME}")
    for label in name.split("."):
        if not _LABEL.fullmatch(label):
            raise InvalidNameError(f"{_shown(name)}: {_fault(label)}")
    return name


def _shown(name: str) -> str:
    return repr(name) if len(name) <= MAX_NAME else f"{name[:20]!r}..."


def _a_label(label: str) -> str:
    """The A-label of one mapped label. IDNA 2008 has no symbols; UTS 46 lets them pass, and there are such domains.

    :raises IDNAError: neither takes it.
    """
    import idna

    try:
        return idna.alabel(label).decode("ascii")
    except idna.InvalidCodepoint:
        if not all(category(character)[0] in "LMNS" or character in "-\u200d\ufe0f" for character in label):
            raise
        return f"xn--{label.encode('punycode').decode('ascii')}"


def _fault(label: str) -> str:
    if not label:
        return "an empty label"
    if len(label) > 63:
        return f"a label of {len(label)} octets, at most 63 are allowed"
    bad = next(character for character in label if not _LABEL.fullmatch(character.lower()))
    return f"{bad!r} is not allowed in a host name"


def _encode(name: str) -> str:
    """The A-labels of a name with other characters than ASCII's."""
    import idna  # 13 ms, and most lists need it for no name

    try:
        mapped = idna.uts46_remap(name, std3_rules=False, transitional=False)
        return ".".join(label if label.isascii() else _a_label(label) for label in mapped.split("."))
    except (idna.IDNAError, UnicodeError) as error:
        # idna's message repeats the name.
        reason = " ".join(str(error).split()).partition(" in '")[0][:100]
        raise InvalidNameError(f"{_shown(name)}: {reason}") from None
