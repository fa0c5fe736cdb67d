"""Run gfwtools on a disk that goes bad before its n-th change: ``bad_disk.py full|readonly N ARGUMENT...``.

``full`` leaves no block free. With ``readonly`` /etc cannot be written; /var cannot be made so while its lock is open. What is in
:data:`MENDED` has the disk in order again.
"""

import os
import subprocess
import sys

from changes import Changes

MENDED = {
    "full": "mount -o remount,size=50% /var",
    "readonly": "mount -o remount,bind,rw /etc",
}


def full() -> None:
    disk = os.statvfs("/var")
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    subprocess.run(["mount", "-o", f"remount,size={used}", "/var"], check=True)


def readonly() -> None:
    subprocess.run(["mount", "-o", "remount,bind,ro", "/etc"], check=True)


if __name__ == "__main__":
    how, number = sys.argv.pop(1), int(sys.argv.pop(1))
    Changes(number, {"full": full, "readonly": readonly}[how]).main()
