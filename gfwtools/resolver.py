"""dnsmasq: check its configuration before it is in place, make it read it, and ask it what it does."""

import os
import re
import shlex
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gfwtools import dnsmasq_conf
from gfwtools.config.model import Config, PolicyConfig
from gfwtools.dnsmasq_copy import DnsmasqCopy
from gfwtools.errors import ResolverError
from gfwtools.system.commands import Command, CommandError, Runner

if TYPE_CHECKING:
    from dns.message import Message

__all__ = [
    "Daemon",
    "Manager",
    "check_configuration",
    "daemon_of",
    "end",
    "hang_up",
    "manager_of",
    "restart_command",
    "runs",
]

#: Seconds within which dnsmasq must answer after a restart; with 110,000 pairs of lines it takes one to read them.
START_TIMEOUT = 10.0
#: Seconds for one question.
QUERY_TIMEOUT = 2.0


# ---------------------------------------------------------------- the configuration


def check_configuration(config: Config, files: Mapping[Path, bytes], runner: Runner) -> None:
    """Have dnsmasq check the host's whole configuration with ``files`` in place of what is there (dnsmasq(8), --test).

    :raises ResolverError: it would not start; the message is dnsmasq's, and says whether that is news.
    """
    if not runner.has("dnsmasq"):
        raise ResolverError("dnsmasq: no such program; install dnsmasq-base")
    problem = _test_with(config, files, runner)
    if problem is None:
        return
    before = _test_with(config, {}, runner)
    if before is not None:
        raise ResolverError(f"dnsmasq's configuration was broken before: {before}; mend that, then run this again")
    raise ResolverError(f"dnsmasq would not start with the new files: {problem}")


def _test_with(config: Config, files: Mapping[Path, bytes], runner: Runner) -> str | None:
    """What dnsmasq says against the configuration with ``files`` in it; None where it would start."""
    with tempfile.TemporaryDirectory(prefix="gfwtools-") as folder:
        copy = DnsmasqCopy(config, files, Path(folder))
        # --test does not look into a servers-file: it is checked as a configuration of its own, as are those of the
        # second dnsmasqs.
        others = [copy.other(path, data) for path, data in files.items() if path.parent == config.paths.etc / "dns"]
        for arguments in (copy.arguments(), *others):
            try:
                runner.read("dnsmasq", "--test", *arguments)
            except CommandError as error:
                return copy.named(str(error).partition(": ")[2])
    return None


# ---------------------------------------------------------------- the running daemon


@dataclass(frozen=True, slots=True)
class Daemon:
    """A dnsmasq that answers at an address."""

    address: str = "127.0.0.1"
    port: int = 53

    def __str__(self) -> str:
        return f"{self.address}#{self.port}"

    def ask(
        self, name: str, kind: str = "A", *, chaos: bool = False, timeout: float = QUERY_TIMEOUT
    ) -> list[str] | None:
        """The data of the answer's records of ``kind``; None where no answer came within ``timeout`` seconds."""
        import dns.rdatatype

        answer = self._answer(name, kind, chaos=chaos, timeout=timeout)
        if answer is None:
            return None
        wanted = dns.rdatatype.from_text(kind)
        return [record.to_text() for rrset in answer.answer if rrset.rdtype == wanted for record in rrset]

    def rcode(self, name: str) -> str:
        """NOERROR, NXDOMAIN, REFUSED, ... for the addresses of ``name``; empty where no answer came."""
        import dns.rcode

        answer = self._answer(name, "A", chaos=False, timeout=QUERY_TIMEOUT)
        return "" if answer is None else dns.rcode.to_text(answer.rcode())

    def _answer(self, name: str, kind: str, *, chaos: bool, timeout: float) -> "Message | None":
        import dns.exception
        import dns.message
        import dns.query

        query = dns.message.make_query(name, kind, "CH" if chaos else "IN")
        try:
            return dns.query.udp(query, self.address, timeout=timeout, port=self.port)
        except (dns.exception.DNSException, OSError):
            return None

    def is_up(self, timeout: float = QUERY_TIMEOUT) -> bool:
        """Whether dnsmasq itself answers: version.bind is a question that it asks nobody else."""
        return self.ask("version.bind", "TXT", chaos=True, timeout=timeout) is not None

    def wait(self, timeout: float = START_TIMEOUT) -> bool:
        """Wait until it answers."""
        deadline = time.monotonic() + timeout
        while not self.is_up(timeout=0.25):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def queries(self) -> dict[str, int]:
        """How many questions each upstream has had: ``8.8.8.8#53`` -> number (dnsmasq(8), servers.bind)."""
        found = {}
        for text in self.ask("servers.bind", "TXT", chaos=True) or ():
            for entry in shlex.split(text):
                server, _, numbers = entry.partition(" ")
                first = numbers.split(" ")[0]
                if first.isdigit():
                    found[server] = int(first)
        return found


def daemon_of(config: Config) -> Daemon:
    """Where the host's dnsmasq answers, by its own configuration."""
    conf = dnsmasq_conf.read(
        # The policies' files have no such line, and may have a million others.
        config,
        skip={f"{policy.name}.conf" for policy in config.policies},
        only=("port", "listen-address"),
    )
    ports = [value for name, value in conf.directives if name == "port" and re.fullmatch(r"[0-9]{1,5}", value)]
    words = [word.strip() for name, value in conf.directives if name == "listen-address" for word in value.split(",")]
    listed = [word for word in words if re.fullmatch(r"[0-9a-fA-F.:]+", word)]
    chosen = "127.0.0.1" if not listed or "127.0.0.1" in listed else listed[0]
    return Daemon(chosen, int(ports[-1]) if ports else 53)


