"""The chain of a name: the verdict over its links, and what each link is judged by."""

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from cli import gfwtools
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from recorder import Recorder

from gfwtools.cli import Context
from gfwtools.cli.check_ip import ip
from gfwtools.cli.check_live import show
from gfwtools.config.model import Config, PolicyConfig
from gfwtools.diagnose import Chain, Link, LinkState, first_broken
from gfwtools.diagnose.address import names_of, parse_address
from gfwtools.diagnose.chain import answer_link, clean_link, way_link
from gfwtools.diagnose.ip_rules import OWN, Packet, rule_before
from gfwtools.diagnose.link import skip_dependents
from gfwtools.diagnose.lookup import Lookup, count_asked
from gfwtools.diagnose.plumbing import parse_netstat
from gfwtools.dnsmasq.client import Reply, ask, compare, words
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.lists.answer import Answer
from gfwtools.lists.policy import Match
from gfwtools.system import questions
from gfwtools.system.questions import Way

ONE, TWO, LIE = map(ip_address, ("198.51.100.1", "198.51.100.2", "192.0.2.66"))
states = st.lists(st.sampled_from(LinkState))
POLICY = PolicyConfig()
MARK = POLICY.mark


def chain(*links: Link) -> Chain:
    return Chain("x.example", "tunnel", links)


def reply(*addresses: object, rcode: str = "NOERROR", kind: str = "A", error: str = "") -> Reply:
    found = tuple(ip_address(str(address)) for address in addresses)
    return Reply(kind, "" if error else rcode, found, ttl=60 if found else None, error=error)


def judge(local: Reply, clean: Reply, in_set: Sequence[object] = (), asked: int | None = 1) -> Link:
    match = Match("tunnel", "x.example", "list")
    lookup = Lookup(Dnsmasq(Config(), Recorder()), True, (local,), (clean,), asked=asked)
    return answer_link(Answer("x.example", match, (), POLICY), Config(), lookup, {ip_address(str(a)) for a in in_set})


# ---------------------------------------------------------------- the verdict


@given(states)
def test_the_broken_link_is_the_first_one_and_none_where_no_link_is_broken(found: list[LinkState]) -> None:
    links = [Link(str(number), state) for number, state in enumerate(found)]
    link = first_broken(links)
    assert link == (links[found.index(LinkState.BROKEN)] if LinkState.BROKEN in found else None)


@given(states)
def test_the_last_line_names_the_broken_link(found: list[LinkState]) -> None:
    made = chain(*(Link(f"link-{number}", state, remedy="mend") for number, state in enumerate(found)))
    last = show(made)[-1]
    assert last.startswith(f"broken: {made.broken.name}: " if made.broken else "nothing is broken")
    assert last.endswith("; fix: mend") == (made.broken is not None)


def test_what_rests_on_a_broken_link_is_not_called_broken() -> None:
    links = [Link("nat", LinkState.BROKEN), Link("peer", LinkState.BROKEN, found="silent"), Link("x", LinkState.BROKEN)]
    judged = skip_dependents(links, {"peer": ("nat",), "x": ("y",)})
    assert [link.state.value for link in judged] == ["BROKEN", "SKIPPED", "BROKEN"]
    assert judged[1].found == "silent (depends on: nat)"


@given(states)
def test_what_hangs_never_changes_which_link_is_named(found: list[LinkState]) -> None:
    links = [Link(str(number), state) for number, state in enumerate(found)]
    every = {link.name: [before.name for before in links[:number]] for number, link in enumerate(links)}
    assert first_broken(skip_dependents(links, every)) == first_broken(links)


def test_the_object_has_these_keys_and_no_remedy_is_null() -> None:
    made = chain(Link("a", LinkState.OK, "this", "that"), Link("b", LinkState.BROKEN, "this", "that", "do"))
    assert made.to_json() == {
        "name": "x.example",
        "verdict": "tunnel",
        "links": [
            {"name": "a", "state": "OK", "expected": "this", "found": "that", "remedy": None},
            {"name": "b", "state": "BROKEN", "expected": "this", "found": "that", "remedy": "do"},
        ],
        "broken": "b",
    }


