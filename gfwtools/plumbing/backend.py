"""Which kind of kernel sets ``update`` writes for: what the configuration says, or what this host has."""

import os

from gfwtools.config.model import Config

__all__ = ["backend_of"]

_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
_IPTABLES_TOOLS = ("ipset", "iptables-save", "iptables-restore")


def backend_of(config: Config) -> str:
    """``iptables`` (ipset) or ``nftables``. With ``auto``: nftables with nft, and not all that iptables needs.

    It has to be what :func:`gfwtools.plumbing.facts.choose_backend` sets up, without running a command.
    """
    if config.host.backend != "auto":
        return config.host.backend
    return "nftables" if _has("nft") and not all(map(_has, _IPTABLES_TOOLS)) else "iptables"


def _has(program: str) -> bool:
    # Not shutil.which(): importing shutil brings three compressors along, for a third of the time of a check.
    return any(os.access(f"{folder}/{program}", os.X_OK) for folder in _FOLDERS)
