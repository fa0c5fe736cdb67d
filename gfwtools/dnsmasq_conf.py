"""dnsmasq's configuration as dnsmasq reads it: which files, and what they say."""

import re
import shlex
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath

from gfwtools import store
from gfwtools.config import Config, Paths

__all__ = ["MAIN_CONF", "Reader", "command_line", "debian_conf_dir"]

MAIN_CONF = "/etc/dnsmasq.conf"
_DEBIAN_DEFAULTS = "/etc/default/dnsmasq"


def _text(paths: Paths, path: str) -> str | None:
    data = store.read(paths.at(path))
    return None if data is None else data.decode("utf-8", "surrogateescape")


def command_line(config: Config) -> str | None:
    """The folder that the running dnsmasq was given on its command line; "" for none, None where it does not run."""
    try:
        pid = int(config.paths.at(config.dns.pid_file).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "surrogateescape").split("\0")
    except (OSError, ValueError):
        return None
    if PurePosixPath(words[0]).name != "dnsmasq":
        return None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-7", "--conf-dir"):
            return following
        if word.startswith(("-7/", "--conf-dir=")):
            return word.removeprefix("-7").removeprefix("--conf-dir=")
    return ""


def debian_conf_dir(paths: Paths) -> str:
    """What Debian's init script hands to ``-7``: CONFIG_DIR of /etc/default/dnsmasq."""
    values = re.findall(r"^[ \t]*(?:export[ \t]+)?CONFIG_DIR=(.*)$", _text(paths, _DEBIAN_DEFAULTS) or "", re.M)
    if not values:
        return ""
    try:
        return (shlex.split(values[-1], comments=True) or [""])[0]
    except ValueError:  # a quotation mark without its end: the script would fail as well
        return ""


class Reader:
    """Reads dnsmasq's configuration as dnsmasq does, with ``conf-file`` and ``conf-dir`` followed; each file once."""

    def __init__(self, config: Config, *, skip: Collection[str], edit: Callable[[str], str]) -> None:
        """:param skip: names of files in ``dns.conf_dir`` that are passed over.
        :param edit: what is made of a file's content before it is read.
        """
        self._paths = config.paths
        self._conf_dir = PurePosixPath(config.dns.conf_dir)
        self._ours = skip
        self._edit = edit
        self._seen: set[Path] = set()
        self.directives: list[tuple[str, str]] = []
        self.reads_conf_dir = False

    def file(self, path: str) -> None:
        place = self._paths.at(path)
        if place in self._seen or not place.is_file():
            return
        self._seen.add(place)
        for line in self._edit(_text(self._paths, path) or "").splitlines():
            # A number sign begins a comment at the start of a line or after a blank.
            name, _, value = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip().partition("=")
            name, value = name.strip().removeprefix("--"), value.strip().strip('"')
            if not name:
                continue
            self.directives.append((name, value))
            if name == "conf-file":
                self.file(value)
            elif name == "conf-dir":
                self.folder(value)

    def folder(self, value: str) -> None:
        """A value of ``conf-dir``: the folder, endings to leave out, and patterns ``*ending`` to read alone."""
        path, *filters = (part.strip() for part in value.split(","))
        folder = PurePosixPath(path)
        if folder == self._conf_dir and all(_passes(name, filters) for name in self._ours):
            self.reads_conf_dir = True
        place = self._paths.at(path)
        for entry in sorted(place.iterdir()) if place.is_dir() else ():
            if _passes(entry.name, filters) and not (folder == self._conf_dir and entry.name in self._ours):
                self.file(str(folder / entry.name))


def _passes(name: str, filters: list[str]) -> bool:
    """dnsmasq(8), --conf-dir."""
    if name.endswith("~") or name.startswith(".") or (name.startswith("#") and name.endswith("#")):
        return False
    only = [pattern[1:] for pattern in filters if pattern.startswith("*")]
    without = [pattern for pattern in filters if pattern and not pattern.startswith("*")]
    if any(name.endswith(ending) for ending in without):
        return False
    return not only or any(name.endswith(ending) for ending in only)
