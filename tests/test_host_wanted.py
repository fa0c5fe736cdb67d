"""The wanted state as data: what a configuration wants of a host."""

import json
import re
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from recorder import Recorder

from gfwtools.config.load import loads
from gfwtools.config.model import Config, Dns, Host, PolicyConfig, Upstream
from gfwtools.errors import HostError
from gfwtools.plumbing.choice import decide, require
from gfwtools.plumbing.facts import Facts, Interface, parse_endpoints, parse_seed, read_facts, seeds_of
from gfwtools.plumbing.iptables import Chain, IptablesState, canonical
from gfwtools.plumbing.nftables import NftablesState
from gfwtools.plumbing.nftables import canonical as nft_canonical
from gfwtools.plumbing.resolver_users import resolver_users
from gfwtools.plumbing.wanted import KILL_SWITCH_METRIC, MAIN, Entry, Jump, Masked, Route, Rule, Wanted, closed, wanted
from gfwtools.render import ipset, nftables

ENDPOINT = ip_address("203.0.113.9")
WG0 = Interface("wg0", True, 1420, (ip_interface("10.0.0.2/24"),), (ENDPOINT,))
WG1 = Interface("wg1", True, 1400, (ip_interface("10.1.0.2/24"), ip_interface("fd00:1::2/64")))
#: The networks of IPv4 that no site has.
NOT_SITES = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.168.0.0/16", "224.0.0.0/3"),
)
ONE = Config()
TWO = Config(
    host=Host(gateway=True),
    policies=(PolicyConfig(), PolicyConfig(name="work", set="work", mark=0xBEEF, table=51900, interface="wg1")),
)


def facts(*interfaces: Interface, **more: object) -> Facts:
    return replace(Facts(interfaces={item.name: item for item in interfaces}), **more)


def marks(state: Wanted) -> list[tuple[str, int | None, int | None]]:
    return [(entry.to_set_of.set, entry.family, entry.mark) for entry in state.entries if entry.to_set_of]


def test_a_policy_has_two_rules_a_family() -> None:
    assert wanted(ONE, facts(WG0)).rules == (
        Rule(4, 5180, MAIN, suppress_prefixlength=0),
        Rule(4, 5181, 51820, fwmark=0xCA6C),
        Rule(6, 5180, MAIN, suppress_prefixlength=0),
        Rule(6, 5181, 51820, fwmark=0xCA6C),
    )


def test_the_second_policy_has_the_next_two_preferences() -> None:
    rules = wanted(TWO, facts(WG0, WG1)).rules
    assert sorted({rule.preference for rule in rules}) == [5180, 5181, 5182, 5183]
    assert Rule(4, 5183, 51900, fwmark=0xBEEF) in rules


def test_the_base_of_the_preferences_can_be_chosen() -> None:
    config = ONE._replace(host=Host(preference=100))
    assert {rule.preference for rule in wanted(config, facts(WG0)).rules} == {100, 101}


def test_a_tunnel_without_ipv6_has_only_the_kill_switch_there() -> None:
    routes = wanted(ONE, facts(WG0)).routes
    assert [route for route in routes if route.family == 6] == [Route(6, 51820, None, None, KILL_SWITCH_METRIC)]
    assert Route(4, 51820, None, "wg0", 0) in routes


@pytest.mark.parametrize("interfaces", [(), (replace(WG0, up=False),)])
def test_without_the_tunnel_there_is_only_the_kill_switch(interfaces: tuple[Interface, ...]) -> None:
    routes = wanted(ONE, facts(*interfaces)).routes
    assert {(route.family, route.interface) for route in routes} == {(4, None), (6, None)}


def test_addresses_of_both_families_are_marked_even_where_the_tunnel_has_one() -> None:
    assert marks(wanted(ONE, facts(WG0))) == [("gfwlist", 4, 0xCA6C), ("gfwlist", 6, 0xCA6C)]


