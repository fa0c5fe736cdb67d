"""The list of a policy: fetched, the last good one, or the starter list; whether it may be used."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING

from gfwtools.config.model import MIRRORS, Config, PolicyConfig, is_url
from gfwtools.config.userinfo import masked
from gfwtools.errors import FetchError, ListError
from gfwtools.lists.decode import Decoded, decode
from gfwtools.lists.formats import Listing, looks_like
from gfwtools.storage import atomic
from gfwtools.storage.state import MAX_TEXT, Mirror, PolicyState
from gfwtools.update.inputs import STARTER_NAME, UserLists, compile_with, current_list, is_starter, starter_list
from gfwtools.update.values import Obtained

if TYPE_CHECKING:
    from gfwtools.fetch.values import Progress, Validators
    from gfwtools.lists.compiler import Compiled

__all__ = ["answered_first", "obtain", "public", "require_list"]

#: Of a list's rules at least this share names a host; 98 of 100 did in the worst of the published lists. A page that
#: a network gives in place of the list (a captive portal) has a few lines that look like one.
USABLE_SHARE = 0.1


def obtain(
    config: Config,
    policy: PolicyConfig,
    state: PolicyState,
    own: UserLists,
    *,
    explicit: tuple[str, ...],
    offline: bool,
    force: bool,
    progress: "Progress | None",
) -> Obtained:
    """The list of a policy.

    :param explicit: sources in place of the configured ones.
    :param own: the user's lists, which are compiled with it.
    :raises GfwtoolsError: there is none, or it may not be used.
    """
    held = _Held(config, policy, state, own)
    if offline:
        return held.offline()
    from gfwtools.fetch.race import fetch

    sources = explicit or answered_first(policy.sources, state.answered)
    accept = partial(held.accept, force=force, explicit=bool(explicit))
    try:
        fetched = fetch(sources, config.fetch, validators=held.validators(sources), accept=accept, progress=progress)
    except FetchError as error:
        if explicit:
            raise
        return held.instead_of_all(error)
    source = public(fetched.source)
    answered = "" if explicit else source
    if fetched.data is None:
        assert held.good is not None  # a 304 answers a validator, and those are sent for a good list only
        return Obtained(source, held.good, held.compiler(held.good), answered=answered)
    decoded, compiled = fetched.data
    mirror = Mirror(fetched.validators.etag, fetched.validators.last_modified, atomic.digest(decoded.data))
    return Obtained(source, decoded, compiled, mirror=mirror, answered=answered)


class _Held:
    """What this host has of a policy's list before it asks for a new one, and what that decides."""

    def __init__(self, config: Config, policy: PolicyConfig, state: PolicyState, own: UserLists) -> None:
        self._config, self._policy, self._state, self._own = config, policy, state, own
        self._path = config.paths.list(policy.name)
        self._last = current_list(config, policy)
        self._starting = self._last is not None and is_starter(self._last, state)
        self.good = None if self._starting else self._last
        """The last good list, which the starter list is not."""
        self._digest = atomic.digest(self.good.data) if self.good else ""
        self._had_one = bool(state.list_digest) and not state.starter

    def compiler(self, decoded: Decoded) -> "Callable[[], Compiled]":
        """Compiles a list at the first call."""
        return cache(lambda: compile_with(str(self._path), self._policy, decoded, self._own))

    def offline(self) -> Obtained:
        """The list that is used without a network.

        :raises ListError: there is none.
        """
        if self._last:
            source = public(self._state.source) or str(self._path)
            return Obtained(source, self._last, self.compiler(self._last), self._starting)
        if self._had_one:
            raise ListError(f"{self._path} is missing or damaged", "run: gfwtools update")
        if not _starter_stands_in(self._policy):
            raise ListError(f"policy.{self._policy.name}: no list fetched yet", "run: gfwtools update")
        return self._starter("no list fetched yet; using the built-in starter list")

    def validators(self, sources: Sequence[str]) -> "dict[str, Validators]":
        """Those that the sources gave with the last good list. Once that is another mirror's, a 304 says nothing about
        it."""
        from gfwtools.fetch.values import Validators

        mirrors = {source: self._state.mirrors.get(public(source)) for source in sources}
        return {
            source: Validators(mirror.etag, mirror.last_modified)
            for source, mirror in mirrors.items()
            if mirror and self._digest and mirror.digest == self._digest
        }

    def accept(self, data: bytes, *, force: bool, explicit: bool) -> "tuple[Decoded, Callable[[], Compiled]]":
        """The list that a source's body holds.

        :param force: it may be another one than what is held lets expect.
        :param explicit: its source is not one of the configuration.
        :raises ListError: it is none, or not likely to be the one that was asked for.
        """
        base64, fetch = self._policy.format == "autoproxy", self._config.fetch
        decoded = decode(data, base64=base64, max_bytes=fetch.max_bytes)
        compiled = self.compiler(decoded)
        if not self.good or decoded.data != self.good.data:
            require_list(compiled(), self._policy.name)
            if not force:
                self._require_likely(decoded, compiled(), explicit=explicit)
        return decoded, compiled

    def _require_likely(self, decoded: Decoded, compiled: "Compiled", *, explicit: bool) -> None:
        """Whether a list is a likely successor of what is held.

        :raises ListError: it is older, much smaller, or has other names.
        """
        from gfwtools.update.measure import require_not_older  # most updates bring nothing new

        now, policy = datetime.now(UTC), self._policy
        if self.good:
            require_not_older(decoded.last_modified, self.good.last_modified, now)
            _require_kept(compiled, self._config, policy, self._state, self.good, now)
        elif not explicit and not set(policy.sources).isdisjoint(MIRRORS):
            # Where a source is the user's own, the list may be of any names.
            _require_starter(compiled, policy, self._config.fetch.min_share)

    def instead_of_all(self, error: FetchError) -> Obtained:
        """The starter list, where no source has answered.

        :raises FetchError: there is a list, which stays in use, or the starter list may not stand in.
        """
        if self.good or self._had_one:
            date = self.good.last_modified if self.good else self._state.list_date
            raise FetchError(f"{error}; the list of {date or 'the last update'} stays in use") from None
        if not _starter_stands_in(self._policy):
            name = self._policy.name
            raise FetchError(f"policy.{name}: {error}", "correct its sources in the configuration") from None
        none = f"no list from {len(error.answers)} sources ({'; '.join(dict.fromkeys(error.answers))})"
        return self._starter(f"{none}; using the built-in starter list until one answers")

    def _starter(self, warning: str) -> Obtained:
        decoded = starter_list()
        return Obtained(STARTER_NAME, decoded, self.compiler(decoded), True, warnings=(warning,))


