"""The user's lists that are URLs: fetched with each update where they are new, the last good copy of each kept."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gfwtools.config.model import Config, PolicyConfig, is_url
from gfwtools.config.userinfo import masked
from gfwtools.errors import FetchError, ListError
from gfwtools.lists.decode import decode
from gfwtools.lists.formats import Listing, looks_like
from gfwtools.storage import atomic
from gfwtools.storage.state import Mirror, State
from gfwtools.update.inputs import in_its_format
from gfwtools.update.obtain import USABLE_SHARE, public

if TYPE_CHECKING:
    from gfwtools.fetch.values import Progress

__all__ = ["OwnLists", "fetch_own_lists", "held_own_lists"]


class OwnLists(NamedTuple):
    """What a run found out about the user's lists that are URLs."""

    copies: Mapping[Path, bytes] = {}
    """New copies, by their places."""
    mirrors: Mapping[str, Mirror] = {}
    """URL, without a password -> the version that its server named."""
    warnings: tuple[str, ...] = ()

    def mirrors_of(self, policy: PolicyConfig) -> dict[str, Mirror]:
        """Those of the lists of ``policy``."""
        urls = {public(entry) for entry in policy.own_lists}
        return {url: mirror for url, mirror in self.mirrors.items() if url in urls}


def held_own_lists(config: Config) -> OwnLists:
    """Offline, the copies are used, and there is something to say of URLs that have none."""
    missing = [url for url, _ in _urls(config) if not config.paths.own_list(url).exists()]
    said = (f"{masked(url)}: never fetched, and counts as empty; run: gfwtools update" for url in missing)
    return OwnLists(warnings=tuple(said))


def fetch_own_lists(config: Config, state: State, progress: "Progress | None") -> OwnLists:
    """Ask for each list, by the version that its server named for the copy that is held.

    :raises FetchError: one failed that has no copy.
    """
    copies: dict[Path, bytes] = {}
    mirrors: dict[str, Mirror] = {}
    warnings = []
    known = {url: mirror for policy in state.policies.values() for url, mirror in policy.mirrors.items()}
    for url, accept in _urls(config):
        from gfwtools.fetch.race import fetch
        from gfwtools.fetch.values import Validators

        place = config.paths.own_list(url)
        held = atomic.read_ours(place)
        last = known.get(public(url))
        current = last and held is not None and last.digest == atomic.digest(held)
        validators = {url: Validators(last.etag, last.last_modified)} if last and current else {}
        try:
            fetched = fetch([url], config.fetch, validators=validators, accept=accept, progress=progress)
        except FetchError as error:
            reason = "; ".join(error.answers)
            if held is None:
                remedy = "correct it, or remove it from the configuration"
                raise FetchError(f"{masked(url)}: {reason}", remedy) from None
            warnings.append(f"{masked(url)}: {reason}; the last good copy stays in use")
            continue
        if (data := fetched.data) is None:
            continue
        mirrors[public(url)] = Mirror(fetched.validators.etag, fetched.validators.last_modified, atomic.digest(data))
        if data != held:
            copies[place] = data
    return OwnLists(copies, mirrors, tuple(warnings))


def _urls(config: Config) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Each URL once, with what its body has to be."""
    urls: dict[str, Callable[[bytes], bytes]] = {}
    for policy in config.policies:
        urls |= dict.fromkeys(filter(is_url, policy.direct), _any_format)
    for policy in config.policies:
        urls |= dict.fromkeys(filter(is_url, (*policy.allow, *policy.deny)), _domains)
    yield from urls.items()


def _domains(data: bytes) -> bytes:
    """``data``, where it is a list of domains.

    :raises ListError: it is none.
    """
    if other := looks_like(decode(data, base64=False).text, "domains"):
        raise ListError(f"the list is in the wrong format: {other.what}", "give one domain a line")
    return data


def _any_format(data: bytes) -> bytes:
    """``data``, where it is a list in a format that is known.

    :raises ListError: it is none.
    """
    from gfwtools.lists.locator import Locator
    from gfwtools.lists.suffixes import bundled

    listing = Listing("", decode(data, base64=False).text, "domains")
    locator = Locator(bundled(), trusted=True)
    named = [bool(locator.locate(rule).domains) for rule in in_its_format(listing).rules()]
    if not any(named) or sum(named) < USABLE_SHARE * len(named):
        raise ListError(f"the text is no list; {sum(named):,} of its {len(named):,} lines name a host")
    return data
