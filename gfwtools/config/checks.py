"""One check for each kind of value: a value of TOML -> the value that the configuration holds."""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from gfwtools.config.model import Address, Network, Upstream, is_url

__all__ = [
    "BadValueError",
    "Check",
    "address",
    "alternatives",
    "boolean",
    "choice",
    "conf_dir",
    "connmark_mask",
    "dnsmasq_path",
    "domain",
    "integer",
    "interface",
    "list_of",
    "matching",
    "nat",
    "network",
    "number",
    "one_line",
    "own_list",
    "parse_interface",
    "parse_proxy",
    "parse_upstream",
    "proxy",
    "set_name",
    "show",
    "source",
    "table_number",
    "upstream",
]

#: Tables that the kernel names itself: unspec, default, main, local (rtnetlink(7)).
RESERVED_TABLES = {0: "unspec", 253: "default", 254: "main", 255: "local"}
# IPSET_MAXNAMELEN is 32 with the NUL; "_direct" and a family digit are put behind the name of a policy's set.
_SET_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,22}"
# IFNAMSIZ is 16 with the NUL; the kernel forbids '/' and blanks (dev_valid_name), and ':' names an alias.
# "all" and "default" are no interfaces to sysctl(8), and iptables(8) takes "wg+" for every name that begins with wg.
_INTERFACE = r"(?!(?:all|default)$)[A-Za-z0-9_.@+][A-Za-z0-9_.@+-]{0,14}(?<!\+)"


class BadValueError(Exception):
    """What was expected in place of a value; :func:`loads` puts the file and the key before it."""


def alternatives(names: Sequence[str] | Mapping[str, object]) -> str:
    *head, last = names
    return f"{', '.join(head)} or {last}" if head else last


def show(value: object) -> str:
    from gfwtools.config.userinfo import masked

    # A list is one where none was expected; it is not looked into.
    text = repr(masked(value)) if isinstance(value, str) else re.sub(r"://.*@", "://***@", repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


Check = Callable[[object], Any]


def number(low: float, high: float, unit: str) -> Check:
    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise BadValueError(f"{show(value)} is not {unit}; give {low:g} to {high:g}")
        return float(value)

    return check


def integer(low: int, high: int, what: str) -> Check:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadValueError(f"{show(value)} is not {what}; give {low} to {high}")
        return value

    return check


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadValueError(f"{show(value)} is neither true nor false")
    return value


def choice(*choices: str) -> Check:
    def check(value: object) -> str:
        if value not in choices:
            raise BadValueError(f"{show(value)} is not known; give {alternatives(choices)}")
        return str(value)

    return check


def one_line(value: object) -> str:
    if not isinstance(value, str) or _has_control(value):
        raise BadValueError(f"{show(value)} is not a text of one line")
    return value


def _climbs(path: str) -> bool:
    return ".." in path.split("/")


# C0 and C1 controls, the separators that end a line for some terminals and readers of logs, and what turns the
# direction of a line, so that a message would show another path than the one it is about (UAX 9).
_CONTROL = (  # compiled where there is a configuration
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)


def _has_control(text: str) -> bool:
    return re.search(_CONTROL, text) is not None


def absolute_path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or _has_control(value) or "," in value or _climbs(value):
        raise BadValueError(f"{show(value)} is not a path; give one that begins with /")
    return value


def dnsmasq_path(value: object) -> str:
    """A path that stands in a configuration of dnsmasq, which has quotation marks and comments of its own."""
    if isinstance(value, str) and (not value.isprintable() or re.search(r"[\"\\]|\s#|\s$", value)):
        raise BadValueError(
            f"{show(value)} means something else to dnsmasq; give a path without quotation marks, \\ and ' #'"
        )
    return absolute_path(value)


def conf_dir(value: object) -> str:
    """The folder that the host's dnsmasq reads: what is in ours is for other readers."""
    path = dnsmasq_path(value)
    if re.match(r"/+(?:etc|var/+lib)/+gfwtools(?:/|$)", re.sub(r"/(?:\.?/)+", "/", path)):
        raise BadValueError(f"{show(path)} is a folder of gfwtools' own; give the one that dnsmasq reads")
    return path


def list_of(check: Check, what: str, *, least: int = 0) -> Check:
    def check_list(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise BadValueError(f"{show(value)} is not a list; give {what}")
        if len(value) < least:
            raise BadValueError(f"the list is empty; give {what}")
        return tuple(check(item) for item in value)

    return check_list


def matching(pattern: str, what: str) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value) or value in (".", ".."):
            raise BadValueError(f"{show(value)} is {what}")
        return value

    return check


set_name = matching(_SET_NAME, "not a name for a set; use letters, digits, _ and -, 23 at most")


domain = matching(
    r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*",
    "not a name; give one such as plex.direct",
)


def source(value: object) -> str:
    text = one_line(value)
    if text.startswith(("http://", "https://", "file:", "/")) and not any(c.isspace() for c in text.rstrip()):
        return text.strip()
    raise BadValueError(f"{show(value)} is not a source; use an http(s) URL, a file: URL or a path that begins with /")


def own_list(value: object) -> str:
    """A file with the user's own domains, or the URL of one."""
    return source(value) if isinstance(value, str) and is_url(value) else absolute_path(value)


def parse_proxy(text: str) -> str:
    """A proxy, ``http://HOST:PORT`` or ``socks5://HOST:PORT``, as httpx takes it; a name and a password may be in it.

    :raises ValueError: with what was expected, and without the password.
    """
    host = r"\[([0-9A-Fa-f:.]+)\]|[^\s/?#@:\[\]]+"
    found = re.fullmatch(rf"(?:https?|socks5h?)://(?:[^\s/?#]*@)?(?:{host})(?::(\d{{1,5}}))?/?", text)
    try:
        good = (
            found and (found[1] is None or ip_address(found[1])) and (found[2] is None or 1 <= int(found[2]) <= 65535)
        )
    except ValueError:  # no address in the brackets
        good = False
    if not good:
        from gfwtools.config.userinfo import masked_proxy

        raise ValueError(f"{show(masked_proxy(text))} is not a proxy; use http://HOST:PORT or socks5://HOST:PORT")
    return text


def proxy(value: object) -> str:
    text = one_line(value)
    try:
        return text and parse_proxy(text)
    except ValueError as error:
        raise BadValueError(str(error)) from None


def parse_upstream(text: str) -> Upstream:
    """``ADDRESS``, ``ADDRESS#PORT`` (dnsmasq's way to write it).

    :raises ValueError: with what was expected.
    """
    address, hash_sign, port = text.partition("#")
    try:
        parsed = _plain_address(address)
    except ValueError:
        raise ValueError(f"{show(text)} is not a resolver; use ADDRESS or ADDRESS#PORT, such as 8.8.8.8#53") from None
    if hash_sign and not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"{show(text)} has a bad port; give 1 to 65535, such as {address}#53")
    return Upstream(parsed, int(port) if hash_sign else 53)


