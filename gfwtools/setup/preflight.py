"""Finds every problem that stops ``bootstrap``, and reports them together, each with a remedy. It changes nothing."""

import os

from gfwtools.config.model import Config
from gfwtools.setup import interfaces, ports, programs, taken, wg_quick
from gfwtools.setup.problem import Problem
from gfwtools.system.commands import Runner
from gfwtools.system.init import Init, detect_init
from gfwtools.system.privileges import missing_privilege

__all__ = ["Problem", "preflight"]

_TOOLS = {"ip": "iproute2", "sysctl": "procps"}


def preflight(
    config: Config, runner: Runner, *, is_root: bool | None = None, init: Init | None = None
) -> list[Problem]:
    """Every problem that was found.

    :param is_root: whether the process runs as root; by default this process.
    :param init: the init system that is to start gfwtools; by default the one that runs this host.
    """
    if is_root is None:
        is_root = os.geteuid() == 0
    problems = [] if is_root else [Problem("this is not root", "run it as root: sudo gfwtools bootstrap")]
    missing = [tool for tool in _TOOLS if not runner.has(tool)]
    problems += [Problem(f"{tool}: no such program", f"install {_TOOLS[tool]}") for tool in missing]
    problems += programs.dnsmasq(config, detect_init(config.root), runner)
    problems += programs.openrc(config, init or detect_init(config.root), runner)
    if is_root and (privilege := missing_privilege()):
        problems.append(Problem(privilege.what, privilege.remedy))
    elif is_root:
        problems += programs.backend(config, runner)
    if "ip" not in missing:
        wrong = interfaces.not_tunnels(config, runner)
        quick = [(name, problem) for name, problem in wg_quick.all_traffic(config, runner) if name not in wrong]
        problems += interfaces.missing(config, runner)
        problems += wrong.values()
        problems += [problem for _, problem in quick]
        problems += taken.routing(config, runner)
        problems += taken.marks(config, runner, {name for name, _ in quick})
        problems += interfaces.families(config, runner)
    problems += ports.resolver(config, runner)
    return list(dict.fromkeys(problems))
