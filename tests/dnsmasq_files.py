"""Files for dnsmasq: their lines, and whether dnsmasq takes them."""

import subprocess
from pathlib import Path

from tools import needs


def body(text: str) -> list[str]:
    """The lines that are no comment."""
    return [line for line in text.splitlines() if not line.startswith("#")]


def dnsmasq_accepts(path: Path) -> None:
    """``dnsmasq --test`` has nothing against the file."""
    result = subprocess.run(
        [needs("dnsmasq"), "--test", f"--conf-file={path}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
