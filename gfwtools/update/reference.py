"""The list that new ones are compared with: the one that was in use up to a month ago.

Compared with the last good list alone, a mirror could replace half of the names with each update, and all of them in a
day. So that list is kept beside the last good one, until it is 30 days since.
"""

from datetime import datetime
from typing import NamedTuple

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.errors import ListError
from gfwtools.lists.decode import Decoded, as_stored
from gfwtools.storage import atomic
from gfwtools.storage.state import PolicyState
from gfwtools.update.measure import is_recent

__all__ = ["Reference", "next_reference", "reference_of"]


class Reference(NamedTuple):
    """What is kept of an earlier list; nothing where the last good one itself is the measure."""

    data: bytes = b""
    since: str = ""
    """When another list took its place: ISO 8601, UTC."""


def reference_of(config: Config, policy: PolicyConfig, state: PolicyState, now: datetime) -> Decoded | None:
    """The earlier list that a new one is compared with; None where it is the last good one.

    :raises StoreError: it is there and cannot be read.
    """
    kept = _kept(config, policy, state, now)
    try:
        return as_stored(kept.data, max_bytes=config.fetch.max_bytes) if kept.data else None
    except ListError:
        return None  # damaged


def next_reference(
    config: Config, policy: PolicyConfig, state: PolicyState, now: datetime, *, is_other: bool, force: bool
) -> Reference:
    """What is to be kept from now on.

    :param is_other: another list takes the place of the last good one.
    :param force: the user wants it so: what was before counts for nothing.
    :raises StoreError: a list is there and cannot be read.
    """
    if is_other and force:
        return Reference()
    kept = _kept(config, policy, state, now)
    if kept.data or not is_other or state.starter:
        return kept
    # It goes into place before the new list: where that stands alone, a failed update could not put the old one back.
    for path in (config.paths.list(policy.name), config.paths.reference(policy.name)):
        data = atomic.read_ours(path) or b""
        if atomic.digest(data) == state.list_digest:
            return Reference(data, now.isoformat(timespec="seconds"))
    return kept


def _kept(config: Config, policy: PolicyConfig, state: PolicyState, now: datetime) -> Reference:
    if not is_recent(state.reference, now):
        return Reference()
    data = atomic.read_ours(config.paths.reference(policy.name)) or b""
    return Reference(data, state.reference) if data else Reference()
