"""Formats with a domain a line: what is tunnelled, and for most of them a companion with what is direct again.

A program reads the companion first. So of the layers of a policy these formats say two: tunnelled, and direct below it.
What is tunnelled again below an exception is lost, and counted.
"""

import re
from collections.abc import Iterable

from gfwtools.render.exports.values import Layer, Meaning, Said
from gfwtools.render.header import header

__all__ = ["adblock", "mihomo", "mihomo_classical", "mihomo_direct", "surge", "surge_direct", "v2fly", "v2fly_direct"]

_NONE = Layer([], [])


def adblock(meaning: Meaning) -> Said:
    """``||name^``, and ``@@||name^`` for what is direct again."""
    blocked, freed, deeper = _two(meaning)
    lines = [f"||{name}^" for name in blocked.whole]
    lines += [
        f"||{network.network_address}^" if network.prefixlen == network.max_prefixlen else f"||{network}"
        for network in meaning.networks
    ]
    lines += [f"@@||{name}^" for name in freed.whole]
    lines += [f"@@||*.{name}^" for name in freed.under]
    return Said(_text("blocked domains", meaning, lines, mark="!"), deeper)


def mihomo(meaning: Meaning) -> Said:
    """``+.name`` is a name and what is under it (mihomo's wiki, "rule providers")."""
    blocked, freed, deeper = _two(meaning)
    lost = (*freed.whole, *(f"*.{name}" for name in freed.under), *deeper, *map(str, meaning.networks))
    return Said(_yaml("blocked domains", meaning, [f"+.{name}" for name in blocked.whole]), lost)


def mihomo_classical(meaning: Meaning) -> Said:
    blocked, freed, deeper = _two(meaning)
    lines = [f"DOMAIN-SUFFIX,{name}" for name in blocked.whole]
    lines += [f"{'IP-CIDR' if net.version == 4 else 'IP-CIDR6'},{net},no-resolve" for net in meaning.networks]
    lost = (*freed.whole, *(f"*.{name}" for name in freed.under), *deeper)
    return Said(_yaml("blocked domains and networks", meaning, lines), lost)


def mihomo_direct(meaning: Meaning) -> Said:
    """``.name`` is what is under a name, and not the name."""
    _, freed, _ = _two(meaning)
    lines = [*(f"+.{name}" for name in freed.whole), *(f".{name}" for name in freed.under)]
    return Said(_yaml("domains that are direct again", meaning, lines))


def surge(meaning: Meaning) -> Said:
    """``.name`` is a name and what is under it (Surge's manual, "DOMAIN-SET")."""
    blocked, freed, deeper = _two(meaning)
    lost = (*freed.whole, *(f"*.{name}" for name in freed.under), *deeper, *map(str, meaning.networks))
    return Said(_text("blocked domains", meaning, [f".{name}" for name in blocked.whole]), lost)


def surge_direct(meaning: Meaning) -> Said:
    _, freed, _ = _two(meaning)
    lost = tuple(f"*.{name}" for name in freed.under)
    return Said(_text("domains that are direct again", meaning, [f".{name}" for name in freed.whole]), lost)


def v2fly(meaning: Meaning) -> Said:
    blocked, freed, deeper = _two(meaning)
    lost = (*freed.whole, *(f"*.{name}" for name in freed.under), *deeper, *map(str, meaning.networks))
    return Said(_text("blocked domains", meaning, [f"domain:{name}" for name in blocked.whole]), lost)


def v2fly_direct(meaning: Meaning) -> Said:
    _, freed, _ = _two(meaning)
    lines = [f"domain:{name}" for name in freed.whole]
    lines += [rf"regexp:.+\.{re.escape(name)}$" for name in freed.under]
    return Said(_text("domains that are direct again", meaning, lines))


def _two(meaning: Meaning) -> tuple[Layer, Layer, tuple[str, ...]]:
    """The two upper layers, and the domains of those below."""
    blocked, freed, *deeper = [*meaning.layers, _NONE, _NONE][: max(2, len(meaning.layers))]
    lost = tuple(name for layer in deeper for name in (*layer.whole, *(f"*.{name}" for name in layer.under)))
    return blocked, freed, lost


def _text(title: str, meaning: Meaning, lines: Iterable[str], mark: str = "#") -> str:
    body = "".join(f"{line}\n" for line in lines)
    head = header(f"{title} of the policy {meaning.policy.name}", meaning.list_date, body)
    return head.replace("# ", f"{mark} ") + body if mark != "#" else head + body


def _yaml(title: str, meaning: Meaning, lines: list[str]) -> str:
    return _text(title, meaning, ["payload:" if lines else "payload: []", *(f"  - '{line}'" for line in lines)])
