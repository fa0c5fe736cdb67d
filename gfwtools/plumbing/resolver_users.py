"""The users as which the main dnsmasq may run: they alone ask the second one.

The plumbing comes before dnsmasq at boot, so the running process does not say it yet.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gfwtools.config.model import Config
from gfwtools.errors import StoreError
from gfwtools.storage import atomic

__all__ = ["resolver_users"]

#: dnsmasq's own default, and that of the distributions' packages.
_USUAL = ("nobody", "dnsmasq")
_CONFIGURED = re.compile(r"^[ \t]*user[ \t]*=[ \t]*([^\s#]+)", re.MULTILINE)
#: ``DNSMASQ_USER`` of Debian's start script, and the option in what a start script or a unit passes on.
_STARTED = re.compile(r"^(?![ \t]*#).*?(?:DNSMASQ_USER=[\"']?|--user[= ]|[\s\"']-u[ ]?)([\w.-]+)", re.MULTILINE)
_SETTINGS = ("/etc/default/dnsmasq", "/etc/conf.d/dnsmasq", "/etc/sysconfig/dnsmasq")


def resolver_users(config: Config) -> tuple[int, ...]:
    """Their numbers, and root's; none where no user of such a name is known."""
    users = _numbers(config)
    named = [name for text in _configurations(config) for name in _CONFIGURED.findall(text)]
    if not any(name in users for name in named):
        # One too many is no harm; with one too few no blocked domain has an answer.
        started = [name for path in _SETTINGS for name in _STARTED.findall(_text(config.paths.at(path)))]
        named = [*_USUAL, *started]
    found = {users[name] for name in named if name in users} | set(_running(config))
    return tuple(sorted({0, *found})) if found else ()


def _numbers(config: Config) -> dict[str, int]:
    lines = _text(config.paths.at("/etc/passwd")).splitlines()
    entries = [line.split(":") for line in lines]
    return {entry[0]: int(entry[2]) for entry in entries if len(entry) > 2 and entry[2].isdecimal()}


def _configurations(config: Config) -> Iterator[str]:
    at = config.paths.at
    yield _text(at("/etc/dnsmasq.conf"))
    # The policies' files may have a million lines, and have no such one.
    ours = {f"{policy.name}.conf" for policy in config.policies}
    with suppress(OSError):
        for path in sorted(at(config.dns.conf_dir).iterdir()):
            if path.name not in ours:
                yield _text(path)


def _text(path: Path) -> str:
    with suppress(StoreError):
        return (atomic.read(path, limit=1024 * 1024) or b"").decode("utf-8", "replace")
    return ""


def _running(config: Config) -> Iterator[int]:
    """The user of the main dnsmasq that runs now."""
    if config.root != Path("/"):
        return
    with suppress(OSError, ValueError):
        pid = int(config.paths.at(config.dns.pid_file).read_text())
        if Path(f"/proc/{pid}/comm").read_text().strip() == "dnsmasq":
            yield Path(f"/proc/{pid}").stat().st_uid
