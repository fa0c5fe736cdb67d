"""What ships with the package, and what its documents say of it."""

import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from configuration_page import PAGE, with_rows

import gfwtools
from gfwtools.config.checks import BadValueError
from gfwtools.config.keys import KEYS, Key
from gfwtools.config.load import loads
from gfwtools.config.model import MIRRORS, Config, Dns, Fetch, Host, PolicyConfig
from gfwtools.config.template import template
from gfwtools.lists.compiler import Status, compile_lists
from gfwtools.lists.decode import decode
from gfwtools.lists.formats import Listing
from gfwtools.lists.hostname import to_ascii
from gfwtools.lists.locator import Reason, known_names
from gfwtools.lists.suffixes import bundled

DATA = Path(gfwtools.__file__).parent / "data"
DOCS = Path(__file__).parent.parent / "docs"
TEMPLATE = template()
STARTER = decode((DATA / "starter.txt").read_bytes())
#: Every field of the configuration that is a key, by its table.
FIELDS = {
    name: set(kind._fields) - {"name"}
    for name, kind in (("fetch", Fetch), ("dns", Dns), ("host", Host), ("policy", PolicyConfig))
}


def _tables(page: str) -> dict[str, list[list[str]]]:
    """The rows of a page's tables, without their heads, by the heading above; cells as Markdown has them."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in (DOCS / page).read_text("utf-8").split("\n"):
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
        elif line.startswith("| ---"):
            found[heading] = found.get(heading, [])[:-1]
        elif line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.setdefault(heading, []).append([cell.strip().replace(r"\|", "|") for cell in cells])
    return found


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


LISTS = _tables("lists.md")
CONFIGURATION = _tables("configuration.md")


# ---------------------------------------------------------------- config.toml


def test_the_configuration_that_bootstrap_writes_says_the_defaults() -> None:
    assert loads(TEMPLATE) == Config()


def test_the_configuration_that_bootstrap_writes_has_every_key() -> None:
    document = tomllib.loads(TEMPLATE)
    document["policy"] = document["policy"]["gfwlist"]
    assert {name: set(table) for name, table in document.items()} == FIELDS


def test_every_key_that_bootstrap_writes_has_a_comment_above_it() -> None:
    lines = TEMPLATE.split("\n")
    keys = [number for number, line in enumerate(lines) if re.match(r"[a-z0-9_]+ =", line)]
    assert [lines[number] for number in keys if not lines[number - 1].startswith("# ")] == []


def test_every_key_that_bootstrap_writes_has_one_line_that_can_be_edited() -> None:
    keys = [key for table in KEYS.values() for key in table]
    assert {key: len(re.findall(rf"^{key} = ", TEMPLATE, re.MULTILINE)) for key in keys} == dict.fromkeys(keys, 1)


def test_no_line_that_bootstrap_writes_is_long_or_has_markdown() -> None:
    assert [line for line in TEMPLATE.split("\n") if "`" in line or len(line) > 120] == []


# ---------------------------------------------------------------- keys.py

LIMITED = [key for table in KEYS.values() for key in table.values() if key.limits]


def _ends(limits: str) -> tuple[list[object], list[object]]:
    """The last values that the limits include, and values beyond them."""
    words = limits.split()
    if words[:2] == ["At", "most"]:
        return ["a" * int(words[2])], ["a" * (int(words[2]) + 1)]
    low, high = (tomllib.loads(f"value = {word.rstrip(',')}")["value"] for word in (words[0], words[2]))
    return [low, high], [low - 1, high + 1]


@pytest.mark.parametrize("key", LIMITED, ids=lambda key: key.name)
def test_the_limits_that_a_key_states_are_those_of_its_check(key: Key) -> None:
    included, excluded = _ends(key.limits)
    for value in included:
        key.check(value)
    for value in excluded:
        with pytest.raises(BadValueError):
            key.check(value)


# ---------------------------------------------------------------- starter.txt


def test_the_starter_list_has_a_hundred_domains_and_more() -> None:
    assert len(compile_lists(Listing("starter", STARTER.text)).cover.tunnelled) >= 100


@pytest.mark.parametrize("granularity", ["registrable", "host"])
def test_no_rule_of_the_starter_list_is_redundant_or_dropped(granularity: str) -> None:
    compiled = compile_lists(Listing("starter", STARTER.text), granularity=granularity)
    kept = {Status.APPLIED, Status.WIDENED}
    assert [outcome.rule.text for outcome in compiled.outcomes() if outcome.status not in kept] == []


def test_the_starter_list_is_sorted_within_its_groups() -> None:
    sections = STARTER.text.split("\n!")
    groups = [[line for line in section.split("\n") if line.startswith("||")] for section in sections]
    assert groups == [sorted(group) for group in groups]


def test_the_starter_list_reaches_every_mirror_of_the_list() -> None:
    policy = gfwtools.compile(STARTER.text)
    assert {policy.lookup(urlsplit(url).hostname or "").verdict for url in MIRRORS} == {"tunnel"}


# ---------------------------------------------------------------- names.txt


def _names() -> list[str]:
    lines = (DATA / "names.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_known_names_are_sorted_and_there_is_none_twice() -> None:
    assert _names() == sorted(set(_names()))


def test_known_names_are_names_below_a_suffix_that_exists() -> None:
    suffixes = bundled()
    assert [name for name in _names() if to_ascii(name) != name or suffixes.registrable(name) != name] == []
    assert [name for name in _names() if not suffixes.is_suffix(name.partition(".")[2])] == []


def test_known_names_have_the_country_domains_of_google_and_blogspot() -> None:
    known = known_names()
    assert len(known["google"]) > 180
    assert len(known["blogspot"]) > 70


# ---------------------------------------------------------------- docs/lists.md


@pytest.mark.parametrize("row", LISTS["Rules that block"], ids=lambda row: row[0])
def test_the_page_on_lists_says_what_a_rule_becomes(row: list[str]) -> None:
    rule, becomes, status = row
    (outcome,) = compile_lists(Listing("list", _quoted(rule)[0])).outcomes()
    target = outcome.target
    places = {*target.domains, *([str(target.network).removesuffix("/32")] if target.network else [])}
    _says_its_end(outcome.status, target.reason, status)
    if becomes == "nothing":
        assert not places
    elif "so on" in becomes or becomes == "the same":
        assert set(_quoted(becomes)) < places
    else:
        assert set(_quoted(becomes)) == places


@pytest.mark.parametrize("row", LISTS["Exceptions"], ids=lambda row: row[0])
def test_the_page_on_lists_says_how_an_exception_ends(row: list[str]) -> None:
    rule = _quoted(row[0])[0]
    *_, outcome = compile_lists(Listing("list", f"||gstatic.com\n||tokenplus.app\n{rule}")).outcomes()
    _says_its_end(outcome.status, outcome.target.reason, row[2])
    assert set(_quoted(row[1])) <= set(outcome.target.domains)
    assert outcome.target.under == ("under" in row[1])


def _says_its_end(status: Status, reason: Reason | None, cell: str) -> None:
    assert cell.split()[0] == status.value
    assert _quoted(cell) == ([reason.slug] if reason else [])


@pytest.mark.parametrize("row", LISTS["Granularity"], ids=lambda row: row[0])
def test_the_page_on_lists_says_what_granularity_does(row: list[str]) -> None:
    rule, registrable, host = (_quoted(cell)[0] for cell in row)
    for granularity, domain in (("registrable", registrable), ("host", host)):
        cover = gfwtools.compile(rule, granularity=granularity).cover()
        assert cover == ([domain], [])


@pytest.mark.parametrize("row", LISTS["Your own lists"], ids=" ".join)
def test_the_page_on_lists_says_which_list_wins(row: list[str]) -> None:
    listed, allow, deny, (name,) = (_quoted(cell) for cell in row[:4])
    policy = gfwtools.compile("\n".join(listed), allow=allow, deny=deny)
    assert policy.lookup(name).verdict == row[4]


def test_the_page_on_lists_has_every_reason() -> None:
    rows = LISTS["Reasons for dropping"]
    assert {_quoted(row[0])[0] for row in rows} == {reason.slug for reason in Reason}


@pytest.mark.parametrize("row", LISTS["Formats"], ids=lambda row: row[0])
def test_the_page_on_lists_has_a_line_of_each_format(row: list[str]) -> None:
    policy = gfwtools.compile(_quoted(row[1])[0], format=_quoted(row[0])[0])
    assert policy.lookup("example.com").verdict == "tunnel"


# ---------------------------------------------------------------- docs/configuration.md


def test_the_rows_of_the_page_on_configuration_are_those_of_the_table_of_keys() -> None:
    page = PAGE.read_text("utf-8")
    assert page == with_rows(page), "docs/configuration.md is out of step; run: make keys"


@pytest.mark.parametrize("table", ["fetch", "dns", "host", "policy"])
def test_the_page_on_configuration_has_every_key_with_its_default(table: str) -> None:
    document: dict[str, Any] = tomllib.loads(TEMPLATE)
    defaults = document["policy"]["gfwlist"] if table == "policy" else document[table]
    heading = "[policy.NAME]" if table == "policy" else f"[{table}]"
    rows = [row for row in CONFIGURATION[heading] if len(row) == 4]
    said = {_quoted(row[0])[0]: row[2] for row in rows}
    assert said.keys() == FIELDS[table]
    if table == "policy":
        assert said.pop("sources") == "gfwlist's mirrors"
    values = {key: tomllib.loads(f"value = {_quoted(cell)[0]}")["value"] for key, cell in said.items()}
    assert values == {key: defaults[key] for key in said}


def test_every_example_of_the_page_on_configuration_can_be_read() -> None:
    examples = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text("utf-8"), re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        loads(example)


def test_the_page_on_configuration_says_what_a_second_policy_gets() -> None:
    (example,) = re.findall(
        r"```toml\n([^`]*\[policy\.work\].*?)```", (DOCS / "configuration.md").read_text("utf-8"), re.DOTALL
    )
    config = loads(example)
    first = config.host.preference
    assert [[cell.strip("`") for cell in row] for row in CONFIGURATION["Several policies"]] == [
        [
            policy.name,
            policy.set,
            hex(policy.mark),
            str(policy.table),
            f"{first + 2 * n}, {first + 2 * n + 1}",
        ]
        for n, policy in enumerate(config.policies)
    ]
