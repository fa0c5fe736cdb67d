"""Which backend a host has: the one decision that update, up, bootstrap and the checks use.

It imports almost nothing: every update runs it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gfwtools.config.model import BackendName, Config
from gfwtools.errors import HostError
from gfwtools.render.backends import TEXTS
from gfwtools.system.privileges import missing_privilege, require_net_admin
from gfwtools.system.programs import find

if TYPE_CHECKING:
    from gfwtools.system.commands import Runner

__all__ = ["decide", "decide_here", "dnsmasq_fills", "require"]


class Needs(NamedTuple):
    """What a backend needs of a host."""

    tools: Mapping[str, str]
    """Program -> the package that has it."""
    question: tuple[str, ...]
    """A command that fails where the kernel has no such sets."""
    part: str
    """What the kernel then lacks, and the module that has it."""
    module: str

    def tool_lacking(self, runner: "Runner") -> HostError | None:
        """Which program is missing, and what to do."""
        for tool, package in self.tools.items():
            if not runner.has(tool):
                return HostError(f"{tool}: no such program", f"install {package}, or use the other backend")
        return None


_NEEDS: Mapping[BackendName, Needs] = {
    "iptables": Needs(
        {"ipset": "ipset", "iptables-save": "iptables", "iptables-restore": "iptables"},
        ("ipset", "list", "-n"),
        "ipset",
        "ip_set",
    ),
    "nftables": Needs({"nft": "nftables"}, ("nft", "list", "tables"), "nf_tables", "nf_tables"),
}


def decide(config: Config, runner: "Runner | None") -> BackendName:
    """The backend that is configured; with ``auto`` the first of iptables and nftables that works here.

    A command is run only where the programs of both are there. Where none works it is iptables: files can be made for
    another host.

    :param runner: None to run no command. What only a command can answer then counts as there.
    """
    if config.host.backend != "auto":
        return config.host.backend
    has = runner.has if runner else _has
    able = [name for name, needs in _NEEDS.items() if all(map(has, needs.tools))]
    if runner and len(able) > 1:
        fills = dnsmasq_fills(runner)
        works = (name for name in able if name in fills and not _kernel_lacks(name, runner))
        return next(works, able[0])
    return able[0] if able else next(iter(_NEEDS))


def decide_here(config: Config) -> BackendName:
    """:func:`decide`, with the commands of this host where they are needed."""
    if config.host.backend != "auto":
        return config.host.backend
    if config.root != Path("/"):  # this host's kernel and dnsmasq say nothing about another root
        return decide(config, None)
    from gfwtools.system.commands import System

    return decide(config, System())


def require(config: Config, runner: "Runner") -> BackendName:
    """:func:`decide`, for a host whose plumbing is to be set up or seen.

    :raises HostError: the backend that is configured cannot work here, or none can; or this is not root.
    """
    name = decide(config, runner)
    if config.host.backend != "auto":
        if problem := _lacks(name, runner):
            raise HostError(f"host.backend = {name}: {problem.what}", problem.remedy)
        return name
    fills = dnsmasq_fills(runner)
    if _lacks(name, runner) or name not in fills:
        reasons = (f"{b}: {_lacks(b, runner) or f'dnsmasq was built without {TEXTS[b].directive}'}" for b in _NEEDS)
        raise HostError(f"no backend can work here: {'; '.join(reasons)}")
    return name


def dnsmasq_fills(runner: "Runner") -> frozenset[BackendName]:
    """The backends whose sets this dnsmasq can fill (``dnsmasq --version``); all where it is not installed yet."""
    text = runner.ask("dnsmasq", "--version")
    if text is None:
        return frozenset(TEXTS)
    # "ipset" or "no-ipset"; versions before 2.87 do not know nftset at all.
    options = text.split()
    return frozenset(name for name, text in TEXTS.items() if text.directive in options)


def _lacks(name: BackendName, runner: "Runner") -> HostError | None:
    """The program or the part of the kernel that a backend lacks, and what to do.

    :raises HostError: this is not root, or root without its capability, and the kernel does not say.
    """
    needs = _NEEDS[name]
    if problem := needs.tool_lacking(runner):
        return problem
    if runner.ask(*needs.question) is not None:
        return None
    if not _is_root():
        raise HostError("this is not root, and the kernel shows its sets and rules to root only", "run it with sudo")
    require_net_admin()
    return HostError(f"the kernel has no {needs.part}", f"load {needs.module}, or use the other backend")


def _kernel_lacks(name: BackendName, runner: "Runner") -> bool:
    """Whether the kernel is certain to lack such sets: it answers only root, with its capability."""
    return _is_root() and runner.ask(*_NEEDS[name].question) is None and missing_privilege() is None


def _is_root() -> bool:
    return os.geteuid() == 0


def _has(program: str) -> bool:
    return find(program) is not None
