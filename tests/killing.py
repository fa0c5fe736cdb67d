"""A gfwtools that gets a signal before the N-th of the steps that it takes on the disk; no clock is involved.

As a program it is a fork server: it has loaded everything once, and each line on its standard input is a run in a
process of its own. That takes a tenth of the time of an interpreter's start.
"""

import gc
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple

# What the interpreter tells before it does it (sys.addaudithook). write(2) and fsync(2) have no event.
_EVENTS = {
    "os.rename": "rename",
    "os.remove": "unlink",
    "os.mkdir": "mkdir",
    "os.chmod": "chmod",
    "fcntl.flock": "flock",
}
_WRAPPED = ("fsync", "pwrite", "ftruncate")


class Run(NamedTuple):
    """How a run has ended."""

    code: int
    """Its exit code, or the negative number of the signal that killed it."""
    steps: list[str]
    """What it did on the disk, such as ``rename``, in order."""
    output: str
    errors: str


@contextmanager
def fork_server(root: Path) -> Iterator["Server"]:
    process = subprocess.Popen(
        [sys.executable, __file__, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield Server(process)
    finally:
        process.communicate(timeout=30)


class Server:
    """Runs ``gfwtools --root ROOT ...``."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, *args: str, number: int = 0, before: int = 0) -> Run:
        """:param before: the how many-th step the signal ``number`` comes before; 0 for never."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([args, number, before]) + "\n")
        return Run(*json.loads(self._process.stdout.readline()))


# ---------------------------------------------------------------- the other side


def _serve(root: str) -> None:
    import gfwtools.cli
    import gfwtools.update.install
    import gfwtools.update.update

    for args in (("update", "--dry-run"), ("check", "domain", "example.com")):  # loads whatever a run needs
        with redirect_stdout(io.StringIO()), suppress(SystemExit):
            gfwtools.cli.main(["--root", root, "-q", *args])
    gc.freeze()
    for line in sys.stdin:
        args, number, before = json.loads(line)
        with (
            tempfile.TemporaryFile("w+") as steps,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
        ):
            child = os.fork()
            if not child:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                _watch(root, steps.fileno(), number, before)
                try:
                    gfwtools.cli.main(["--root", root, *args])
                except SystemExit as end:
                    sys.stdout.flush()
                    os._exit(end.code if isinstance(end.code, int) else 1)  # taking all down takes longer than the run
            _, status = os.waitpid(child, 0)
            texts = []
            for file in (steps, out, err):
                file.seek(0)
                texts.append(file.read())
        print(json.dumps([os.waitstatus_to_exitcode(status), texts[0].split(), *texts[1:]]), flush=True)


def _watch(root: str, log: int, number: int, before: int) -> None:
    """Log each step, and send the signal before the one that it is for."""
    count = 0

    def step(name: str) -> None:
        nonlocal count
        count += 1
        os.write(log, f"{name}\n".encode())
        if count == before:
            os.kill(os.getpid(), number)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _EVENTS:
            step(_EVENTS[event])
        elif event == "open" and str(args[0]).startswith(root) and args[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            step("create")

    sys.addaudithook(hook)
    for name in _WRAPPED:
        setattr(os, name, _told(getattr(os, name), name, step))


def _told(function: Any, name: str, step: Any) -> Any:
    def call(*args: Any) -> Any:
        step(name)
        return function(*args)

    return call


if __name__ == "__main__":
    _serve(sys.argv[1])
