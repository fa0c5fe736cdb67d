"""Is this file, line, chain, rule, table or route ours? Every mark is read here, and nowhere else.

:mod:`gfwtools.render.header` writes the mark of a file, because the renderers come before this module in the flow.
"""

import os
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.render.header import WRITTEN
from gfwtools.render.nftables import TABLE
from gfwtools.storage import atomic
from gfwtools.storage.state import read_state

__all__ = [
    "PROTOCOL",
    "TAG",
    "comment",
    "has_header",
    "heading",
    "is_chain",
    "is_file",
    "is_name_of_table",
    "is_named_ours",
    "is_nft_table",
    "is_route",
    "is_rule",
    "lines",
    "not_ours",
    "reason",
    "with_lines",
    "without_lines",
    "without_ours",
]

#: What the comment of every rule of ours begins with.
TAG = "gfwtools"
#: The protocol of our ip rules and routes. It is not in /etc/iproute2/rt_protos.
PROTOCOL = 202
# Around our lines in a file of another program.
_BEGIN, _END = "# gfwtools begin", "# gfwtools end"
_LINES = re.compile(rf"^{_BEGIN}.*?^{_END}\n".encode(), re.MULTILINE | re.DOTALL)
#: The mark of a file is in one of its first three lines; the first one may be a title.
_HEAD = 3


# ---------------------------------------------------------------- files


def is_file(data: bytes) -> bool:
    """Whether the head of a file marks all of it as ours. Another line that names gfwtools is not enough."""
    return any(line.startswith(WRITTEN.encode()) for line in _head(data)) and not with_lines(data)


def has_header(place: Path) -> bool:
    """Whether the header of the file at ``place`` marks all of it as ours.

    :raises StoreError: it cannot be read.
    """
    if place.is_symlink():
        return False
    data = atomic.read(place)
    return data is not None and is_file(data)


def not_ours(paths: Paths, places: Iterable[Path]) -> list[Path]:
    """The ``places`` outside our own folders whose files gfwtools has not written.

    gfwlist2dnsmasq.sh may have written ``/etc/dnsmasq.d/gfwlist.conf``.

    :raises StoreError: one cannot be read.
    """
    others = [
        place
        for place in places
        if paths.etc not in place.parents and paths.state_dir not in place.parents and os.path.lexists(place)
    ]
    if not others:
        return []
    # What was written is ours, damaged or not. It is not read either: of a million domains it has 100 MB.
    written = {paths.at(path) for policy in read_state(paths.state).policies.values() for path in policy.in_place}
    return [place for place in others if place not in written and not has_header(place)]


def is_named_ours(path: str) -> bool:
    """Whether the name of the file at ``path`` is ours alone, with any content."""
    return TAG in path.rpartition("/")[2]


def heading(data: bytes) -> bytes | None:
    """The line in the head of a file of ours that names us; None where there is none, or only some lines are ours."""
    found = (line for line in _head(data) if line[:1] == b"#" and TAG.encode() in line)
    return None if with_lines(data) else next(found, None)


def _head(data: bytes) -> list[bytes]:
    return data[:4096].split(b"\n", _HEAD)[:_HEAD]


# ---------------------------------------------------------------- lines in a file of another program


def lines(texts: Iterable[str]) -> str:
    """``texts`` as lines of ours, for a file of another program."""
    return "".join(f"{line}\n" for line in (f"{_BEGIN} (gfwtools teardown removes it)", *texts, _END))


def with_lines(data: bytes) -> bool:
    """Whether a file of another program has lines of ours."""
    return _LINES.search(data) is not None


def without_lines(data: bytes) -> bytes:
    """The file without our lines."""
    return _LINES.sub(b"", data)


def without_ours(data: bytes) -> bytes:
    """The part of a file that is not ours."""
    return b"" if is_file(data) else without_lines(data)


def is_name_of_table(line: str) -> bool:
    """Whether a line of rt_tables (ip-route(8), FILES) is ours."""
    return line.rstrip().endswith(f"\t# {TAG}")


# ---------------------------------------------------------------- the kernel


def comment(why: str) -> str:
    """The comment of a rule of ours."""
    return f"{TAG}: {why}"


def reason(text: str) -> str | None:
    """The reason of a rule of ours, from its comment; None for a foreign comment."""
    return text.removeprefix(f"{TAG}: ") if text.startswith(f"{TAG}: ") else None


def is_rule(rule: str) -> bool:
    """Whether a rule is ours, by its comment as ``iptables-save`` writes it."""
    import shlex  # every update imports this module, and no update reads a rule

    comments = [word for option, word in pairwise(shlex.split(rule)) if option == "--comment"]
    return any(text == TAG or text.startswith(f"{TAG}:") for text in comments)


def is_chain(rules: Iterable[str]) -> bool:
    """Whether a chain with our name is ours, by its rules. An empty chain counts as ours."""
    inside = list(rules)
    return not inside or any(map(is_rule, inside))


def is_nft_table(family: str, name: str) -> bool:
    """Whether a table of nft is ours."""
    return f"{family} {name}" == TABLE


def is_route(entry: Mapping[str, object]) -> bool:
    """Whether an ip rule or a route is ours, as ``ip -N -j`` prints it."""
    return entry.get("protocol") == str(PROTOCOL)
