"""A ``gfwtools`` that is loaded already: a fork server, each of whose runs is a process of its own, as from a shell.

An interpreter's start and its imports take ten times as long as what most tests then ask of it. What a start itself does
is tested with ``python -m gfwtools``.
"""

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from io import TextIOWrapper
from pathlib import Path

__all__ = ["run"]


def run(
    argv: Sequence[str], stdin: str, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """``gfwtools ARGV`` in the current folder; it may take ``timeout`` seconds."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        process, server = _server()
        server.settimeout(timeout)
        request = json.dumps([list(argv), dict(environment), os.getcwd()]).encode()
        socket.send_fds(server, [len(request).to_bytes(4, "big")], [given.fileno(), out.fileno(), err.fileno()])
        server.sendall(request)
        try:
            code = int(server.recv(16).decode())
        except BaseException:  # what hangs, or was interrupted, is in the way of the next run
            _server.cache_clear()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(argv, code, *texts)


@cache
def _server() -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """The server of this process; it ends with it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    return process, ours


# ---------------------------------------------------------------- the other side


def _serve(connection: socket.socket) -> None:
    _load()
    while True:
        head, fds, _, _ = socket.recv_fds(connection, 4, 3)
        if not head:
            return
        request = b""
        while len(request) < int.from_bytes(head, "big"):
            request += connection.recv(65536)
        child = os.fork()
        if not child:
            connection.close()
            _child(fds, *json.loads(request))
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(child, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _load() -> None:
    """All that a command may import, the way a command does."""
    import gfwtools

    for module in pkgutil.walk_packages(gfwtools.__path__, "gfwtools."):
        importlib.import_module(module.name)
    with tempfile.TemporaryDirectory() as root:
        config = Path(root, "etc/gfwtools/config.toml")
        config.parent.mkdir(parents=True)
        with socket.socket() as refusing:
            refusing.bind(("127.0.0.1", 0))
            config.write_text(f'[policy.gfwlist]\nsources = ["http://127.0.0.1:{refusing.getsockname()[1]}/"]\n')
            for words in (["update"], ["check", "domain", "example.com"], ["status"], ["export", "domains"]):
                _quietly(["--root", root, *words])
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(10)
    gc.freeze()


def _quietly(argv: list[str]) -> None:
    from gfwtools import cli

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere), suppress(SystemExit):
        cli.main(argv)


def _child(fds: Sequence[int], argv: list[str], environment: dict[str, str], folder: str) -> None:
    code = 1
    try:
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        for fd in fds:
            os.close(fd)
        sys.stdin, sys.stdout, sys.stderr = (
            TextIOWrapper(os.fdopen(number, mode, closefd=False), encoding="utf-8", errors=errors)
            for number, mode, errors in ((0, "rb", "strict"), (1, "wb", "strict"), (2, "wb", "backslashreplace"))
        )
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv = ["gfwtools", *argv]
        from gfwtools.__main__ import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
