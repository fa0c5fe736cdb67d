"""The changes that a gfwtools in this process makes, counted, and something that is done before one of them.

A change is a file that is opened for writing, renamed, linked or removed, a folder that is made, or a program that is run.
"""

import os
import sys
from collections.abc import Callable

_EVENTS = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.symlink", "os.truncate", "subprocess.Popen"}


class Changes:
    """From its making on: ``act`` comes before the change of that number; with 0 never."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        from gfwtools.__main__ import main  # what is imported before this is no change

        self.count = 0
        self._number = number
        self._act = act
        self.main = main
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in _EVENTS:
            return
        self.count += 1
        if self.count == self._number:
            self._act()
