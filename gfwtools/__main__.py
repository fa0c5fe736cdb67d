"""Where both commands begin, and ``python -m gfwtools``: quiet ends while the program is still being loaded."""

import os
import signal

__all__ = ["gfwlist2dnsmasq", "main"]


def _end(number: int, frame: object) -> None:
    # Nothing has been begun. An exception would come out of the middle of somebody's import.
    os._exit(128 + number)


def _listen() -> None:
    """Until :func:`gfwtools.cli.run` takes over, Ctrl-C ends the process with the code that shells give to it."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # nohup, or a job in the background
        signal.signal(signal.SIGINT, _end)


def main() -> None:
    """``gfwtools``."""
    _listen()
    from gfwtools.cli import main

    main()


def gfwlist2dnsmasq() -> None:
    """``gfwlist2dnsmasq``."""
    _listen()
    from gfwtools.cli.gfwlist2dnsmasq import main

    main()


if __name__ == "__main__":
    main()
