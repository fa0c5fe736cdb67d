"""Run gfwtools and end it by SIGKILL before its n-th change: ``killed.py N ARGUMENT...``; the number of changes with 0.

A change is a file that is opened for writing, renamed, linked or removed, a folder that is made, or a program that is run.
"""

import os
import signal
import sys

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.symlink", "os.truncate", "subprocess.Popen"}
number = int(sys.argv.pop(1))
count = 0


def hook(event: str, arguments: tuple[object, ...]) -> None:
    global count
    if event == "open":
        flags = arguments[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
            return
    elif event not in CHANGES:
        return
    count += 1
    if count == number:
        os.kill(os.getpid(), signal.SIGKILL)


from gfwtools.__main__ import main  # noqa: E402 - what is imported before this is no change

sys.addaudithook(hook)
if number:
    main()
exit_now = os._exit


def told(code: int) -> None:
    print(count, file=sys.stderr, flush=True)
    exit_now(code)


os._exit = told
main()