def test_the_endpoint_is_let_go_before_anything_is_marked() -> None:
    entries = wanted(ONE, facts(WG0)).entries
    guard = next(index for index, entry in enumerate(entries) if entry.to == ENDPOINT)
    assert entries[guard].mark is None
    assert guard < next(index for index, entry in enumerate(entries) if entry.mark)


def test_an_address_of_two_policies_is_the_first_ones() -> None:
    entries = wanted(TWO, facts(WG0, WG1)).entries
    stop = max(index for index, entry in enumerate(entries) if entry.marked == 0xCA6C and not entry.keep)
    sets = [(index, entry.mark) for index, entry in enumerate(entries) if entry.to_set_of]
    assert [mark for index, mark in sets if index < stop] == [0xCA6C, 0xCA6C]
    assert [mark for index, mark in sets if index > stop] == [0xBEEF, 0xBEEF]


def test_the_sets_have_a_say_in_new_connections_only() -> None:
    entries = wanted(TWO, facts(WG0, WG1)).entries
    first_set = next(index for index, entry in enumerate(entries) if entry.to_set_of)
    assert [entry.running for entry in entries[:first_set] if entry.running] == ["confirmed", "related"]
    restored = [(entry.connmark, entry.mark) for entry in entries[:first_set] if entry.connmark]
    assert (Masked(0x1000000, 0xF000000), 0xCA6C) in restored
    assert (Masked(0x2000000, 0xF000000), 0xBEEF) in restored


def test_what_a_set_decides_is_kept_in_the_connection_mark_before_the_chain_is_left() -> None:
    entries = wanted(TWO, facts(WG0, WG1)).entries
    after = {entry.to_set_of.name: entries[index + 1] for index, entry in enumerate(entries) if entry.to_set_of}
    assert {name: entry.keep for name, entry in after.items()} == {
        "gfwlist": Masked(0x1000000, 0xF000000),
        "work": Masked(0x2000000, 0xF000000),
    }


def test_the_bits_of_the_connection_mark_can_be_chosen() -> None:
    config = TWO._replace(host=Host(connmark_mask=0x30))
    assert [mark.bits for mark in wanted(config, facts(WG0, WG1)).connmarks] == [Masked(0x10, 0x30), Masked(0x20, 0x30)]


def test_a_mark_in_our_bits_is_not_looked_for_as_a_whole_connection_mark() -> None:
    config = ONE._replace(policies=(PolicyConfig(mark=0x2000000),))
    entries = wanted(config, facts(WG0)).entries
    assert [entry.connmark for entry in entries if entry.connmark] == [Masked(0x1000000, 0xF000000)]


def test_what_comes_out_of_a_tunnel_is_not_sent_into_one_again() -> None:
    arriving = [entry.arrives_on for entry in wanted(TWO, facts(WG0, WG1)).entries if entry.arrives_on]
    assert arriving == ["wg0", "wg1"]


def test_answers_are_never_marked() -> None:
    assert wanted(ONE, facts(WG0)).entries[0] == Entry("an answer leaves by where the question came in", answers=True)


def test_only_a_gateway_looks_at_what_it_forwards() -> None:
    assert [jump.hook for jump in wanted(ONE, facts(WG0)).jumps] == ["OUTPUT"]
    assert [jump.hook for jump in wanted(TWO, facts(WG0, WG1)).jumps] == ["OUTPUT", "PREROUTING"]


def test_segments_are_clamped_to_the_path_one_way_and_to_the_mtu_the_other() -> None:
    clamps = {(c.interface, c.family, c.hook): c.mss for c in wanted(TWO, facts(WG0, WG1)).clamps}
    assert clamps["wg0", 4, "POSTROUTING"] is None
    assert clamps["wg0", 4, "FORWARD"] == clamps["wg0", 4, "INPUT"] == 1380
    assert clamps["wg1", 6, "FORWARD"] == clamps["wg1", 6, "INPUT"] == 1340


