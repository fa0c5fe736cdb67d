"""``trace``: the way of the packets to and from an address through netfilter, each hook in words.

A table of ours sets the trace bit for these packets and for no others (nft(8), meta nftrace); the kernel then reports
each rule that they meet, those of iptables-nft as well. The table's other chains change nothing: a packet that is seen
in them has come so far.
"""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gfwtools.config.model import Address
from gfwtools.errors import HostError
from gfwtools.system import ownership
from gfwtools.system.commands import Command, Runner
from gfwtools.system.programs import environment, find

__all__ = ["TABLE", "Event", "Packet", "legacy_note", "packets", "parse", "rules", "trace"]

TABLE = "inet gfwtools_trace"
#: After so many seconds without an event a packet counts as complete.
SILENCE = 0.5
#: Seconds that nft and its guard have to start.
START = 5.0
# netlink(7), NETLINK_NETFILTER, and its group NFNLGRP_NFTRACE, the ninth.
_NETFILTER, _TRACE_GROUP = "12", 1 << 8
#: Trace events are copied through a socket of limited size: a download must not push the first packets out of it.
RATE = "limit rate 500/second burst 500 packets"

_LINE = re.compile(r"trace id (?P<id>[0-9a-f]+) (?P<family>\S+) (?P<table>\S+) (?P<chain>\S+) (?P<rest>.*?)\s*")
_RULE = re.compile(r"rule (?P<rule>.*?) ?\(verdict (?P<verdict>[^)]*)\)")
_POLICY = re.compile(
    r"(?P<kind>policy|verdict) (?P<verdict>accept|drop|return|continue)(?: meta mark (?P<mark>0x[0-9a-f]+))?"
)


def rules(addresses: Iterable[Address]) -> str:
    """The table, as input of ``nft -f``. It is removed first: a trace that was killed has left its own behind."""
    first, out = [], []
    for address in addresses:
        ip = "ip" if address.version == 4 else "ip6"
        first.append(f"{ip} saddr {address} {RATE} meta nftrace set 1")
        first.append(f"{ip} daddr {address} {RATE} meta nftrace set 1")
        out.append(f"{ip} daddr {address} {RATE} meta nftrace set 1")
    chains = {
        "prerouting": ("-350", first),  # before all others, raw is -300
        "output": ("-350", out),
        "input": ("350", []),  # and behind all others, the translation of sources is 100
        "forward": ("350", []),
        "postrouting": ("350", []),
    }
    lines = [f"add table {TABLE}", f"delete table {TABLE}", f"add table {TABLE}"]
    for hook, (priority, listed) in chains.items():
        lines.append(f"add chain {TABLE} {hook} {{ type filter hook {hook} priority {priority}; policy accept; }}")
        lines += [f"add rule {TABLE} {hook} {rule}" for rule in listed]  # the other chains report by their policy
    return "".join(f"{line}\n" for line in lines)


def legacy_note(runner: Runner) -> str:
    """What cannot be seen because of the older iptables; empty where all can."""
    version = runner.ask("iptables", "--version") or ""
    if "legacy" not in version:
        return ""
    return "this host uses iptables-legacy: its rules are not traced, only what they did to a packet"


# ---------------------------------------------------------------- lines of nft monitor


@dataclass(frozen=True, slots=True)
class Event:
    """One line of ``nft monitor trace``."""

    id: str
    family: str
    table: str
    chain: str
    kind: str
    """packet, rule or policy."""
    text: str = ""
    """The packet, or the rule."""
    verdict: str = ""
    mark: int | None = None

    @property
    def ours(self) -> bool:
        return f"{self.family} {self.table}" == TABLE

    @property
    def where(self) -> str:
        return f"{self.family} {self.table} {self.chain}"


