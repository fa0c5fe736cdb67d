"""What holds for every input, however hostile: one function for each thing that reads text of somebody else.

tests/test_fuzz.py gives them what hypothesis makes up, fuzz/run.py what atheris finds by coverage. Each takes bytes,
returns when all is well and raises AssertionError, or whatever escaped, when it is not.
"""

import json
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from gfwtools.config.load import load, loads
from gfwtools.config.model import Config
from gfwtools.errors import GfwtoolsError, InvalidNameError, ListError, StoreError
from gfwtools.lists.answer import name_in
from gfwtools.lists.autoproxy import parse_line
from gfwtools.lists.compiler import Compiled, compile_lists
from gfwtools.lists.decode import Decoded, checksum, decode
from gfwtools.lists.formats import FORMATS, Listing
from gfwtools.lists.hostname import to_ascii
from gfwtools.lists.locator import Locator
from gfwtools.lists.suffixes import bundled
from gfwtools.render.backends import TEXTS, Text
from gfwtools.render.files import files_of
from gfwtools.setup.boot import boot_files
from gfwtools.setup.resolver_edits import edits as resolver_edits
from gfwtools.setup.resolver_facts import ResolverFacts
from gfwtools.storage.state import read_state, write_state
from gfwtools.system.init import Init

__all__ = [
    "CLAIMS",
    "a_configuration",
    "a_large_list",
    "a_line",
    "a_list",
    "a_state",
    "files_hold_no_foreign_byte",
    "the_files_of",
]

# What a generated file may hold, line by line. Strict on purpose: a new kind of line is to be added here by hand.
_NAME = r"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*"
_ADDRESS = r"[0-9a-f.:]+(?:/\d{1,3})?"
_SET = r"[A-Za-z_][A-Za-z0-9_-]*"
_COMMENT = r"# [ -~]*"
_NFT_SETS = rf"4#inet#gfwtools#{_SET},6#inet#gfwtools#{_SET}"
_OPTION = (
    r"port=\d+|listen-address=127\.0\.0\.1|bind-interfaces|no-resolv|no-hosts|cache-size=0|dns-forward-max=\d+|"
    rf"server={_ADDRESS}#\d+|(?:pid-file|servers-file)=/[!-~]*|bogus-nxdomain={_ADDRESS}|filter-rr=HTTPS,SVCB"
)
# The generation of a file (gfwtools/render/generation.py).
_ZONE = r"[a-z][a-z0-9_-]*\.gfwtools\.invalid"
_GENERATION = (
    rf"txt-record=generation\.{_ZONE},[0-9a-f]{{16}}|address=/servers\.{_ZONE}/127\.0\.0\.1|"
    rf"server=/[0-9a-f]{{16}}\.servers\.{_ZONE}/"
)
_KINDS = {
    ".conf": re.compile(
        rf"{_COMMENT}|{_OPTION}|{_GENERATION}|server=/{_NAME}/(?:#|{_ADDRESS}#\d+)|"
        rf"ipset=/(?:{_NAME}|#)/{_SET}(?:,{_SET})?|nftset=/(?:{_NAME}|#)/{_NFT_SETS}"
    ),
    ".domains": re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*"),
    ".direct": re.compile(_NAME),
    ".ipset": re.compile(rf"{_COMMENT}|create {_SET} hash:net [a-z0-9 -]+|add {_SET} {_ADDRESS} -exist"),
    ".nft": re.compile(
        rf"{_COMMENT}|add table inet gfwtools|(?:add|flush) set inet gfwtools {_SET}(?: \{{ [a-z0-9_; -]+ \}})?|"
        rf"add element inet gfwtools {_SET} \{{ {_ADDRESS}(?:, {_ADDRESS})* \}}"
    ),
}

_INITS: tuple[Init, ...] = ("systemd", "openrc", "none")
# What dnsmasq reads as it stands: a quotation mark, a backslash or a number sign behind a blank mean something to it.
_PATH = r"/(?:(?! #)[^\x00-\x1f\x7f\"\\])*(?<! )"
_SNIPPET = re.compile(
    rf"#.*|no-resolv|bind-dynamic|dnssec|cache-size=\d+|server={_ADDRESS}(?:#\d+)?|listen-address={_ADDRESS}|"
    rf"(?:pid-file|addn-hosts|conf-file|conf-dir)={_PATH}|trust-anchor=[.0-9A-F,]+|"
    r"server=/use-application-dns\.net/|nameserver 127\.0\.0\.1|filter-rr=HTTPS,SVCB|stop-dns-rebind|"
    r"rebind-domain-ok=/[A-Za-z0-9_.-]+/|",
)
_SEEDS = re.compile(r"ExecStart=-ipset restore -exist -file /var/lib/gfwtools/[a-z0-9_-]{1,31}\.ipset")


