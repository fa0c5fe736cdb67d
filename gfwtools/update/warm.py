"""``warm``: asks the local dnsmasq for the tunnelled domains, so that their addresses are in the sets already.

A client that has an address from another source (its own resolver, an old cache) is tunnelled only if dnsmasq has
answered for the name once. The answers are kept in a file, so that the next run continues where this one ended.
"""

import asyncio
import json
import random
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.dnsmasq import wire
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.errors import ResolverError, StoreError
from gfwtools.storage import atomic
from gfwtools.storage.lock import lock
from gfwtools.system.commands import System

__all__ = ["QPS", "Warming", "names_of", "warm"]

#: Seconds during which a warmed name is not asked for again.
FRESH = 3600
#: Questions a second, at most: a list of 4,300 domains is 17,200 questions and must not take longer than 10 s.
QPS = 2500
#: Questions on their way at once: dnsmasq refuses those above 150 (dnsmasq(8), --dns-forward-max), and clients ask too.
CONCURRENCY = 100
#: Seconds to wait for an answer, the first time and the second.
TIMEOUTS = (0.5, 1.5)
#: After so many names without an answer, and none with one, the warm-up stops.
HOPELESS = 2 * CONCURRENCY
#: Seconds between two saves: a killed run loses at most the answers of that time.
SAVE_EVERY = 5.0

#: Called with the number of names that are done, and the number of all names.
Progress = Callable[[int, int], None]


@dataclass
class Warming:
    """The progress of a warm-up, for one policy."""

    policy: str
    total: int = 0
    """Names to ask for, without the skipped ones."""
    skipped: int = 0
    """Names that were warmed within the last hour."""
    answered: int = 0
    empty: int = 0
    """Names without an address: many domains have none at www., or are blocked and gone."""
    failures: dict[str, int] = field(default_factory=dict)
    """Reason -> how many names failed for it."""
    addresses: int = 0
    """How many different addresses all answers had."""
    seconds: float = 0.0
    stopped: str = ""
    """Why it stopped early; empty where it did not."""
    unsaved: str = ""
    """Why the answers could not be saved for the next run; the sets are filled all the same."""

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def left(self) -> int:
        """Names that were not asked for yet."""
        return self.total - self.answered - self.empty - self.failed

    def to_json(self) -> dict[str, Any]:
        """The object that ``warm --json`` prints for a policy."""
        return {
            "policy": self.policy,
            "total": self.total,
            "skipped": self.skipped,
            "answered": self.answered,
            "empty": self.empty,
            "failed": self.failed,
            "left": self.left,
            "failures": self.failures,
            "addresses": self.addresses,
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped or None,
            "unsaved": self.unsaved or None,
        }


def names_of(domains: Iterable[str]) -> Iterator[str]:
    """Each domain, followed by its www. name; each name once."""
    seen = set[str]()
    for domain in domains:
        for name in (domain, f"www.{domain}"):
            if name not in seen and not name.startswith("www.www.") and len(name) <= 253:
                seen.add(name)
                yield name


