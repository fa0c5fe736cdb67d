"""What an update brings: the list of each policy, and the files that are made from it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.errors import GfwtoolsError
from gfwtools.lists.decode import Decoded
from gfwtools.storage.state import Mirror, PolicyState, State

if TYPE_CHECKING:
    from gfwtools.lists.compiler import Compiled, Counts

__all__ = ["NotRepairedError", "Obtained", "PolicyUpdate", "Update"]


class Obtained(NamedTuple):
    """A list, decoded, and where it came from."""

    source: str
    decoded: Decoded
    compiler: Callable[[], "Compiled"]
    """Compiles it with the user's lists, once: whether it is a list at all is seen by compiling it."""
    starter: bool = False
    mirror: Mirror | None = None
    warnings: tuple[str, ...] = ()
    answered: str = ""
    """The configured source that answered; empty for a list that came another way."""


class PolicyUpdate(NamedTuple):
    """What an update does, or did, to one policy."""

    policy: PolicyConfig
    obtained: Obtained
    state: PolicyState
    """The state after the update."""
    files: Mapping[Path, bytes] = {}
    """The whole content of every file of the policy; empty where nothing has changed."""
    obsolete: tuple[Path, ...] = ()
    """Files that the policy had in another layout or backend."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def unchanged(self) -> bool:
        return not self.files

    @property
    def source(self) -> str:
        return self.obtained.source

    @property
    def list_date(self) -> str:
        return self.obtained.decoded.last_modified

    @property
    def compiled(self) -> "Compiled":
        """The policy with the account of its rules."""
        return self.obtained.compiler()

    @property
    def counts(self) -> "Counts":
        return self.compiled.counts()


class Update(NamedTuple):
    """What an update does to all policies."""

    policies: tuple[PolicyUpdate, ...]
    state: State
    """The state after the update."""
    gone: Mapping[str, tuple[Path, ...]] = {}
    """Policies that are no longer in the configuration -> their files."""
    warnings: tuple[str, ...] = ()
    learned: bool = False
    """Whether the state has something new even where no file has: another mirror answered than the last time."""
    copies: Mapping[Path, bytes] = {}
    """Of the user's lists that are URLs, what was fetched and is another than the last good copy."""
    edits: Mapping[Path, bytes] = {}
    """The user's own files that were edited: their new content. Each keeps its mode and owner."""

    def files(self, config: Config) -> dict[Path, bytes]:
        """Every file to be written, the state last, in the order in which they go into place."""
        files: dict[Path, bytes] = dict(self.copies)
        for policy in self.policies:
            files.update(policy.files)
        if files or self.gone:
            files[config.paths.state] = self.state.to_json()
        return files

    @property
    def all_warnings(self) -> list[str]:
        """Those of the update, and those of its policies."""
        return [*self.warnings, *(warning for policy in self.policies for warning in policy.warnings)]

    @property
    def obsolete(self) -> list[Path]:
        """Files to be removed."""
        gone = [path for paths in self.gone.values() for path in paths]
        return [path for policy in self.policies for path in policy.obsolete] + gone


class NotRepairedError(GfwtoolsError):
    """Something on the host could not be repaired. The update beside it was done, and the list is in use."""

    def __init__(self, what: str, remedy: str, done: Update, notes: list[str]) -> None:
        super().__init__(what, remedy)
        self.done = done
        self.notes = notes
        """What the reload did, in words."""