def test_the_segments_of_a_host_that_is_no_gateway_are_clamped_too() -> None:
    assert {clamp.hook for clamp in wanted(ONE, facts(WG0)).clamps} == {"POSTROUTING", "INPUT"}


def test_each_tunnel_has_a_loose_reverse_path_filter_and_only_a_gateway_forwards() -> None:
    one = {sysctl.key: sysctl.value for sysctl in wanted(ONE, facts(WG0)).sysctls}
    assert one == {"net/ipv4/conf/wg0/rp_filter": "2"}
    two = [sysctl.key for sysctl in wanted(TWO, facts(WG0, WG1, advertised=("eth0",))).sysctls]
    assert two[-3:] == ["net/ipv4/ip_forward", "net/ipv6/conf/eth0/accept_ra", "net/ipv6/conf/all/forwarding"]


def test_ipv6_is_not_forwarded_where_no_tunnel_carries_it() -> None:
    config = ONE._replace(host=Host(gateway=True))
    assert [s.key for s in wanted(config, facts(WG0)).sysctls] == ["net/ipv4/conf/wg0/rp_filter", "net/ipv4/ip_forward"]


def test_a_host_without_ipv6_has_no_rule_of_it() -> None:
    state = wanted(TWO, facts(WG0, WG1, families=(4,)))
    assert {item.family for item in (*state.rules, *state.routes, *state.nats, *state.clamps)} == {4}


@pytest.mark.parametrize(
    ("nat", "expected"),
    [
        ("masquerade", [(4, None), (6, None)]),
        ("snat:10.1.0.2", [(4, "10.1.0.2"), (6, None)]),
        ("snat:fd00:1::2", [(4, None), (6, "fd00:1::2")]),
        ("none", []),
    ],
)
def test_an_address_to_translate_to_is_for_its_own_family(nat: str, expected: list[tuple[int, str | None]]) -> None:
    config = Config(policies=(PolicyConfig(interface="wg1", nat=nat),))
    nats = wanted(config, facts(WG1)).nats
    assert [(item.family, str(item.to) if item.to else None) for item in nats] == expected
    assert all(item.mark == 0xCA6C for item in nats)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nat": "snat:fd00::9"}, r"policy.gfwlist.nat: snat:fd00::9 is IPv6 and wg0 has no such address; give"),
        ({"routes": (ip_network("fd00:2::/64"),)}, r"policy.gfwlist.routes: fd00:2::/64 is IPv6 and wg0 has no such"),
        ({"upstream": (Upstream(ip_address("2001:db8::53")),)}, r"policy.gfwlist.upstream: 2001:db8::53 is IPv6 and"),
    ],
)
def test_an_address_of_a_family_that_the_tunnel_lacks_is_an_error(change: dict[str, object], message: str) -> None:
    config = Config(policies=(PolicyConfig()._replace(**change),))
    with pytest.raises(HostError, match=message):
        wanted(config, facts(WG0))


def test_networks_behind_the_tunnel_are_in_the_main_table() -> None:
    policy = PolicyConfig(routes=(ip_network("192.168.58.0/24"),))
    routes = wanted(Config(policies=(policy,)), facts(WG0)).routes
    assert Route(4, MAIN, ip_network("192.168.58.0/24"), "wg0", 0) in routes


def test_every_comment_can_stand_between_quotes_in_both_backends() -> None:
    state = wanted(TWO, facts(replace(WG0, name="wg0"), WG1))
    pieces = (*state.entries, *state.jumps, *state.guards, *state.reserved, *state.clamps, *state.nats)
    for piece in pieces:
        # nftables takes 128 octets, iptables 255.
        assert len(f"gfwtools: {piece.why}") < 128
        assert not set(piece.why) & set("\"'\\\n")


# ---------------------------------------------------------------- the kill switch


def drops(state: Wanted) -> list[tuple[int | None, str | None]]:
    return [(entry.marked, entry.leaves_not_by) for entry in state.kill_switch if entry.drop and entry.marked]


