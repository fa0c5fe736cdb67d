"""The body of an answer as it comes: without its content coding, and never larger than a limit."""

import zlib
from io import BytesIO

from gfwtools.fetch.values import FailedError

__all__ = ["BLOCK", "Body"]

#: How much is read from a file, or decompressed, at a time (octets).
BLOCK = 256 * 1024


class Body:
    """A body as it comes, without its content coding (RFC 9110 section 8.4.1), never larger than a limit."""

    def __init__(self, coding: str, limit: int) -> None:
        """:raises FailedError: the coding is one that was not asked for."""
        coding = coding.strip().lower()
        if coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise FailedError(f"Content-Encoding {coding!r} was not asked for")
        self._limit = limit
        self._plain = BytesIO()
        self._inflater = None if coding in ("", "identity") else _inflater()

    def feed(self, data: bytes) -> bool:
        """Add the next part; False where the body is too large.

        :raises FailedError: the compressed data is broken.
        """
        if self._inflater is None:
            self._plain.write(data)
            return self._plain.tell() <= self._limit
        while data:
            if self._inflater.eof:
                self._inflater = _inflater()  # RFC 1952 section 2.2: a gzip file is a series of members
            try:
                block = self._inflater.decompress(data, BLOCK)
            except zlib.error as error:
                raise FailedError(f"the compressed data is broken: {error}") from None
            self._plain.write(block)
            if self._plain.tell() > self._limit:
                return False
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
        return True

    def complete(self) -> bytes:
        """All of it.

        :raises FailedError: the compressed data ends too early.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise FailedError("the compressed data is cut short")
        return self._plain.getvalue()


def _inflater() -> "zlib._Decompress":
    """For gzip and zlib data (HTTP's "deflate"), distinguished by their first octets."""
    return zlib.decompressobj(zlib.MAX_WBITS | 32)