def warm(
    config: Config,
    policy: PolicyConfig,
    *,
    limit: int | None = None,
    qps: int = QPS,
    again: bool = False,
    sets_made: float = 0.0,
    progress: Progress = lambda done, total: None,
) -> Warming:
    """Ask for the domains of ``policy``. SIGINT, SIGTERM and SIGHUP stop it early; the answers are saved.

    :param limit: the number of names to ask for; the next run continues after them.
    :param qps: questions a second, at most.
    :param again: also ask for names that were warmed within the last hour.
    :param sets_made: when the sets were made, in seconds of CLOCK_BOOTTIME. An earlier answer is in no set.
    :raises ResolverError: dnsmasq does not answer, or there is no list yet.
    :raises StoreError: the file cannot be read. One that cannot be written is :attr:`Warming.unsaved`.
    """
    data = atomic.read(config.paths.domains(policy.name))
    if data is None:
        from gfwtools.dnsmasq.conf import bootstrap_command, is_wired

        remedy = "gfwtools update --reload" if is_wired(config) else bootstrap_command(policy)
        raise ResolverError(f"{config.paths.domains(policy.name)}: no such file", f"run: {remedy}")
    path = config.paths.warm(policy.name)
    daemon = Dnsmasq(config, System()).main
    with lock(config.paths.state_dir / "warm.lock", wait=1.0):
        known = {} if again else _fresh(path, sets_made)
        is_free = _exceptions(config, policy)
        wanted = [name for name in names_of(data.decode("ascii", "replace").split()) if not is_free(name)]
        todo = [name for name in wanted if name not in known][:limit]
        if todo and not daemon.is_up():
            raise ResolverError(f"dnsmasq does not answer at {daemon}", "run: gfwtools check host")
        found = Warming(policy.name, len(todo), sum(name in known for name in wanted))
        known = {name: known[name] for name in wanted if name in known}  # what the list has dropped goes here as well
        run = _Run(daemon, path, found, known, qps, progress)
        started = time.monotonic()
        asyncio.run(run.all(todo))
        found.seconds = time.monotonic() - started
    return found


def _exceptions(config: Config, policy: PolicyConfig) -> Callable[[str], bool]:
    """Whether a name goes directly: an exception or the user's list can exclude the www. of a tunnelled domain."""
    from gfwtools.update.inputs import compile_policy, current_list

    decoded = current_list(config, policy)
    if decoded is None:
        return lambda name: False
    lookup = compile_policy(config, policy, decoded).policy.match
    return lambda name: lookup(name).verdict == "direct"


def _fresh(path: Path, sets_made: float) -> dict[str, list[str]]:
    """The answers of a run within the last hour, if the sets are older than that run."""
    data = atomic.read(path)
    if data is None:
        return {}
    # Without a time of their own the sets are as old as this boot, at most.
    sets_age = time.clock_gettime(time.CLOCK_BOOTTIME) - sets_made
    if not 0 <= time.time() - path.stat().st_mtime < min(FRESH, sets_age):
        return {}
    try:
        document = json.loads(data)
        # ip_address() takes a number for an address; we do not.
        return {str(name): [str(ip_address(str(text))) for text in found] for name, found in document.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}  # damaged; this run replaces it


# ---------------------------------------------------------------- one run


class _NoAnswer(Exception):
    """A question had no usable answer; the message is the reason."""


