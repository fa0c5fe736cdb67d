"""Count packets in a host of the lab, by an nftables rule that does nothing else."""

import itertools
import json
from typing import Literal

from fresh_host import FreshHost

_numbers = itertools.count()


class Count:
    """Counts what comes by ``hook`` of ``host`` and matches ``expression`` (nft(8)), from now on.

    The table belongs to the family ``inet``, so that ``meta nfproto`` or an address tells the family.
    """

    def __init__(
        self, host: FreshHost, hook: Literal["prerouting", "input", "output", "postrouting"], expression: str
    ) -> None:
        self._host = host
        self._table = f"count{next(_numbers)}"
        host.run(
            "nft",
            "-f",
            "-",
            # -310 is before the drops in the raw table, which has -300: what is dropped is counted all the same.
            stdin=f"table inet {self._table} {{\n"
            f"chain here {{\ntype filter hook {hook} priority -310;\n{expression} counter\n}}\n}}\n",
        )

    @property
    def packets(self) -> int:
        found = json.loads(self._host.run("nft", "-j", "list", "table", "inet", self._table).stdout)["nftables"]
        rule = next(item["rule"] for item in found if "rule" in item)
        return int(next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part))
