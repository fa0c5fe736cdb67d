"""Reads dnsmasq's configuration as dnsmasq does: the files, their order and their directives."""

import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from gfwtools.config.model import Config, Paths, PolicyConfig
from gfwtools.dnsmasq.manager import kind_of
from gfwtools.storage import atomic

__all__ = [
    "COMMAND_LINE",
    "MAIN_CONF",
    "NEVER",
    "SNIPPET",
    "DnsmasqConf",
    "Line",
    "bootstrap_command",
    "directive",
    "folder_and_filters",
    "is_conf_dir",
    "is_wired",
    "main_file",
    "never_bootstrapped",
    "option_values",
    "own_value",
    "passes",
    "plain",
    "read",
    "read_file",
    "service_folders",
    "service_resolv_file",
    "start_folders",
    "start_resolv_files",
    "whole",
]

MAIN_CONF = "/etc/dnsmasq.conf"
#: Our own set-up in ``dns.conf_dir``: dnsmasq reads it before the policies' files and before all others there.
SNIPPET = "00-gfwtools.conf"
#: A host that has never had it.
NEVER = "never bootstrapped"
_DEBIAN_DEFAULTS = "/etc/default/dnsmasq"
_INIT_SCRIPT = "/etc/init.d/dnsmasq"
#: In the order in which systemd looks (systemd.unit(5)).
_UNIT_FOLDERS = (
    *("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system"),
    *("/usr/lib/systemd/system", "/lib/systemd/system"),
)
#: In quotation marks a comma separates nothing: it is kept as this until the value has been taken apart.
_COMMA = "\ue000"
_COMMENT = re.compile(r"(?:^|\s)#")
_ESCAPED = {"t": "\t", "n": "\n", "e": "\033", "b": "\b", "r": "\r"}
_TOKEN = re.compile(r'"(?P<quoted>(?:\\["tnebr\\]|[^"])*+)"|(?P<comment>(?:^|(?<=\s))#.*)|(?P<plain>[^"#]+|#)')


#: In place of a file, for what dnsmasq was started with.
COMMAND_LINE = "the command line of dnsmasq"
#: The short options of dnsmasq(8) that stand for a directive about names.
_SHORT = {"S": "server", "A": "address", "H": "addn-hosts", "s": "domain"}


class Line(NamedTuple):
    """A directive, and where it is."""

    name: str
    value: str
    file: str
    """The file on the host, or :data:`COMMAND_LINE`."""
    number: int
    """The line in the file, from 1; 0 on the command line."""


@dataclass(frozen=True, slots=True)
class DnsmasqConf:
    """The configuration that dnsmasq reads."""

    lines: tuple[Line, ...]
    """Every directive, in dnsmasq's order."""
    reads_conf_dir: bool
    """Whether dnsmasq reads ``dns.conf_dir``, and the policies' files in it."""
    before_skipped: int | None = None
    """How many of the lines come before the first file that was skipped; None where none was."""

    @property
    def directives(self) -> tuple[tuple[str, str], ...]:
        """Name and value of each line."""
        return tuple((line.name, line.value) for line in self.lines)


def is_wired(config: Config) -> bool:
    """Whether dnsmasq has the file that bootstrap writes."""
    return config.paths.at(config.dns.conf_dir).joinpath(SNIPPET).exists()


def bootstrap_command(policy: PolicyConfig) -> str:
    """The command that sets up a host for a policy."""
    return f"gfwtools bootstrap --interface {policy.interface}"


def never_bootstrapped(policy: PolicyConfig) -> str:
    """A host that is not wired, and what to do, in the words that follow "it was"."""
    return f"{NEVER}; run: {bootstrap_command(policy)}"


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
    if not anew:
        reader.words(command_line(config) or [])
    for value in service_folders(config) if anew else start_folders(config):
        reader.folder(value)
    reader.file(MAIN_CONF if anew else main_file(config))
    reads = reader.reads_conf_dir
    if not reads:
        reader.folder(own_value(config))
    return DnsmasqConf(tuple(reader.lines), reads, reader.before_skipped)


def read_file(config: Config, path: str, only: Collection[str], edit: Callable[[str], str] = str) -> tuple[Line, ...]:
    """The lines of one file that dnsmasq reads by itself, such as a ``servers-file``, and of what it includes.

    :raises StoreError: the file is there and cannot be read.
    """
    reader = _Reader(config, (), edit, only)
    reader.file(path)
    return tuple(reader.lines)


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
    return tuple(option_values(command_line(config) or [], "-r", "--resolv-file"))


def main_file(config: Config) -> str:
    """The main file of the running dnsmasq: the one of ``-C``, or the default."""
    words = command_line(config) or []
    return ([MAIN_CONF, *option_values(words, "-C", "--conf-file")])[-1]


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
    return tuple(value for value in option_values(words, "-7", "--conf-dir") if value)


def option_values(words: list[str], short: str, long: str) -> Iterator[str]:
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
    if '"' not in line and not _COMMENT.search(line):  # almost every line of a long list
        name, _, value = line.partition("=")
        return (name.strip(), value.strip()) if name.strip() else None
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
    data = atomic.read(paths.follow(paths.at(path)))
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
        self._wanted = re.compile(rf"^[^\S\n]*(?:{names})[^\S\n]*(?:[=#].*)?$" if only else r"^.+$", re.MULTILINE)
        self._seen: set[tuple[int, int]] = set()
        self.lines: list[Line] = []
        self.reads_conf_dir = False
        self.before_skipped: int | None = None

    def words(self, words: Sequence[str]) -> None:
        """Take the directives of a command line; the files and folders on it are read apart (getopt_long(3))."""
        for word, following in zip_longest(words, words[1:], fillvalue=""):
            if word.startswith("--"):
                name, _, value = word[2:].partition("=")
            elif word[:1] == "-" and word[1:2] in _SHORT:
                name, value = _SHORT[word[1]], word[2:] or ("" if following.startswith("-") else following)
            else:
                continue
            if not self._only or name in self._only:
                self.lines.append(Line(name, value, COMMAND_LINE, 0))

    def file(self, path: str) -> None:
        place = self._paths.follow(self._paths.at(path))
        if not place.is_file():
            return
        status = place.stat()
        if (status.st_dev, status.st_ino) in self._seen:
            return
        self._seen.add((status.st_dev, status.st_ino))
        for number, name, value in self._lines(path):
            if not self._only or name in self._only:
                self.lines.append(Line(name, whole(value), path, number))
            if name == "conf-file":
                self.file(whole(value))
            elif name == "conf-dir":
                self.folder(value)

    def _lines(self, path: str) -> Iterator[tuple[int, str, str]]:
        """Number, name and value of each wanted line. The number is that of the text after the edit."""
        text = self._edit(_text(self._paths, path) or "")
        number, counted = 1, 0
        for match in self._wanted.finditer(text):
            number += text.count("\n", counted, match.start())
            counted = match.start()
            found = directive(match[0])
            if found:
                yield number, *found

    def folder(self, value: str) -> None:
        path, filters = folder_and_filters(value)
        is_ours = is_conf_dir(self._config, path)
        if is_ours and all(passes(name, filters) for name in self._ours):
            self.reads_conf_dir = True
        place = self._paths.at(path)
        for entry in sorted(place.iterdir()) if place.is_dir() else ():
            if not passes(entry.name, filters):
                continue
            if is_ours and entry.name in self._skip:
                self.before_skipped = len(self.lines) if self.before_skipped is None else self.before_skipped
            else:
                self.file(f"{path.rstrip('/')}/{entry.name}")