def test_what_has_a_policys_mark_leaves_by_its_tunnel_or_not_at_all() -> None:
    assert drops(wanted(TWO, facts(WG0, WG1))) == [(0xCA6C, "wg0"), (0xBEEF, "wg1")]


def test_the_kill_switch_drops_without_the_tunnel_too() -> None:
    assert drops(wanted(ONE, facts())) == [(0xCA6C, "wg0")]


def test_a_connection_of_a_policy_is_dropped_without_its_mark() -> None:
    found = [entry.connmark for entry in wanted(ONE, facts(WG0)).kill_switch if entry.drop and entry.connmark]
    assert found == [Masked(0x1000000, 0xF000000), Masked(0xCA6C, 0xFFFFFFFF)]


def test_answers_the_peer_and_local_addresses_are_let_go_before_the_kill_switch_drops() -> None:
    entries = wanted(ONE, facts(WG0, inside=("tun5",))).kill_switch
    first = next(index for index, entry in enumerate(entries) if entry.drop)
    let_go = entries[:first]
    assert any(entry.answers for entry in let_go)
    assert {"lo", "tun5"} <= {entry.leaves_by for entry in let_go}
    assert ENDPOINT in {entry.to for entry in let_go}
    assert ip_network("192.168.0.0/16") in {entry.within for entry in let_go}


def test_a_tunnel_that_keeps_the_mark_on_its_own_packets_is_not_cut_off() -> None:
    gre = replace(WG0, endpoints=(), keeps_mark=True)
    assert drops(wanted(ONE, facts(gre))) == []
    assert drops(wanted(ONE, facts(replace(gre, endpoints=(ENDPOINT,))))) == [(0xCA6C, "wg0")]


def without_mark(state: Wanted) -> list[tuple[str, str | None, bool]]:
    return [
        (entry.to_set_of.name, entry.leaves_not_by, entry.from_this_host)
        for entry in state.kill_switch
        if entry.to_set_of and entry.drop
    ]


def test_what_should_have_the_mark_and_has_not_is_dropped_at_every_other_way_out() -> None:
    state = wanted(TWO, facts(WG0, WG1))
    assert without_mark(state) == [("gfwlist", "wg0", False)] * 2 + [("work", "wg1", False)] * 2
    assert state.kill_switch[-4:] == tuple(entry for entry in state.kill_switch if entry.to_set_of)


def test_a_host_that_is_no_gateway_drops_only_what_it_sends_itself() -> None:
    assert without_mark(wanted(ONE, facts(WG0))) == [("gfwlist", "wg0", True)] * 2


def test_down_closed_leaves_the_sets_and_the_chain_of_what_leaves() -> None:
    whole, shut = wanted(TWO, facts(WG0, WG1)), closed(TWO, facts(WG0, WG1))
    assert shut == Wanted(sets=whole.sets, kill_switch=whole.kill_switch, bounds=whole.bounds)


def routed(*destinations: str, family: int = 4) -> tuple[str, ...]:
    """The interfaces that lead inside, where tun5 has routes to these networks."""
    default = json.dumps([{"dst": "default", "dev": "eth0"}])
    links = [{"ifname": name, "flags": ["UP"]} for name in ("eth0", "tun5")]
    routes = [{"dst": destination, "dev": "tun5"} for destination in destinations]
    answers = {
        ("ip", "-4", "-j", "route", "show", "default"): default,
        ("ip", "-j", "link", "show", "up"): json.dumps(links),
        ("ip", f"-{family}", "-j", "route", "show", "table", "all", "dev", "tun5"): json.dumps(routes),
        ("sysctl", "-n", "net.ipv6.conf.all.disable_ipv6"): "0\n",
    }
    tools = {"ip", "sysctl", "nft", "iptables", "ipset", "iptables-save", "iptables-restore"}
    return read_facts(ONE, Recorder(answers, frozenset(tools))).inside


