"""``gfwtools status`` for people: the data of :mod:`gfwtools.diagnose.status` as lines of at most 80 characters."""

import textwrap
from collections.abc import Sequence

from gfwtools.diagnose.status import NOT_READABLE, PolicyStatus, Status, Tunnel, age_of, iso_date
from gfwtools.storage.lock import Run
from gfwtools.storage.state import Change

__all__ = ["history_lines", "lines"]

WIDTH = 80
UNKNOWN = "not known, see the checks below"
#: More findings than these are counted, not shown.
SHOWN = 8
_LABEL = 11


def lines(seen: Status, width: int = WIDTH) -> list[str]:
    """The screen, no line wider than ``width``."""
    rows: list[tuple[str, str]] = []
    if not seen.bootstrapped:
        interface = seen.policies[0].policy.interface
        rows.append(("host", f"never bootstrapped; run: gfwtools bootstrap --interface {interface}"))
    for policy in seen.policies:
        if len(seen.policies) > 1:
            rows.append(("policy", policy.policy.name))
        rows += _policy_rows(policy, seen)
    rows += _last_run_rows(seen.last_run)
    if seen.bootstrapped:
        rows += _host_rows(seen)
    elif seen.problem and seen.problem != NOT_READABLE:
        rows.append(("problem", seen.problem))
    text: list[str] = []
    for label, words in rows:
        wrapped = textwrap.wrap(words, width - _LABEL, break_on_hyphens=False) or [""]
        text.append(f"{label:<{_LABEL}}{wrapped[0]}".rstrip())
        text += [f"{'':<{_LABEL}}{more}" for more in wrapped[1:]]
    return text


def _last_run_rows(run: Run | None) -> list[tuple[str, str]]:
    if run is None:
        return []
    age = _ago(age_of(iso_date(run.date)))
    if run.running:
        return [("checked", f"being updated since {run.date}{age}")]
    return [("checked", f"{run.date}{age}"), *([("", f"and failed: {run.error}")] if run.error else [])]


def _policy_rows(found: PolicyStatus, seen: Status) -> list[tuple[str, str]]:
    state = found.state
    if not state.source:
        return [("list", "none yet; run: gfwtools update --reload"), *_kernel_rows(found, seen)]
    source = f"{state.source}{' (it ships with gfwtools; no mirror has answered yet)' if state.starter else ''}"
    rows = [("list", source)]
    if state.list_date:
        rows.append(("", f"of {state.list_date}{_ago(found.list_age)}"))
    rows.append(("updated", f"{state.updated}{_ago(found.updated_age)}"))
    rows.append(("domains", f"{state.domains:,} through {found.policy.interface}{_change(found.last)}"))
    counts = state.counts
    if isinstance(counts.get("read"), int):
        dropped = counts.get("dropped")
        gone = sum(n for n in dropped.values() if isinstance(n, int)) if isinstance(dropped, dict) else 0
        kinds = [key for key in ("applied", "widened", "redundant") if isinstance(counts.get(key), int)]
        parts = [f"{counts['read']:,} read", *(f"{counts[key]:,} {key}" for key in kinds), f"{gone:,} dropped"]
        rows.append(("rules", ", ".join(parts)))
    return [*rows, *_kernel_rows(found, seen)]


def _kernel_rows(found: PolicyStatus, seen: Status) -> list[tuple[str, str]]:
    if not seen.bootstrapped:
        return []
    if not seen.readable:
        return [("sets", NOT_READABLE), ("marked", NOT_READABLE), ("tunnel", NOT_READABLE)]
    sets = marked = UNKNOWN
    if found.sets is not None:
        sets = ", ".join(f"{name} {'missing' if size is None else f'{size:,}'}" for name, size in found.sets)
        marked = "no rule marks; run: gfwtools up"
    if found.marked:
        marked = f"{found.marked.packets:,} packets, {_size(found.marked.bytes)}"
    tunnel = _tunnel_words(found.policy.interface, found.tunnel)
    if found.tunnel is None and seen.findings is None:
        tunnel = UNKNOWN
    return [("sets", sets), ("marked", marked), ("tunnel", tunnel)]


def _tunnel_words(name: str, tunnel: Tunnel | None) -> str:
    if tunnel is None:
        return f"{name}: no such interface"
    words = [f"{name} {'up' if tunnel.up else 'down'}"]
    if tunnel.received is not None and tunnel.sent is not None:
        age = tunnel.handshake_age
        words.append("no handshake yet" if age is None else f"handshake {_span(age)} ago")
        words.append(f"{_size(tunnel.received)} received, {_size(tunnel.sent)} sent")
    return ", ".join(words)


def _host_rows(seen: Status) -> list[tuple[str, str]]:
    rows = [("layout", f"{seen.layout}, {seen.backend}; dnsmasq by {seen.manager}; boot by {seen.init}")]
    for service in seen.services:
        running = "" if service.running is None else ", running" if service.running else ", not running"
        rows.append(("service", f"{service.name}: {'enabled' if service.enabled else 'not enabled'}{running}"))
    if seen.findings is None:
        rows.append(("checks", seen.problem or "not made"))
    elif not seen.findings:
        rows.append(("checks", f"all {seen.pieces} pieces are OK"))
    else:
        rows.append(("checks", f"{len(seen.findings)} of {seen.pieces} pieces are not OK"))
        for finding in seen.findings[:SHOWN]:
            remedy = f"; fix: {finding.remedy}" if finding.remedy else ""
            rows.append(("", f"{finding.state.value} {finding.name}: {finding.detail}{remedy}"))
        if len(seen.findings) > SHOWN:
            rows.append(("", f"and {len(seen.findings) - SHOWN} more; see: gfwtools check host"))
    return rows


def history_lines(policies: Sequence[PolicyStatus]) -> list[str]:
    """The updates as a table, the newest first."""
    text: list[str] = []
    for policy in policies:
        if len(policies) > 1:
            text += ([""] if text else []) + [policy.policy.name]
        if not policy.state.history:
            text.append("no update yet; run: gfwtools update")
            continue
        text.append(f"{'date':<26}{'domains':>9}{'added':>8}{'removed':>9}  {'list':<10}source")
        for change in reversed(policy.state.history):
            source = change.source.split("://")[-1]
            room = WIDTH - 64
            source = source if len(source) <= room else f"{source[: room - 3]}..."
            text.append(
                f"{change.date:<26}{change.domains:>9,}{change.added:>+8,}{-change.removed:>9,}  "
                f"{change.digest[:8]:<10}{source}"
            )
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
