"""Direct lists: what a list blocks stays blocked, and widening ends where a direct list begins."""

import os
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cli import gfwtools as run
from hypothesis import given, settings
from hypothesis import strategies as st
from matching import read_conf, verdict
from paths import REAL_LISTS
from strategies import domains, lists, names

import gfwtools
from gfwtools.config.model import PolicyConfig
from gfwtools.lists.answer import answer
from gfwtools.lists.compiler import Compiled, Status, compile_lists
from gfwtools.lists.decode import decode
from gfwtools.lists.formats import Listing
from gfwtools.lists.policy import Policy
from gfwtools.render import dnsmasq


def compiled(text: str, direct: list[str], deny: list[str] | None = None, about: str | None = None) -> Compiled:
    return compile_lists(
        Listing("list", text),
        deny=[Listing("deny", "\n".join(deny or []), "domains")],
        direct=[Listing("direct", "\n".join(direct), "domains")],
        about=about,
    )


def ancestors(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[start:]) for start in range(len(labels))]


def near(policy: Policy) -> set[str]:
    """Every name of a list, what is above it, and names under it."""
    listed = {*policy.blocks, *policy.narrow, *policy.exceptions, *policy.under, *policy.deny, *policy.direct}
    found = {"example.org", "com"}
    for name in listed:
        found |= {*ancestors(name), f"zz.{name}", f"y.zz.{name}", f"zz{name}"}
    return {name for name in found if len(name) < 250}


def test_a_block_is_not_widened_over_a_direct_domain() -> None:
    policy = gfwtools.compile("||www.foo.com\n||x.baz.com", direct=["foo.com", "cdn.baz.com"])
    assert policy.lookup("a.www.foo.com") == ("tunnel", "www.foo.com", "list")
    assert policy.lookup("mail.foo.com") == ("direct", "foo.com", "direct")
    assert policy.lookup("baz.com") == ("tunnel", "baz.com", "list")
    assert policy.lookup("a.cdn.baz.com") == ("direct", "cdn.baz.com", "direct")


def test_a_direct_list_never_beats_a_rule_or_the_users_deny_list() -> None:
    policy = gfwtools.compile("||foo.com", deny=["bar.com"], direct=["foo.com", "www.foo.com", "bar.com"])
    assert policy.lookup("www.foo.com") == ("tunnel", "foo.com", "list")
    assert policy.lookup("bar.com") == ("tunnel", "bar.com", "deny")


@settings(max_examples=300, deadline=None)
@given(lists, domains, domains, domains, st.lists(names, max_size=10))
def test_direct_lists_mean_what_their_definition_says(
    text: str, allow: list[str], deny: list[str], direct: list[str], more: list[str]
) -> None:
    policy = gfwtools.compile(text, allow=allow, deny=deny, direct=direct)
    host = gfwtools.compile(text, allow=allow, deny=deny, granularity="host")
    registrable = gfwtools.compile(text, allow=allow, deny=deny)
    for name in {*near(policy), *more}:
        if host.match(name).verdict == "tunnel":
            wanted = "tunnel"
        elif any(above in direct for above in ancestors(name)):
            wanted = "direct"
        else:
            wanted = registrable.match(name).verdict
        assert policy.match(name).verdict == wanted, name


@settings(max_examples=300, deadline=None)
@given(lists, domains, domains, st.booleans(), st.lists(names, max_size=10))
def test_the_file_means_the_policy_with_direct_lists(
    text: str, deny: list[str], direct: list[str], beside: bool, more: list[str]
) -> None:
    policy = gfwtools.compile(text, deny=deny, direct=direct)
    cover = policy.cover(beside=beside)
    conf = read_conf(dnsmasq.paired(cover, PolicyConfig(), unset=policy.unset(cover)))
    for name in {*near(policy), *more}:
        assert verdict(name, conf) == policy.match(name).verdict, name


@settings(max_examples=200, deadline=None)
@given(lists, domains, domains)
def test_no_entry_of_the_cover_can_be_left_out_with_direct_lists(text: str, deny: list[str], direct: list[str]) -> None:
    cover = gfwtools.compile(text, deny=deny, direct=direct).cover()
    servers = dict.fromkeys(cover.tunnelled, "8.8.8.8") | dict.fromkeys(cover.freed, "#")
    for pattern in servers:
        rest = {other: value for other, value in servers.items() if other != pattern}
        name = pattern.replace("*", "zz")
        assert verdict(name, {"server": rest}) != verdict(name, {"server": servers}), pattern


@settings(max_examples=200, deadline=None)
@given(lists, domains, domains)
def test_the_account_of_a_list_adds_up_with_direct_lists(text: str, deny: list[str], direct: list[str]) -> None:
    found = compiled(text, direct, deny)
    counts, ends = found.counts(), Counter(outcome.status for outcome in found.outcomes())
    assert counts.read == sum(ends.values())
    assert counts[1:4] == (ends[Status.APPLIED], ends[Status.WIDENED], ends[Status.REDUNDANT])


