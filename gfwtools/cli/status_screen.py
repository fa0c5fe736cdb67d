"""``gfwtools status`` for people: the data of :mod:`gfwtools.diagnose.status` as lines of at most 80 characters."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from gfwtools.diagnose.status import NOT_READABLE, PolicyStatus, Status, Tunnel, age_of, iso_date
from gfwtools.dnsmasq.conf import never_bootstrapped
from gfwtools.plumbing.plan import State
from gfwtools.storage.lock import Run
from gfwtools.storage.state import Change

__all__ = ["Line", "Tone", "history_lines", "lines"]

WIDTH = 80
UNKNOWN = "not known; see the checks below"
#: More findings than these are counted, not shown.
SHOWN = 8
_LABEL = 11


class Tone(Enum):
    """What a row says of the host, for the colour of its words."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing and its words, before they are wrapped."""

    label: str
    words: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen. ``label`` is filled up with blanks."""

    label: str
    words: str
    tone: Tone = Tone.PLAIN

    def __str__(self) -> str:
        return self.label + self.words


def lines(seen: Status, width: int = WIDTH) -> list[Line]:
    """The screen as lines, none wider than ``width``."""
    rows: list[Row] = []
    if not seen.bootstrapped:
        rows.append(Row("host", never_bootstrapped(seen.policies[0].policy), Tone.BAD))
    for policy in seen.policies:
        if len(seen.policies) > 1:
            rows.append(Row("policy", policy.policy.name))
        rows += _policy_rows(policy, seen)
    rows += _last_run_rows(seen.last_run)
    if seen.bootstrapped:
        rows += _host_rows(seen)
    elif seen.problem and seen.problem != NOT_READABLE:
        rows.append(Row("problem", seen.problem, Tone.BAD))
    text: list[Line] = []
    for row in rows:
        wrapped = textwrap.wrap(row.words, width - _LABEL, break_on_hyphens=False)
        label = f"{row.label:<{_LABEL}}" if wrapped else row.label
        text.append(Line(label, wrapped[0] if wrapped else "", row.tone))
        text += [Line(" " * _LABEL, more, row.tone) for more in wrapped[1:]]
    return text


def _last_run_rows(run: Run | None) -> list[Row]:
    if run is None:
        return []
    age = _ago(age_of(iso_date(run.date)))
    if run.running:
        return [Row("checked", f"being updated since {run.date}{age}")]
    rows = [Row("checked", f"{run.date}{age}")]
    if run.error:
        rows.append(Row("", f"and failed: {run.error}", Tone.BAD))
    return rows


def _policy_rows(found: PolicyStatus, seen: Status) -> list[Row]:
    state = found.state
    if not state.source:
        return [Row("list", "none yet; run: gfwtools update --reload"), *_kernel_rows(found, seen)]
    source = f"{state.source}{' (built-in starter list; no mirror has answered yet)' if state.starter else ''}"
    rows = [Row("list", source)]
    if state.list_date:
        rows.append(Row("", f"of {state.list_date}{_ago(found.list_age)}"))
    rows.append(Row("updated", f"{state.updated}{_ago(found.updated_age)}"))
    rows.append(Row("domains", f"{state.domains:,} through {found.policy.interface}{_change(found.last)}"))
    counts = state.counts
    if isinstance(counts.get("read"), int):
        dropped = counts.get("dropped")
        gone = sum(n for n in dropped.values() if isinstance(n, int)) if isinstance(dropped, dict) else 0
        kinds = [key for key in ("applied", "widened", "redundant") if isinstance(counts.get(key), int)]
        parts = [f"{counts['read']:,} read", *(f"{counts[key]:,} {key}" for key in kinds), f"{gone:,} dropped"]
        rows.append(Row("rules", ", ".join(parts)))
    return [*rows, *_kernel_rows(found, seen)]


def _kernel_rows(found: PolicyStatus, seen: Status) -> list[Row]:
    if not seen.bootstrapped:
        return []
    if not seen.readable:
        words = NOT_READABLE if seen.problem == NOT_READABLE else UNKNOWN
        return [Row("sets", words), Row("marked", words), Row("tunnel", words)]
    sets, marked = Row("sets", UNKNOWN), Row("marked", UNKNOWN)
    if found.sets is not None:
        words = ", ".join(f"{name} {'missing' if size is None else f'{size:,}'}" for name, size in found.sets)
        sets = Row("sets", words, Tone.BAD if any(size is None for _, size in found.sets) else Tone.PLAIN)
        marked = Row("marked", "no rule marks; run: gfwtools up", Tone.BAD)
    if found.marked:
        marked = Row("marked", f"{found.marked.packets:,} packets, {_size(found.marked.bytes)}")
    if found.tunnel is None and seen.findings is None:
        return [sets, marked, Row("tunnel", UNKNOWN)]
    return [sets, marked, _tunnel_row(found.policy.interface, found.tunnel)]


def _tunnel_row(name: str, tunnel: Tunnel | None) -> Row:
    if tunnel is None:
        return Row("tunnel", f"{name}: no such interface", Tone.BAD)
    words = [f"{name} {'up' if tunnel.up else 'down'}"]
    if tunnel.received is not None and tunnel.sent is not None:
        age = tunnel.handshake_age
        words.append("no handshake yet" if age is None else f"handshake {_span(age)} ago")
        words.append(f"{_size(tunnel.received)} received, {_size(tunnel.sent)} sent")
    return Row("tunnel", ", ".join(words), Tone.PLAIN if tunnel.up else Tone.BAD)


def _host_rows(seen: Status) -> list[Row]:
    rows = [Row("layout", f"{seen.layout}, {seen.backend}; dnsmasq by {seen.manager}; boot by {seen.init}")]
    for service in seen.services:
        running = "" if service.running is None else ", running" if service.running else ", not running"
        words = f"{service.name}: {'enabled' if service.enabled else 'not enabled'}{running}"
        rows.append(Row("service", words, Tone.BAD if service.running is False else Tone.PLAIN))
    if seen.findings is None:
        rows.append(Row("checks", seen.problem or "not made"))
    elif not seen.findings:
        rows.append(Row("checks", f"all {seen.pieces} pieces are OK", Tone.GOOD))
    else:
        wrong = [finding for finding in seen.findings if finding.state is not State.UNKNOWN]
        words = "are not OK" if wrong else "could not be checked"
        count = len(wrong or seen.findings)
        rows.append(Row("checks", f"{count} of {seen.pieces} pieces {words}", Tone.BAD if wrong else Tone.PLAIN))
        for finding in seen.findings[:SHOWN]:
            remedy = f"; fix: {finding.remedy}" if finding.remedy else ""
            tone = Tone.PLAIN if finding.state is State.UNKNOWN else Tone.BAD
            rows.append(Row("", f"{finding.state.value} {finding.name}: {finding.detail}{remedy}", tone))
        if len(seen.findings) > SHOWN:
            rows.append(Row("", f"and {len(seen.findings) - SHOWN} more; see: gfwtools check host"))
    return rows


def history_lines(policies: Sequence[PolicyStatus]) -> list[Line]:
    """The updates as a table, the newest first."""
    text: list[Line] = []
    for policy in policies:
        if len(policies) > 1:
            text += ([Line("", "")] if text else []) + [Line(policy.policy.name, "")]
        if not policy.state.history:
            text.append(Line("", "no update yet; run: gfwtools update"))
            continue
        text.append(Line(f"{'date':<26}", f"{'domains':>9}{'added':>8}{'removed':>9}  {'list':<10}source"))
        for change in reversed(policy.state.history):
            source = change.source.split("://")[-1]
            room = WIDTH - 64
            source = source if len(source) <= room else f"{source[: room - 3]}..."
            counts = f"{change.domains:>9,}{change.added:>+8,}{-change.removed:>9,}"
            text.append(Line(f"{change.date:<26}", f"{counts}  {change.digest[:8]:<10}{source}"))
    return text


def _change(last: Change | None) -> str:
    return f" (last time +{last.added:,}, -{last.removed:,})" if last else ""


def _ago(age: int | None) -> str:
    return "" if age is None else f" ({_span(age)} ago)"


def _span(seconds: int) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
