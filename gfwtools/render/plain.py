"""The tunnelled domains, one a line, for other programs."""

from gfwtools.lists.policy import Cover

__all__ = ["domains"]


def domains(cover: Cover) -> str:
    """The tunnelled domains, each for itself and what is under it."""
    return "\n".join([*cover.tunnelled, ""])
