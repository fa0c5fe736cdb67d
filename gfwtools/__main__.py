"""The entry points of both commands and of ``python -m gfwtools``. Ctrl-C during the imports prints no traceback."""

import errno
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper

__all__ = ["gfwlist2dnsmasq", "main"]


def _end(number: int, frame: object) -> None:
    # No work has started yet. An exception would come out of the middle of an import.
    os._exit(128 + number)


def _begin() -> None:
    """Set up streams and signals before anything else is imported or opened.

    Until :func:`gfwtools.cli.run` takes over, Ctrl-C ends the process with the code that shells give to it.
    """
    _open_closed_streams()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # A path may have any bytes in its name, and a list any characters: none that a stream's encoding lacks may end
        # a command in its middle. As Python does for standard error.
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # nohup, or a job in the background
        signal.signal(signal.SIGINT, _end)
    # A command is over before it has made cycles worth looking for. By default the collector comes by a hundred times
    # while modules are imported. It still comes by, for the sake of those that stay (status --watch).
    gc.set_threshold(100_000)


def _open_closed_streams() -> None:
    """Open /dev/null for each standard stream that the caller has closed (``>&-``; some daemons close all).

    Python has None for such a stream, and the next file that is opened would get its descriptor: what is meant for
    standard error would go into state.json.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                # The lowest descriptor that is free (open(2)): the stream's own, for those below it are open by now.
                descriptor = os.open(os.devnull, os.O_RDWR)
                os.set_inheritable(descriptor, True)  # as a standard stream is for the programs that are run
                setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def _run(name: str, command: Callable[[], None]) -> None:
    """Run ``command`` and exit with its code.

    Memory can run out anywhere, also while a module is imported. By then every change has been undone.
    """
    try:
        _run_and_end(command)
    except KeyboardInterrupt:  # a second one, while the first is being reported
        os._exit(128 + signal.SIGINT)
    except (MemoryError, SystemError) as error:
        # The interpreter, too, may find no memory to say what it lacks.
        if isinstance(error, SystemError) and "without exception" not in str(error) and "setting an" not in str(error):
            raise
        _fail(f"{name}: not enough memory; nothing was changed")
    except OSError as error:  # the interpreter's, while it imports
        if error.errno != errno.ENOMEM:
            raise
        _fail(f"{name}: not enough memory; nothing was changed")
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        _fail(f"{name}: not enough memory, or too many processes, for a thread; nothing was changed")
    except ImportError as error:
        if "map segment" not in str(error):  # the dynamic linker's words, and all that it says
            raise
        _fail(f"{name}: {error}; is there enough memory? Nothing was changed")


def _run_and_end(command: Callable[[], None]) -> None:
    """Run ``command`` and exit without shutting the interpreter down.

    The shutdown takes 3 ms of the 70 of a check and 5 of the 140 of an update. The kernel frees everything at once.
    """
    try:
        command()
    except SystemExit as end:
        # A profiler writes at the end. The interpreter reports what cannot be written.
        if isinstance(end.code, int) and not sys.gettrace() and not sys.getprofile():
            with suppress(OSError):
                for stream in (sys.stdout, sys.stderr):
                    if stream:  # None where the shell has closed it
                        stream.flush()
                os._exit(end.code)
        raise


def _fail(message: str) -> None:
    """Print the message and exit 1, without a stream: a stream takes memory, too."""
    with suppress(OSError):
        os.write(2, f"{message}\n".encode())
    os._exit(1)


def _gfwtools() -> None:
    from gfwtools.cli import main

    main()


def _gfwlist2dnsmasq() -> None:
    from gfwtools.cli.gfwlist2dnsmasq import main

    main()


def main() -> None:
    """Run ``gfwtools``."""
    _begin()
    _run("gfwtools", _gfwtools)


def gfwlist2dnsmasq() -> None:
    """Run ``gfwlist2dnsmasq``."""
    _begin()
    _run("gfwlist2dnsmasq", _gfwlist2dnsmasq)


if __name__ == "__main__":
    main()
