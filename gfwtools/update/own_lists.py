"""The user's lists that are URLs: fetched with each update, the last good copy of each kept."""

from pathlib import Path
from typing import TYPE_CHECKING

from gfwtools.config.model import Config, is_url
from gfwtools.config.userinfo import masked
from gfwtools.errors import FetchError, ListError
from gfwtools.lists.decode import decode
from gfwtools.lists.formats import looks_like
from gfwtools.storage import atomic

if TYPE_CHECKING:
    from gfwtools.fetch.values import Progress

__all__ = ["fetch_own_lists", "never_fetched"]


def never_fetched(config: Config) -> list[str]:
    """Offline, the copies are used; what to say of URLs that have none."""
    missing = [url for url in _own_urls(config) if not config.paths.own_list(url).exists()]
    return [f"{masked(url)}: never fetched, and counts as empty; run: gfwtools update" for url in missing]


def fetch_own_lists(config: Config, progress: "Progress | None") -> tuple[dict[Path, bytes], list[str]]:
    """The user's lists that are URLs: copies that are new, by their places, and what to say of those that failed.

    :raises FetchError: one failed that has no copy.
    """
    copies: dict[Path, bytes] = {}
    told = []
    for url in _own_urls(config):
        from gfwtools.fetch.race import fetch

        place = config.paths.own_list(url)
        held = atomic.read_ours(place)
        try:
            data = fetch([url], config.fetch, accept=_domains, progress=progress).data
        except FetchError as error:
            reason = "; ".join(error.answers)
            if held is None:
                remedy = "correct it, or remove it from the configuration"
                raise FetchError(f"{masked(url)}: {reason}", remedy) from None
            told.append(f"{masked(url)}: {reason}; the last good copy stays in use")
            continue
        if data is not None and data != held:
            copies[place] = data
    return copies, told


def _own_urls(config: Config) -> list[str]:
    entries = (entry for policy in config.policies for entry in (*policy.allow, *policy.deny))
    return list(dict.fromkeys(filter(is_url, entries)))


def _domains(data: bytes) -> bytes:
    """``data``, where it is a list of domains.

    :raises ListError: it is none.
    """
    if other := looks_like(decode(data, base64=False).text, "domains"):
        raise ListError(f"the list is in the wrong format: {other.what}", "give one domain a line")
    return data
