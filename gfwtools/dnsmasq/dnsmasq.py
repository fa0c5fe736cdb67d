"""dnsmasq as the resolver of this host: a main one, and in the split layout a second one for each policy."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.dnsmasq import conf, folders, origin, own_lines
from gfwtools.dnsmasq.check import check_configuration
from gfwtools.dnsmasq.daemon import Daemon, daemon_of, end, runs, send_sighup
from gfwtools.dnsmasq.manager import Manager, manager_of, restart_command
from gfwtools.dnsmasq.overrides import Override
from gfwtools.dnsmasq.resolver import Reading, Unread
from gfwtools.errors import GfwtoolsError, NoManagerError, ResolverError
from gfwtools.render.files import Role, role_of
from gfwtools.render.generation import Generation, generation_of
from gfwtools.system.commands import Runner

__all__ = ["Dnsmasq"]

#: Seconds for a daemon that answers to prove that it has read a file: SIGHUP takes effect some time after it is sent.
SETTLE = 2.0
#: The generation is in the first lines of a file, which may have a million.
_HEAD = 1024


@dataclass(frozen=True, slots=True)
class Dnsmasq:
    """The dnsmasqs of this host (:class:`gfwtools.dnsmasq.resolver.Resolver`)."""

    config: Config
    runner: Runner

    @property
    def main(self) -> Daemon:
        return daemon_of(self.config)

    def second(self, policy: PolicyConfig) -> Daemon | None:
        if self.config.dns.layout != "split":
            return None
        return Daemon("127.0.0.1", self.config.second_port(policy))

    def asks(self, policy: PolicyConfig) -> list[str]:
        second = self.second(policy)
        return [str(second)] if second else list(map(str, policy.upstream))

    def is_running(self) -> bool:
        return runs(self._pid_file) or self.main.is_up(0.5)

    def runs_second(self, policy: PolicyConfig) -> bool:
        return runs(self.config.paths.second_pid(policy.name))

    @property
    def _pid_file(self) -> Path:
        return self.config.paths.at(self.config.dns.pid_file)

    def role_of(self, policy: PolicyConfig, path: Path) -> Role:
        return role_of(self.config, policy, path)

    def check(self, files: Mapping[Path, bytes]) -> None:
        check_configuration(self.config, files, self.runner)

    # ------------------------------------------------------------ reading anew

    def can_reload(self) -> bool:
        return manager_of(self.config, self.runner) is not None

    def reload(self, due: Reading, *, was_up: bool) -> list[str]:
        manager = self._manager()
        restarts: list[tuple[str, Callable[[], None]]] = []
        for policy in due.second:
            restarts.append((f"the second dnsmasq of {policy.name}", partial(manager.restart_second, policy)))
        signalled = not due.main and due.servers and was_up and send_sighup(self._pid_file)
        if not signalled and (due.main or due.servers):
            restarts.append(("dnsmasq", manager.restart_main))
        if manager.name == "command":
            restarts = restarts[-1:]  # one command for all of them
        if restarts:
            self.make_folders()
        notes = []
        for what, restart in restarts:
            try:
                restart()
            except GfwtoolsError as error:
                raise ResolverError(f"restart {what}: {error.what}", error.remedy) from None
            notes.append(f"restarted {what}")
        if signalled:
            notes.append("dnsmasq has read its list again (SIGHUP)")
        return notes

    @property
    def manager(self) -> str:
        try:
            manager = manager_of(self.config, self.runner)
        except NoManagerError:
            return "none found"
        return manager.name if manager else "none"

    def restart(self) -> None:
        self._manager().restart_main()

    def restart_words(self, policy: str = "") -> str:
        return restart_command(self.config, policy)

    def stop_second(self, policy: str) -> None:
        self._manager().stop_second(policy)

    def end(self) -> bool:
        return end(self._pid_file)

    def end_second(self, policy: PolicyConfig) -> bool:
        return end(self.config.paths.second_pid(policy.name))

    def make_folders(self) -> None:
        folders.make(self.config)

    def remove_folders(self) -> None:
        folders.remove(self.config)

    def clear_caches(self) -> bool:
        for policy in self.config.policies:
            send_sighup(self.config.paths.second_pid(policy.name))
        return send_sighup(self._pid_file)

    def _manager(self) -> Manager:
        manager = manager_of(self.config, self.runner)
        if manager is None:
            raise ResolverError('dnsmasq is not restarted by gfwtools (dns.manager = "none")')
        return manager

    # ------------------------------------------------------------ proof that it was read

    def unread(self, policies: Sequence[PolicyConfig]) -> list[Unread]:
        """See :meth:`Resolver.unread`. A file that is missing is skipped. A daemon that does not answer has read
        nothing."""
        return [found for policy in policies for found in self._unread(policy)]

    def wait_until_read(self, policies: Sequence[PolicyConfig]) -> list[Unread]:
        """The same for daemons that were just restarted or signalled: they have :data:`SETTLE` seconds."""
        deadline = time.monotonic() + SETTLE
        while (found := self.unread(policies)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _unread(self, policy: PolicyConfig) -> Iterator[Unread]:
        main, second, paths = self.main, self.second(policy), self.config.paths
        first = self._missing(Role.MAIN, main, self.config.dnsmasq_conf(policy))
        if first:
            yield first
        elif second and (found := self._missing(Role.SERVERS, main, paths.servers(policy.name))):
            yield found
        # A rule of ours has it answer nobody else.
        if second and os.geteuid() == 0 and (found := self._missing(Role.SECOND, second, paths.second(policy.name))):
            yield found

    def _missing(self, role: Role, asked: Daemon, path: Path) -> Unread | None:
        """The file at ``path`` where the daemon has not read it; None where the daemon proves that it has."""
        try:
            with path.open("rb") as file:
                generation = generation_of(file.read(_HEAD))
        except OSError:
            return None
        if generation and _is_proven(asked, generation):
            return None
        who = f"the second dnsmasq at {asked}" if role is Role.SECOND else f"dnsmasq at {asked}"
        return Unread(path, role, f"{who} has not read the current {path}", self._remedy(role))

    def _remedy(self, role: Role) -> str:
        if role is Role.MAIN and not conf.read(self.config, only=("port",)).reads_conf_dir:
            line = f"conf-dir={self.config.dns.conf_dir.rstrip('/')}/,*.conf"
            return f"add {line} to {conf.main_file(self.config)}, then: {restart_command(self.config)}"
        return "gfwtools update --reload"

    # ------------------------------------------------------------ proof of origin

    def overrides(self, name: str = "") -> list[Override]:
        found = own_lines.find(self.config, self.runner)
        return own_lines.deciding(self.config, found, name) if name else found

    def remedy_for(self, overrides: Sequence[Override]) -> str:
        return own_lines.remedy(self.config, overrides)

    def changing(self, name: str, policy: PolicyConfig, clean: Sequence[Address]) -> list[Override]:
        return own_lines.changing_answers(self.config, name, policy, clean)

    def not_read(self) -> list[str]:
        return own_lines.not_read(self.config)

    def strangers(self, policy: PolicyConfig, name: str) -> tuple[str, ...] | None:
        return origin.strangers(self.main, name, policy, self.asks(policy))

    def answers_itself(self, name: str) -> bool:
        return origin.answers_itself(self.main, name)


def _is_proven(asked: Daemon, generation: Generation) -> bool:
    if generation.text:
        return asked.ask(generation.name, "TXT").texts == (generation.text,)
    return asked.ask(generation.name).rcode == "NXDOMAIN"
