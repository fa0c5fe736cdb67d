"""A host with systemd as PID 1, a disk that survives a reboot and a power cut, and two network cards.

It is a set of namespaces: mounts, PIDs, network, host name, IPC and cgroups. No virtual machine, no container manager and
no systemd of this machine is needed.
"""

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import debian

__all__ = ["WAN_CARD", "Machine", "NotUp"]

_HERE = Path(__file__).parent
_numbers = itertools.count()
#: A network card has its address burnt in.
WAN_CARD, LAN_CARD = "02:00:00:00:00:01", "02:00:00:00:00:02"
_ENVIRONMENT = ("env", "-i", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8", f"PATH={debian.CHROOT_PATH}")
#: Joins the cgroup first, so that the namespace of cgroups begins there.
_POWER_ON = 'echo $$ >"$1/cgroup.procs"; shift; exec unshare -m -p -u -i -C --fork --kill-child sh "$@"'


class NotUp(AssertionError):
    """The host did not come up."""


class Machine:
    """Use it as a context manager; it is off at first."""

    def __init__(self, layers: Sequence[Path], cables: Sequence[tuple[str, str, str]], *, container: bool) -> None:
        """:param cables: of each network card its name, and the namespace and the bridge that it leads to"""
        self.name = f"gfw-{os.getpid()}-host{next(_numbers)}"
        self.container = container
        #: When it was switched on for the last time, in seconds since 1970.
        self.booted = 0.0
        self._layers = layers
        self._cables = cables
        self._power: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> "Machine":
        # Not in a tmpfs, which /tmp may be: the disk of a host grows to some 100 MB.
        self._disk = debian.new_disk()
        self._cgroup = (debian.cgroup() or Path("/sys/fs/cgroup")) / self.name
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._unplug()
        shutil.rmtree(self._disk, ignore_errors=True)

    # ------------------------------------------------------------ while it is off

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file on the disk, whether the host is on or off."""
        self._in_root("sh", "-c", 'mkdir -p "${1%/*}"; cat >"$1"; chmod "$2" "$1"', "sh", path, f"{mode:o}", stdin=text)

    def copy(self, source: Path, target: str) -> None:
        """A folder of this machine, put on the disk while the host is off."""
        shutil.copytree(source, self._disk / "upper" / target, ignore=shutil.ignore_patterns("__pycache__"))

    def _in_root(self, *argv: str, stdin: str = "") -> str:
        if self._init:
            return self.run(*argv, stdin=stdin).stdout
        return debian.run_in(self._layers, self._disk / "upper", *argv, stdin=stdin)

    def prepare(self, *argv: str) -> str:
        """Run a command on the disk of a host that is off, without a network."""
        assert not self._init
        return self._in_root(*argv)

    # ------------------------------------------------------------ power

    def boot(self) -> None:
        """Power on."""
        self.booted = time.time()
        self._plug_in()
        self._cgroup.mkdir()
        disk = debian.overlay(self._layers, self._disk / "upper", self._disk / "work")
        init = [str(_HERE / "init.sh"), "container" if self.container else "machine", str(self._disk / "root"), disk]
        # It ends with this process, whatever ends that.
        into = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.name}"]
        self._power = subprocess.Popen(
            [*into, "sh", "-c", _POWER_ON, "sh", str(self._cgroup), *init],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._disk / "console").open("ab"),
        )
        self._init = self._first_process()

    def wait_until_up(self, seconds: float = 90) -> None:
        state = ""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.run("systemctl", "is-system-running", code=None).stdout.strip()
            if state in ("running", "degraded"):
                return
            self._require_power()
            time.sleep(0.1)
        jobs = self.run("systemctl", "list-jobs", "--no-pager", code=None).stdout
        raise NotUp(f"the host is not up after {seconds:g} s: {state or 'no answer'}\n{jobs}")

    def reboot(self) -> None:
        """``systemctl reboot``: services are stopped, then it boots again."""
        self.run("systemctl", "reboot", code=None)
        self._wait_until_off()
        self.boot()

    def cut(self) -> None:
        """Pull the plug, and plug it in again: no process of the host learns of it."""
        self._kill()
        self.boot()

    def _require_power(self) -> None:
        if self._power is None or self._power.poll() is not None:
            raise NotUp(f"the host went off: {(self._disk / 'console').read_text('utf-8', 'replace')[-1000:]}")

    def _first_process(self) -> int:
        assert self._power
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self._require_power()
            child = subprocess.run(["pgrep", "-P", str(self._power.pid)], capture_output=True, text=True, check=False)
            if child.stdout.strip():
                return int(child.stdout.split()[0])
            time.sleep(0.02)
        raise NotUp("the host does not start")

    def _wait_until_off(self, seconds: float = 90) -> None:
        assert self._power
        try:
            self._power.wait(seconds)
        except subprocess.TimeoutExpired:
            jobs = self.run("systemctl", "list-jobs", "--no-pager", code=None).stdout
            self._kill()
            raise NotUp(f"the host was not off {seconds:g} s after systemctl reboot\n{jobs}") from None
        self._off()

    def _kill(self) -> None:
        if self._power is None:
            return
        # The kernel ends all others with the first of a PID namespace; unshare(1) ends when that is done.
        with suppress(ProcessLookupError):
            os.kill(self._init or self._power.pid, signal.SIGKILL)
        self._power.wait(30)
        self._off()

    def _off(self) -> None:
        self._init, self._power = 0, None
        folders = [folder for folder in self._cgroup.rglob("*") if folder.is_dir()]
        for folder in [*sorted(folders, reverse=True), self._cgroup]:
            _remove(folder)

    # ------------------------------------------------------------ cables

    def _plug_in(self) -> None:
        """Each boot has a network namespace of its own: what the kernel held is gone, as with a real host."""
        self._unplug()
        _ip("netns", "add", self.name)
        for (card, network, bridge), address in zip(self._cables, (WAN_CARD, LAN_CARD), strict=True):
            new = ["-n", self.name, "link", "add", card, "address", address, "type", "veth"]
            _ip(*new, "peer", "name", "cable0", "netns", network)
            _ip("-n", network, "link", "set", "cable0", "master", bridge, "up")

    def _unplug(self) -> None:
        # The kernel takes a namespace away a little later than asked: the other end of a cable may still be there.
        for _, network, _ in self._cables:
            _ip("-n", network, "link", "del", "cable0", check=False)
        _ip("netns", "del", self.name, check=False)

    # ------------------------------------------------------------ while it is on

    def inside(self, argv: Sequence[str]) -> list[str]:
        assert self._init, "the host is off"
        return ["nsenter", "-t", str(self._init), "-m", "-p", "-n", "-u", "-i", "-C", *_ENVIRONMENT, *argv]

    def run(
        self, *argv: str, code: int | None = 0, stdin: str = "", timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host, as root at a shell does."""
        done = subprocess.run(
            self.inside(argv), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert code is None or done.returncode == code, f"{argv} gave {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    @contextmanager
    def running(self, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs beside the test, and that a power cut ends."""
        child = subprocess.Popen(
            self.inside(argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def _remove(folder: Path) -> None:
    """A cgroup is busy for a moment after its last process."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _ip(*argv: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, check=False, timeout=30)
    assert not check or done.returncode == 0, f"ip {' '.join(argv)}: {done.stderr}"
