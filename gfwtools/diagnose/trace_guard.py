"""A process of its own beside ``trace``: it listens to the kernel, and takes the trace rules away when ``trace`` ends.

Nothing is ever written to its standard input, which ends with ``trace``, however that does, SIGKILL included. What it
is told on the command line is the table; it says nothing but what ``nft monitor trace`` does.
"""

import os
import signal
import subprocess
import sys

__all__ = ["main"]


def main(table: str) -> int:
    """Run until standard input ends; the exit code is that of nft, which removes the table."""
    # Out of reach of what ends its parent (Ctrl-C, the loss of a terminal), and so is the nft that it starts.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    monitor = subprocess.Popen(["nft", "monitor", "trace"])
    # The end of its output is the monitor's end, not ours.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stdin.buffer.read()
    monitor.kill()
    monitor.wait()
    return subprocess.run(
        ["nft", "-f", "-"], input=f"add table {table}\ndelete table {table}\n", text=True, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
