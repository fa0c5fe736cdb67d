"""The host under test with all that is beside it, and what was seen of it before gfwtools came."""

import os
import random
import subprocess
import sys
import tempfile
import zlib
from contextlib import ExitStack
from pathlib import Path

import debian
from judge import Judge, snapshot
from kinds import Host, install
from machine import Machine
from surroundings import BLOCKED_ADDRESS, HOST_LAN, Surroundings

__all__ = ["Subject"]

_HERE = Path(__file__).parent


class Subject:
    """Use it as a context manager. The host is on, and its network works."""

    def __init__(self, host: Host) -> None:
        self.host = host
        #: Why no further event makes sense; empty while they do.
        self.lost = "it could not be built"
        seed = os.environ.get("GFWTOOLS_HOSTS_SEED", host.name)
        #: What the host was like before gfwtools.
        self.before: list[str] = []
        self.moments = random.Random(zlib.crc32(seed.encode()))
        self._stack = ExitStack()

    def __enter__(self) -> "Subject":
        try:
            layers = debian.layers(self.host.suite, self.host.packages)
            self.around = self._stack.enter_context(Surroundings())
            self.machine = self._stack.enter_context(Machine(layers, self.around.cables, container=self.host.container))
            install(self.host, self.machine, self.around)
            self.judge = Judge(self.machine, self.around)
        except BaseException:
            self._stack.close()
            raise
        self.lost = ""
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_client(self) -> None:
        """A client of the LAN begins, and does not stop before the end."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gfw-client-")))
        self._log = folder / "log"
        with self._log.open("w") as log:
            command = self.around.client.inside([sys.executable, _HERE / "client.py", HOST_LAN, BLOCKED_ADDRESS])
            self._client = subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL)
        self._stack.callback(self._client.wait)
        self._stack.callback(self._client.kill)
        self._read = 0

    def stop_client(self) -> None:
        self._client.kill()
        self._client.wait()

    def client_lines(self) -> list[str]:
        """What it saw since this was asked the last time."""
        lines = self._log.read_text("utf-8").splitlines() if hasattr(self, "_log") else []
        new, self._read = lines[self._read :], len(lines)
        return [line for line in new if line.startswith("[")]

    def snapshot(self) -> list[str]:
        return snapshot(self.machine)
