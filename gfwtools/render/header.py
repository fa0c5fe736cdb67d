"""The comment that a generated file begins with: where it came from and what is in it, and no clock."""

from collections.abc import Callable, Iterable
from io import BytesIO

from gfwtools.digest import hasher, sha256

__all__ = ["WRITTEN", "header", "written"]

#: How one of the first lines of every file begins that is ours as a whole.
WRITTEN = "# Written by gfwtools"


def written(title: str, list_date: str, body: Iterable[str], stamp: Callable[[str], str] | None = None) -> bytes:
    """A file of ours from the parts of its body. A million domains have one of 100 MB: it is in memory once.

    :param stamp: makes a line behind the header from the digest of the body; the same length for any digest.
    """
    file, digest = BytesIO(), hasher()

    def head() -> bytes:
        found = digest.hexdigest()[:16]
        return f"{_header(title, list_date, found)}{stamp(found) if stamp else ''}".encode()

    file.write(head())
    for part in body:
        data = part.encode()
        digest.update(data)
        file.write(data)
    file.seek(0)
    file.write(head())
    return file.getvalue()


def header(title: str, list_date: str, body: str) -> str:
    """Comment lines: the same list and the same ``body`` give the same bytes, so that a diff shows what changed.

    ``list_date`` is the list's own text; only what is printable ASCII of it is let through.
    """
    return _header(title, list_date, sha256(body.encode())[:16])


def _header(title: str, list_date: str, digest: str) -> str:
    date = "".join(c for c in list_date if c.isascii() and c.isprintable())[:64] or "unknown"
    return f"# {title}\n{WRITTEN}; changes made here are lost at the next update.\n# list: {date}\n# digest: {digest}\n"
