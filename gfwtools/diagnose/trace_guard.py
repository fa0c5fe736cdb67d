"""A separate process beside ``trace``: it listens to the kernel, and removes the trace rules when ``trace`` ends.

Its standard input ends with ``trace``, even by SIGKILL; nothing is ever written to it. The command line names the
table and the program nft. The output is that of ``nft monitor trace``.
"""

import os
import signal
import subprocess
import sys

__all__ = ["main"]


def main(table: str, nft: str) -> int:
    """Run until standard input ends; the exit code is that of nft, which removes the table."""
    # Out of reach of what ends its parent (Ctrl-C, the loss of a terminal), and so is the nft that it starts.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    monitor = subprocess.Popen([nft, "monitor", "trace"])
    # The end of its output is the monitor's end, not ours.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stdin.buffer.read()
    monitor.kill()
    monitor.wait()
    return subprocess.run(
        [nft, "-f", "-"], input=f"add table {table}\ndelete table {table}\n", text=True, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
