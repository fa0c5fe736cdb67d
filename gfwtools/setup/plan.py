"""Everything that bootstrap will do, as far as it is known before: facts of the host, and decisions."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from gfwtools.config.load import loads
from gfwtools.config.model import Config, Paths, is_url
from gfwtools.config.template import template
from gfwtools.config.trust import require_trusted, require_trusted_file
from gfwtools.dnsmasq import service, version
from gfwtools.dnsmasq.conf import MAIN_CONF
from gfwtools.errors import ConfigError, HostError
from gfwtools.plumbing import updown
from gfwtools.plumbing.choice import decide, require
from gfwtools.setup import boot, files, nftables_service, preflight, resolver_edits, resolver_facts
from gfwtools.setup.files import FileEdit
from gfwtools.setup.resolv_conf_writers import snippet
from gfwtools.setup.resolver_facts import ResolverFacts
from gfwtools.storage import atomic
from gfwtools.system.commands import Command, Runner
from gfwtools.system.init import Init, detect_init
from gfwtools.system.programs import find
from gfwtools.system.questions import RESOLV_CONF
from gfwtools.system.step import Step, script

__all__ = ["Choices", "Planned", "Refused", "boot_steps", "missing_lists", "mounts_in_the_way", "plan"]

#: Where the program is after `make install`; a virtual environment has it beside its Python.
PROGRAM = "gfwtools"
#: The first line of a script that pip has made, or `make install`.
_SCRIPT = re.compile(rb"#!(/[^\s]*/python[0-9.]*)(?: -I)?\n")
USER_LISTS = {
    "allow": "# Domains that always go directly, one a line. `gfwtools allow NAME` adds one and reloads.\n"
    "# After a change with an editor: gfwtools update --offline --reload\n",
    "deny": "# Domains that always go through the tunnel, one a line. `gfwtools deny NAME` adds one and reloads.\n"
    "# After a change with an editor: gfwtools update --offline --reload\n",
}
#: Files that belong to the host, not to gfwtools: bootstrap asks the owner before it changes them.
HOSTS_OWN = (
    RESOLV_CONF,
    MAIN_CONF,
    "/etc/dhcpcd.enter-hook",
    "/etc/resolvconf.conf",
    "/etc/resolvconf/resolv.conf.d/head",
    "/etc/resolvconf/interface-order",
)


class Refused(Exception):
    """Problems were found, and nothing was changed. Each of ``problems`` is a line with its remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Choices:
    """The options of the command line; None for an option that was not given."""

    interface: str | None = None
    gateway: bool | None = None
    backend: str | None = None
    layout: str | None = None
    warm: bool | None = None

    def keys(self) -> dict[str, dict[str, object]]:
        """The same as keys of the configuration."""
        said: dict[str, dict[str, object]] = {
            "host": {"gateway": self.gateway, "backend": self.backend},
            "dns": {"layout": self.layout, "warm": self.warm},
            "policy": {"interface": self.interface},
        }
        return {table: {key: value for key, value in keys.items() if value is not None} for table, keys in said.items()}


@dataclass(frozen=True)
class Planned:
    """Everything that bootstrap will do, as far as it is known before."""

    config: Config
    config_path: Path
    config_text: str | None
    """The configuration to be written; None where the user's file stays unchanged."""
    init: Init
    edits: list[FileEdit]
    resolver_steps: list[Step]
    boot_steps: list[Step]
    plumbing_steps: list[Step]
    is_first: bool = True
    """No earlier run has left anything: the host is in the state from before gfwtools."""
    notes: list[str] = field(default_factory=list)

    @property
    def asks(self) -> list[str]:
        """The changes that the host's owner must agree to, in words; empty where the host's own files stay."""
        return [
            f"{edit.path}: {edit.why}"
            for edit in files.differing(self.edits, self.config.paths)
            if edit.path in HOSTS_OWN
        ]

    def script(self) -> str:
        """The files and commands of the plan, as a shell script to read."""
        lines = ["#!/bin/sh", "# What gfwtools bootstrap does here, in this order.", ""]
        if self.config_text is not None:
            edit = FileEdit(str(self.config_path), self.config_text.encode(), "the configuration")
            lines += [*script([_as_step(edit)]).splitlines()[2:], ""]
        for path, data in missing_lists(self.config).items():
            edit = FileEdit(str(path), data, "a list of your own")
            lines += [*script([_as_step(edit)]).splitlines()[2:], ""]
        lines.append("gfwtools update")
        lines += script(self.plumbing_steps).splitlines()[2:]
        written = [_as_step(edit) for edit in files.differing(self.edits, self.config.paths)]
        lines += script([*written, *self.resolver_steps, *self.boot_steps]).splitlines()[2:]
        lines += ["", "gfwtools update --offline --reload", "gfwtools check host"]
        return "\n".join(lines) + "\n"


def _as_step(edit: FileEdit) -> Step:
    """The writing of a file as commands."""
    folder = Command(("mkdir", "-p", str(Path(edit.path).parent)))
    text = edit.data.decode("utf-8", "surrogateescape")
    return Step(f"write {edit.path}", edit.why, (folder, Command(("tee", edit.path), text)), ())