def parse(line: str) -> Event | None:
    """A line of ``nft monitor trace``; None for any other."""
    found = _LINE.fullmatch(line.strip())
    if not found:
        return None
    head = (found["id"], found["family"], found["table"], found["chain"])
    rest = found["rest"]
    if rest.startswith("packet: "):
        return Event(*head, "packet", rest.removeprefix("packet: ").strip())
    rule = _RULE.fullmatch(rest)
    if rule:
        text = re.sub(r"\s+", " ", re.sub(r"counter packets \d+ bytes \d+", "", rule["rule"])).strip()
        mark = re.search(r"meta mark set (0x[0-9a-f]+|\d+)", text)
        return Event(*head, "rule", text, rule["verdict"], int(mark[1], 0) if mark else None)
    policy = _POLICY.match(rest)
    if policy:
        mark_text = policy["mark"]
        return Event(*head, "policy", "", policy["verdict"], int(mark_text, 16) if mark_text else None)
    return None


@dataclass
class Packet:
    """One packet on its way, from the first hook to the last that it was seen in."""

    id: str
    reply: bool
    """It comes from the address."""
    protocol: str = ""
    source: str = ""
    destination: str = ""
    flags: str = ""
    events: list[Event] = field(default_factory=list)
    repeated: int = 0
    """How many more of the same connection and direction there were."""

    @property
    def flow(self) -> tuple[bool, str, str, str]:
        return self.reply, self.protocol, self.source, self.destination

    @property
    def title(self) -> str:
        flags = f" {self.flags}" if self.flags else ""
        return f"{'reply' if self.reply else 'packet'}: {self.protocol}{flags} {self.source} -> {self.destination}"

    @property
    def dropped(self) -> str:
        """By whom; empty where it was not."""
        for event in self.events:
            if event.verdict == "drop" or (event.kind == "rule" and re.search(r"\breject\b", event.text)):
                return f"{event.where}: {event.text or 'its policy'}"
        return ""

    @property
    def arrived(self) -> bool:
        """It was seen behind the last of all rules, on its way out or to a program of this host."""
        return any(event.ours and event.chain in ("postrouting", "input") for event in self.events) or any(
            # The first packet of a connection that a rule translates: the chains behind it are still passed.
            event.chain.lower() == "postrouting" and event.verdict == "accept"
            for event in self.events
        )

    def words(self) -> list[str]:
        """Each hook in words."""
        lines: list[str] = []
        mark = 0
        device = ""
        source = self.source
        for event in self.events:
            if event.kind == "packet":
                found = _fields(event.text)
                now = found["oif"] or found["iif"]
                if not lines:
                    if found["iif"]:
                        lines.append(f"arrived on {found['iif']}{f', marked {mark:#x}' if mark else ', unmarked'}")
                    else:
                        lines.append(f"leaves this host by {now}, unmarked")
                elif found["oif"] and found["oif"] != device:
                    again = "routed again to" if device and not self.events[0].text.startswith("iif") else "routed to"
                    lines.append(f"{again} {found['oif']}")
                elif event.ours and event.chain == "input":
                    lines.append("is for this host")
                device = found["oif"] or device or ("" if found["iif"] else now)
                if found["source"] and found["source"] != source and event.ours and event.chain == "postrouting":
                    lines.append(f"source rewritten to {found['source']}")
                    source = found["source"]
            elif event.kind == "rule" and not event.ours:
                lines += _rule_words(event)
                mark = event.mark if event.mark is not None else mark
            if event.kind == "policy":
                if event.mark and event.mark != mark:
                    mark = event.mark
                    lines.append(f"marked {mark:#x} by a rule that cannot be traced (iptables-legacy)")
                if event.verdict == "drop":
                    lines.append(f"dropped by the policy of {event.where}")
        if self.dropped:
            return lines
        if self.arrived:
            to_us = any(event.ours and event.chain == "input" for event in self.events)
            lines.append("accepted: handed to a program of this host" if to_us else f"sent by {device}")
        else:
            lines.append(
                "lost after the last hook above: no rule dropped it, so the routing did "
                "(reverse-path filter, unreachable route); see: gfwtools check host"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """The object that ``trace --json`` prints for a packet."""
        return {
            "direction": "reply" if self.reply else "out",
            "protocol": self.protocol,
            "flags": self.flags or None,
            "source": self.source,
            "destination": self.destination,
            "repeated": self.repeated,
            "dropped_by": self.dropped or None,
            "arrived": self.arrived and not self.dropped,
            "words": self.words(),
            "events": [
                {"where": e.where, "kind": e.kind, "text": e.text, "verdict": e.verdict or None, "mark": e.mark}
                for e in self.events
                if not e.ours
            ],
        }


def _rule_words(event: Event) -> list[str]:
    where = f"{event.chain} ({event.family} {event.table})"
    if event.mark is not None:
        return [f"marked {event.mark:#x} by {where}: {_why(event)}"]
    if event.verdict == "drop":
        return [f"dropped by {where}: {event.text}"]
    if re.search(r"\breject\b", event.text):
        return [f"refused by {where}: {event.text}"]
    if re.search(r"\b(masquerade|snat)\b", event.text):
        return [f"source rewritten by {where}: {_why(event)}"]
    if re.search(r"\b(dnat|redirect)\b", event.text):
        return [f"destination rewritten by {where}: {_why(event)}"]
    if event.verdict == "accept":
        return [f"accepted by {where}: {event.text}"]
    if event.verdict == "return" and event.chain == "GFWLIST":
        return [f"left unmarked by {where}: {_why(event)}"]
    return []


def _why(event: Event) -> str:
    comment = re.search(r'comment "([^"]*)"', event.text)
    return (ownership.reason(comment[1]) if comment else None) or event.text


def _fields(text: str) -> dict[str, str]:
    """What of a packet's line is of interest; ports behind the addresses."""

    def first(pattern: str) -> str:
        found = re.search(pattern, text)
        return found[1] if found else ""

    source, destination = first(r"\bip6? saddr (\S+)"), first(r"\bip6? daddr (\S+)")
    sport, dport = first(r"\b(?:tcp|udp) sport (\S+)"), first(r"\b(?:tcp|udp) dport (\S+)")
    flags = first(r"tcp flags (?:== )?(\S+)")
    return {
        "iif": first(r'\biif "([^"]*)"'),
        "oif": first(r'\boif "([^"]*)"'),
        "source": _with_port(source, sport),
        "destination": _with_port(destination, dport),
        "address": source,
        "protocol": "tcp" if " tcp " in text else "udp" if " udp " in text else first(r"(icmpv?6?) ") or "ip",
        "flags": _FLAGS.get(flags, flags),
    }


#: nft writes a combination as a number (RFC 9293 section 3.1).
_FLAGS = {"0x12": "syn-ack", "0x10": "ack", "0x11": "fin-ack", "0x18": "push-ack", "0x14": "rst-ack", "0x04": "rst"}


def _with_port(address: str, port: str) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def packets(events: Iterable[Event | None], addresses: Sequence[Address]) -> Iterator[Packet]:
    """Events as packets; None says that nothing has come for a while, so that all packets have come to an end.

    The kernel makes the id of a packet's memory, and takes it again: a packet begins in one of our first chains.
    """
    texts = {str(address) for address in addresses}
    open_packets: dict[str, Packet] = {}
    for event in events:
        if event is None:
            yield from open_packets.values()
            open_packets = {}
            continue
        if event.kind == "packet" and event.ours and event.chain in ("prerouting", "output"):
            if event.id in open_packets:
                yield open_packets.pop(event.id)
            found = _fields(event.text)
            reply = found["address"] in texts
            open_packets[event.id] = Packet(
                event.id, reply, found["protocol"], found["source"], found["destination"], found["flags"]
            )
        if event.id in open_packets:
            open_packets[event.id].events.append(event)
    yield from open_packets.values()


# ---------------------------------------------------------------- the trace itself


def trace(
    addresses: Sequence[Address], runner: Runner, *, seconds: float = 10.0, ready: Callable[[], None] = lambda: None
) -> Generator[Packet, None, None]:
    """Follow the packets of ``addresses`` for some seconds. Yields the first packet of each connection, per direction,
    as soon as it is complete. The table is always removed.

    :param ready: called when packets are seen from now on.
    :raises HostError: nft is missing, or refuses the rules.
    """
    if not runner.has("nft"):
        raise HostError("nft: no such program", "install nftables")
    first: dict[tuple[bool, str, str, str], Packet] = {}
    with _monitor(runner) as monitor:
        runner.change(Command(("nft", "-f", "-"), rules(addresses)))
        for packet in packets(_events(monitor, seconds, ready), addresses):
            known = first.setdefault(packet.flow, packet)
            if known is packet:
                yield packet
            else:
                known.repeated += 1


@contextmanager
def _monitor(runner: Runner) -> Iterator[subprocess.Popen[bytes]]:
    """``nft monitor trace`` on the standard output of its guard; when this ends, or this process does, the table goes.

    :raises HostError: the table could not be removed.
    """
    nft = find("nft")
    if nft is None:
        raise HostError("nft: no such program", "install nftables")
    others = _listeners()
    guard = subprocess.Popen(
        # Isolated, and without site packages: it is there in 20 ms.
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("trace_guard.py")), TABLE, nft],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        _wait_for(guard, others)
        yield guard
    finally:
        # A second Ctrl-C must not reach this.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            message = _end(guard)
            if guard.returncode:
                _remove_table(runner, message)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _remove_table(runner: Runner, message: str) -> None:
    """The guard was killed, or its nft failed."""
    try:
        runner.change(Command(("nft", "-f", "-"), f"add table {TABLE}\ndelete table {TABLE}\n"))
    except HostError as error:
        raise HostError(f"{error.what}; {message}" if message else error.what, error.remedy) from None


