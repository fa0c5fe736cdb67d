"""Run the command line in a process of its own, as its users do."""

import subprocess
import sys
from pathlib import Path


def gfwtools(
    root: Path, *args: str, code: int | None = 0, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """``gfwtools --root ROOT ARGS``; the exit code must be ``code``, unless that is None."""
    return _run([sys.executable, "-m", "gfwtools", "--root", str(root), *args], code, stdin, env)


def gfwlist2dnsmasq(*args: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """The script's stand-in."""
    program = "from gfwtools.cli.gfwlist2dnsmasq import main; main()"
    return _run([sys.executable, "-c", program, *args], code, "", env)


def _run(argv: list[str], code: int | None, stdin: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    import os

    result = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False
    )
    assert code is None or result.returncode == code, (
        f"{argv} gave {result.returncode}:\n{result.stdout}{result.stderr}"
    )
    return result
