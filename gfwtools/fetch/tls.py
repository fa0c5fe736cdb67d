"""httpx, imported without the parts that are not needed here, and the authorities that TLS trusts."""

import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import ssl

from gfwtools.fetch.values import FailedError

__all__ = ["Authorities", "import_httpx"]


def import_httpx() -> None:
    """Import httpx without its command line, which it imports wherever rich is installed as well: 40 ms of 90.

    A module that is None in ``sys.modules`` cannot be imported (the Python reference, "The module cache"), and httpx is
    made to do without this one.
    """
    modules = cast("dict[str, object]", sys.modules)
    if "httpx" in modules:
        return
    modules["httpx._main"] = None
    try:
        import_module("httpx")
        import_module("httpcore")  # httpx imports it with its first client, when the mirror's time has begun
    finally:
        modules.pop("httpx._main", None)  # another thread may have been as fast


class Authorities:
    """The authorities that TLS trusts, read once for all mirrors: that takes 30 ms."""

    def __init__(self, verify: bool) -> None:
        self._verify = verify
        self._lock = threading.Lock()  # a redirect from http to https is met by a worker
        self._contexts: dict[str, ssl.SSLContext] = {}

    def context(self, scheme: str) -> "ssl.SSLContext":
        """What to reach a URL of ``scheme`` with.

        :raises FailedError: the certificates cannot be read.
        """
        with self._lock:
            if scheme not in self._contexts:
                self._contexts[scheme] = self._trusted() if scheme == "https" else self._untrusting()
            return self._contexts[scheme]

    def _trusted(self) -> "ssl.SSLContext":
        import httpx

        try:
            return httpx.create_ssl_context(verify=self._verify)
        except OSError as error:  # SSL_CERT_FILE names no file of certificates
            raise FailedError(f"the trusted certificates cannot be read: {error.strerror or error}") from None

    @staticmethod
    def _untrusting() -> "ssl.SSLContext":
        """httpx needs a context for http as well. TLS with this one would fail."""
        import ssl

        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
