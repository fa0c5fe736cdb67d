"""Hostile input of every kind: no error but our own, no byte of its own in a file, and no time beyond linear.

The claims are those of fuzz/claims.py, which ``make fuzz`` searches for longer.
"""

import importlib.util
import json
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType

import pytest
import strategies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paths import REPO

from gfwtools.errors import GfwtoolsError
from gfwtools.lists.answer import name_in
from gfwtools.lists.compiler import compile_lists
from gfwtools.lists.decode import decode
from gfwtools.lists.formats import FORMATS, Listing
from gfwtools.lists.hostname import to_ascii


def _claims() -> ModuleType:
    spec = importlib.util.spec_from_file_location("claims", REPO / "fuzz" / "claims.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


claims = _claims()

#: `make fuzz` searches the same claims for longer.
calm = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

# ---------------------------------------------------------------- what a mirror sends

encoded = st.one_of(
    strategies.lists.map(str.encode),
    strategies.hostile_text.map(lambda text: text.encode("utf-8", "surrogatepass")),
    strategies.lists.map(lambda text: text.encode("utf-16")),
    strategies.lists.map(lambda text: text.replace("\n", "\r\n").encode()),
    st.binary(max_size=300),
    st.builds(lambda text, at, byte: text.encode()[:at] + byte + text.encode()[at:],
              strategies.lists, st.integers(0, 300), st.binary(max_size=4)),
)  # fmt: skip


@calm
@given(encoded)
def test_no_list_raises_anything_of_its_own_or_puts_a_byte_of_its_own_into_a_file(data: bytes) -> None:
    claims.a_list(data)


@calm
@given(encoded, st.integers(0, 400), st.binary(max_size=3))
def test_no_damage_to_base64_raises_anything_of_its_own(data: bytes, at: int, junk: bytes) -> None:
    import base64

    wire = base64.encodebytes(data)
    claims.a_list(wire[:at] + junk + wire[at:])
    claims.a_list(wire[:at])


@pytest.mark.parametrize(
    "unit",
    ["||site%.com", "||www.site%.com", "@@||x%.com", "||*.y%.com", "||z%.google.*", "||1%.2.3.4", "||SITE%.COM",
     "0.0.0.0 a%.com b%.com c%.com", "server=/a%.com/b%.com/1.1.1.1", "a%.com", "w%", "/a%\\.com/", "! \U0001f600\n||s%.com",
     "||a%.com ||b%.com", "||" + "a." * 100 + "b%.com", "\r", "||\u4f8b%.com"],
)  # fmt: skip
def test_what_a_list_takes_grows_with_its_size_and_its_rules(unit: str) -> None:
    claims.a_large_list(unit.encode())


@settings(calm, max_examples=15)
@given(encoded)
def test_no_list_takes_more_memory_than_its_size_and_its_rules_say(data: bytes) -> None:
    claims.a_large_list(data)


# ---------------------------------------------------------------- one line

_pieces = st.sampled_from(
    ["||", "|", "@@", "/", "*", ".", "^", "$", ":", "[", "]", "(", ")", "(?=", "\\", "\\.", "://", "http", "https?",
     "google", "google.com", "co.uk", "ck", "mp", "com", "1.2.3.4", "::1", "%", "#", "##", "!", " ", "\t", "\u3002",
     "\u4f8b\u5b50", "xn--", "xn--a", "xn--fiqs8s", "\u200d", "\ufeff", "\u0130", "\udcff", "_", "-", "\0", "a" * 63, "a" * 64]
)  # fmt: skip
lines = st.lists(_pieces, max_size=12).map("".join)


@settings(calm, max_examples=200)
@given(lines | st.text(max_size=60))
def test_no_line_and_no_name_raises_anything_of_its_own(text: str) -> None:
    claims.a_line(text.encode("utf-8", "surrogatepass"))


@calm
@given(st.lists(lines, max_size=8).map("\n".join))
def test_grammar_shaped_lists_put_no_byte_of_their_own_into_a_file(text: str) -> None:
    claims.a_list(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "character", [chr(code) for code in range(32)] + ["\x7f", "\x85", "\u2028", "\u202e", "\ufeff"]
)
def test_a_control_character_anywhere_in_a_rule_reaches_no_file(character: str) -> None:
    for line in (
        f"||goo{character}gle.com",
        f"||{character}google.com",
        f"||google.com{character}",
        f".x{character}.com",
    ):
        claims.a_list(line.encode())


# ---------------------------------------------------------------- configuration and state

_keys = st.sampled_from(
    ["fetch", "dns", "host", "policy", "gfwlist", "work", "timeout", "max_bytes", "proxy", "layout", "conf_dir", "manager",
     "restart", "pid_file", "backend", "gateway", "format", "sources", "allow", "deny", "granularity", "upstream", "set",
     "mark", "table", "interface", "nat", "seeds", "routes", "preference", "nonsense"]
)  # fmt: skip
_texts = st.one_of(
    st.sampled_from(["split", "paired", "nftables", "8.8.8.8", "8.8.8.8#53", "1.2.3.0/24", "::1", "wg0", "snat:1.2.3.4",
                     "https://x.example/y", "/etc/x", "../x", "a\nb", "a\0b", "'; rm", "$(x)", "a#b", "%h", "x" * 40]),
    st.text(max_size=10),
)  # fmt: skip
_numbers = st.one_of(st.integers(-1, 70000), st.sampled_from([2**31, 2**32, 2**64, 10**30]), st.floats(), st.booleans())
_values = st.recursive(
    _texts | _numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=6,
)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(
            character if character.isprintable() and character not in '"\\' else f"\\U{ord(character):08x}"
            for character in value
        )
        return f'"{escaped}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(entry)}' for key, entry in value.items())}}}"
    return str(value)


