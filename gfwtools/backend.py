"""Which kind of kernel sets ``update`` writes for: what the configuration says, or what this host has."""

import shutil

from gfwtools.config import Config

__all__ = ["backend_of"]

_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def backend_of(config: Config) -> str:
    """``iptables`` (ipset) or ``nftables``. With ``auto``: nftables where there is nft and no ipset."""
    if config.host.backend != "auto":
        return config.host.backend
    if shutil.which("ipset", path=_PATH) or not shutil.which("nft", path=_PATH):
        return "iptables"
    return "nftables"
