"""The tunnelled domains, one a line, for other programs."""

from collections.abc import Iterable

from gfwtools.policy import Entry

__all__ = ["domains"]


def domains(cover: Iterable[Entry]) -> str:
    """The tunnelled domains in the order of the cover, each for itself and what is under it."""
    return "".join([f"{domain}\n" for domain, _, tunnel in cover if tunnel])
