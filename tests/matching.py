"""How dnsmasq reads a file: written from its manual page and from what it was seen to do, and not from our code."""

import re

#: It answers a name of its own and none else.
_GENERATION = re.compile(r"txt-record=generation\.[a-z0-9_-]+\.gfwtools\.invalid,[0-9a-f]{16}")
_LINE = re.compile(r"(server|ipset|nftset)=/([^/]+)/(.*)")


def read_conf(text: str) -> dict[str, dict[str, str]]:
    """``server`` and ``ipset`` -> pattern -> value. Any line that is neither a comment, the generation nor one of those is
    a failure."""
    found: dict[str, dict[str, str]] = {"server": {}, "ipset": {}, "nftset": {}}
    for line in text.splitlines():
        if line.startswith("#") or _GENERATION.fullmatch(line):
            continue
        match = _LINE.fullmatch(line)
        assert match, f"a line of another kind: {line!r}"
        found[match[1]].setdefault(match[2], match[3])
    return found


def longest(name: str, patterns: dict[str, str], *, wildcards: bool = True) -> str | None:
    """The value of the longest pattern that covers ``name``; ``*.x`` covers what is under x and beats x there.

    :param wildcards: dnsmasq knows them in server lines only.
    """
    labels = name.split(".")
    for index in range(len(labels)):
        suffix = ".".join(labels[index:])
        if index == 0:
            if suffix in patterns:
                return patterns[suffix]
            continue
        if wildcards and f"*.{suffix}" in patterns:
            return patterns[f"*.{suffix}"]
        if suffix in patterns:
            return patterns[suffix]
    return None


def verdict(name: str, conf: dict[str, dict[str, str]]) -> str:
    """Which resolver is asked for ``name``, as a verdict."""
    return "direct" if longest(name, conf["server"]) in (None, "#") else "tunnel"
