"""Where the programs of a host are, and what they find in their environment.

Root takes no search path from its caller: with ``su`` or ``sudo -E`` that is a user's, and ``ip`` may be the user's own
file. Nor does it hand variables of the caller on: ``PYTHONPATH`` alone has ufw and firewalld run a file of its choice.
"""

import os

__all__ = ["FOLDERS", "environment", "find"]

#: In this order. Those after /bin are of NixOS, Guix, and Entware on routers.
FOLDERS = (
    *("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"),
    *("/run/wrappers/bin", "/run/current-system/sw/bin"),
    *("/run/current-system/profile/sbin", "/run/current-system/profile/bin"),
    *("/opt/sbin", "/opt/bin"),
)
#: The caller's variables that programs get from root.
_KEPT = ("HOME", "TERM")


def find(program: str) -> str | None:
    """The absolute path of a program, or None. One that has a path already stays as it is."""
    if "/" in program:
        return program
    # Not shutil.which(): importing shutil brings three compressors along, for a third of the time of a check.
    places = (f"{folder}/{program}" for folder in _folders())
    return next((place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), None)


def environment() -> dict[str, str]:
    """The environment of every program that is started. Messages and numbers in it are in no language but C."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ} if _is_root() else dict(os.environ)
    return {**kept, "LC_ALL": "C", "PATH": os.pathsep.join(_folders())}


def _folders() -> tuple[str, ...]:
    if _is_root():
        return FOLDERS
    own = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    return (*own, *(folder for folder in FOLDERS if folder not in own))


def _is_root() -> bool:
    return os.geteuid() == 0