def test_control_characters_of_an_answer_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in "".join(show(chain(Link("a", LinkState.BROKEN, "\x1b[2J", "\x1b[2J"))))


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("local", "clean", "how"),
    [
        (reply(ONE), reply(ONE), "same"),
        (reply(ONE, TWO), reply(TWO), "overlapping"),
        (reply(LIE), reply(ONE), "different"),
        (reply(), reply(ONE), "missing"),
        (reply(), reply(rcode="NXDOMAIN"), "both empty"),
        (reply(ONE), reply(error="no answer within 2 s"), "unknown"),
        (reply(rcode="SERVFAIL"), reply(ONE), "unknown"),
    ],
)
def test_two_answers_compare(local: Reply, clean: Reply, how: str) -> None:
    assert compare(local, clean) == how


def test_another_answer_is_no_fault_where_its_address_came_by_the_clean_resolver() -> None:
    assert judge(reply(ONE), reply(TWO), [ONE]).state is LinkState.OK


def test_another_answer_that_is_in_no_set_is_stale_or_poisoned() -> None:
    link = judge(reply(LIE), reply(ONE))
    assert link.state is LinkState.BROKEN
    assert link.found == "A 192.0.2.66 is stale or poisoned; the clean resolver says 198.51.100.1"
    assert link.remedy == "kill -HUP $(cat /run/dnsmasq/dnsmasq.pid)"


def test_another_answer_in_the_set_is_poisoned_where_dnsmasq_asked_another_server() -> None:
    link = judge(reply(LIE), reply(ONE), [LIE], asked=0)
    assert link.state is LinkState.BROKEN
    assert "is poisoned" in link.found


def test_a_name_that_exists_nowhere_is_no_fault_and_one_that_is_gone_only_here_is() -> None:
    nothing = reply(rcode="NXDOMAIN")
    assert judge(nothing, nothing).state is LinkState.OK
    assert judge(nothing, reply(ONE)).state is LinkState.BROKEN


def test_a_name_that_the_cache_knows_to_be_none_says_nothing_of_whom_dnsmasq_asks() -> None:
    nothing = reply(rcode="NXDOMAIN")
    assert "is stale or poisoned" in judge(nothing, reply(ONE), asked=0).found


@pytest.mark.parametrize(
    ("rcodes", "state", "found"),
    [
        (("REFUSED", "REFUSED"), "BROKEN", "8.8.8.8#53: A REFUSED; AAAA REFUSED"),
        (
            ("SERVFAIL", "SERVFAIL"),
            "BROKEN",
            "8.8.8.8#53: A SERVFAIL; AAAA SERVFAIL; if only this name fails, the name's own servers are broken",
        ),
        (("REFUSED", ""), "BROKEN", "8.8.8.8#53: A REFUSED; AAAA no answer within 2 s"),
        (("NXDOMAIN", "NXDOMAIN"), "OK", "8.8.8.8#53: A NXDOMAIN; AAAA NXDOMAIN, in 0 ms"),
        (("NOERROR", "SERVFAIL"), "OK", "8.8.8.8#53: A none; AAAA SERVFAIL, in 0 ms"),
    ],
)
def test_a_clean_resolver_that_will_not_say_is_broken(rcodes: tuple[str, str], state: str, found: str) -> None:
    first, second = rcodes
    clean = (reply(rcode=first), reply(rcode=second, kind="AAAA", error="" if second else "no answer within 2 s"))
    link = clean_link(Config(), POLICY, Lookup(Dnsmasq(Config(), Recorder()), True, clean=clean))
    assert (link.state.value, link.found) == (state, found)
    assert ("give another policy.gfwlist.upstream" in link.remedy) == (state == "BROKEN")


def test_a_resolver_where_nobody_listens_is_said_in_words() -> None:
    found = ask("127.0.0.1", 9, "x.example", "A", timeout=0.2)
    assert found.error == "no answer within 0.2 s"
    assert found.rcode == ""