@cache
def _configurations() -> tuple[tuple[Config, Text], ...]:
    return tuple(
        (loads(f'[dns]\nlayout = "{layout}"\n[host]\nbackend = "{backend}"\n'), TEXTS[backend])
        for layout in ("paired", "split")
        for backend in TEXTS
    )


@cache
def _seen(suffix: str) -> set[bytes]:
    """Lines of files with that ending that were of a kind that we write: nearly all of them come again and again."""
    return set()


def files_hold_no_foreign_byte(files: dict[Path, bytes]) -> None:
    """Every line of every generated file is of a kind that we write; the copy of the list itself is the list."""
    for path, data in files.items():
        if path.suffix == ".list":
            continue
        kind = _KINDS.get(path.suffix, _KINDS[".conf"])
        *lines, last = data.split(b"\n")
        assert not last, f"{path}: does not end with a newline"
        seen = _seen(path.suffix)
        for line in {*lines} - seen:
            assert kind.fullmatch(line.decode("ascii")), f"{path}: {line!r}"
            if len(seen) < 100_000:
                seen.add(line)


def the_files_of(compiled: Compiled, decoded: Decoded) -> None:
    """Every layout and backend."""
    for config, backend in _configurations():
        policy = config.policies[0]
        files = files_of(config, policy, compiled.cover, compiled.seeds, decoded, backend, filters=True)
        files_hold_no_foreign_byte(files)


def _the_account_adds_up(compiled: Compiled) -> None:
    counts = compiled.counts()
    assert counts.read == counts.applied + counts.widened + counts.redundant + sum(counts.dropped.values())
    assert min(counts[:4]) >= 0
    assert sum(1 for _ in compiled.outcomes()) == counts.read


def _one_line(error: GfwtoolsError) -> None:
    """What a person, a log or a terminal gets to see of an input is one short printable line."""
    message = str(error)
    assert len(message) < 4096, f"{len(message)} characters"
    assert all(character.isprintable() for character in message), f"{message!r}"


def a_list(data: bytes) -> None:
    """A list as a mirror sends it, and the same bytes as both of the user's lists."""
    try:
        decoded = decode(data)
    except ListError as error:
        _one_line(error)
        return
    told, computed = checksum(decoded.data)
    assert told in (None, computed)
    users = [Listing("user", data.decode("utf-8", "replace"), "domains")]
    for format in FORMATS:
        listing = Listing("list", decoded.text, format)
        for granularity in ("registrable", "host"):
            compiled = compile_lists(listing, granularity=granularity)
            _the_account_adds_up(compiled)
            the_files_of(compiled, decoded)
    for side in ({"deny": users}, {"allow": users}, {"deny": users, "allow": users}):
        compiled = compile_lists(Listing("list", decoded.text), **side)
        _the_account_adds_up(compiled)
        for problem in compiled.problems:
            assert str(problem).isprintable(), f"{problem}"
            assert len(str(problem)) < 4096
        the_files_of(compiled, decoded)


@cache
def _locators() -> tuple[Locator, ...]:
    return Locator(bundled()), Locator(bundled(), "host"), Locator(bundled(), trusted=True)


def a_line(data: bytes) -> None:
    """One line of a list, and the same text as the name that somebody asks for."""
    text = data.decode("utf-8", "replace")
    rule = parse_line(text.replace("\n", " "))
    if rule:
        for locator in _locators():
            for name in locator.locate(rule).domains:
                assert re.fullmatch(_NAME, name), f"{name!r}"
                assert to_ascii(name) == name
    try:
        name = name_in(text)
    except InvalidNameError as error:
        _one_line(error)
    else:
        assert re.fullmatch(_NAME, name), f"{name!r}"


@cache
def _blank() -> dict[str, list[str]]:
    """The boot files of the default configuration in each layout, by lines."""
    return {
        f"{init} {layout} {edit.path}": edit.data.decode().split("\n")
        for layout in ("paired", "split")
        for init in _INITS
        for edit in boot_files(loads(f'[dns]\nlayout = "{layout}"'), init, "/usr/local/bin/gfwtools")
    }