@pytest.mark.parametrize(
    ("destinations", "leads"),
    [
        (("198.51.100.0/24",), True),
        (("18.0.0.0/8", "10.0.0.0/8"), True),
        (("10.0.0.0/8", "100.64.0.0/10"), False),
        (("default",), False),
        (("0.0.0.0/1", "128.0.0.0/1"), False),
        (("0.0.0.0/5", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6", "16.0.0.0/4", "32.0.0.0/3"), False),
    ],
)
def test_an_interface_with_public_networks_of_its_own_leads_inside(destinations: tuple[str, ...], leads: bool) -> None:
    assert routed(*destinations) == (("tun5",) if leads else ())


@pytest.mark.parametrize(
    "policy",
    [PolicyConfig(upstream=(Upstream(ip_address("10.64.0.1")),)), PolicyConfig(seeds=(ip_network("10.64.0.1"),))],
)
def test_a_private_address_of_the_configuration_is_marked_before_private_networks_leave(policy: PolicyConfig) -> None:
    entries = wanted(Config(policies=(policy,)), facts(WG0)).entries
    within = [(str(entry.within), entry.mark) for entry in entries if entry.within]
    assert within.index(("10.64.0.1/32", 0xCA6C)) < within.index(("10.0.0.0/8", None))


def test_of_a_private_network_behind_the_tunnel_what_is_in_the_set_is_marked() -> None:
    policy = PolicyConfig(routes=(ip_network("192.168.58.0/24"),))
    entries = wanted(Config(policies=(policy,)), facts(WG0)).entries
    behind = next(entry for entry in entries if entry.within == policy.routes[0])
    assert (behind.mark, behind.to_set_of) == (policy.mark, policy)


def test_only_a_host_that_answers_names_for_others_is_guarded_from_the_wan_and_the_tunnel() -> None:
    seen = facts(WG0, wans=("ppp0", "wan0"))
    assert wanted(ONE, seen).guards == ()
    guards = wanted(ONE._replace(host=Host(gateway=True)), seen).guards
    assert [(guard.interface, guard.protocol) for guard in guards] == [
        *(("wg0", "udp"), ("wg0", "tcp"), ("ppp0", "udp"), ("ppp0", "tcp"), ("wan0", "udp"), ("wan0", "tcp"))
    ]


def test_a_second_dnsmasq_is_for_the_users_of_the_first_one() -> None:
    split = ONE._replace(dns=Dns(layout="split"))
    seen = facts(WG0, resolver_users=(0, 105))
    assert wanted(ONE, seen).reserved == ()
    assert [(each.port, each.protocol, each.hook, each.users) for each in wanted(split, seen).reserved] == [
        (5354, "udp", "INPUT", ()),
        (5354, "udp", "OUTPUT", (0, 105)),
        (5354, "tcp", "INPUT", ()),
        (5354, "tcp", "OUTPUT", (0, 105)),
    ]
    assert {each.hook for each in wanted(split, facts(WG0)).reserved} == {"INPUT"}, "its users are not known"


@pytest.mark.parametrize(
    ("tree", "users"),
    [
        ({}, ()),
        ({"etc/passwd": "root:x:0:0::/:\ndnsmasq:x:105:65534::/:\nnobody:x:65534:65534::/:\n"}, (0, 105, 65534)),
        ({"etc/passwd": "dns:x:7:7::/:\nnobody:x:65534:65534::/:\n", "etc/dnsmasq.conf": "user=dns # ours\n"}, (0, 7)),
        ({"etc/passwd": "dns:x:7:7::/:\n", "etc/dnsmasq.d/own.conf": "user=dns\n"}, (0, 7)),
        ({"etc/passwd": "dns:x:7:7::/:\n", "etc/default/dnsmasq": 'DNSMASQ_USER="dns"\n'}, (0, 7)),
        ({"etc/passwd": "dns:x:7:7::/:\n", "etc/conf.d/dnsmasq": 'DNSMASQ_OPTS="-k -u dns"\n'}, (0, 7)),
        ({"etc/passwd": "dns:x:7:7::/:\n", "etc/conf.d/dnsmasq": "# run it with -u dns\n"}, ()),
        ({"etc/passwd": "nobody:x:9:9::/:\n", "etc/dnsmasq.conf": "#user=dns\nuser=gone\n"}, (0, 9)),
    ],
)
def test_the_user_of_dnsmasq_is_where_the_host_names_it(
    tmp_path: Path, tree: dict[str, str], users: tuple[int, ...]
) -> None:
    for name, text in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert resolver_users(loads("", "config.toml", tmp_path)) == users


# ---------------------------------------------------------------- in the words of a backend


def test_iptables_says_it_in_the_words_of_iptables_save() -> None:
    state = IptablesState.of(wanted(ONE, facts(WG0)), (4, 6), IptablesState())
    rules = [re.sub(r' -m comment --comment "[^"]*"', "", rule) for rule in state.rules[Chain(4, "mangle", "GFWLIST")]]
    assert rules[1:] == [
        "-d 203.0.113.9/32 -j RETURN",
        "-m connmark --mark 0x1000000/0xf000000 -j MARK --set-xmark 0xca6c/0xffffffff",
        "-m connmark --mark 0xca6c -j MARK --set-xmark 0xca6c/0xffffffff",
        "-m mark --mark 0xca6c -j RETURN",
        "-m conntrack --ctstatus CONFIRMED -j RETURN",
        "-m conntrack --ctstate RELATED -j RETURN",
        "-d 8.8.8.8/32 -j MARK --set-xmark 0xca6c/0xffffffff",
        "-m mark --mark 0xca6c -j CONNMARK --set-xmark 0x1000000/0xf000000",
        "-m mark --mark 0xca6c -j RETURN",
        "-m addrtype --dst-type LOCAL -j RETURN",
        *(f"-d {network} -j RETURN" for network in NOT_SITES),
        "-p udp -m udp --dport 53 -m addrtype --src-type LOCAL -j RETURN",
        "-p tcp -m tcp --dport 53 -m addrtype --src-type LOCAL -j RETURN",
        "-m set --match-set gfwlist dst -j MARK --set-xmark 0xca6c/0xffffffff",
        "-m mark --mark 0xca6c -j CONNMARK --set-xmark 0x1000000/0xf000000",
    ]
    assert sorted(state.sets) == ["gfwlist", "gfwlist6", "gfwlist_direct"]


def test_nftables_marks_in_a_route_chain_with_the_seed_apart_from_what_is_learned() -> None:
    seeds = {"gfwlist": (ip_network("8.8.8.8/32"), ip_network("91.108.4.0/22"))}
    state = NftablesState.of(wanted(ONE, facts(WG0, seeds=seeds)))
    assert state.chains["output"].hook == "type route hook output priority mangle + 1; policy accept;"
    assert [rule.partition(" comment")[0] for rule in state.chains["GFWLIST"].rules[2:-3]] == [
        "ct mark & 0xf000000 == 0x1000000 counter meta mark set 0xca6c",
        "ct mark 0xca6c counter meta mark set 0xca6c",
        "meta mark 0xca6c return",
        "ct status confirmed return",
        "ct state related return",
        "ip daddr 8.8.8.8 counter meta mark set 0xca6c",
        "meta mark 0xca6c ct mark set ct mark & 0xf1ffffff | 0x1000000",
        "meta mark 0xca6c return",
        "fib daddr type local return",
        *(f"ip daddr {network} return" for network in NOT_SITES),
        *("ip6 daddr ::/96 return", "ip6 daddr fc00::/7 return", "ip6 daddr fe80::/9 return"),
        "ip6 daddr ff00::/8 return",
        "fib saddr type local udp dport 53 return",
        "fib saddr type local tcp dport 53 return",
        "ip daddr @gfwlist4 counter meta mark set 0xca6c",
        "ip daddr @gfwlist_seed4 counter meta mark set 0xca6c",
    ]
    assert (
        state.chains["GFWLIST"]
        .rules[-1]
        .startswith("meta mark 0xca6c ct mark set ct mark & 0xf1ffffff | 0x1000000 comment")
    )
    assert state.sets["gfwlist_seed4"].is_seed
    assert not state.sets["gfwlist4"].is_seed
    assert len(state.sets["gfwlist_seed4"].elements) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-d 1.2.3.4 -j RETURN", "-d 1.2.3.4/32 -j RETURN"),
        ("-p tcp --tcp-flags SYN,RST SYN -j X", "-p tcp -m tcp --tcp-flags SYN,RST SYN -j X"),
        (
            '-m comment --comment "a b" -m set --match-set s dst -j X',
            '-m set --match-set s dst -m comment --comment "a b" -j X',
        ),
    ],
)
def test_two_spellings_of_a_rule_are_one(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


def test_a_rule_and_its_opposite_are_two() -> None:
    assert canonical("! -i wg0 -j X") != canonical("-i wg0 -j X")
    assert canonical("-m set --match-set a dst -j X") != canonical("-m set --match-set b dst -j X")
    assert canonical("-m mark --mark 1 -j X") != canonical("-m connmark --mark 1 -j X")


def test_nft_may_write_the_bits_of_a_mark_in_words() -> None:
    words = "ct mark set ct mark and 0xf1ffffff or 0x01000000"
    assert nft_canonical(words) == nft_canonical("ct mark set ct mark & 0xf1ffffff | 0x1000000")


# ---------------------------------------------------------------- facts


def test_endpoints_of_both_families_are_read_and_none_is_none() -> None:
    text = "key1=\t203.0.113.1:51820\nkey2=\t[2001:db8::1]:51820\nkey3=\t(none)\nkey4=\t[fe80::1%eth0]:51820\n"
    assert [str(address) for address in parse_endpoints(text)] == ["203.0.113.1", "2001:db8::1", "fe80::1"]


def test_a_seed_file_reads_back_as_what_was_written(tmp_path: Path) -> None:
    networks = [ip_network("1.0.0.0/24"), ip_network("2001:db8::/32"), IPv4Network("85.17.73.31")]
    expected = ipset.seed_networks(PolicyConfig(), networks)
    for text in (ipset.seed(PolicyConfig(), networks), nftables.seed(PolicyConfig(), networks)):
        assert sorted(map(str, parse_seed(text, tmp_path))) == sorted(map(str, expected))


def test_a_damaged_seed_file_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"gfwlist.ipset: line 2: '1.2.3.4.5' is not a network; run"):
        parse_seed("create x\nadd gfwlist 1.2.3.4.5 -exist\n", tmp_path / "gfwlist.ipset")