def test_answers_are_shown_with_their_aliases_and_ttl() -> None:
    shown = words([replace(reply(ONE), aliases=("cdn.example",)), reply(rcode="NXDOMAIN", kind="AAAA")])
    assert shown == "A 198.51.100.1 by cdn.example (TTL 60); AAAA NXDOMAIN"


def asked(monkeypatch: pytest.MonkeyPatch, *counts: int | None) -> int | None:
    """What is made of the upstream's counts, one before and one after each question; None for no answer."""
    left = iter(counts)

    def queries(self: Daemon) -> dict[str, int] | None:
        count = next(left)
        return None if count is None else {"8.8.8.8#53": count}

    monkeypatch.setattr(Daemon, "queries", queries)
    monkeypatch.setattr("gfwtools.dnsmasq.client.poke", lambda *args: None)
    return count_asked(["8.8.8.8#53"], "x.example", Daemon())


def test_one_question_that_is_lost_is_no_proof_that_dnsmasq_asks_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, 7, 8) == 1
    assert asked(monkeypatch, 7, 7, 7, 8) == 1
    assert asked(monkeypatch, 900, 0, 0, 1) == 1  # it has started anew meanwhile
    assert asked(monkeypatch, 7, 7, 7, 7, 7, 7) == 0


def test_a_dnsmasq_that_does_not_tell_whom_it_asks_is_not_accused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, None) is None
    assert asked(monkeypatch, 7, None) is None


def test_without_ip_the_way_is_not_known_and_not_broken() -> None:
    found = Answer("x.example", Match("tunnel", "x.example", "list"), (), POLICY)
    link = way_link(
        found, Lookup(Dnsmasq(Config(), Recorder()), True, (reply(ONE),)), {ONE: ["gfwlist"]}, None, Recorder()
    )
    assert (link.state, link.found) == (LinkState.UNKNOWN, "ip: no such program; install iproute2")


# ---------------------------------------------------------------- the kernel


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"priority": 0, "src": "all", "table": "254"}, ""),  # the kernel's own
        ({"priority": 32766, "src": "all", "table": "254"}, ""),
        ({"priority": 100, "src": "all", "fwmark": "0xca6c", "table": "254"}, "pref 100 fwmark 0xca6c lookup 254"),
        ({"priority": 100, "fwmark": "0x1", "table": "254"}, ""),
        ({"priority": 100, "fwmark": "0xc", "fwmask": "0xf", "table": "254"}, "pref 100 fwmark 0xc/0xf lookup 254"),
        ({"priority": 100, "fwmark": "0xca6c", "not": None, "table": "254"}, ""),
        ({"priority": 100, "table": "254"}, "pref 100 lookup 254"),
        ({"priority": 100, "table": "99"}, ""),  # the packet has not gone by that table
        ({"priority": 100, "iif": "lan0", "table": "254"}, ""),
        ({"priority": 100, "iif": "lo", "table": "254"}, "pref 100 iif lo lookup 254"),
        ({"priority": 100, "src": "192.0.2.0", "srclen": 24, "table": "254"}, ""),
        ({"priority": 5180, "table": "254", "suppress_prefixlen": 0}, ""),  # ours
        ({"priority": 6000, "table": "254"}, ""),  # behind ours
    ],
)
def test_the_rule_that_comes_before_ours(rule: dict[str, object], words: str) -> None:
    assert rule_before([rule], 5181, Packet(OWN, None, ONE, MARK), Way("wan0")) == words


def test_the_counter_is_read_by_its_name() -> None:
    text = "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 1 7\nIpExt: InNoRoutes\nIpExt: 2\n"
    assert parse_netstat(text)["IPReversePathFilter"] == 7
    assert parse_netstat("") == {}


