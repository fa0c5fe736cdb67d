"""A chain of links, and the verdict over it. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

__all__ = ["Chain", "Link", "LinkState", "first_broken", "skip_dependents", "skipped"]


class LinkState(StrEnum):
    """How a link is. UNKNOWN could not be seen; SKIPPED does not matter here, or depends on a broken one."""

    OK = "OK"
    BROKEN = "BROKEN"
    UNKNOWN = "UNKNOWN"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the way from a name to the site: what was expected, what was found, what fixes it."""

    name: str
    state: LinkState
    expected: str = ""
    found: str = ""
    remedy: str = ""
    """A command, or empty where there is nothing to fix."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state.value,
            "expected": self.expected,
            "found": self.found,
            "remedy": self.remedy or None,
        }


@dataclass(frozen=True, slots=True)
class Chain:
    """The links of a name in their order: each depends on those before it."""

    name: str
    verdict: str
    links: tuple[Link, ...]

    @property
    def broken(self) -> Link | None:
        return first_broken(self.links)

    @property
    def unknown(self) -> tuple[Link, ...]:
        return tuple(link for link in self.links if link.state is LinkState.UNKNOWN)

    def to_json(self) -> dict[str, Any]:
        """The object that ``check domain --live --json`` prints."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "links": [link.to_json() for link in self.links],
            "broken": self.broken.name if self.broken else None,
        }


def first_broken(links: Iterable[Link]) -> Link | None:
    """The link to fix: those after it may be broken only because this one is."""
    return next((link for link in links if link.state is LinkState.BROKEN), None)


def skip_dependents(links: Sequence[Link], dependent: Mapping[str, Collection[str]]) -> list[Link]:
    """A broken link that depends on another broken one becomes SKIPPED, and names that one.

    :param dependent: link -> the links that it depends on; they come before it.
    """
    judged: list[Link] = []
    broken: set[str] = set()
    for link in links:
        cause = next(
            (before.name for before in judged if before.name in broken & set(dependent.get(link.name, ()))), ""
        )
        if link.state is LinkState.BROKEN:
            broken.add(link.name)
            if cause:
                link = replace(link, state=LinkState.SKIPPED, found=f"{link.found} (depends on: {cause})", remedy="")
        judged.append(link)
    return judged


def skipped(names: Sequence[str], why: str) -> list[Link]:
    """``names`` as links that were not looked at."""
    return [Link(name, LinkState.SKIPPED, found=why) for name in names]
