"""The digests that gfwtools takes, with the standard library's functions."""

from contextlib import suppress
from functools import cache
from importlib import import_module
from types import ModuleType

__all__ = ["md5", "sha256"]


@cache
def _hashlib() -> ModuleType:
    """The library, imported at the first digest.

    Where too little memory is left for OpenSSL, hashlib itself takes its other implementations. It logs a traceback for
    each of those that find no memory either, and goes on. So OpenSSL's comes first, whose error ends the command.
    """
    with suppress(ModuleNotFoundError):  # a Python without OpenSSL
        import_module("_hashlib")
    return import_module("hashlib")


def md5(data: bytes) -> bytes:
    """The digest that a list states of itself; it guards against no attacker."""
    return bytes(_hashlib().md5(data, usedforsecurity=False).digest())


def sha256(data: bytes) -> str:
    return str(_hashlib().sha256(data).hexdigest())
