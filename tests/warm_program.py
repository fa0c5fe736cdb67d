"""A Python that has ``gfwtools`` loaded: a fork server, each of whose runs is a process of its own, as from a shell.

An interpreter's start and its imports take ten times as long as what most tests then ask of it. What a start itself does
is tested with ``python -m gfwtools`` as the whole command of a process.
"""

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
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

__all__ = ["run", "run_python"]

_in_use = threading.Lock()


def run(
    argv: Sequence[str], stdin: str, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """``gfwtools ARGV`` in the current folder; it may take ``timeout`` seconds."""
    with _in_use:
        return _run(["-m", "gfwtools", *argv], stdin, environment, timeout, 0)


def run_python(
    argv: Sequence[str], stdin: str, environment: Mapping[str, str], timeout: float, *, beside: int = 0
) -> subprocess.CompletedProcess[str] | None:
    """``python ARGV``: ``-m gfwtools ...``, ``-c TEXT ...`` or ``FILE ...``. None: another thread has a run here.

    :param beside: a process in whose mount and network namespaces it runs, in their root folder.
    """
    if not _in_use.acquire(blocking=False):
        return None
    try:
        return _run(argv, stdin, environment, timeout, beside)
    finally:
        _in_use.release()


def _run(
    argv: Sequence[str], stdin: str, environment: Mapping[str, str], timeout: float, beside: int
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        process, server = _server()
        server.settimeout(timeout)
        request = json.dumps([list(argv), dict(environment), os.getcwd(), beside]).encode()
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


def _child(fds: Sequence[int], argv: list[str], environment: dict[str, str], folder: str, beside: int) -> None:
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
        if beside:
            _enter(beside)
        else:
            os.chdir(folder)
        _python(argv)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _enter(pid: int) -> None:
    """Go where a process is; the root of its mount namespace becomes the current folder."""
    setns = ctypes.CDLL(None, use_errno=True).setns
    for kind in ("net", "mnt"):
        fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        if setns(fd, 0):
            raise OSError(ctypes.get_errno(), f"setns: {kind}")
        os.close(fd)


def _python(argv: list[str]) -> None:
    """What ``python ARGV`` does, of the three ways in which the tests call it."""
    first, *rest = argv
    if first == "-m":
        from gfwtools.__main__ import main

        sys.argv = rest
        main()
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = argv
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
