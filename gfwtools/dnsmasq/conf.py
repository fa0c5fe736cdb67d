"""Reads dnsmasq's configuration as dnsmasq does: the files, their order and their directives."""

import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from gfwtools.config.model import Config, Paths
from gfwtools.dnsmasq.manager import kind_of
from gfwtools.storage import atomic

__all__ = [
    "MAIN_CONF",
    "SNIPPET",
    "DnsmasqConf",
    "directive",
    "folder_and_filters",
    "is_conf_dir",
    "is_wired",
    "main_file",
    "own_value",
    "passes",
    "plain",
    "read",
    "service_folders",
    "service_resolv_file",
    "start_folders",
    "start_resolv_files",
    "whole",
]

MAIN_CONF = "/etc/dnsmasq.conf"
#: Our own set-up in ``dns.conf_dir``: dnsmasq reads it before the policies' files and before all others there.
SNIPPET = "00-gfwtools.conf"
_DEBIAN_DEFAULTS = "/etc/default/dnsmasq"
_INIT_SCRIPT = "/etc/init.d/dnsmasq"
#: In the order in which systemd looks (systemd.unit(5)).
_UNIT_FOLDERS = (
    *("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system"),
    *("/usr/lib/systemd/system", "/lib/systemd/system"),
)
#: In quotation marks a comma separates nothing: it is kept as this until the value has been taken apart.
_COMMA = "\ue000"
_ESCAPED = {"t": "\t", "n": "\n", "e": "\033", "b": "\b", "r": "\r"}
_TOKEN = re.compile(r'"(?P<quoted>(?:\\["tnebr\\]|[^"])*+)"|(?P<comment>(?:^|(?<=\s))#.*)|(?P<plain>[^"#]+|#)')


@dataclass(frozen=True, slots=True)
class DnsmasqConf:
    """The configuration that dnsmasq reads."""

    directives: tuple[tuple[str, str], ...]
    """Name and value of each line, in dnsmasq's order."""
    reads_conf_dir: bool
    """Whether dnsmasq reads ``dns.conf_dir``, and the policies' files in it."""


def is_wired(config: Config) -> bool:
    """Whether dnsmasq has the file that bootstrap writes."""
    return config.paths.at(config.dns.conf_dir).joinpath(SNIPPET).exists()


def read(
    config: Config,
    *,
    skip: Collection[str] = (),
    edit: Callable[[str], str] = str,
    only: Collection[str] = (),
    anew: bool = False,
) -> DnsmasqConf:
    """Read what dnsmasq reads. Where no line leads to ``dns.conf_dir``, it is read as if our own line were there.

    :param skip: names of files in ``dns.conf_dir`` to skip.
    :param edit: changes a file's content before it is read.
    :param only: the wanted directives, which is faster; empty for all of them.
    :param anew: read what dnsmasq would read after a new start, not what the running one has read.
    :raises StoreError: a file is there and cannot be read.
    """
    reader = _Reader(config, skip, edit, only)
    # dnsmasq takes its command line first.
    for value in service_folders(config) if anew else start_folders(config):
        reader.folder(value)
    reader.file(MAIN_CONF if anew else main_file(config))
    reads = reader.reads_conf_dir
    if not reads:
        reader.folder(own_value(config))
    return DnsmasqConf(tuple(reader.directives), reads)


def own_value(config: Config) -> str:
    """The value of the line that leads dnsmasq to ``dns.conf_dir`` where nothing else does."""
    return f"{config.dns.conf_dir},*.conf"


# ---------------------------------------------------------------- what dnsmasq is started with


def start_folders(config: Config) -> tuple[str, ...]:
    """The values of ``conf-dir`` on the command line of the running dnsmasq, or of its service where none runs."""
    words = command_line(config)
    return service_folders(config) if words is None else _folders(words)


def service_folders(config: Config) -> tuple[str, ...]:
    """The values of ``conf-dir`` with which the service manager starts dnsmasq.

    Debian's start scripts pass ``CONFIG_DIR`` of /etc/default/dnsmasq to ``-7``. It counts only where the unit or the
    init script reads that file. The user's own command (``dns.manager``) may start dnsmasq in any way, so it gives no
    value. A file that is named twice is read once.
    """
    kind = kind_of(config)
    if kind in ("command", "none"):
        return ()
    words = _unit_command(config.paths) if kind != "openrc" else []
    if words and PurePosixPath(words[0]).name == "dnsmasq":
        return _folders(words)
    return _debian_conf_dir(config.paths) if "CONFIG_DIR" in _service_script(config) else ()