@dataclass
class _Run:
    daemon: Daemon
    path: Path
    found: Warming
    known: dict[str, list[str]]
    qps: int
    progress: Progress
    next_turn: float = 0.0
    saved: float = 0.0

    async def all(self, names: Sequence[str]) -> None:
        """Ask for ``names``. Names that fail are asked for once more at the end, when dnsmasq has less to do."""
        loop = asyncio.get_running_loop()
        asking = asyncio.ensure_future(self._rounds(names))

        def stop(number: int) -> None:
            self.found.stopped = signal.Signals(number).name
            asking.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:  # nohup, or a job in the background
                continue
            with suppress(RuntimeError, ValueError):  # not the main thread: its owner takes care of signals
                loop.add_signal_handler(number, stop, number)
        self.saved = self.next_turn = time.monotonic()
        try:
            with suppress(asyncio.CancelledError):
                await asking
        finally:
            self.found.addresses = len({address for found in self.known.values() for address in found})
            self._save()

    async def _rounds(self, names: Sequence[str]) -> None:
        failed = await self._round(names, CONCURRENCY)
        if failed and not self.found.stopped:
            for reason in failed.values():
                self.found.failures[reason] -= 1
            self.found.failures = {reason: count for reason, count in self.found.failures.items() if count}
            await self._round(list(failed), CONCURRENCY // 4)

    async def _round(self, names: Sequence[str], concurrency: int) -> dict[str, str]:
        """Ask for each name; returns those that failed, with the reason."""
        waiting = iter(names)
        failed: dict[str, str] = {}
        workers = [asyncio.ensure_future(self._worker(waiting, failed)) for _ in range(min(concurrency, len(names)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return failed

    async def _worker(self, waiting: Iterator[str], failed: dict[str, str]) -> None:
        """Ask for one name after the other, with one socket."""
        import dns.asyncbackend

        family = socket.AF_INET if ip_address(self.daemon.address).version == 4 else socket.AF_INET6
        backend: Any = dns.asyncbackend.get_backend("asyncio")  # without types
        async with await backend.make_socket(family, socket.SOCK_DGRAM) as sock:
            for name in waiting:
                if self.found.stopped:
                    return
                try:
                    addresses = await self._name(name, sock)
                except _NoAnswer as error:
                    failed[name] = reason = str(error)
                    self.found.failures[reason] = self.found.failures.get(reason, 0) + 1
                    if self.found.failed >= HOPELESS and not self.found.answered + self.found.empty:
                        self.found.stopped = "no answer to any question"
                else:
                    self.known[name] = addresses
                    if addresses:
                        self.found.answered += 1
                    else:
                        self.found.empty += 1
                self.progress(self.found.total - self.found.left, self.found.total)
                if time.monotonic() - self.saved > SAVE_EVERY:
                    self._save()

    async def _name(self, name: str, sock: Any) -> list[str]:
        """The addresses of a name, of both families.

        :raises _NoAnswer: one of the two questions had no answer.
        """
        import dns.rcode

        addresses: list[str] = []
        kinds: tuple[wire.Kind, ...] = ("A", "AAAA")
        for kind in kinds:
            answer = await self._ask(name, kind, sock)
            addresses += answer.addresses
            if answer.rcode == dns.rcode.NXDOMAIN:
                break  # there is no record of any type (RFC 8020)
        return addresses

    async def _ask(self, name: str, kind: wire.Kind, sock: Any) -> wire.Reply:
        """Ask one question, and once more where no answer came.

        :raises _NoAnswer: no usable answer came.
        """
        import dns.rcode

        reason = ""
        for timeout in TIMEOUTS:
            await self._turn()
            try:
                # A new number each time: a late answer to the question before does not count as this one's.
                asked = wire.question(random.getrandbits(16), name, kind)
                async with asyncio.timeout(timeout):
                    answer = await self._exchange(asked, kind, sock)
                if answer.rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return answer
                reason = dns.rcode.to_text(dns.rcode.Rcode.make(answer.rcode))
                # REFUSED: too many are on their way (dnsmasq(8), --dns-forward-max).
                await asyncio.sleep(timeout / 5)
            except TimeoutError:
                reason = "no answer"
            except (OSError, EOFError) as error:
                reason = str(error) or type(error).__name__
            except ValueError:
                raise _NoAnswer("no name") from None
        raise _NoAnswer(reason)

    async def _exchange(self, asked: bytes, kind: wire.Kind, sock: Any) -> wire.Reply:
        """Send a question, and wait for its answer."""
        where = self.daemon.address, self.daemon.port
        await sock.sendto(asked, where, None)
        answer = None
        while answer is None:
            data, _ = await sock.recvfrom(65535, None)
            answer = wire.reply(data, asked, kind)
        if answer.truncated:  # the rest of the addresses belongs into the set as well
            reader, writer = await asyncio.open_connection(*where)
            try:
                writer.write(len(asked).to_bytes(2) + asked)
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            finally:
                writer.close()
            answer = wire.reply(data, asked, kind) or answer
        return answer

    async def _turn(self) -> None:
        """Wait until the rate allows one more question. It catches up on a pause of up to half a second."""
        now = time.monotonic()
        turn = max(self.next_turn, now - 0.5)
        self.next_turn = turn + 1 / self.qps
        if turn > now:
            await asyncio.sleep(turn - now)

    def _save(self) -> None:
        text = json.dumps(self.known, indent=0, separators=(",", ":"))
        try:
            atomic.write_all({self.path: f"{text}\n".encode()})
            self.found.unsaved = ""
        except StoreError as error:  # a full disk: the sets are filled all the same
            self.found.unsaved = str(error)
        self.saved = time.monotonic()
