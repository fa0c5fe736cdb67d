"""A copy of dnsmasq's configuration with new files in it, for ``dnsmasq --test``."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from gfwtools.config.model import Config
from gfwtools.dnsmasq.conf import (
    MAIN_CONF,
    directive,
    folder_and_filters,
    is_conf_dir,
    own_value,
    passes,
    plain,
    start_folders,
    whole,
)

__all__ = ["DnsmasqCopy"]

_REFERENCE = re.compile(rb"^[^\S\n]*conf-(?:file|dir)[^\S\n]*=.*$", re.MULTILINE)


class DnsmasqCopy:
    """The files that dnsmasq reads, below ``side`` with the paths that they have below the root.

    A file is a link to the host's own. So dnsmasq fails for it as it would on the host, and recognizes a file with two
    names by its inode. Only a file that names another file or folder is written anew, with references into the copy.
    """

    def __init__(self, config: Config, files: Mapping[Path, bytes], side: Path) -> None:
        """:param files: new content; dnsmasq reads only the files in ``dns.conf_dir``."""
        self._config = config
        self._side = side
        self._copies: dict[str, Path] = {}
        self._folders: dict[str, Path] = {}
        self._reads_conf_dir = False
        own = config.paths.at(config.dns.conf_dir)
        for path, data in files.items():
            if path.parent == own:
                # The rename replaces a link there, and does not follow it.
                self._write(f"{config.dns.conf_dir}/{path.name}", f"{os.path.realpath(own)}/{path.name}", data)

    def arguments(self) -> list[str]:
        """Make the copy; returns the arguments with which dnsmasq reads it."""
        found = [f"--conf-dir={','.join(self._conf_dir(value))}" for value in start_folders(self._config)]
        main = self._file(MAIN_CONF)
        try:
            main.stat()
        except FileNotFoundError:  # dnsmasq does without its own file, but not without one that it is given
            main.unlink(missing_ok=True)
            main.touch()
        except OSError:
            pass  # dnsmasq says so
        # Where nothing leads to the folder it may be missing, and dnsmasq starts all the same.
        if not self._reads_conf_dir and self._folder(self._config.dns.conf_dir).is_dir():
            found.append(f"--conf-dir={','.join(self._conf_dir(own_value(self._config)))}")
        return [*found, f"--conf-file={main}"]

    def other(self, path: Path, data: bytes) -> list[str]:
        """The arguments with which dnsmasq reads one file that is not part of its main configuration."""
        host = f"/{path.relative_to(self._config.root)}"
        self._write(host, os.path.realpath(path), data)
        return [f"--conf-file={self._place(host)}"]

    def named(self, message: str) -> str:
        """dnsmasq's message, with the host's paths in place of those of the copy."""
        return message.replace(str(self._side), "").replace("//", "/")

    def _place(self, path: str) -> Path:
        return self._side / plain(path).lstrip("/")

    def _write(self, path: str, key: str, data: bytes) -> None:
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        self._copies[key] = place

    def _file(self, path: str) -> Path:
        """The place in the copy of a file on the host; it is made where there is one."""
        place = self._place(path)
        if os.path.lexists(place):
            return place
        real = Path(os.path.abspath(self._config.paths.at(path)))
        key = os.path.realpath(real)
        place.parent.mkdir(parents=True, exist_ok=True)
        if key in self._copies:
            place.symlink_to(self._copies[key])
            return place
        data = _read(real)
        if _REFERENCE.search(data):
            self._write(path, key, b"")  # one that includes itself finds it here
            place.write_bytes(_REFERENCE.sub(lambda found: self._reference(found[0]), data))
        elif real.is_dir():
            place.mkdir()  # and no link to it: nothing of ours may ever be written on the host
        elif os.path.lexists(real):
            place.symlink_to(real)
        return place

    def _reference(self, line: bytes) -> bytes:
        """A line that names a file or a folder, as it leads into the copy."""
        name, value = directive(line.decode("utf-8", "surrogateescape")) or ("", "")
        if name == "conf-dir" and value:
            words = self._conf_dir(value)
        elif name == "conf-file" and value not in ("", "-"):
            words = [str(self._file(whole(value)))]
        else:
            return line
        return f"{name}={','.join(map(_quoted, words))}".encode("utf-8", "surrogateescape")

    def _conf_dir(self, value: str) -> list[str]:
        """The words of a value of ``conf-dir`` as it leads into the copy."""
        path, filters = folder_and_filters(value)
        if is_conf_dir(self._config, path):
            path = self._config.dns.conf_dir
            ours = [f"{policy.name}.conf" for policy in self._config.policies]
            self._reads_conf_dir = self._reads_conf_dir or all(passes(name, filters) for name in ours)
        return [str(self._folder(path)), *filters]

    def _folder(self, path: str) -> Path:
        """The place in the copy of a folder on the host, with all that is in it."""
        real = Path(os.path.abspath(self._config.paths.at(path)))
        key = os.path.realpath(real)
        if key in self._folders:
            return self._folders[key]
        place = self._folders[key] = self._place(path)
        try:
            names = sorted(os.listdir(real))
        except OSError:  # dnsmasq fails as well, unless one of the new files makes it
            return self._file(path)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            self._file(f"{path}/{name}")
        return place


def _read(path: Path) -> bytes:
    """The content of a regular file; empty where it cannot be read, which dnsmasq reports itself."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
