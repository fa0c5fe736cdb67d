"""The interface of this host's resolver for the rest of gfwtools. dnsmasq implements it; another could, too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gfwtools.config.model import Address, PolicyConfig
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.dnsmasq.overrides import Override
from gfwtools.render.files import Role

__all__ = ["Reading", "Resolver", "Unread"]


@dataclass(frozen=True, slots=True)
class Reading:
    """The daemons that have to read their files again."""

    main: bool
    """The main daemon, at a start."""
    servers: bool
    """The main daemon, while it runs."""
    second: tuple[PolicyConfig, ...] = ()
    """The second daemons of these policies."""

    def __bool__(self) -> bool:
        return self.main or self.servers or bool(self.second)


@dataclass(frozen=True, slots=True)
class Unread:
    """A file whose current content its daemon has not read."""

    path: Path
    role: Role
    detail: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.detail}; {self.remedy}"


class Resolver(Protocol):
    """The resolver that answers names on this host and fills the sets."""

    @property
    def main(self) -> Daemon:
        """The daemon that clients ask."""

    def second(self, policy: PolicyConfig) -> Daemon | None:
        """The daemon that the main one asks for a policy's names; None where there is none."""

    def asks(self, policy: PolicyConfig) -> list[str]:
        """The resolvers that the main daemon asks for a policy's names, as ``ADDRESS#PORT``."""

    def is_running(self) -> bool:
        """Whether the main daemon runs. It may be slow, or answer at another address than its current files name."""

    def runs_second(self, policy: PolicyConfig) -> bool:
        """Whether the second daemon of a policy runs."""

    def role_of(self, policy: PolicyConfig, path: Path) -> Role:
        """The role of a policy's file: it decides what must happen when the file changes."""

    def check(self, files: Mapping[Path, bytes]) -> None:
        """Check the whole configuration with ``files`` in place of what is there.

        :raises ResolverError: the resolver would not start.
        """

    def can_reload(self) -> bool:
        """Whether gfwtools may restart the daemons (``dns.manager``).

        :raises ResolverError: it may, but no service manager is found.
        """

    def reload(self, due: Reading, *, was_up: bool) -> list[str]:
        """Have the daemons read what is due.

        :returns: what was done, in words.
        :raises ResolverError: a restart failed.
        """

    @property
    def manager(self) -> str:
        """The program that restarts the daemons, as in ``dns.manager``; ``none found`` where there is none."""

    def restart(self) -> None:
        """Restart the main daemon: it reads all of its files.

        :raises GfwtoolsError: the restart failed, or nothing may restart it.
        """

    def restart_words(self, policy: str = "") -> str:
        """The command that restarts the main daemon, or the second one of ``policy``; for people."""

    def stop_second(self, policy: str) -> None:
        """Have the manager stop the second daemon of a policy, where it runs."""

    def end(self) -> bool:
        """End the main daemon without its manager; False where none runs."""

    def end_second(self, policy: PolicyConfig) -> bool:
        """End the second daemon of a policy without its manager; False where none runs."""

    def make_folders(self) -> None:
        """Make the folders below /run that the daemons need to start; :meth:`reload` does so by itself.

        :raises StoreError: one cannot be made.
        """

    def remove_folders(self) -> None:
        """Remove those of gfwtools, where no daemon needs them."""

    def clear_caches(self) -> bool:
        """Have every daemon clear its cache: an answer from the cache adds no address to a set.

        :returns: whether the main daemon does.
        """

    def unread(self, policies: Sequence[PolicyConfig]) -> list[Unread]:
        """Ask each running daemon for the generation of its files; returns the files that it has not read."""

    def wait_until_read(self, policies: Sequence[PolicyConfig]) -> list[Unread]:
        """The same for daemons that were just restarted or signalled, which may need a moment."""

    def overrides(self, name: str = "") -> list[Override]:
        """The lines of the user's that decide listed names in place of ours; with ``name``, those that decide it."""

    def remedy_for(self, overrides: Sequence[Override]) -> str:
        """What to do against lines of the user's; for people."""

    def changing(self, name: str, policy: PolicyConfig, clean: Sequence[Address]) -> list[Override]:
        """The lines of the user's that change the answer of the clean resolver, which has the addresses ``clean``."""

    def not_read(self) -> list[str]:
        """Lines of the user's that stand for others which cannot be read, with their places."""

    def strangers(self, policy: PolicyConfig, name: str) -> tuple[str, ...] | None:
        """Ask for a listed name, and see who is asked beside the policy's resolvers; None where it cannot be seen."""

    def answers_itself(self, name: str) -> bool:
        """Whether the main daemon has an address for ``name`` from its own files, so that it asks no resolver."""