_flat = st.dictionaries(_keys, _texts | _numbers | st.lists(_texts, max_size=3), max_size=3)
documents = st.one_of(
    st.dictionaries(_keys | _texts, _values, max_size=4),
    st.fixed_dictionaries(
        {}, optional={"dns": _flat, "fetch": _flat, "host": _flat, "policy": st.dictionaries(_keys | _texts, _flat, max_size=2)}
    ),
).map(lambda table: "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in table.items()))  # fmt: skip


@settings(calm, max_examples=150)
@given(documents.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=100))
def test_no_configuration_raises_its_own_error_or_puts_its_own_byte_into_a_file(data: bytes) -> None:
    claims.a_configuration(data)


@pytest.mark.parametrize(
    "text", ["a = " + "9" * 5000, "a = " + "[" * 100_000, "a = " + "{a=" * 50_000, '[policy."x\\ny"]', '"\\u001b[2J" = 1', "a" * 100_000 + " = 1",
             "[fetch]\ntimeout = nan", "[fetch]\ntimeout = inf", "[fetch]\nmax_bytes = 1e400", "a = 0x" + "f" * 5000, "a = 9999-99-99"],
    ids=range(11),
)  # fmt: skip
def test_an_odd_configuration_is_an_error_in_one_line(text: str) -> None:
    claims.a_configuration(text.encode())


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["\ud800", "\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["version", "policies", "gfwlist", "source", "starter", "counts", "domains", "files", "effective", "loaded", "mirrors",
             "history", "etag", "digest", "/a", "\ud800"]
        ), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@settings(calm, max_examples=100)
@given(_json)
def test_no_state_raises_anything_of_its_own(value: object) -> None:
    claims.a_state(json.dumps(value).encode())
    claims.a_state(json.dumps({"version": 1, "policies": {"gfwlist": value}}).encode())


@pytest.mark.parametrize(
    "text", ['{"version": "' + "x" * 10_000 + '", "policies": {}}', '{"version": "\\u001b[2J\\n", "policies": {}}',
             '{"version": ' + "9" * 5000 + "}", "[" * 100_000, '{"version": 1, "policies": ' + '{"a":' * 100_000,
             '{"version": 1, "policies": {"\\ud800": {"source": "\\ud800"}}}', '{"version": true, "policies": {}}'],
    ids=range(7),
)  # fmt: skip
def test_an_odd_state_is_an_empty_one_that_says_so_in_one_line(text: str) -> None:
    claims.a_state(text.encode())


# ---------------------------------------------------------------- time

