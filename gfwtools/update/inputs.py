"""What an update is made from, as it is on this host: the last good list, the user's lists, and a digest over
all of it. ``check domain`` needs no more than this.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from gfwtools._version import __version__
from gfwtools.config.model import BackendName, Config, PolicyConfig
from gfwtools.errors import ListError
from gfwtools.lists.decode import Decoded, as_stored, decode, text_of
from gfwtools.lists.formats import Listing, looks_like
from gfwtools.lists.suffixes import bundled_stamp
from gfwtools.plumbing.choice import decide
from gfwtools.render.backends import TEXTS
from gfwtools.storage import atomic
from gfwtools.storage.state import PolicyState, State, read_state

if TYPE_CHECKING:
    from gfwtools.lists.compiler import Compiled

__all__ = [
    "STARTER_NAME",
    "UserLists",
    "backend_of_files",
    "compile_policy",
    "compile_with",
    "current_list",
    "digest_of",
    "in_its_format",
    "is_stale",
    "is_starter",
    "list_or_starter",
    "read_listings",
    "starter_list",
]

STARTER = Path(__file__).parent.parent / "data" / "starter.txt"
STARTER_NAME = "starter list"
#: Raised when an update writes other files than before, so that the next one writes them.
FILES_VERSION = 3
#: The user's own lists are read whole; a million domains have some 20 MB.
USER_LIST_LIMIT = 64 * 1024 * 1024


def starter_list() -> Decoded:
    """The list that ships with the package, for a host that has never reached a mirror."""
    return decode(STARTER.read_bytes())


def is_starter(decoded: Decoded, state: PolicyState) -> bool:
    """Whether the list that a policy has is the starter list, which may be that of an earlier gfwtools.

    What the list says of itself counts for nothing: anybody's may say so, and would not be measured by min_share.
    """
    if atomic.digest(decoded.data) == state.list_digest:
        return state.starter
    return decoded.data == STARTER.read_bytes()  # the state was lost, or is of another list


def current_list(config: Config, policy: PolicyConfig) -> Decoded | None:
    """The last good list (or the starter list, where it was taken), or None.

    :raises StoreError: it cannot be read.
    """
    data = atomic.read_ours(config.paths.list(policy.name))
    if data is None:
        return None
    try:
        return as_stored(data, max_bytes=config.fetch.max_bytes)
    except ListError:
        return None  # damaged: as good as none, and the next update writes it anew


def list_or_starter(config: Config, policy: PolicyConfig) -> tuple[Decoded, str]:
    """The list that a question about the policy is answered from, and what is wrong with that, in words.

    :raises StoreError: it cannot be read.
    """
    decoded = current_list(config, policy)
    if decoded is not None:
        return decoded, ""
    state = read_state(config.paths.state).of(policy.name)
    lost = state.list_digest and not state.starter
    why = f"{config.paths.list(policy.name)} is missing or damaged" if lost else "no list fetched yet"
    return starter_list(), f"{why}; using the built-in starter list; run: gfwtools update"


class UserLists(NamedTuple):
    """The user's own lists of a policy, read once, so that what is compiled is what the digest was taken over."""

    allow: Sequence[Listing]
    deny: Sequence[Listing]
    direct: Sequence[Listing]

    @classmethod
    def read(
        cls, config: Config, policy: PolicyConfig, fetched: Mapping[Path, bytes] = MappingProxyType({})
    ) -> "UserLists":
        """As they are on disk now; a file that is not there is an empty one.

        :param fetched: what will be on disk in place of what is there.
        :raises StoreError: one is there and cannot be read.
        :raises ListError: a direct list is in a format that is not known.
        """

        def at(entry: str) -> Path:
            place = config.paths.own_list(entry)
            return place if place in fetched else config.paths.follow(place)

        allow, deny, direct = (
            read_listings(map(at, entries), fetched) for entries in (policy.allow, policy.deny, policy.direct)
        )
        return cls(allow, deny, [in_its_format(listing) for listing in direct])


