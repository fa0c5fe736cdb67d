"""The programs and the kernel that gfwtools needs: what is missing, too old or built without a set."""

import os
import re
from collections.abc import Iterator

from gfwtools.config.model import Config
from gfwtools.dnsmasq import service
from gfwtools.errors import HostError
from gfwtools.plumbing.backend import working_backend
from gfwtools.plumbing.choice import dnsmasq_fills
from gfwtools.render.backends import TEXTS
from gfwtools.setup.boot import LOCAL
from gfwtools.setup.problem import Problem
from gfwtools.system.commands import Runner
from gfwtools.system.init import INIT_D, Init

__all__ = ["backend", "dnsmasq", "openrc"]

#: The oldest that is tried.
OLDEST_DNSMASQ = (2, 80)


def dnsmasq(config: Config, init: Init, runner: Runner) -> Iterator[Problem]:
    text = runner.ask("dnsmasq", "--version") if runner.has("dnsmasq") else None
    if text is None:
        yield Problem("dnsmasq: no such program", "install dnsmasq")
        return
    match = re.search(r"\bversion (\d+)\.(\d+)", text, re.IGNORECASE)
    if match and (int(match[1]), int(match[2])) < OLDEST_DNSMASQ:
        yield Problem(f"dnsmasq {match[1]}.{match[2]} is too old", "install 2.80 or later")
    fills = dnsmasq_fills(runner)
    if not fills:
        yield Problem(
            "dnsmasq was built without ipset and nftset: it can fill no set",
            "install one whose `dnsmasq --version` names one of them",
        )
    elif config.host.backend != "auto" and config.host.backend not in fills:
        option = TEXTS[config.host.backend].directive
        other = next(name for name in TEXTS if name != config.host.backend)
        yield Problem(
            f"dnsmasq was built without {option}, which host.backend = {config.host.backend} needs",
            f"give --backend {other}, or install a dnsmasq with {option}",
        )
    there = service.observe(config, init, runner)
    if there.live and there.masked:
        yield Problem(f"{there.service} is masked: it cannot be started", f"run: systemctl unmask {there.service}")
    elif there.live and not there.is_there:
        yield Problem(
            f"{there.service}: there is no such service, and dnsmasq has to be there at boot",
            "install the package dnsmasq (Debian's dnsmasq-base has none), or set dns.manager in config.toml",
        )


def openrc(config: Config, init: Init, runner: Runner) -> Iterator[Problem]:
    """Debian's package of OpenRC leaves out services that OpenRC itself has."""
    if init != "openrc" or not config.paths.at("/run/openrc/softlevel").exists():
        return
    missing = [tool for tool in ("rc-service", "rc-update") if not runner.has(tool)]
    yield from (Problem(f"{tool}: no such program", "install openrc") for tool in missing)
    if not os.access(config.paths.at(f"{INIT_D}/{LOCAL}"), os.X_OK):
        yield Problem(
            f"OpenRC has no service {LOCAL} here, which runs /etc/local.d at boot (Debian's package leaves it out)",
            f"add {INIT_D}/{LOCAL}, for which see docs/troubleshooting.md; or give --init none, and run `gfwtools up` "
            "at each boot yourself",
        )


def backend(config: Config, runner: Runner) -> Iterator[Problem]:
    """Checks the tools and the kernel; the message names what to install or to load."""
    try:
        for chain, rename in working_backend(config, runner).foreign_chains(runner).items():
            yield Problem(f"chain {chain} is not ours, and gfwtools would empty it", f"rename it: {rename}")
    except HostError as error:
        both = "install ipset and iptables, or nftables, with a kernel and a dnsmasq that have the same"
        yield Problem(error.what, both if config.host.backend == "auto" else error.remedy or both)