def _service_script(config: Config) -> str:
    """The script with which the service manager starts dnsmasq; empty where it starts dnsmasq itself."""
    words = _unit_command(config.paths) if kind_of(config) != "openrc" else []
    if words and PurePosixPath(words[0]).name == "dnsmasq":
        return ""
    return _text(config.paths, words[0] if words else _INIT_SCRIPT) or ""


def service_resolv_file(config: Config) -> str:
    """The file that Debian's start scripts pass to ``-r``; empty where they pass none.

    It is ``RESOLV_CONF`` of /etc/default/dnsmasq, or the one that resolvconf maintains.
    """
    if kind_of(config) in ("command", "none") or "RESOLV_CONF" not in _service_script(config):
        return ""
    defaults = _text(config.paths, _DEBIAN_DEFAULTS) or ""
    if named := _assigned(defaults, "RESOLV_CONF"):
        return named
    ignored = _assigned(defaults, "IGNORE_RESOLVCONF") == "yes"
    return "" if ignored or not config.paths.at("/sbin/resolvconf").exists() else "/run/dnsmasq/resolv.conf"


def start_resolv_files(config: Config) -> tuple[str, ...]:
    """The values of ``resolv-file`` on the command line of the running dnsmasq."""
    return tuple(_values(command_line(config) or [], "-r", "--resolv-file"))


def main_file(config: Config) -> str:
    """The main file of the running dnsmasq: the one of ``-C``, or the default."""
    words = command_line(config) or []
    return ([MAIN_CONF, *_values(words, "-C", "--conf-file")])[-1]


def command_line(config: Config) -> list[str] | None:
    """The command line of the running dnsmasq, as words; None where it does not run, or below another root."""
    if config.root != Path("/"):
        return None
    try:
        pid = int(config.paths.at(config.dns.pid_file).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "surrogateescape").split("\0")
    except (OSError, ValueError):
        return None
    return words if PurePosixPath(words[0]).name == "dnsmasq" else None


def _folders(words: list[str]) -> tuple[str, ...]:
    return tuple(value for value in _values(words, "-7", "--conf-dir") if value)


def _values(words: list[str], short: str, long: str) -> Iterator[str]:
    """The values of an option on a command line (getopt_long(3))."""
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if word in (short, long):
            yield following
        elif word.startswith((f"{short}/", f"{long}=")):
            yield word.removeprefix(short).removeprefix(f"{long}=")


def _unit_command(paths: Paths) -> list[str]:
    """How systemd starts dnsmasq: ``ExecStart=`` of the first unit in its search path, and of what is dropped in."""
    unit = next((text for folder in _UNIT_FOLDERS if (text := _text(paths, f"{folder}/dnsmasq.service"))), "")
    dropped = sorted(paths.at(f"{_UNIT_FOLDERS[0]}/dnsmasq.service.d").glob("*.conf"))
    texts = [unit, *((atomic.read(path) or b"").decode("utf-8", "surrogateescape") for path in dropped)]
    lines = re.findall(r"^[ \t]*ExecStart[ \t]*=[ \t]*[-@:+!]*(\S.*)$", "\n".join(texts), re.MULTILINE)
    return lines[-1].split() if lines else []


def _debian_conf_dir(paths: Paths) -> tuple[str, ...]:
    """The value that Debian's init script passes to ``-7``: CONFIG_DIR of /etc/default/dnsmasq."""
    value = _assigned(_text(paths, _DEBIAN_DEFAULTS) or "", "CONFIG_DIR")
    return (value,) if value else ()


def _assigned(text: str, name: str) -> str:
    """The last value that a shell script gives a variable; empty where it gives none."""
    values = re.findall(rf"^[ \t]*(?:export[ \t]+)?{name}=(.*)$", text, re.MULTILINE)
    try:
        return next(iter(shlex.split(values[-1], comments=True)), "") if values else ""
    except ValueError:  # a quotation mark without its end: the script would fail as well
        return ""


# ---------------------------------------------------------------- one line


