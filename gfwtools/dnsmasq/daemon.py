"""A running dnsmasq: its address, its answers, and the signals for it."""

import os
import re
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from gfwtools.config.model import Config
from gfwtools.dnsmasq import conf
from gfwtools.dnsmasq.client import Reply, ask

__all__ = ["Daemon", "daemon_of", "end", "runs", "send_sighup"]

#: Seconds within which dnsmasq must answer after a restart. It reads 110,000 pairs of lines in one second.
START_TIMEOUT = 10.0
#: Seconds for dnsmasq to end.
END_TIMEOUT = 5.0
#: Seconds for one question.
QUERY_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """A dnsmasq that answers at an address."""

    address: str = "127.0.0.1"
    port: int = 53

    def __str__(self) -> str:
        return f"{self.address}#{self.port}"

    def ask(self, name: str, kind: str = "A", *, chaos: bool = False, timeout: float = QUERY_TIMEOUT) -> Reply:
        """Ask it one question (:func:`gfwtools.dnsmasq.client.ask`)."""
        return ask(self.address, self.port, name, kind, timeout, chaos=chaos)

    def is_up(self, timeout: float = QUERY_TIMEOUT) -> bool:
        """Whether dnsmasq itself answers: it does not forward version.bind."""
        return self.ask("version.bind", "TXT", chaos=True, timeout=timeout).answered

    def listens_at(self, address: str) -> bool:
        """Whether it also answers at another address of this host. resolv.conf can name no port but 53."""
        return self.port == 53 and Daemon(address).is_up()

    def wait(self, timeout: float = START_TIMEOUT) -> bool:
        """Wait until it answers."""
        deadline = time.monotonic() + timeout
        while not self.is_up(timeout=0.25):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def queries(self) -> dict[str, int] | None:
        """How many questions each upstream has had: ``8.8.8.8#53`` -> number (dnsmasq(8), servers.bind).

        :returns: empty where it has no upstream; None where it keeps this secret (``no-ident``) or does not answer.
        """
        reply = self.ask("servers.bind", "TXT", chaos=True)
        found = {}
        for entry in reply.texts:
            server, _, numbers = entry.partition(" ")
            first = numbers.split(" ")[0]
            if first.isdigit():
                found[server] = int(first)
        if found:
            return found
        # dnsmasq 2.90 without an upstream sends a TXT record without a string, which RFC 1035 does not know, and still
        # gives its version. With no-ident both are NOTIMP.
        return {} if reply.answered and self.ask("version.bind", "TXT", chaos=True).texts else None


def daemon_of(config: Config) -> Daemon:
    """The host's dnsmasq, at the address and port of its own configuration."""
    own = conf.read(
        # The policies' files have no such line, and may have a million lines.
        config,
        skip={f"{policy.name}.conf" for policy in config.policies},
        only=("port", "listen-address"),
    )
    ports = [value for name, value in own.directives if name == "port" and re.fullmatch(r"[0-9]{1,5}", value)]
    words = [word.strip() for name, value in own.directives if name == "listen-address" for word in value.split(",")]
    listed = [word for word in words if re.fullmatch(r"[0-9a-fA-F.:]+", word)]
    chosen = "127.0.0.1" if not listed or "127.0.0.1" in listed else listed[0]
    return Daemon(chosen, int(ports[-1]) if ports else 53)


def send_sighup(pid_file: Path) -> bool:
    """Send SIGHUP to the dnsmasq of ``pid_file``: it reads its ``servers-file`` again and clears its cache.

    :returns: False where the file names no dnsmasq of this network namespace.
    """
    return _signal(pid_file, signal.SIGHUP)


def end(pid_file: Path) -> bool:
    """End the dnsmasq of ``pid_file``, and wait until it has: until then it holds its port and its pid file.

    :returns: False where the file names no dnsmasq of this network namespace.
    """
    return _signal(pid_file, signal.SIGTERM, END_TIMEOUT)


def runs(pid_file: Path) -> bool:
    """Whether ``pid_file`` names a dnsmasq of this network namespace."""
    return _signal(pid_file, 0)


def _signal(pid_file: Path, number: int, wait: float = 0.0) -> bool:
    """Send a signal to the dnsmasq of ``pid_file``, and give it ``wait`` seconds to end."""
    try:
        pid = int(pid_file.read_text())
        descriptor = os.pidfd_open(pid)
    except (OSError, ValueError, OverflowError):
        return False
    try:
        # The descriptor comes first: the process behind it keeps its number while we check which program it is.
        if Path(f"/proc/{pid}/comm").read_text().strip() != "dnsmasq":
            return False
        if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"):
            return False
        signal.pidfd_send_signal(descriptor, number)
        if wait:
            select.select([descriptor], [], [], wait)  # pidfd_open(2): readable once the process has ended
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