#: So many characters in one line. What is linear takes a fifth of a second at most, what is quadratic a minute or hours.
LONG = 200_000
#: Seconds of CPU, on a slow machine.
PATIENCE = 1.0
REPEATED = [*"a.*/|@!#[](){}\\^$:-_ \t?+0~%;=\r\u00e9\u3002\ufeff\u0130\0", "a.", "*.", "\\.", "(?=", "(a|", "[a", "a\\.", "://", "xn--a.", "1.", "::", "a-", "\r\n"]  # fmt: skip


def _within_patience(what: str, work: Callable[[], object]) -> None:
    start = time.process_time()
    try:
        work()
    except GfwtoolsError as error:
        assert len(str(error)) < 4096
    assert time.process_time() - start < PATIENCE, what


@pytest.mark.parametrize("piece", REPEATED, ids=ascii)
def test_two_hundred_thousand_times_the_same_in_one_line_takes_linear_time(piece: str) -> None:
    body = piece * (LONG // len(piece))
    for frame in (
        "{}",
        "||{}",
        "@@||{}.com",
        "/{}/",
        "/^https?:\\/\\/{}google\\.com/",
        "||google.{}",
        "! {}",
        "! Checksum: {}",
    ):
        line = frame.replace("{}", body)
        for format in FORMATS:
            _within_patience(f"{format} {frame}", partial(compile_lists, Listing("x", line, format)))
        deny = [Listing("x", line, "domains")]
        _within_patience(f"deny {frame}", partial(compile_lists, Listing("x", ""), deny=deny))
        _within_patience(f"decode {frame}", partial(decode, line.encode()))
        _within_patience(f"decode {frame}!", partial(decode, f"{line}!".encode()))  # what was base64 so far is none
        _within_patience(f"to_ascii {frame}", partial(to_ascii, line))
        _within_patience(f"name_in {frame}", partial(name_in, line))


#: Lines that cost more than others do: each is a few bytes, or close to the length up to which a host is looked at.
COSTLY = [
    "google.*", "||docs.google.*", r"/^https?:\/\/[^\/]+blogspot\.(.*)/", "||\u4f8b\u5b50.\u4e2d\u56fd", "||" + "\u00e4." * 500,
    "||" + "\ufdfa" * 56, "||e" + "\u0301" * 900, "@@||*.a.com", "||" + "a." * 500 + "com", "||" + "*." * 500 + "com", "||" + "google." * 140 + "*",
    "/" + "a\\.a" * 200 + "/", "/" + "a\\." * 330 + "/", "/" + "a\\.(.*)" * 140 + "/", "/" + "google\\." * 100 + "*/", "/" + "(" * 1000 + "/",
    "/" + "[a]" * 330 + "/", "/" + "(?=a)" * 200 + "/", "[2001:db8::1]", "1.2.3.4/24", "1.1.1.1 " + "a.b " * 250, "server=/" + "a/" * 490 + "1.1.1.1",
]  # fmt: skip


@pytest.mark.parametrize("line", COSTLY, ids=range(len(COSTLY)))
def test_fifty_kilobytes_of_costly_lines_take_linear_time(line: str) -> None:
    text = f"{line}\n" * (LONG // 4 // len(f"{line}\n".encode()))
    for format in FORMATS:
        _within_patience(format, partial(compile_lists, Listing("x", text, format)))
    deny = [Listing("x", text, "domains")]
    _within_patience("deny", partial(compile_lists, Listing("x", ""), deny=deny))


def test_patterns_for_all_domains_of_a_name_do_not_fill_the_memory() -> None:
    """Each of them stands for some 200 names; a thousand are believed, the others are in the account."""
    text = "".join(f"||a{number}.google.*\n" for number in range(5000))
    compiled = compile_lists(Listing("x", text), granularity="host")
    counts = compiled.counts()
    assert len(compiled.cover.tunnelled) < 300_000
    assert counts.dropped == {"wildcard": 4000}
    assert counts.read == 5000


def test_a_line_of_fifty_thousand_names_takes_linear_time() -> None:
    for format, line in (
        ("hosts", "1.1.1.1" + " a.b" * 50_000 + " "),
        ("dnsmasq", " server=/" + "a.b/" * 50_000 + "1.1.1.1"),
    ):
        _within_patience(format, partial(compile_lists, Listing("x", line, format)))