BOTH = frozenset({"ip", "sysctl", "ipset", "iptables-save", "iptables-restore", "nft", "dnsmasq"})
WORKS = {("ipset", "list", "-n"): "", ("nft", "list", "tables"): ""}
VERSION = ("dnsmasq", "--version")


@pytest.mark.parametrize(
    ("options", "tools", "expected"),
    [
        ("ipset nftset", BOTH, "iptables"),
        ("no-ipset nftset", BOTH, "nftables"),
        ("ipset no-nftset", BOTH, "iptables"),
        ("ipset", BOTH, "iptables"),
        ("ipset nftset", BOTH - {"ipset"}, "nftables"),
    ],
)
def test_the_backend_is_the_one_that_tools_and_dnsmasq_agree_on(
    options: str, tools: frozenset[str], expected: str
) -> None:
    runner = Recorder({**WORKS, VERSION: f"Dnsmasq version 2.90\nCompile time options: IPv6 {options} auth\n"}, tools)
    assert require(ONE, runner) == expected
    assert decide(ONE, runner) == expected  # what update writes for


def test_a_kernel_without_ipset_has_nftables() -> None:
    assert require(ONE, Recorder({("nft", "list", "tables"): ""}, BOTH)) == "nftables"


def test_a_backend_is_decided_on_without_a_command_where_only_one_has_its_programs() -> None:
    assert decide(ONE, Recorder(tools=BOTH - {"ipset"})) == "nftables"