def answered_first(sources: Sequence[str], answered: str) -> list[str]:
    """The sources in the order in which they are asked: a mirror that is dead today was most likely dead yesterday,
    so the one that answered last is asked before the mirrors that stand before it.

    It passes mirrors only. A file costs no wait, and who lists one before a mirror wants that file where it is there.

    :param answered: what :func:`public` made of it; any other text changes nothing.
    """
    order = list(sources)
    for index, source in enumerate(order):
        if public(source) == answered:
            place = index
            while place and is_url(order[place - 1]):
                place -= 1
            order.insert(place, order.pop(index))
            break
    return order


def public(source: str) -> str:
    """A source as state.json and the output have it, which anybody may read: without the name and password that a URL
    may have (RFC 3986 section 3.2.1), and the bytes of a path that are no UTF-8 escaped."""
    return masked(source, "").encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]


def _starter_stands_in(policy: PolicyConfig) -> bool:
    """Whether the starter list may be used where no source answers: it stands for gfwlist, whose mirrors are often
    blocked themselves. A mistyped path, or a list of another kind, must not send its domains into the tunnel."""
    return policy.format == "autoproxy" and any(
        source.lower().startswith(("http://", "https://")) for source in policy.sources
    )


def require_list(compiled: "Compiled", policy: str) -> None:
    """Whether what was compiled is a list in the format of ``policy``.

    :raises ListError: it looks like one in another format, hardly a line of it names a host, or it has too much of the
        Internet.
    """
    listing = compiled.listing
    if other := looks_like(listing.text, listing.format):
        place = f" into [policy.{policy}]" if other.format else ""
        raise ListError(f"the list is in the wrong format: {other.what}", f"{other.remedy}{place}")
    usable, rules = _usable(compiled), compiled.read
    if not usable or usable < USABLE_SHARE * rules:
        raise ListError(f"the text is no list; {usable:,} of its {rules:,} lines name a host")
    from gfwtools.update.measure import require_networks

    require_networks(compiled)


def _require_kept(
    compiled: "Compiled", config: Config, policy: PolicyConfig, state: PolicyState, good: Decoded, now: datetime
) -> None:
    """Whether a list is much the same as the last good one, or as an earlier one where that is the measure.

    :raises ListError: it is much smaller, or has other names.
    """
    from gfwtools.update.measure import in_common, largest, require_names, require_size
    from gfwtools.update.reference import reference_of

    min_share = config.fetch.min_share
    earlier = reference_of(config, policy, state, now)
    which = "the list that was in use before" if earlier else "the last good one"
    found = in_common(Listing("", (earlier or good).text, policy.format), compiled, policy.granularity)
    require_size(_usable(compiled), max(largest(state.history, now), found.usable), min_share)
    require_names(found, which, min_share)


def _require_starter(compiled: "Compiled", policy: PolicyConfig, min_share: float) -> None:
    """Whether a first list has the names of the starter list, which stands for it.

    :raises ListError: it has less than ``min_share`` of them.
    """
    from gfwtools.update.measure import in_common, require_names

    found = in_common(Listing("", starter_list().text), compiled, policy.granularity)
    require_names(found, "the built-in starter list", min_share)


def _usable(compiled: "Compiled") -> int:
    """How many rules of a list name a host."""
    return compiled.read - sum(compiled.dropped.values())
