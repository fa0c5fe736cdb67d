"""Files in which a firewall keeps the rules that it loads at boot. Who saves them saves ours with the host's own."""

from gfwtools.config.model import Paths
from gfwtools.errors import StoreError
from gfwtools.storage import atomic

__all__ = ["notes"]

#: File -> the command that writes it anew.
_SAVED = {
    "/etc/iptables/rules.v4": "netfilter-persistent save",
    "/etc/iptables/rules.v6": "netfilter-persistent save",
    "/etc/nftables.conf": "take them out with an editor",
}


def notes(paths: Paths) -> list[str]:
    """What is left of ours in such files, in words: after a teardown it must not come back with the next boot."""
    found = []
    for path, remedy in _SAVED.items():
        try:
            data = atomic.read(paths.at(path)) or b""
        except StoreError:
            continue
        # The comment of each of our rules, and the name of our table of nft.
        if b'"gfwtools: ' in data or b"table inet gfwtools" in data:
            found.append(f"{path} was saved with rules of gfwtools in it, and is loaded at boot; {remedy}")
    return found