@settings(max_examples=150, deadline=None)
@given(lists, domains, domains)
def test_a_redundant_rule_may_be_left_out_beside_direct_lists(text: str, deny: list[str], direct: list[str]) -> None:
    found = compiled(text, direct, deny)
    for outcome in found.outcomes():
        if outcome.status is Status.REDUNDANT:
            lines = text.split("\n")
            lines[outcome.rule.line - 1] = ""
            assert compiled("\n".join(lines), direct, deny).cover == found.cover


@given(lists, names, domains)
def test_what_is_compiled_about_a_name_reads_enough_of_the_direct_lists(
    text: str, name: str, direct: list[str]
) -> None:
    whole, part = (compiled(text, direct, about=about) for about in (None, name))
    assert part.policy.match(name) == whole.policy.match(name)
    if whole.policy.match(name).reason != "direct":  # those lines are read from files
        assert answer(name, [(PolicyConfig(), part)]) == answer(name, [(PolicyConfig(), whole)])


@pytest.mark.parametrize("format", ["domains", "hosts", "dnsmasq"])
@given(name=names, others=domains)
def test_of_a_list_no_rule_that_covers_a_name_is_passed_over(format: str, name: str, others: list[str]) -> None:
    write = {"domains": "{}", "hosts": "0.0.0.0 {}", "dnsmasq": "server=/{}/114.114.114.114"}[format]
    listed = [*others, *ancestors(name)]
    listing = Listing("x", "\n".join(write.format(domain) for domain in listed), format)
    found = {(rule.line, rule.host) for rule in listing.rules_about(name)}
    assert {(line, domain) for line, domain in enumerate(listed, 1) if domain in ancestors(name)} <= found


def test_what_a_direct_list_cannot_say_is_reported_and_counted() -> None:
    direct = Listing("china.conf", "server=/a.com/1.2.4.8\nserver=/b.com/#\n" + "cache-size=9\n" * 4, "dnsmasq")
    problems = compile_lists(Listing("x", ""), direct=[direct]).problems
    assert [str(problem) for problem in problems] == [
        "china.conf: line 2: an exception for b.com: a direct list has none",
        "china.conf: line 3: no server=/name/address",
        "china.conf: line 4: no server=/name/address",
        "china.conf: line 5: 2 lines from here on name no domain",
    ]


@pytest.mark.skipif(not REAL_LISTS.is_dir(), reason="the real lists are not here")
def test_the_real_list_takes_no_domain_of_china_into_the_tunnel_and_misses_none() -> None:
    text = decode((REAL_LISTS / "gfwlist-2026-08-06.txt").read_bytes()).text
    china = [Listing(path.name, path.read_text(), "dnsmasq") for path in sorted(REAL_LISTS.glob("*.china.conf"))]
    policy = compile_lists(Listing("gfwlist", text), direct=china).policy
    plain, host = gfwtools.compile(text), gfwtools.compile(text, granularity="host")
    widened = [name for name in policy.direct if plain.match(name).verdict != host.match(name).verdict]
    assert len(widened) > 50
    assert all(policy.match(name).verdict == "direct" for name in widened)
    assert all(policy.match(name) == host.match(name) for name in host.blocks if policy.is_direct(name))
    assert all(policy.match(name).verdict == host.match(name).verdict for name in host.blocks)


def replace(path: Path, text: str) -> None:
    """A second later, for a server that knows the version of a file by its time."""
    later = path.stat().st_mtime + 1
    path.write_text(text)
    os.utime(path, (later, later))


def test_an_update_asks_for_a_direct_list_by_version_and_keeps_its_copy(tmp_path: Path) -> None:
    www = tmp_path.with_name(f"{tmp_path.name}.www")
    www.mkdir()
    (www / "list.txt").write_text("||www.foo.com\n||x.baz.com\n")
    china = www / "china.conf"
    china.write_text("server=/foo.com/114.114.114.114\n")
    domains = tmp_path / "var/lib/gfwtools/gfwlist.domains"
    answers: list[int] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code: object = "-", size: object = "-") -> None:
            answers.append(int(str(code)))

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(www))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/china.conf"
        config = tmp_path / "etc/gfwtools/config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'[policy.gfwlist]\nsources = ["{www}/list.txt"]\ndirect = ["{url}"]\n')
        run(tmp_path, "update")
        assert domains.read_text() == "baz.com\nwww.foo.com\n"
        assert "nothing new" in run(tmp_path, "update").stdout
        assert answers == [200, 304]
        replace(china, "<html>login</html>\n")
        assert f"{url}: this is a web page" in run(tmp_path, "update").stderr
        replace(china, "domain:foo.com\n")
        assert f"{url}: it looks like a v2fly domain list" in run(tmp_path, "update").stderr
        server.shutdown()
    assert "the last good copy stays in use" in run(tmp_path, "update").stderr
    answer = run(tmp_path, "check", "domain", "mail.foo.com").stdout
    assert "a direct list" in answer
    assert "rule      server=/foo.com/114.114.114.114" in answer


def test_a_direct_list_beside_the_granularity_host_is_an_error(tmp_path: Path) -> None:
    config = tmp_path / "etc/gfwtools/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[policy.gfwlist]\ngranularity = "host"\ndirect = ["/etc/gfwtools/direct.txt"]\n')
    said = run(tmp_path, "check", "domain", "example.com", code=1).stderr
    assert "policy.gfwlist.direct" in said
    assert "remove one of the two" in said