def test_where_no_backend_can_work_files_are_made_for_iptables() -> None:
    assert decide(ONE, Recorder()) == "iptables"


def test_where_no_backend_can_work_each_reason_is_told() -> None:
    runner = Recorder({**WORKS, VERSION: "Compile time options: no-ipset"}, BOTH - {"nft"})
    with pytest.raises(
        HostError, match="dnsmasq was built without ipset; nftables: nft: no such program; install nftables"
    ):
        require(ONE, runner)


def test_a_backend_that_was_asked_for_and_cannot_work_is_an_error_with_a_remedy() -> None:
    config = ONE._replace(host=Host(backend="nftables"))
    with pytest.raises(HostError, match=r"host.backend = nftables: nft: no such program; install nftables"):
        require(config, Recorder(WORKS, BOTH - {"nft"}))


def test_who_may_not_ask_the_kernel_is_told_that_and_not_that_it_lacks_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = Recorder({key: text for key, text in WORKS.items() if key[0] not in ("ipset", "nft")}, BOTH)
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    with pytest.raises(HostError, match=r"^this is not root, .*; run it with sudo$"):
        require(ONE, silent)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(HostError, match="iptables: the kernel has no ipset; load ip_set"):
        require(ONE, silent)


def test_without_a_seed_file_the_seeds_are_what_the_configuration_says(tmp_path: Path) -> None:
    assert seeds_of([tmp_path / "gfwlist.ipset"], PolicyConfig()) == (ip_network("8.8.8.8/32"),)