def read_listings(paths: Iterable[str | Path], fetched: Mapping[Path, bytes] = MappingProxyType({})) -> list[Listing]:
    """Lists with one domain a line; a file that is not there is an empty one.

    :param fetched: the content of some of them, where that is not to be read from disk.
    :raises StoreError: one is there and cannot be read.
    """
    listings = []
    for path in paths:
        data = fetched.get(Path(path))
        if data is None:
            data = atomic.read(Path(path), limit=USER_LIST_LIMIT) or b""
        listings.append(Listing(str(path), text_of(data), "domains"))
    return listings


def in_its_format(listing: Listing) -> Listing:
    """A direct list in the format that it shows; one domain a line where it shows none.

    :raises ListError: that one cannot be read.
    """
    other = looks_like(listing.text, listing.format)
    if other is None:
        return listing
    if not other.format:
        raise ListError(f"{listing.source}: {other.what}" if listing.source else other.what, other.remedy)
    return listing._replace(format=other.format)


def compile_policy(config: Config, policy: PolicyConfig, decoded: Decoded, *, about: str | None = None) -> "Compiled":
    """Compile a list with the user's as they are on disk now.

    :param about: see :func:`gfwtools.lists.compiler.compile_lists`.
    :raises StoreError: one of the user's is there and cannot be read.
    """
    path = config.paths.list(policy.name)
    source = str(path) if path.exists() else STARTER_NAME
    return compile_with(source, policy, decoded, UserLists.read(config, policy), about)


def compile_with(
    source: str, policy: PolicyConfig, decoded: Decoded, own: UserLists, about: str | None = None
) -> "Compiled":
    """Compile a list, called ``source``, with the user's ``own``."""
    from gfwtools.lists.compiler import compile_lists

    return compile_lists(
        Listing(source, decoded.text, policy.format),
        allow=own.allow,
        deny=own.deny,
        direct=own.direct,
        granularity=policy.granularity,
        about=about,
    )


def backend_of_files(config: Config) -> BackendName:
    """The backend that the files on disk are for, without a command: the one that is configured; with ``auto`` the one
    that the last update decided on. Before the first update the programs that are here say which one it will be."""
    if config.host.backend != "auto":
        return config.host.backend
    return _backend_in(config, read_state(config.paths.state))


def _backend_in(config: Config, state: State) -> BackendName:
    if config.host.backend == "auto":
        written = {config.paths.at(path) for policy in state.policies.values() for path in policy.effective}
        for name, text in TEXTS.items():
            if any(text.seed_file(config.paths, policy.name) in written for policy in config.policies):
                return name
    return decide(config, None)


def is_stale(config: Config, lists: Iterable[tuple[PolicyConfig, Decoded]]) -> bool:
    """Whether the files on disk were made from other lists or another configuration than those of now."""
    state = read_state(config.paths.state)
    backend = _backend_in(config, state)
    inputs = ""
    for policy, decoded in lists:
        inputs = digest_of(config, policy, decoded, UserLists.read(config, policy), backend, inputs)
        if state.of(policy.name).inputs != inputs:
            return True
    return False


def digest_of(
    config: Config, policy: PolicyConfig, decoded: Decoded, own: UserLists, backend: BackendName, before: str
) -> str:
    """A digest over all that the files are made from, so that nothing is compiled to find that nothing is new.

    :param before: the digest of the policy before this one: what that one claims is an input as well.
    """
    parts = [
        before,
        f"{__version__} {FILES_VERSION}",
        bundled_stamp(),
        repr(policy),
        repr((backend, config.dns.layout, config.dns.conf_dir, len(config.policies) > 1)),
        repr((config.dns.https_records, config.dns.stop_rebind)),
        atomic.digest(decoded.data),
    ]
    parts += [listing.text for listings in own for listing in listings]
    return atomic.digest("\0".join(parts).encode("utf-8", "surrogatepass"))
