"""Run the command line in a process of its own, as its users do."""

import os
import subprocess
import sys
from pathlib import Path

import warm_program


def gfwtools(
    root: Path, *args: str, code: int | None = 0, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """``gfwtools --root ROOT ARGS``; the exit code must be ``code``, unless that is None."""
    words = ["--root", str(root), *args]
    return _with(code, warm_program.run(words, stdin, {**os.environ, **env}, timeout=120))


def gfwlist2dnsmasq(*args: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """The script's stand-in."""
    program = "from gfwtools.cli.gfwlist2dnsmasq import main; main()"
    argv = [sys.executable, "-c", program, *args]
    environment = {**os.environ, **env}
    done = subprocess.run(argv, input="", capture_output=True, text=True, timeout=120, env=environment, check=False)
    return _with(code, done)


def _with(code: int | None, done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert code is None or done.returncode == code, f"{done.args} gave {done.returncode}:\n{done.stdout}{done.stderr}"
    return done
