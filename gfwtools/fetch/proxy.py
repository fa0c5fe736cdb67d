"""The proxy that the environment gives for a URL: ``https_proxy``, ``http_proxy``, ``all_proxy`` and ``no_proxy``.

httpx would read them as well. It makes a URL of each entry of ``no_proxy``, and one entry that is not a URL,
such as the usual ``fe80::/10``, stops it for every mirror.
"""

import os
import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from gfwtools.config.checks import parse_proxy
from gfwtools.errors import InvalidNameError
from gfwtools.lists.hostname import to_ascii

__all__ = ["environment_proxy"]


def environment_proxy(scheme: str, host: str, port: int) -> str:
    """The proxy for a URL of ``scheme`` (in lower case), or the empty text.

    :param host: an address, or a name in A-labels.
    :raises ValueError: the variable does not hold a proxy; the message names the variable, and what to write.
    """
    from urllib.request import getproxies_environment  # httpx has imported it

    found = getproxies_environment()
    kind = scheme if found.get(scheme) else "all"
    text = found.get(kind, "")
    if not text or _spared(found.get("no", ""), scheme, host.lower().removesuffix("."), port):
        return ""
    given, _, rest = (text if "://" in text else f"http://{text}").partition("://")
    userinfo, at, place = rest.rpartition("@")
    # GNOME writes socks://HOST:PORT/ for SOCKS 5. What is behind the host counts for no program.
    protocol = "socks5" if given.lower() == "socks" else given.lower()
    proxy = f"{protocol}://{userinfo}{at}{place.partition('/')[0]}"
    try:
        return parse_proxy(proxy)
    except ValueError as error:
        variable = next((name for name in (f"{kind}_proxy", f"{kind}_PROXY".upper()) if os.environ.get(name)), kind)
        raise ValueError(f"the environment variable {variable}: {error}") from None


def _spared(entries: str, scheme: str, host: str, port: int) -> bool:
    """Whether ``no_proxy`` has an entry for a URL: a domain with all below it, an address, a network, or ``*`` for all;
    each may have a port. Any other entry is skipped, as curl(1) does."""
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    for entry in re.split(r"[\s,]+", entries.lower()):
        kind, _, place = entry.rpartition("://")
        if kind in ("", "all", scheme) and (place == "*" or _covers(place, host, address, port)):
            return True
    return False


def _covers(place: str, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
    bracketed = re.fullmatch(r"\[([^]]*)\](/\d+)?(?::(\d+|\*))?", place)
    named = re.fullmatch(r"([^:]*)()(?::(\d+|\*))?", place)  # two colons are those of an IPv6 address
    found = bracketed or named
    if found and found[3] not in (None, "*", str(port)):
        return False
    name = f"{found[1]}{found[2] or ''}" if found else place
    if address:
        try:
            return address in ip_network(name, strict=False)
        except ValueError:
            return False
    try:
        domain = to_ascii(name.removeprefix("*").removeprefix("."))
    except InvalidNameError:
        return False
    return host == domain or host.endswith(f".{domain}")
