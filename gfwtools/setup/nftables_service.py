"""Debian's nftables.service, whose restart flushes every table: a drop-in that has it leave ours in place.

The owner's firewall comes first: what cannot be loaded beside our table is loaded without it.
"""

import re
from collections.abc import Mapping

from gfwtools.config.model import Config
from gfwtools.render.nftables import TABLE
from gfwtools.system.commands import Runner
from gfwtools.system.init import is_host

__all__ = ["DROP_IN", "UNIT", "flushes", "words"]

UNIT = "nftables.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/50-gfwtools.conf"
_FILE = "/etc/nftables.conf"
#: As Debian ships it. Any other command is the owner's own, and stays.
_COMMANDS = [
    f"ExecStart=/usr/sbin/nft -f {_FILE}",
    f"ExecReload=/usr/sbin/nft -f {_FILE}",
    "ExecStop=/usr/sbin/nft flush ruleset",
]
_DELETE = f'sed -n "/^table {TABLE}$/!s/^table /delete table /p"'
_FLUSH = "^[[:space:]]*flush[[:space:]]+ruleset[[:space:];]*$"
# The text is complete before nft reads the first word of it: half a file would be half a firewall.
_LOAD = (
    f'! grep -q "{TABLE}" {_FILE} && [ "$(grep -Ec "{_FLUSH}" {_FILE})" = 1 ] && tables=$(nft list tables) && '
    f'text=$(echo "$tables" | {_DELETE} | sed -E -e "/{_FLUSH}/{{r /dev/stdin" -e "d}}" {_FILE}) && '
    f'printf "%s\\n" "$text" | nft -f - 2>/dev/null || exec nft -f {_FILE}'
)
_UNLOAD = f'tables=$(nft list tables) && echo "$tables" | {_DELETE} | nft -f - || exec nft flush ruleset'


def words() -> Mapping[str, str]:
    """The commands of the drop-in."""
    return {"LOAD": _line(_LOAD), "UNLOAD": _line(_UNLOAD)}


def flushes(config: Config, runner: Runner) -> bool:
    """Whether nftables.service is there with Debian's own commands, apart from what our drop-in says."""
    text = runner.ask("systemctl", "cat", UNIT) if is_host(config) else None
    # Each file comes after a comment with its path.
    parts = re.split(r"^# (/\S+)$", text or "", flags=re.MULTILINE)[1:]
    files = zip(parts[::2], parts[1::2], strict=True)
    lines = [line.strip() for path, part in files if path != DROP_IN for line in part.splitlines()]
    return [line for line in lines if line.startswith("Exec")] == _COMMANDS


def _line(script: str) -> str:
    """The script as a command of a unit (systemd.service(5), COMMAND LINES)."""
    escaped = script.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return f"/bin/sh -c '{escaped}'"
