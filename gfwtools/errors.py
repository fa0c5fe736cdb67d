"""Every error that gfwtools raises on purpose, as one tree::

    GfwtoolsError
        ConfigError         the configuration is wrong
        FetchError          no source gave a list
        ListError           the bytes are not a list, or the list may not be used
        InvalidNameError    a text is not a domain name
        StoreError          a file could not be read or written
            LockedError     another gfwtools is running
        HostError           a piece of the host is missing, in the way, or could not be set
            CommandError    a command failed (gfwtools.system.commands)
        ResolverError       dnsmasq refused its configuration, or does not answer
            NoManagerError  nothing on this host can restart dnsmasq
        NotRepairedError    the update was done, and the host not repaired (gfwtools.update.values)

The command line prints the message of a :class:`GfwtoolsError` in one line and exits 1; a caller of the library
catches the tree at the level it cares about. An error carries ``what`` is wrong and the ``remedy`` apart. The message
for people is made here, and no code reads it.
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
    """What happened to the changes made before the error; the outermost transaction sets it."""

    @property
    def message(self) -> str:
        """What is wrong and what to do, without the :attr:`outcome`."""
        return f"{self.what}; {self.remedy}" if self.remedy else self.what

    def __str__(self) -> str:
        return f"{self.message}; {self.outcome}" if self.outcome else self.message


class ConfigError(GfwtoolsError):
    """The configuration has a wrong value; the message names the file, the key and what was expected."""


class FetchError(GfwtoolsError):
    """No source gave a list; the message has the answer of each."""

    def __init__(self, what: str, remedy: str = "", *, answers: "tuple[str, ...]" = ()) -> None:
        super().__init__(what, remedy)
        self.answers = answers
        """The answer of each source, in order."""


class ListError(GfwtoolsError):
    """The fetched text is not a list, is broken, or may not replace the last good list."""


class InvalidNameError(GfwtoolsError):
    """A text is not a domain name."""


class StoreError(GfwtoolsError):
    """A file could not be read or written."""


class LockedError(StoreError):
    """Another gfwtools holds the lock."""


class HostError(GfwtoolsError):
    """A piece of the host's plumbing is missing, in the way, or could not be set."""


class ResolverError(GfwtoolsError):
    """dnsmasq refused its configuration, did not come up, or does not answer."""


class NoManagerError(ResolverError):
    """No known program on this host can restart dnsmasq."""
