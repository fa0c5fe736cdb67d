"""The user's own lines that decide listed names in place of ours: read from every file that dnsmasq reads."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.dnsmasq import conf
from gfwtools.dnsmasq.manager import restart_command
from gfwtools.dnsmasq.overrides import CHANGING, DIRECTIVES, Asked, Listed, Override, changing, in_conf, in_hosts
from gfwtools.plumbing.choice import decide
from gfwtools.render.backends import TEXTS
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner

__all__ = ["changing_answers", "deciding", "find", "not_read", "remedy"]

HOSTS = "/etc/hosts"
#: A line about one domain, as almost all lines of a long file are.
_ONE_DOMAIN = re.compile(r"^(?:server|local|address|ipset|nftset)=/([a-z0-9_.-]*[a-z0-9_-])/[^/\n]*$", re.MULTILINE)
_HOSTS_FILES = ("addn-hosts", "hostsdir")


def find(config: Config, runner: Runner) -> list[Override]:
    """Every line of the user's that decides a listed name, in the order in which dnsmasq reads them.

    /etc/hosts counts also with ``no-hosts``: the C library of this host reads it before it asks dnsmasq.

    :raises StoreError: a file is there and cannot be read.
    """
    listed = _listed(config)
    ours = {f"{policy.name}.conf" for policy in config.policies}
    only = (*DIRECTIVES, *_HOSTS_FILES, "servers-file", "expand-hosts")
    edit = partial(_listed_alone, listed)
    read = conf.read(config, skip=ours, only=only, edit=edit)
    asked = {policy.name: _asked(config, policy, runner) for policy in config.policies}
    found = list(in_conf(read.lines, read.before_skipped or 0, listed, asked))
    for line in read.lines:
        if line.name == "servers-file":
            found += in_conf(conf.read_file(config, line.value, DIRECTIVES, edit), 0, listed, asked)
    expanded = any(line.name == "expand-hosts" for line in read.lines)
    domains = [line.value.strip().lower() for line in read.lines if line.name == "domain" and "," not in line.value]
    added = domains[-1] if expanded and domains else ""
    for path in _hosts_files(config, read):
        text = (atomic.read(config.paths.follow(config.paths.at(path))) or b"").decode("utf-8", "surrogateescape")
        found += in_hosts(path, text, listed, added)
    if config.dns.layout == "split":
        for policy in config.policies:
            found += _in_second(config, policy, listed, runner)
    return found


def changing_answers(config: Config, name: str, policy: PolicyConfig, clean: Sequence[Address]) -> list[Override]:
    """The lines of the user's that change the clean resolver's answer for ``name``, with its addresses ``clean``.

    :raises StoreError: a file is there and cannot be read.
    """
    lines = list(conf.read(config, only=CHANGING).lines)
    if config.dns.layout == "split":
        second = f"/{config.paths.second(policy.name).relative_to(config.root)}"
        lines += conf.read_file(config, second, CHANGING)
    return list(changing(lines, name, policy.name, clean))


def not_read(config: Config) -> list[str]:
    """The lines with a program that prints configuration: what it prints is known to dnsmasq alone.

    :raises StoreError: a file is there and cannot be read.
    """
    lines = conf.read(config, only=("conf-script",)).lines
    return [f"{line.file} line {line.number}: {line.name}={line.value}" for line in lines]


def deciding(config: Config, overrides: Sequence[Override], name: str) -> list[Override]:
    """Those of the overrides that decide ``name``."""
    if not overrides:
        return []
    listed = _listed(config)
    return [override for override in overrides if listed.decides(override, name)]


def remedy(config: Config, overrides: Sequence[Override]) -> str:
    """What to do against the first override, or against all of them where they are in one file."""
    first = overrides[0]
    file = first.file
    is_second = config.paths.at(file) == config.paths.second(first.policy)
    restart = restart_command(config, first.policy if is_second else "")
    if len(overrides) > 1 and all(override.file == file for override in overrides):
        return f"remove these lines from {file}, then: {restart}"
    if file == conf.COMMAND_LINE:
        return f"remove --{first.text} from {file}, then: {restart}"
    line = f"line {first.number} of {file}"
    if first.in_hosts:  # other names may stand in the same line
        line = f"{first.domain} from {line}"
    return f"remove {line}, then: {restart}"


def _listed(config: Config) -> Listed:
    tunnelled = {policy.name: _words(config.paths.domains(policy.name)) for policy in config.policies}
    freed = [name for policy in config.policies for name in _words(config.paths.direct(policy.name))]
    return Listed(tunnelled, freed)


def _listed_alone(listed: Listed, text: str) -> str:
    """A file with an empty line for each line about a name that is not listed: a user may have 100,000 of them."""
    return _ONE_DOMAIN.sub(lambda line: line[0] if listed.nearest(line[1])[1] else "", text)


def _words(path: Path) -> list[str]:
    return (atomic.read(path) or b"").decode().split()


def _asked(config: Config, policy: PolicyConfig, runner: Runner) -> Asked:
    if config.dns.layout == "split":
        return Asked(frozenset({f"127.0.0.1#{config.second_port(policy)}"}))
    return _asked_by_last(config, policy, runner)


def _asked_by_last(config: Config, policy: PolicyConfig, runner: Runner) -> Asked:
    """What the dnsmasq does that asks the clean resolver and fills the set."""
    servers = {f"{upstream}{way}" for upstream in policy.upstream for way in ("", f"@{policy.interface}")}
    sets = TEXTS[decide(config, runner)].names(policy)
    return Asked(frozenset(servers), sets.directive, frozenset(sets.value.split(",")))


def _in_second(config: Config, policy: PolicyConfig, listed: Listed, runner: Runner) -> Iterator[Override]:
    """Lines that were added to the file of the second dnsmasq. Our own have no domain."""
    path = f"/{config.paths.second(policy.name).relative_to(config.root)}"
    lines = conf.read_file(config, path, DIRECTIVES)
    yield from in_conf(lines, None, listed, {policy.name: _asked_by_last(config, policy, runner)})


def _hosts_files(config: Config, read: conf.DnsmasqConf) -> Iterator[str]:
    yield HOSTS
    for line in read.lines:
        if line.name in _HOSTS_FILES:
            place = config.paths.at(line.value)
            if place.is_dir():
                names = sorted(entry.name for entry in place.iterdir() if entry.is_file())
                yield from (f"{line.value.rstrip('/')}/{name}" for name in names if conf.passes(name, ()))
            elif place.is_file():
                yield line.value
