"""The digests that gfwtools takes, with the standard library's functions."""

from contextlib import suppress
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Protocol, cast

__all__ = ["Hash", "hasher", "md5", "sha256"]


class Hash(Protocol):
    """A digest of what comes in pieces."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


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


def sha256(data: bytes | memoryview) -> str:
    return str(_hashlib().sha256(data).hexdigest())


def hasher() -> Hash:
    """A SHA-256 of nothing yet."""
    return cast(Hash, _hashlib().sha256())
