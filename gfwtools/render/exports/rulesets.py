"""sing-box: a rule set in its source format, of which ``sing-box rule-set compile`` makes the binary one."""

import json
from typing import Any

from gfwtools.render.exports.values import Meaning, Said

__all__ = ["singbox"]


def singbox(meaning: Meaning) -> Said:
    """``"x"`` is a name and what is under it, ``".x"`` what is under it alone. A name is tunnelled that is in the first
    layer, unless it is in the second, unless it is in the third ...
    """
    rules: list[dict[str, Any]] = []
    rule: dict[str, Any] | None = None
    for layer in reversed(meaning.layers):
        here = {"domain_suffix": [*layer.whole, *(f".{name}" for name in layer.under)]}
        unless = [here, {**rule, "invert": True}] if rule else []
        rule = {"type": "logical", "mode": "and", "rules": unless} if unless else here
    if rule:
        rules.append(rule)
    if meaning.networks:
        rules.append({"ip_cidr": [str(network) for network in meaning.networks]})
    return Said(json.dumps({"version": 3, "rules": rules}, indent=1) + "\n")
