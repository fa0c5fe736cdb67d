"""The folders below /run that the files of our dnsmasqs name. dnsmasq does not start where one is missing.

/run is empty after a boot. systemd and OpenRC make the folder of a service that they start; a command of the user's
(``dns.manager``) may make none.
"""

import time
from contextlib import suppress
from pathlib import PurePosixPath

from gfwtools.config.model import Config
from gfwtools.dnsmasq.conf import SNIPPET, read_file
from gfwtools.dnsmasq.daemon import runs
from gfwtools.errors import StoreError
from gfwtools.storage import atomic

__all__ = ["make", "remove"]

#: Seconds that the daemons have to end: a signal takes effect some time after it is sent.
_END = 2.0
_VOLATILE = (PurePosixPath("/run"), PurePosixPath("/var/run"))


def make(config: Config) -> None:
    """Make the folders that are missing.

    :raises StoreError: one cannot be made.
    """
    for name in _named(config):
        folder = config.paths.at(name)
        try:
            atomic.make_folder(folder)
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}") from None


def remove(config: Config) -> None:
    """Remove the folder of the second daemons' pid files, once they have ended and where nothing else is in it."""
    deadline = time.monotonic() + _END
    for policy in config.policies:
        pid_file = config.paths.second_pid(policy.name)
        while (running := runs(pid_file)) and time.monotonic() < deadline:
            time.sleep(0.02)
        with suppress(OSError):
            if not running:
                pid_file.unlink(missing_ok=True)
            pid_file.parent.rmdir()


def _named(config: Config) -> list[str]:
    """The folders below /run, as paths on the host."""
    dns, paths = config.dns, config.paths
    found = [PurePosixPath(dns.conf_dir)]
    if dns.layout == "split":
        found += [PurePosixPath("/", paths.second_pid(p.name).parent.relative_to(paths.root)) for p in config.policies]
    ours = read_file(config, f"{dns.conf_dir}/{SNIPPET}", ("pid-file", "resolv-file"))
    found += [PurePosixPath(line.value).parent for line in ours]
    return [str(folder) for folder in dict.fromkeys(found) if any(top in folder.parents for top in _VOLATILE)]
