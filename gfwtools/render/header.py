"""The comment that a generated file begins with: where it came from and what is in it, and no clock."""

from gfwtools.digest import sha256

__all__ = ["WRITTEN", "header"]

#: How one of the first lines of every file begins that is ours as a whole.
WRITTEN = "# Written by gfwtools"


def header(title: str, list_date: str, body: str) -> str:
    """Comment lines: the same list and the same ``body`` give the same bytes, so that a diff shows what changed.

    ``list_date`` is the list's own text; only what is printable ASCII of it is let through.
    """
    date = "".join(c for c in list_date if c.isascii() and c.isprintable())[:64] or "unknown"
    return (
        f"# {title}\n"
        f"{WRITTEN}; changes made here are lost at the next update.\n"
        f"# list: {date}\n"
        f"# digest: {sha256(body.encode())[:16]}\n"
    )