def _plain_address(text: str) -> Address:
    """An address without a scope: Python takes any text at all behind a ``%``.

    :raises ValueError: it is none.
    """
    if "%" in text:
        raise ValueError(text)
    return ip_address(text)


def upstream(value: object) -> Upstream:
    try:
        return parse_upstream(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise BadValueError(str(error)) from None


def parse_interface(text: str) -> str:
    """The name of an interface, as the kernel and dnsmasq take it.

    :raises ValueError: with what was expected.
    """
    if not re.fullmatch(_INTERFACE, text) or text in (".", ".."):
        raise ValueError(f"{show(text)} is not a name for an interface; use letters, digits, . _ -, 15 at most")
    return text


def interface(value: object) -> str:
    try:
        return parse_interface(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise BadValueError(str(error)) from None


def address(value: object) -> Address:
    try:
        return _plain_address(value if isinstance(value, str) else repr(value))
    except ValueError:
        raise BadValueError(f"{show(value)} is not an address; use one such as 192.168.1.1") from None


def network(value: object) -> Network:
    text = value if isinstance(value, str) else repr(value)
    try:
        first = _plain_address(text.partition("/")[0])
        network = ip_network(text, strict=False)
    except ValueError:
        raise BadValueError(f"{show(value)}: no address or network; give one such as 91.108.4.0/22") from None
    if network.network_address != first:
        raise BadValueError(f"{show(value)}: its host bits are set; give one such as 91.108.4.0/22")
    if not network.prefixlen:
        raise BadValueError(f"{show(value)} is the whole Internet; give something smaller")
    return network


def table_number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value in RESERVED_TABLES:
        raise BadValueError(f"{value} is the kernel's own table {RESERVED_TABLES[value]}; give another, such as 51820")
    return int(integer(1, 2**32 - 1, "a routing table")(value))


def connmark_mask(value: object) -> int:
    """Bits of the connection mark, side by side: the policies are counted in them."""
    mask = int(integer(1, 2**32 - 1, "a mask of the connection mark")(value))
    run = mask // (mask & -mask)
    if run & (run + 1):
        raise BadValueError(f"{mask:#x} has a gap between its bits; give bits side by side, such as 0xf000000")
    return mask


def nat(value: object) -> str:
    if isinstance(value, str) and value in ("masquerade", "none"):
        return value
    if isinstance(value, str) and value.startswith("snat:"):
        return f"snat:{address(value[5:])}"
    raise BadValueError(f'{show(value)} is not known; give "masquerade", "snat:ADDRESS" or "none"')