def test_a_way_is_read_and_none_is_told() -> None:
    found = '[{"dst":"198.51.100.1","gateway":"203.0.113.1","dev":"wan0","prefsrc":"203.0.113.2"}]'
    runner = Recorder({("ip", "-N", "-j", "route", "get", str(ONE)): found})
    assert str(questions.route(runner, ONE)) == "dev wan0 via 203.0.113.1 src 203.0.113.2"
    assert questions.route(runner, ONE, MARK).device is None


def test_the_filter_in_force_is_the_larger_one() -> None:
    runner = Recorder({("sysctl", "-n", f"net/ipv4/conf/{name}/rp_filter"): value for name, value in
                       (("wg0", "0\n"), ("all", "1\n"))})  # fmt: skip
    assert questions.reverse_path_filter(runner, "wg0") == 1


# ---------------------------------------------------------------- addresses


def test_names_come_from_the_warm_up_and_from_dnsmasqs_log(tmp_path: Path) -> None:
    warm, log, broken = tmp_path / "gfwlist.warm.json", tmp_path / "dns.log", tmp_path / "work.warm.json"
    warm.write_text(json.dumps({"a.example": [str(ONE)], "b.example": [str(TWO), str(ONE)], "c.example": None}))
    log.write_text(
        "Nov 24 10:54:04 dnsmasq[1]: query[A] d.example from 127.0.0.1\n"
        f"Nov 24 10:54:04 dnsmasq[1]: reply d.example is {ONE}\n"
        f"Nov 24 10:54:04 dnsmasq[1]: cached e.example is {TWO}\n"
        "Nov 24 10:54:04 dnsmasq[1]: reply f.example is <CNAME>\n"
    )
    broken.write_text("{")
    found = names_of([ONE, TWO], [warm, log, broken, tmp_path / "missing.json"])
    assert found == {ONE: ["a.example", "b.example", "d.example"], TWO: ["b.example", "e.example"]}


def test_a_file_of_the_warm_up_that_is_nested_without_end_has_no_names(tmp_path: Path) -> None:
    (tmp_path / "gfwlist.warm.json").write_text('{"a":' * 5000)
    assert names_of([ONE], [tmp_path / "gfwlist.warm.json"]) == {ONE: []}


def test_the_object_of_an_address_and_the_warning_of_a_host_without_bootstrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        ("ipset", "list", "-n"): "",
        (
            "ip",
            "-N",
            "-j",
            "route",
            "get",
            str(ONE),
        ): '[{"gateway":"203.0.113.1","dev":"wan0","prefsrc":"203.0.113.2"}]',
    }
    tools = frozenset({"ip", "ipset", "iptables-save", "iptables-restore"})
    monkeypatch.setattr("gfwtools.system.commands.System", lambda: Recorder(answers, tools))
    ip.main([str(ONE), "--json"], obj=Context(None, tmp_path, 0), standalone_mode=False)  # 0 where it just returns
    output, errors = capsys.readouterr()
    assert "was never bootstrapped; run: gfwtools bootstrap --interface wg0" in errors
    assert json.loads(output) == {
        "address": str(ONE),
        "policy": None,
        "sets": [],
        "direct_sets": [],
        "names": [],
        "mark": None,
        "device": "wan0",
        "source": "203.0.113.2",
        "gateway": "203.0.113.1",
        "error": None,
        "ok": True,
    }


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.0/24", "fe80::1%eth0", "google.com", "1.2.3.4:80"])
def test_what_is_no_address_is_a_usage_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        parse_address(text)
    gfwtools(tmp_path, "check", "ip", "--", text, code=2)


def test_an_address_of_a_family_that_the_host_lacks_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gfwtools.system.commands.System", lambda: Recorder(tools=frozenset({"ip"})))
    result = CliRunner().invoke(ip, ["2001:db8::1"], obj=Context(None, tmp_path, 0))
    assert result.exit_code == 2
    assert "IPv6, which this host does not have" in result.output


def test_connect_without_live_is_a_usage_error(tmp_path: Path) -> None:
    assert "--live" in gfwtools(tmp_path, "check", "domain", "--connect", "google.com", code=2).stderr