def _end(guard: subprocess.Popen[bytes]) -> str:
    """End the guard, and the nft that it leaves behind where it was killed. The message is what the guard wrote."""
    assert guard.stdin is not None
    with suppress(OSError):
        guard.stdin.close()
    os.waitid(os.P_PID, guard.pid, os.WEXITED | os.WNOWAIT)  # until it is waited for, no other group has its number
    with suppress(ProcessLookupError):
        os.killpg(guard.pid, signal.SIGKILL)
    guard.stdin = None
    _, message = guard.communicate()
    return message.decode("utf-8", "replace").strip()


def _wait_for(guard: subprocess.Popen[bytes], others: set[str]) -> None:
    """Until nft listens, of which it says nothing itself."""
    assert guard.stdout is not None
    deadline = time.monotonic() + START
    while _listeners() <= others and time.monotonic() < deadline:
        if select.select([guard.stdout], [], [], 0.01)[0]:
            return  # it speaks already, or it has ended


def _listeners() -> set[str]:
    """The netlink sockets of this network namespace that get trace events, by their port."""
    rows = [line.split()[1:4] for line in Path("/proc/self/net/netlink").read_text().splitlines()[1:]]
    return {port for protocol, port, groups in rows if protocol == _NETFILTER and int(groups, 16) & _TRACE_GROUP}


def _events(monitor: subprocess.Popen[bytes], seconds: float, ready: Callable[[], None]) -> Iterator[Event | None]:
    assert monitor.stdout is not None
    rest = _read(monitor) if select.select([monitor.stdout], [], [], 0)[0] else b""
    ready()
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([monitor.stdout], [], [], min(left, SILENCE))[0]:
            yield None
            continue
        *lines, rest = (rest + _read(monitor)).split(b"\n")
        for line in lines:
            event = parse(line.decode("utf-8", "replace"))
            if event:
                yield event


def _read(monitor: subprocess.Popen[bytes]) -> bytes:
    assert monitor.stdout is not None
    assert monitor.stderr is not None
    data = os.read(monitor.stdout.fileno(), 65536)
    if not data:
        has_message = select.select([monitor.stderr], [], [], 0)[0]
        message = os.read(monitor.stderr.fileno(), 4096).decode("utf-8", "replace").strip() if has_message else ""
        raise HostError(f"nft monitor trace: {message or 'it has ended'}")
    return data
