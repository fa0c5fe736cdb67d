"""The lines of a text, a part of it at a time: all lines of a large list at once take four times its size."""

from collections.abc import Iterator

__all__ = ["batches", "numbered"]

#: How much of a text is split at once (characters). More is no quicker.
BATCH = 256 * 1024


def batches(text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each part, from 1, and its lines."""
    number, start = 1, 0
    while True:
        end = text.find("\n", start + BATCH)
        lines = (text[start:] if end < 0 else text[start:end]).split("\n")
        yield number, lines
        if end < 0:
            return
        number, start = number + len(lines), end + 1


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Each line with its number, from 1."""
    for first, lines in batches(text):
        yield from enumerate(lines, first)