def plan(config_path: Path, root: Path, choices: Choices, init: Init | Literal["auto"], runner: Runner) -> Planned:
    """Read the host, and decide what must be done.

    :raises Refused: problems were found; it carries all of them.
    :raises ConfigError: the configuration, with the choices in it, is not valid.
    """
    require_trusted_file(config_path, root)
    text, is_new = _configuration(config_path, choices)
    config = loads(text, str(config_path), root)
    require_trusted(config)
    chosen = detect_init(root) if init == "auto" else init
    problems = preflight.preflight(config, runner, init=chosen)
    if problems:
        raise Refused([str(problem) for problem in problems])
    if config.host.backend == "auto" and is_new:
        # Written down: a program that is installed later does not change it.
        text = _with_value(text, "backend", require(config, runner))
        config = loads(text, str(config_path), root)
    facts = resolver_facts.observe(config, runner)
    has_cron = config.paths.at(boot.CRON_D).is_dir()
    is_systemd = chosen == "systemd"
    at_boot = boot.boot_files(
        config,
        chosen,
        program(),
        cron=has_cron,
        networkd=is_systemd and boot.has_networkd(config, runner),
        nftables=is_systemd and decide(config, runner) == "nftables" and nftables_service.flushes(config, runner),
    )
    edits = [*resolver_edits.edits(config, facts), *at_boot]
    stuck = mounts_in_the_way(config.paths, [edit.path for edit in files.differing(edits, config.paths)])
    if stuck:
        raise Refused(stuck)
    seen = updown.look(config, runner)
    is_first = snippet(config) not in files.recorded(config.paths)
    return Planned(
        config=config,
        config_path=config_path,
        config_text=text if not config_path.exists() or config_path.read_text("utf-8") != text else None,
        init=chosen,
        edits=edits,
        resolver_steps=[replace(step, undo=()) for step in resolver_edits.steps(facts)],
        boot_steps=boot_steps(config, chosen, runner, is_first=is_first),
        is_first=is_first,
        plumbing_steps=seen.steps,
        notes=[*seen.interfaces_down(config), *_left_out(config, facts), *version.shortcomings(config, facts.version)],
    )


def _left_out(config: Config, facts: ResolverFacts) -> list[str]:
    """The networks where a gateway does not listen, in words."""
    return list(map(str, facts.others)) if config.host.gateway and not config.dns.listen else []


def boot_steps(config: Config, init: Init, runner: Runner, *, is_first: bool) -> list[Step]:
    ours = boot.boot_steps(config, init, boot.observe(config, init, runner))
    return [*ours, *service.steps(config, init, service.observe(config, init, runner), is_first=is_first)]


def mounts_in_the_way(paths: Paths, changed: Iterable[str]) -> list[str]:
    """The files that are mounts of their own, as in containers, each with the remedy. A mount cannot be replaced."""
    mounts = [place for path in changed if atomic.is_mount(place := paths.at(path))]
    return [f"{place} is a mount, and cannot be replaced; run: umount {place}" for place in mounts]


def _configuration(path: Path, choices: Choices) -> tuple[str, bool]:
    """The text of the configuration with the choices in it, and whether it is a new one.

    A key that the user has written is never changed. A key that is missing is added; all other text stays unchanged.

    :raises ConfigError: a choice contradicts what the user has written.
    """
    said = choices.keys()
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        text = template()
        for keys in said.values():
            for key, value in keys.items():
                text = _with_value(text, key, value)
        return text, True
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    config = loads(text, str(path))
    has = {"host": config.host, "dns": config.dns, "policy": config.policies[0]}
    news = {
        table: {key: value for key, value in keys.items() if getattr(has[table], key) != value}
        for table, keys in said.items()
    }
    return _amended(text, news, path), False


def _amended(text: str, said: dict[str, dict[str, object]], path: Path) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    changed = False
    for table, keys in said.items():
        for key, value in keys.items():
            where, name = (document, table)
            if table == "policy":
                policies = document.setdefault("policy", tomlkit.table(is_super_table=True))
                where, name = policies, next(iter(policies), "gfwlist")
            if name not in where:
                where[name] = tomlkit.table()
            shown = f"{'policy.' if table == 'policy' else ''}{name}.{key}"
            if key in where[name]:
                if where[name][key] != value:
                    raise ConfigError(
                        f"{path}: {shown} is {where[name][key]!r} there, and bootstrap does not change what you have "
                        "written",
                        "edit it, or leave the option out",
                    )
            else:
                where[name][key] = value
                changed = True
    return tomlkit.dumps(document) if changed else text


def _with_value(text: str, key: str, value: object) -> str:
    """The text of a new configuration with another value for ``key``, which it has once."""
    shown = str(value).lower() if isinstance(value, bool) else f'"{value}"'
    lines = [f"{key} = {shown}" if line.startswith(f"{key} = ") else line for line in text.split("\n")]
    return "\n".join(lines)


def program() -> str:
    """The program as boot scripts call it: beside this Python, or where the search path has it.

    Its own Python runs it isolated (-I): no variable of root's has it run another file.
    """
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.exists() else find(PROGRAM)
    if not found:
        raise HostError("the program gfwtools is not in the search path", "install it with: make install")
    link = Path("/usr/local/bin") / PROGRAM
    # `make install` links it there, and a later one may move what the link points to.
    called = str(link) if link.exists() and link.resolve() == Path(found).resolve() else found
    python = _SCRIPT.match(Path(found).read_bytes()[:200])
    return f"{python[1].decode()} -I {called}" if python else called


def missing_lists(config: Config) -> dict[Path, bytes]:
    """The user's own lists that are not there yet, each with its first content."""
    named = [
        (kind, config.paths.at(file))
        for policy in config.policies
        for kind, listed in (("allow", policy.allow), ("deny", policy.deny))
        for file in listed
        if not is_url(file)
    ]
    return {path: USER_LISTS[kind].encode() for kind, path in named if not path.exists()}