def _the_host_gets_nothing_but_values(config: Config) -> None:
    """Units, scripts and dnsmasq's snippet have the lines that they always have, with the values at their place."""
    for init in _INITS:
        for edit in boot_files(config, init, "/usr/local/bin/gfwtools"):
            expected, lines = (
                [line for line in text if not _SEEDS.fullmatch(line)]  # one for each policy
                for text in (_blank()[f"{init} {config.dns.layout} {edit.path}"], edit.data.decode().split("\n"))
            )
            assert len(lines) == len(expected), edit.path
            for line, blank in zip(lines, expected, strict=True):
                assert line == blank or line.startswith(("ReadWritePaths=/etc /run ", "After=gfwtools.service ")), line
    facts = ResolverFacts(pid_folder=True, resolvers=config.dns.resolvers, lan=config.dns.listen, version=(2, 90))
    for edit in resolver_edits(config, facts):
        for line in edit.data.decode().removesuffix("\n").split("\n"):
            assert _SNIPPET.fullmatch(line), f"{edit.path}: {line!r}"


def a_configuration(data: bytes) -> None:
    """``config.toml``: refused in words, or one whose values end up in files as nothing but values."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            config = load(Path(file.name))
        except GfwtoolsError as error:
            _one_line(error)
            return
    _the_host_gets_nothing_but_values(config)
    decoded = decode(b"||google.com\n@@||www.google.com\n|http://85.17.73.31/\n")
    for policy in config.policies:
        compiled = compile_lists(Listing("list", decoded.text), granularity=policy.granularity)
        for backend in TEXTS.values():
            files = files_of(config, policy, compiled.cover, compiled.seeds, decoded, backend, filters=True)
            files_hold_no_foreign_byte(files)


def a_state(data: bytes) -> None:
    """``state.json``: an empty one that says so, or one that can be used and is written back as it was read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.json")
        path.write_bytes(data)
        try:
            state = read_state(path)
        except StoreError as error:
            _one_line(error)
            return
        assert all(character.isprintable() for character in state.problem), f"{state.problem!r}"
        assert len(state.problem) < 4096
        for policy in state.policies.values():
            json.dumps(policy.to_json(), ensure_ascii=False, allow_nan=False).encode()
            for name in policy.files:
                Path(folder, name.lstrip("/")).is_file()
            for counts in (policy.counts, *(change.counts for change in policy.history)):
                for number in counts.values():
                    float(sum(number.values()) if isinstance(number, dict) else number)
        try:
            write_state(path, state)
        except StoreError as error:
            _one_line(error)
            return
        assert read_state(path).policies == state.policies or state.problem


#: How much of an input is repeated for :func:`a_large_list`, and how large the list then is (bytes).
_UNIT, _LARGE = 2048, 64 * 1024
#: What a list may take: bytes for each of its bytes, its rules (or names, where a rule has many), its networks and its
#: patterns such as ``google.*``, of which a thousand are read, and what the first rule takes. With ``fetch.max_bytes``,
#: the bounds of gfwtools/lists/budget.py and 25 MB for the interpreter it is less than 500 MB.
_PER_BYTE, _PER_RULE, _PER_NETWORK, _PER_PATTERN, _FIRST = 6, 250, 1500, 14_000, 2_000_000


def a_large_list(data: bytes) -> None:
    """What a list takes grows with its size, whatever is in it: ``data`` again and again, in place of each ``%`` the
    number of the copy."""
    import tracemalloc

    unit = data[:_UNIT] + b"\n"
    copies = (unit.replace(b"%", str(number).encode()) for number in range(_LARGE // len(unit) + 1))
    large = b"".join(copies)
    the_files_of(compile_lists(Listing("list", "||a.com\n")), decode(b"||a.com\n"))  # what is loaded once
    for format in FORMATS:
        tracemalloc.start()
        try:
            decoded = decode(large, base64=format == "autoproxy")
            compiled = compile_lists(Listing("list", decoded.text, format))
            read = compiled.counts().read
            config, backend = _configurations()[0]
            files_of(config, config.policies[0], compiled.cover, compiled.seeds, decoded, backend)
            policy, taken = compiled.policy, tracemalloc.get_traced_memory()[1]
        except ListError as error:
            _one_line(error)
            continue
        finally:
            tracemalloc.stop()
        rules, networks = max(read, len(policy.blocks)), len(policy.networks) + len(policy.freed)
        most = _FIRST + _PER_BYTE * len(large) + _PER_RULE * rules + _PER_NETWORK * networks
        most += _PER_PATTERN * min(1000, large.count(b".*"))
        assert taken <= most, f"{format}: {taken:,} bytes of memory for {len(large):,}, {rules:,} rules: over {most:,}"


#: By the name that ``make fuzz`` calls them.
CLAIMS: dict[str, Callable[[bytes], None]] = {
    "decode": a_list,
    "line": a_line,
    "config": a_configuration,
    "state": a_state,
    "memory": a_large_list,
}
