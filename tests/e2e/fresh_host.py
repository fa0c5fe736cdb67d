"""A host of its own for a test: a network namespace with mounts of its own, so that the tool's real paths can be used.

``/etc``, ``/var`` and ``/run`` are its own, made by :mod:`host_tree` in a tmpfs. Nothing of the machine's shows through but
programs and libraries, and nothing that runs in it touches the machine.
"""

import itertools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import host_tree
import warm_program

HERE = Path(__file__).parent
_REPO = HERE.parent.parent
_numbers = itertools.count()

_MOUNTS = """
set -e
mount --make-rprivate /
side=$1
shift
mount -t tmpfs -o mode=755 tmpfs "$side"
cd "$side"
tar -xm
for path; do
    mkdir -p "./$path"
    mount --bind "$path" "./$path"
done
for top in {tops}; do
    mount --rbind "./$top" "/$top"
done
ip link set lo up
echo ready
exec sleep 3600
""".format(tops=" ".join(host_tree.TOPS))

#: Restart every dnsmasq of the host, as a service manager would.
RESTART = """#!/bin/sh
# Restart every dnsmasq of the host, as a service manager would.
for pid in /run/dnsmasq/dnsmasq.pid /run/gfwtools/dns-*.pid; do
    [ -e "$pid" ] || continue
    # Read it once: dnsmasq removes the file first and lets go of its port a moment later. A zombie has let go of it,
    # and may stay one for seconds where the machine's init is slow.
    number=$(cat "$pid")
    kill "$number" 2>/dev/null
    tries=0
    while grep -qs '^State:.[^ZX]' "/proc/$number/status" && [ $tries -lt 500 ]; do
        tries=$((tries + 1))
        sleep 0.01
    done
    rm -f "$pid"
done
for conf in /etc/gfwtools/dns/*.conf; do
    [ -e "$conf" ] || continue
    (ulimit -n 96 && exec dnsmasq --conf-file="$conf" --user=root) || exit 1  # as its unit has it
done
# As the init script of Debian's package does, where its file is there.
CONFIG_DIR=
[ -r /etc/default/dnsmasq ] && . /etc/default/dnsmasq
dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid ${CONFIG_DIR:+-7 "$CONFIG_DIR"} || exit 1
echo restart >>/run/restarts
"""
MAIN = """user=root
no-resolv
no-hosts
listen-address=127.0.0.1
bind-interfaces
server=127.0.0.1#5302
conf-dir=/etc/dnsmasq.d/,*.conf
"""


class FreshHost:
    """Use it as a context manager."""

    def __init__(self) -> None:
        self.name = f"gfw-{os.getpid()}-{next(_numbers)}"
        self._side: Path | None = None
        self._children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "FreshHost":
        subprocess.run(["ip", "netns", "add", self.name], check=True, timeout=10)
        try:
            self._side = Path(tempfile.mkdtemp(prefix="gfw-host-"))
            script = ["sh", "-c", _MOUNTS, "sh", self._side, *_below_what_is_hidden()]
            with tempfile.TemporaryFile() as tree:
                tree.write(host_tree.archive(host_tree.with_dnsmasq_package()))
                tree.seek(0)
                self._init = subprocess.Popen(
                    ["ip", "netns", "exec", self.name, "unshare", "-m", *script],
                    stdin=tree,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            self._children.append(self._init)
            _wait_until_ready(self._init)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            child.kill()
            child.wait()
            if child.stdout:
                child.stdout.close()
        # What daemons have forked is in no list of ours, but in the namespace; it may also have ended meanwhile.
        deadline = time.monotonic() + 5
        while (pids := self._pids()) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        subprocess.run(["ip", "netns", "del", self.name], check=False, timeout=10)
        if self._side:
            shutil.rmtree(self._side, ignore_errors=True)

    def _pids(self) -> list[int]:
        command = ["ip", "netns", "pids", self.name]
        return [
            int(pid) for pid in subprocess.run(command, capture_output=True, check=False, timeout=10).stdout.split()
        ]

    def inside(self, argv: Sequence[str | Path]) -> list[str]:
        """``argv`` as a command that runs in this host."""
        return ["nsenter", "-t", str(self._init.pid), "-m", "-n", *map(str, argv)]

    def run(
        self, *argv: str | Path, code: int | None = 0, stdin: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        done = self._loaded(argv, stdin, timeout) or subprocess.run(
            self.inside(argv),
            env=_environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert code is None or done.returncode == code, f"{argv} gave {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def _loaded(
        self, argv: Sequence[str | Path], stdin: str, timeout: float
    ) -> subprocess.CompletedProcess[str] | None:
        """The same by a Python that runs already, where ``argv`` is one whose start is not what is tested."""
        first, *rest = map(str, argv)
        if first != sys.executable or rest[0] == "-u" or (rest[0] == "-m" and rest[1] != "gfwtools"):
            return None
        return warm_program.run_python(rest, stdin, _environment(), timeout, beside=self._init.pid)

    def start(self, *argv: str | Path, ready: bool = False) -> subprocess.Popen[str]:
        """A process that ends with the host at the latest; with ``ready``, once it has said so."""
        child = subprocess.Popen(
            self.inside(argv),
            env=_environment(),
            stdout=subprocess.PIPE if ready else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._children.append(child)
        if ready:
            _wait_until_ready(child)
        return child

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        self.run(
            "sh", "-c", 'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"', "sh", path, f"{mode:o}", stdin=text
        )

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def gfwtools(self, *args: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "gfwtools", *args, code=code)

    def stub_resolver(self, port: int, net: str) -> None:
        self.start(sys.executable, HERE / "stub_resolver.py", "127.0.0.1", str(port), net, ready=True)

    def wait_for_dns(self, port: int = 53) -> None:
        deadline = time.monotonic() + 10
        question = "import sys; from gfwtools.dnsmasq.daemon import Daemon; sys.exit(not Daemon(port=int(sys.argv[1])).is_up(0.3))"
        while self.run(sys.executable, "-c", question, str(port), code=None).returncode:
            assert time.monotonic() < deadline, "dnsmasq does not answer"


def _environment() -> dict[str, str]:
    """What a program of the host finds in its environment. What else the machine has may name files that are not here."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return {"HOME": "/root", "LANG": "C.UTF-8", **kept}


def _below_what_is_hidden() -> list[Path]:
    """What a test needs of the machine and lies where the host has files of its own, as a checkout in /var may."""
    needed = {_REPO, Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir())}
    hidden = [Path("/", top) for top in host_tree.TOPS]
    return sorted(path for path in needed if any(top in path.parents for top in hidden))


def _wait_until_ready(child: subprocess.Popen[str], seconds: float = 10) -> None:
    """Until ``child`` has printed ``ready``; one that says nothing must not hold up the whole run."""
    assert child.stdout
    assert select.select([child.stdout], [], [], seconds)[0], f"{child.args!r} is not ready after {seconds:g} s"
    assert child.stdout.readline() == "ready\n", f"{child.args!r} ended before it was ready"
