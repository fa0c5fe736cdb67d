"""Rules, routes and links of this host as ``ip -json`` shows them, for the checks before ``bootstrap``."""

import json
from typing import Any

from gfwtools.system import ownership
from gfwtools.system.commands import Runner

__all__ = ["catches_all", "numbers", "objects", "rule_words"]


def objects(runner: Runner, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(runner.ask("ip", "-j", *words) or "[]")
    return [entry for entry in found if entry]


def numbers(runner: Runner, family: int, *words: str) -> list[dict[str, Any]]:
    """The same question as in :mod:`~gfwtools.plumbing.routing`: numbers, not the names in rt_tables and rt_protos."""
    found: list[dict[str, Any]] = json.loads(runner.ask("ip", f"-{family}", "-N", "-d", "-j", *words) or "[]")
    return [entry for entry in found if entry and not ownership.is_route(entry)]


def catches_all(rule: dict[str, Any]) -> bool:
    """wg-quick's own rule: every packet goes into the tunnel, except the tunnel's own packets."""
    return "not" in rule and "fwmark" in rule


def rule_words(rule: dict[str, Any]) -> str:
    words = ["not"] if "not" in rule else []
    words.append(f"from {rule.get('src', 'all')}{'/' + str(rule['srclen']) if 'srclen' in rule else ''}")
    if "dst" in rule:
        words.append(f"to {rule['dst']}{'/' + str(rule['dstlen']) if 'dstlen' in rule else ''}")
    words += [f"{key} {rule[key]}" for key in ("iif", "oif", "fwmark") if key in rule]
    words.append(f"lookup {rule['table']}" if "table" in rule else str(rule.get("action", "")))
    return " ".join(words)