def hang_up(pid_file: Path) -> bool:
    """Send SIGHUP to the dnsmasq of ``pid_file``: it reads its ``servers-file`` again and clears its cache.

    :returns: False where the file names no dnsmasq of this network namespace.
    """
    return _signal(pid_file, signal.SIGHUP)


def end(pid_file: Path) -> bool:
    """End the dnsmasq of ``pid_file``.

    :returns: False where the file names no dnsmasq of this network namespace.
    """
    return _signal(pid_file, signal.SIGTERM)


def runs(pid_file: Path) -> bool:
    """Whether ``pid_file`` names a dnsmasq of this network namespace."""
    return _signal(pid_file, 0)


def _signal(pid_file: Path, number: int) -> bool:
    try:
        pid = int(pid_file.read_text())
        descriptor = os.pidfd_open(pid)
    except (OSError, ValueError, OverflowError):
        return False
    try:
        # The descriptor is looked up first: whoever has the number now keeps it while we look who it is.
        if Path(f"/proc/{pid}/comm").read_text().strip() != "dnsmasq":
            return False
        if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


# ---------------------------------------------------------------- who restarts it


class Manager(Protocol):
    """Whoever starts and stops the daemons of this host."""

    @property
    def name(self) -> str:
        """What ``dns.manager`` calls it."""

    def restart_main(self) -> None:
        """:raises CommandError: it failed."""

    def restart_second(self, policy: PolicyConfig) -> None:
        """Restart (or start) the second dnsmasq of a policy.

        :raises CommandError: it failed.
        """

    def stop_second(self, policy: str) -> None:
        """Stop it, where it runs."""


@dataclass(frozen=True, slots=True)
class Systemd:
    runner: Runner
    name: str = "systemd"

    def restart_main(self) -> None:
        self._do("restart", "dnsmasq.service")

    def restart_second(self, policy: PolicyConfig) -> None:
        self._do("restart", f"gfwtools-dns@{policy.name}.service")

    def stop_second(self, policy: str) -> None:
        self._do("stop", f"gfwtools-dns@{policy}.service")

    def _do(self, verb: str, unit: str) -> None:
        self.runner.change(Command(("systemctl", verb, unit)))


@dataclass(frozen=True, slots=True)
class OpenRC:
    runner: Runner
    name: str = "openrc"

    def restart_main(self) -> None:
        self._do("dnsmasq", "restart")

    def restart_second(self, policy: PolicyConfig) -> None:
        self._do(f"gfwtools-dns.{policy.name}", "restart")

    def stop_second(self, policy: str) -> None:
        self._do(f"gfwtools-dns.{policy}", "--ifstarted", "stop")

    def _do(self, service: str, *verb: str) -> None:
        self.runner.change(Command(("rc-service", *verb[:-1], service, verb[-1])))


@dataclass(frozen=True, slots=True)
class OwnCommand:
    """The command of ``dns.restart``; it restarts every dnsmasq of the host."""

    runner: Runner
    argv: Sequence[str]
    name: str = "command"

    def restart_main(self) -> None:
        self.runner.change(Command(tuple(self.argv)))

    def restart_second(self, policy: PolicyConfig) -> None:
        self.restart_main()

    def stop_second(self, policy: str) -> None:
        pass  # the command starts what the configuration names


def manager_of(config: Config, runner: Runner) -> Manager | None:
    """Who restarts dnsmasq; None for ``dns.manager = "none"``.

    :raises ResolverError: nobody is found who could.
    """
    kind = config.dns.manager
    if kind == "auto":
        if Path("/run/systemd/system").is_dir() and runner.has("systemctl"):
            kind = "systemd"
        elif Path("/run/openrc").is_dir() and runner.has("rc-service"):
            kind = "openrc"
        elif config.dns.restart:
            kind = "command"
        else:
            raise ResolverError(
                "neither systemd nor OpenRC runs here, so dnsmasq cannot be reloaded; in config.toml set "
                'dns.manager = "command" with dns.restart, or "none"'
            )
    if kind == "systemd":
        return Systemd(runner)
    if kind == "openrc":
        return OpenRC(runner)
    return OwnCommand(runner, config.dns.restart) if kind == "command" else None


def restart_command(config: Config, second: str = "") -> str:
    """What somebody types to restart the main dnsmasq, or the second one of the policy ``second``."""
    kind = config.dns.manager
    if kind == "auto":
        kind = "systemd"
        if not config.paths.at("/run/systemd/system").is_dir():
            kind = "openrc" if config.paths.at("/run/openrc").is_dir() else "command" if config.dns.restart else kind
    if kind == "systemd":
        return f"systemctl restart gfwtools-dns@{second}" if second else "systemctl restart dnsmasq"
    if kind == "openrc":
        return f"rc-service gfwtools-dns.{second} restart" if second else "rc-service dnsmasq restart"
    return shlex.join(config.dns.restart) if kind == "command" else "restart dnsmasq"
