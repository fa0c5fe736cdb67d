"""Every error that gfwtools raises on purpose, as one tree.

The command line prints the message of a :class:`GfwtoolsError` in one line and exits 1; a caller of the library
catches the tree at the level it cares about. A message names the thing, the place and the way out.
"""

__all__ = [
    "ConfigError",
    "FetchError",
    "GfwtoolsError",
    "HostError",
    "InvalidNameError",
    "ListError",
    "LockedError",
    "NoManagerError",
    "ResolverError",
    "StoreError",
]


class GfwtoolsError(Exception):
    """Something failed and nothing was changed, or what was changed has been put back."""

    def __init__(self, what: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        """What is wrong."""
        self.remedy = remedy
        """What to do about it; empty where ``what`` says it, or nothing can be done."""

    outcome = ""
    """What became of the changes that were made before the error, as the outermost transaction knows it."""

    @property
    def message(self) -> str:
        """What is wrong and what to do, without the :attr:`outcome`."""
        return f"{self.what}; {self.remedy}" if self.remedy else self.what

    def __str__(self) -> str:
        return f"{self.message}; {self.outcome}" if self.outcome else self.message


class ConfigError(GfwtoolsError):
    """The configuration says something that cannot be meant; the message names file, key and what was expected."""


class FetchError(GfwtoolsError):
    """No source gave a list; the message says what each of them answered."""

    def __init__(self, message: str, answers: "tuple[str, ...]" = ()) -> None:
        super().__init__(message)
        self.answers = answers
        """What the sources answered, one after the other."""


class ListError(GfwtoolsError):
    """What was fetched is no list, is broken, or may not replace the last good one."""


class InvalidNameError(GfwtoolsError):
    """A text is no domain name."""


class StoreError(GfwtoolsError):
    """A file could not be read or written."""


class LockedError(StoreError):
    """Another gfwtools holds the lock."""


class HostError(GfwtoolsError):
    """A piece of the host's plumbing is missing, in the way, or could not be set."""


class ResolverError(GfwtoolsError):
    """dnsmasq refused its configuration, did not come up, or does not answer."""


class NoManagerError(ResolverError):
    """Nothing is known on this host that could restart dnsmasq."""