def directive(line: str) -> tuple[str, str] | None:
    """The name and value of a line; None for a line without a directive, or with an unclosed quotation mark.

    Pass a value that is not a list to :func:`whole`, and one of ``conf-dir`` to :func:`folder_and_filters`.
    """
    text = ""
    at = 0
    while at < len(line):
        token = _TOKEN.match(line, at)
        if token is None:
            return None
        if token["comment"]:  # a number sign begins one at the start of a line or after a blank
            break
        text += token["plain"] or _unquoted(token["quoted"])
        at = token.end()
    name, _, value = text.strip().partition("=")
    return (name.strip(), value.strip()) if name.strip() else None


def _unquoted(text: str) -> str:
    text = re.sub(r'\\(["tnebr\\])', lambda found: _ESCAPED.get(found[1], found[1]), text)
    return text.replace(",", _COMMA)


def whole(value: str) -> str:
    """A value that is not a list."""
    return value.replace(_COMMA, ",")


def folder_and_filters(value: str) -> tuple[str, list[str]]:
    """A value of ``conf-dir``: the folder, and endings to leave out or patterns ``*ending`` to read alone."""
    folder, *filters = (whole(part.strip()) for part in value.split(","))
    return folder, filters


def passes(name: str, filters: Collection[str]) -> bool:
    """Whether a file of this name in a folder is read (dnsmasq(8), --conf-dir)."""
    if name.endswith("~") or name.startswith(".") or (name.startswith("#") and name.endswith("#")):
        return False
    only = [pattern[1:] for pattern in filters if pattern.startswith("*") and pattern != "*"]
    without = [pattern for pattern in filters if pattern and not pattern.startswith("*")]

    def ends_in(endings: list[str]) -> bool:
        return any(name.endswith(ending) and name != ending for ending in endings)

    return not ends_in(without) and (not only or ends_in(only))


def plain(path: str) -> str:
    """The plain spelling of a path on the host; dnsmasq is started in the root."""
    return "/" + os.path.normpath(f"/{path}").lstrip("/")


def is_conf_dir(config: Config, folder: str) -> bool:
    """Whether a folder is ``dns.conf_dir``, in any spelling and behind any link."""
    at = config.paths.at
    if plain(folder) == plain(config.dns.conf_dir):
        return True
    return at(folder).is_dir() and os.path.realpath(at(folder)) == os.path.realpath(at(config.dns.conf_dir))


# ---------------------------------------------------------------- the files


def _text(paths: Paths, path: str) -> str | None:
    data = atomic.read(paths.at(path))
    return None if data is None else data.decode("utf-8", "surrogateescape")


class _Reader:
    """Follows ``conf-file`` and ``conf-dir``. Each file is read once, also where it has several names."""

    def __init__(
        self, config: Config, skip: Collection[str], edit: Callable[[str], str], only: Collection[str]
    ) -> None:
        self._config = config
        self._paths = config.paths
        self._skip = skip
        self._ours = {*skip, *(f"{policy.name}.conf" for policy in config.policies)}
        self._edit = edit
        self._only = only
        names = "|".join(re.escape(name) for name in (*only, "conf-file", "conf-dir"))
        self._wanted = re.compile(rf"^[^\S\n]*(?:{names})[^\S\n]*=.*$" if only else r"^.+$", re.MULTILINE)
        self._seen: set[tuple[int, int]] = set()
        self.directives: list[tuple[str, str]] = []
        self.reads_conf_dir = False

    def file(self, path: str) -> None:
        place = self._paths.at(path)
        if not place.is_file():
            return
        status = place.stat()
        if (status.st_dev, status.st_ino) in self._seen:
            return
        self._seen.add((status.st_dev, status.st_ino))
        for name, value in self._lines(path):
            if not self._only or name in self._only:
                self.directives.append((name, whole(value)))
            if name == "conf-file":
                self.file(whole(value))
            elif name == "conf-dir":
                self.folder(value)

    def _lines(self, path: str) -> Iterator[tuple[str, str]]:
        for line in self._wanted.findall(self._edit(_text(self._paths, path) or "")):
            found = directive(line)
            if found:
                yield found

    def folder(self, value: str) -> None:
        path, filters = folder_and_filters(value)
        is_ours = is_conf_dir(self._config, path)
        if is_ours and all(passes(name, filters) for name in self._ours):
            self.reads_conf_dir = True
        place = self._paths.at(path)
        for entry in sorted(place.iterdir()) if place.is_dir() else ():
            if passes(entry.name, filters) and not (is_ours and entry.name in self._skip):
                self.file(f"{path}/{entry.name}")
