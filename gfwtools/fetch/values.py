"""What a source gave, and its progress: the values that a mirror's worker and the clock of all mirrors share."""

from enum import Enum
from typing import Generic, NamedTuple, Protocol, TypeVar

from gfwtools.config.userinfo import masked

__all__ = ["Event", "FailedError", "Fetched", "Phase", "Progress", "Validators", "printable", "shown"]

T = TypeVar("T")

#: What one source says in an error at most (characters); the text may be the network's.
MAX_ANSWER = 240


class Validators(NamedTuple):
    """What a source says of its version, as it wrote it (RFC 9110 section 8.8); empty where it says nothing."""

    etag: str = ""
    last_modified: str = ""


class Fetched(NamedTuple, Generic[T]):
    """What the winning source gave."""

    data: T
    """The body without its content coding, or what ``accept`` made of it; None where the source answered 304: what the
    caller has is current."""
    source: str
    """The source as it stands in the sources given."""
    validators: Validators
    """To be given to :func:`fetch` the next time, under the same source."""


class Progress(Protocol):
    """Called by worker threads with the progress of a source."""

    def __call__(self, source: str, received: int, total: int | None) -> None:
        """``received`` octets of ``total`` (None: not known) have come, as they travel: before content decoding."""


class FailedError(Exception):
    """Why a source gave no list."""


class Phase(Enum):
    """The phase of a source, as its thread reports it."""

    CONNECTING = 1
    CONNECTED = 2
    HEADERS = 3


Event = Phase | FailedError | Fetched[bytes | None]


def printable(text: str) -> str:
    """One line of limited length, without control or formatting characters."""
    text = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)
    return text if len(text) <= MAX_ANSWER else f"{text[: MAX_ANSWER - 3]}..."


def shown(source: str) -> str:
    """A source as an error names it: without the name and password that a URL may have."""
    return printable(masked(source))