def test_an_interface_that_is_no_wireguard_has_no_endpoints(tmp_path: Path) -> None:
    link = (
        '[{"ifname":"wg0","flags":["UP"],"mtu":1420,"addr_info":['
        '{"family":"inet","local":"10.0.0.2","prefixlen":24,"scope":"global"},'
        '{"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]}]'
    )
    answers = {**WORKS, ("ip", "-j", "address", "show", "dev", "wg0"): link}
    found = read_facts(ONE._replace(root=tmp_path), Recorder(answers, BOTH))
    assert found.interfaces == {"wg0": Interface("wg0", True, 1420, (ip_interface("10.0.0.2/24"),))}
    assert found.families == (4,)


def test_a_wireguard_that_cannot_be_asked_for_its_endpoints_is_an_error(tmp_path: Path) -> None:
    answers = {
        **WORKS,
        ("ip", "-j", "address", "show", "dev", "wg0"): '[{"ifname":"wg0","flags":["UP"],"mtu":1420}]',
        ("ip", "-d", "-j", "link", "show", "dev", "wg0"): '[{"linkinfo":{"info_kind":"wireguard"}}]',
    }
    with pytest.raises(HostError, match="wg: no such program; install wireguard-tools"):
        read_facts(ONE._replace(root=tmp_path), Recorder(answers, BOTH - {"wg"}))


def test_policies_of_a_configuration_file_stand_side_by_side() -> None:
    config = loads('[policy.gfwlist]\n[policy.work]\ninterface = "wg1"\n')
    state = wanted(config, facts(WG0, WG1))
    assert {(rule.table, rule.fwmark) for rule in state.rules if rule.fwmark} == {(51820, 0xCA6C), (51821, 0xCA6D)}
    assert {(route.table, route.interface) for route in state.routes if route.interface} == {
        (51820, "wg0"),
        (51821, "wg1"),
    }
    assert Jump("OUTPUT", "what this host sends") in state.jumps
