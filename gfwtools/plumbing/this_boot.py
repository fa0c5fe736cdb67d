"""Which boot of the host this is. What lives in the kernel alone is gone after a reboot, and so is any record of it.

The kernel's own name for a boot (random(4)) is not enough in a container: where the container has a boot id of its own,
that is a mount over the kernel's file, and a unit with a sandbox, which has a /proc of its own, reads the machine's id
in its place; where it has none, the id stays the same when the container boots again. So the first who changes
something writes into /run what it sees, and all others take that.
"""

from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner

__all__ = ["boot_id", "forget", "note"]


def boot_id(paths: Paths, runner: Runner) -> str:
    """The name of this boot; the same for every process until the host, or the container, boots again."""
    started = _started()
    noted = (atomic.read(_path(paths)) or b"").decode("ascii", "replace").strip()
    # /run of a container may be a folder on the disk.
    if started and noted.endswith(f"/{started}"):
        return noted
    kernels = (runner.ask("sysctl", "-n", "kernel/random/boot_id") or "").strip()
    return f"{kernels}/{started}" if started else kernels


def note(paths: Paths, runner: Runner) -> None:
    """Write the name down for those who see another boot id.

    :raises StoreError: it cannot be written.
    """
    name = f"{boot_id(paths, runner)}\n".encode()
    if atomic.read(_path(paths)) != name:
        atomic.write_all({_path(paths): name})


def forget(paths: Paths) -> None:
    """:raises StoreError: it cannot be removed."""
    atomic.remove([_path(paths)])


def _path(paths: Paths) -> Path:
    return paths.at("/run/gfwtools/boot")


def _started() -> str:
    """When process 1 started, in ticks since the kernel did (proc(5), field 22 of stat); empty where it is hidden."""
    try:
        return Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
