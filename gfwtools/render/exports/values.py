"""What every export is made from, and what it gives."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gfwtools.config.model import Network, PolicyConfig, Upstream
from gfwtools.lists.policy import Cover

__all__ = ["Layer", "Meaning", "Said", "layers"]


class Layer(NamedTuple):
    """Domains at which the verdict changes for the same time, counted from above. Odd layers are tunnelled, even ones
    direct; the deepest layer that covers a name decides."""

    whole: list[str]
    """Each with itself and what is under it. Sorted."""
    under: list[str]
    """Each with what is under it and not itself. Sorted."""

    def __len__(self) -> int:
        return len(self.whole) + len(self.under)


class Meaning(NamedTuple):
    """A policy as values."""

    cover: Cover
    networks: Sequence[Network]
    policy: PolicyConfig
    sets: str
    """The names of the sets for IPv4 and IPv6, with a comma."""
    usual: Sequence[Upstream] = ()
    """The resolvers for what is not tunnelled; empty where they are not known."""
    list_date: str = ""
    proxy: str = ""
    """The proxy of a PAC file, as its function returns it."""

    @property
    def layers(self) -> list[Layer]:
        return layers(self.cover)


class Said(NamedTuple):
    """The text of an export."""

    text: str
    lost: tuple[str, ...] = ()
    """What the format cannot say: domains that it tunnels or frees wrongly, and networks that are not in it."""


def layers(cover: Cover) -> list[Layer]:
    """The domains of ``cover`` by how often the verdict has changed above them."""
    verdicts = dict.fromkeys(cover.tunnelled, True) | dict.fromkeys(cover.freed, False)
    depths: dict[str, int] = {}
    # What is above a pattern comes before it: fewer labels first, and x before *.x.
    for pattern in sorted(verdicts, key=lambda pattern: (pattern.removeprefix("*.").count("."), pattern[0] == "*")):
        depth = depths.get(_above(pattern, depths), 0)
        depths[pattern] = depth + 1 if verdicts[pattern] != bool(depth % 2) else depth
    found: list[Layer] = []
    for pattern, depth in depths.items():
        while len(found) < depth:
            found.append(Layer([], []))
        if depth and verdicts[pattern] == bool(depth % 2):
            layer = found[depth - 1]
            (layer.under if pattern[0] == "*" else layer.whole).append(pattern.removeprefix("*."))
    return [Layer(sorted(layer.whole), sorted(layer.under)) for layer in found]


def _above(pattern: str, known: Iterable[str]) -> str:
    """The longest pattern that covers what ``pattern`` does, and more; the empty text for none."""
    name = pattern.removeprefix("*.")
    if pattern[0] == "*" and name in known:
        return name
    while name := name.partition(".")[2]:
        for above in (f"*.{name}", name):
            if above in known:
                return above
    return ""
