"""The tunnelled domains, one a line, for other programs, and beside them what is direct again."""

from gfwtools.lists.policy import Cover

__all__ = ["direct", "domains"]


def domains(cover: Cover) -> str:
    """The tunnelled domains, each for itself and what is under it."""
    return "\n".join([*cover.tunnelled, ""])


def direct(cover: Cover) -> str:
    """The domains that are direct again below a tunnelled one; ``*.name``: what is under the name, and not the name."""
    return "\n".join([*cover.freed, ""])
