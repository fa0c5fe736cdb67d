"""What ships with the package."""

from pathlib import Path

import gfwtools
from gfwtools.compiler import Status, compile_lists
from gfwtools.config import Config, loads
from gfwtools.decode import decode
from gfwtools.domains import known_names
from gfwtools.formats import Listing
from gfwtools.names import to_ascii

DATA = Path(gfwtools.__file__).parent / "data"


def test_the_configuration_that_bootstrap_writes_says_the_defaults() -> None:
    assert loads((DATA / "config.toml").read_text()) == Config()


def test_the_starter_list_has_a_hundred_domains_and_none_twice() -> None:
    text = decode((DATA / "starter.txt").read_bytes()).text
    compiled = compile_lists(Listing("starter", text))
    assert sum(entry.tunnel for entry in compiled.cover) >= 100
    assert [
        outcome.rule.text for outcome in compiled.outcomes() if outcome.status in (Status.DROPPED, Status.REDUNDANT)
    ] == []


def test_the_starter_list_reaches_every_mirror_of_the_list() -> None:
    from urllib.parse import urlsplit

    from gfwtools.config import MIRRORS

    policy = gfwtools.compile((DATA / "starter.txt").read_text())
    assert {policy.lookup(urlsplit(url).hostname or "").verdict for url in MIRRORS} == {"tunnel"}


def test_known_names_are_names() -> None:
    names = [name for found in known_names().values() for name in found]
    assert len(names) == len(set(names)) > 200
    assert all(to_ascii(name) == name for name in names)
