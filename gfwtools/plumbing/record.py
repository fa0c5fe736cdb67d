"""What the host was like before ``up``, so that ``down`` can put it back: one entry of the journal.

Most of the plumbing needs no record: what is ours is known by its name, its comment or its protocol. A kernel parameter
and a base chain that iptables has made on the way do not show who made them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gfwtools.config.model import Paths
from gfwtools.plumbing.wanted import Connmark, Masked
from gfwtools.storage.journal import Entry, Journal, Transaction

__all__ = ["KIND", "Record", "as_data", "forget", "from_data", "is_kept", "leave", "load", "note", "save"]

#: The kind of the entry.
KIND = "plumbing"


@dataclass(frozen=True, slots=True)
class Record:
    """What ``up`` has changed since the host was booted."""

    boot: str = ""
    sysctls: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Key -> the value before, and the value that was set."""
    chains: tuple[tuple[str, str, str], ...] = ()
    """Family of nft (ip, ip6), table, and base chain that iptables-restore made; "" for the table itself."""
    sets: tuple[str, ...] = ()
    """Sets of ipset that were made: those of a policy that is no longer in the configuration are still ours."""
    connmarks: tuple[Connmark, ...] = ()
    """What is in the connection marks, and where those connections go."""
    folders: tuple[str, ...] = ()
    """Folders that were made for the file with the names of tables."""
    sets_made: float = 0.0
    """When the sets were made, in seconds since boot; 0 where they never were."""
    cache_cleared: bool = False
    """dnsmasq has cleared its cache since."""


def load(paths: Paths, boot: str) -> Record:
    """The record of this boot; an empty one where there is none, where it is damaged, or from before a reboot.

    :param boot: :func:`gfwtools.plumbing.this_boot.boot_id`. With a reboot everything that the record speaks of is
        gone, but for folders.
    """
    entry = Journal(paths).kept_entries(KIND).get("")
    record = from_data(entry.data if entry else {})
    if record is None:
        return Record(boot=boot)
    return record if record.boot == boot else Record(boot=boot, folders=record.folders)


def from_data(document: Mapping[str, Any]) -> Record | None:
    """:func:`as_data` read back; None where it is damaged."""
    try:
        return Record(
            boot=str(document.get("boot", "")),
            sysctls={str(key): (str(old), str(new)) for key, (old, new) in document.get("sysctls", {}).items()},
            chains=tuple((str(a), str(b), str(c)) for a, b, c in document.get("chains", ())),
            sets=tuple(map(str, document.get("sets", ()))),
            connmarks=tuple(
                Connmark(each["policy"], Masked(*each["bits"]), each["mark"], each["table"], each["interface"])
                for each in document.get("connmarks", ())
            ),
            folders=tuple(map(str, document.get("folders", ()))),
            sets_made=float(document.get("sets_made", 0.0)),
            cache_cleared=bool(document.get("cache_cleared", False)),
        )
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def is_kept(paths: Paths) -> bool:
    """Whether ``up`` has run, now or before a reboot, and ``down`` has not run since.

    :raises StoreError: the journal is there and cannot be read.
    """
    return bool(Journal(paths).kept_entries(KIND))


def as_data(record: Record) -> dict[str, Any]:
    """The record as a value of JSON."""
    return asdict(record)


def save(paths: Paths, record: Record) -> None:
    """:raises StoreError: it could not be written."""
    Journal(paths).keep(KIND, "", as_data(record))


def note(transaction: Transaction, record: Record) -> None:
    """Write down what a transaction leaves, before it begins.

    :raises StoreError: it could not be written.
    """
    transaction.record(KIND, as_data(record), keep=True)


def leave(entry: Entry, doubtful: bool) -> None:
    """The inverse of :func:`note` does nothing: the earlier record is valid again."""


def forget(paths: Paths) -> None:
    """Remove the record: nothing of ours is left.

    :raises StoreError: it cannot be removed.
    """
    Journal(paths).forget(KIND)
