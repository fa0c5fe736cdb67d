"""Which packets a firewall's rules let pass: the rule that decides, and UNKNOWN where a rule is not understood."""

import pytest
from firewalls import (
    DOCKER,
    DOCKER_OPEN,
    FW3,
    FW3_VPN,
    LIBVIRT,
    MWAN3,
    filter_table,
    match,
    own_table,
    passages,
    question,
    question_into,
)

from gfwtools.diagnose.firewall.crossing import Passage, Verdict
from gfwtools.diagnose.firewall.opening import Zone, opening
from gfwtools.diagnose.firewall.packet import Packet, Truth

PASSES, BLOCKED, UNKNOWN = Verdict.PASSES, Verdict.BLOCKED, Verdict.UNKNOWN
ANSWERS = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"


def rule(passage: Passage) -> str:
    """The rules that decide."""
    return "; ".join(found.decided.rule for found in passage.judged)


def remedy(passage: Passage) -> str:
    (found,) = passage.judged
    return opening(found, passage.packet, lambda interface: Zone(f"zone-of-{interface}", interface != "wg0"))


# ---------------------------------------------------------------- iptables


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-A FORWARD -i lan0 -o wan0 -j ACCEPT",
        "-A FORWARD ! -o wg0 -j ACCEPT",
        "-A FORWARD -o wan+ -j ACCEPT",
        "-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT",
        "-A FORWARD -p udp -m udp --dport 53 -j ACCEPT",
        "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT",
        "-A FORWARD -p tcp -m tcp ! --dport 443 -j ACCEPT",
        "-A FORWARD -p tcp -m multiport --dports 22,80,8000:9000 -j ACCEPT",
        "-A FORWARD -s 10.0.0.0/8 -j ACCEPT",
        "-A FORWARD ! -s 192.168.0.0/16 -j ACCEPT",
        "-A FORWARD -d 192.168.0.0/16 -j ACCEPT",
        "-A FORWARD -m state --state ESTABLISHED -j ACCEPT",
        "-A FORWARD -m conntrack ! --ctstate NEW -j ACCEPT",
        "-A FORWARD -m mark --mark 0x1 -j ACCEPT",
        "-A FORWARD -m mark ! --mark 0xca6c -j ACCEPT",
        "-A FORWARD -m addrtype --dst-type LOCAL -j ACCEPT",
        "-A FORWARD -m pkttype --pkt-type multicast -j ACCEPT",
        "-A FORWARD -p tcp -m tcp --tcp-flags SYN,ACK ACK -j ACCEPT",
        "-A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT",
        '-A FORWARD -i wan0 -m comment --comment "-j ACCEPT" -j ACCEPT',
        "-A FORWARD -i lan0 -j OTHERS\n-A OTHERS -o wan0 -j ACCEPT",
        "-A FORWARD -j OTHERS\n-A OTHERS -j RETURN\n-A OTHERS -j ACCEPT",
        "-A FORWARD -g OTHERS\n-A FORWARD -j ACCEPT\n-A OTHERS -o wan0 -j ACCEPT",
        "-A FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
        "-A FORWARD -m policy --dir in --pol ipsec -j ACCEPT",
        "-A FORWARD -j LOG",
        "-A FORWARD -m recent --name x --rcheck -j LOG",
        "-A FORWARD -m recent --name x --rcheck -j DROP",
    ],
)
def test_iptables_stops_what_no_rule_accepts(line: str) -> None:
    first, _ = passages(filter_table(ANSWERS + line))
    assert (first.verdict, rule(first)) == (BLOCKED, "-P FORWARD DROP")


@pytest.mark.parametrize(
    "line",
    [
        "-A FORWARD -i lan0 -j ACCEPT",
        "-A FORWARD -i lan+ -o wg+ -j ACCEPT",
        "-A FORWARD ! -o wan0 -j ACCEPT",
        "-A FORWARD -p tcp -m tcp --dport 1:1000 -j ACCEPT",
        "-A FORWARD -p tcp -m multiport --dports 80,443 -j ACCEPT",
        "-A FORWARD -p tcp -m multiport ! --dports 25 -j ACCEPT",
        "-A FORWARD -s 192.168.0.0/16 ! -d 10.0.0.0/8 -j ACCEPT",
        "-A FORWARD ! -p udp -j ACCEPT",
        "-A FORWARD -m conntrack ! --ctstate INVALID -j ACCEPT",
        "-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT",
        "-A FORWARD -m mark --mark 0xca6c -j ACCEPT",
        "-A FORWARD -m mark --mark 0x6c/0xff -j ACCEPT",
        "-A FORWARD -m addrtype ! --dst-type LOCAL -j ACCEPT",
        "-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT",
        "-A FORWARD -m policy --dir out --pol none -j ACCEPT",
        '-A FORWARD -m comment --comment "! -i x" -j ACCEPT',
        "-A FORWARD -j MARK --set-xmark 0x1/0xffffffff\n-A FORWARD -m mark --mark 0x1 -j ACCEPT",
        "-A FORWARD -j OTHERS\n-A OTHERS -g MORE\n-A OTHERS -j DROP\n-A MORE -i lan0 -j ACCEPT",
        "-A FORWARD -m recent --name x --rcheck -j ACCEPT\n-A FORWARD -i lan0 -j ACCEPT",
        "-A FORWARD -s 192.168.7.66/32 -j DROP\n-A FORWARD -i lan0 -j ACCEPT",
        "-A FORWARD -m mac --mac-source 02:00:00:00:00:01 -j DROP\n-A FORWARD -i lan0 -j ACCEPT",
        "-A FORWARD -p tcp -m tcp --sport 40000 -j DROP\n-A FORWARD -i lan0 -j ACCEPT",
    ],
)
def test_iptables_lets_pass_what_a_rule_accepts_first(line: str) -> None:
    assert [each.verdict for each in passages(filter_table(ANSWERS + line))] == [PASSES, PASSES]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("-A FORWARD -m limit --limit 5/sec -j ACCEPT", "limit"),
        ("-A FORWARD -m recent --name x --rcheck --seconds 9 -j ACCEPT", "recent"),
        ("-A FORWARD -m connmark --mark 0x1/0x1 -j ACCEPT", "connmark"),
        ("-A FORWARD -m set --match-set friends src -j ACCEPT", "friends"),
        ("-A FORWARD -j NFQUEUE --queue-num 0", "NFQUEUE"),
        ("-A FORWARD -m time --timestart 08:00 -j OTHERS\n-A OTHERS -j ACCEPT", "time"),
        ("-A FORWARD -j OTHERS\n-A FORWARD -j DROP\n-A OTHERS -m u32 --u32 0=1 -j RETURN\n-A OTHERS -j ACCEPT", "u32"),
        ("-A FORWARD -s 192.168.7.66/32 -j ACCEPT", "192.168.7.66"),
        ("-A FORWARD -m mac --mac-source 02:00:00:00:00:01 -j ACCEPT", "mac"),
        ('-A FORWARD -m comment --comment "no end -j ACCEPT', "no end"),
    ],
)
def test_iptables_is_unknown_by_the_rule_that_is_not_understood(line: str, named: str) -> None:
    first, _ = passages(filter_table(ANSWERS + line))
    assert first.verdict is UNKNOWN
    assert named in rule(first)


def test_a_reply_is_judged_by_itself() -> None:
    first, answer = passages(filter_table("-A FORWARD -i lan0 -j ACCEPT"))
    assert (first.verdict, answer.verdict) == (PASSES, BLOCKED)
    assert remedy(answer) == "iptables -I FORWARD -i wg0 -o lan0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"


def test_a_set_is_asked_with_the_addresses_of_the_packet() -> None:
    def holds(name: str, sides: tuple[str, ...], packet: Packet) -> Truth:
        return (name, sides, str(packet.destination.example)) == ("abroad", ("dst",), "198.18.0.10")

    line = "-A FORWARD -m set --match-set {} dst -j ACCEPT"
    assert passages(filter_table(ANSWERS + line.format("abroad")), holds=holds)[0].verdict is PASSES
    assert passages(filter_table(ANSWERS + line.format("home")), holds=holds)[0].verdict is BLOCKED


@pytest.mark.parametrize("table", ["raw", "mangle"])
def test_the_other_tables_are_judged_as_well(table: str) -> None:
    text = f"*{table}\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -s 192.168.7.0/24 -p tcp -j DROP\nCOMMIT\n"
    first, answer = passages(text)
    assert (first.verdict, answer.verdict) == (BLOCKED, PASSES)
    assert remedy(first) == f"iptables -t {table} -I PREROUTING -i lan0 -j ACCEPT"


def test_ip6tables_opens_what_it_stops() -> None:
    first, _ = passages(filter_table(ANSWERS), family=6)
    assert remedy(first) == "ip6tables -I FORWARD -i lan0 -o wg0 -j ACCEPT"


def test_a_reply_has_the_tunnels_address_before_its_translation() -> None:
    text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i wg0 ! -d 10.7.0.2/32 -j DROP\nCOMMIT\n"
    assert [each.verdict for each in passages(text)] == [PASSES, PASSES]


# ---------------------------------------------------------------- the programs that people have


def test_docker_alone_stops_the_lan_and_its_own_chain_opens() -> None:
    first, answer = passages(DOCKER.format(user=""))
    assert (rule(first), rule(answer)) == ("-P FORWARD DROP", "-P FORWARD DROP")
    assert remedy(first) == "iptables -I DOCKER-USER -i lan0 -o wg0 -j ACCEPT"
    assert "-I DOCKER-USER -i wg0 -o lan0 -m conntrack" in remedy(answer)


@pytest.mark.parametrize("text", [DOCKER.format(user=DOCKER_OPEN), LIBVIRT, FW3.format(vpn=FW3_VPN), MWAN3])
def test_a_healthy_host_with_docker_libvirt_openwrt_or_mwan3_passes(text: str) -> None:
    assert [each.verdict for each in passages(text)] == [PASSES, PASSES]


def test_openwrt_without_a_forwarding_into_the_tunnel_is_stopped_by_its_rule() -> None:
    first, answer = passages(FW3.format(vpn=""))
    assert (first.verdict, answer.verdict) == (BLOCKED, PASSES)
    assert rule(first).endswith("-j REJECT --reject-with tcp-reset")


# ---------------------------------------------------------------- our own rules, and what this host sends


def test_a_rule_of_ours_that_stops_keeps_no_network_from_the_internet() -> None:
    ours = '-A FORWARD -i lan0 -m comment --comment "gfwtools: policy gfwlist leaves by wg0 or not at all" -j DROP'
    assert passages(filter_table(ours, "ACCEPT"))[0].verdict is PASSES


@pytest.mark.parametrize("comment", ["mygfwtools", '"no gfwtools: x"'])
def test_a_rule_that_only_names_us_stops_as_any_other(comment: str) -> None:
    line = f"-A FORWARD -i lan0 -m comment --comment {comment} -j DROP"
    assert passages(filter_table(line, "ACCEPT"))[0].verdict is BLOCKED


def test_a_rule_that_names_us_in_a_quotation_without_an_end_is_unknown() -> None:
    line = '-A FORWARD -i lan0 -m comment --comment "gfwtools: x -j DROP'
    assert passages(filter_table(line, "ACCEPT"))[0].verdict is UNKNOWN


# A packet of this host with the mark is routed again behind OUTPUT.
WAYS_OF_A_QUESTION = [
    ("output", "wan0", BLOCKED),
    ("output", "wg0", PASSES),
    ("postrouting", "wan0", PASSES),
    ("postrouting", "wg0", BLOCKED),
]


@pytest.mark.parametrize(("hook", "interface", "verdict"), WAYS_OF_A_QUESTION)
def test_iptables_sees_a_question_into_the_tunnel_by_its_way_of_that_hook(
    hook: str, interface: str, verdict: Verdict
) -> None:
    text = f"*mangle\n:{hook.upper()} ACCEPT [0:0]\n-A {hook.upper()} -o {interface} -p udp -j DROP\nCOMMIT\n"
    assert question_into(text).verdict is verdict


@pytest.mark.parametrize(("hook", "interface", "verdict"), WAYS_OF_A_QUESTION)
def test_nft_sees_a_question_into_the_tunnel_by_its_way_of_that_hook(
    hook: str, interface: str, verdict: Verdict
) -> None:
    stops = [match({"meta": {"key": "oifname"}}, interface), {"drop": None}]
    assert question_into(ruleset=own_table(stops, policy="accept", hook=hook)).verdict is verdict


# ---------------------------------------------------------------- nft

OUT, IN, STATE = {"meta": {"key": "oifname"}}, {"meta": {"key": "iifname"}}, {"ct": {"key": "state"}}
DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
SADDR, DADDR = ({"payload": {"protocol": "ip", "field": field}} for field in ("saddr", "daddr"))
FLAGS = {"payload": {"protocol": "tcp", "field": "flags"}}
ACCEPT, DROP = {"accept": None}, {"drop": None}
ESTABLISHED = [match(STATE, ["established", "related"], "in"), ACCEPT]


@pytest.mark.parametrize(
    "expressions",
    [
        [match(OUT, "wan0"), ACCEPT],
        [match(OUT, {"set": ["wan0", "eth*"]}), ACCEPT],
        [match(OUT, "wg0", "!="), ACCEPT],
        [match(STATE, "new", "!="), ACCEPT],
        [match(OUT, "wg0"), DROP],
        [match({"payload": {"protocol": "udp", "field": "dport"}}, 53, "!="), ACCEPT],
        [match({"payload": {"protocol": "icmp", "field": "type"}}, "echo-request"), ACCEPT],
        [match({"payload": {"protocol": "ip6", "field": "saddr"}}, "::1", "!="), ACCEPT],
        [match({"meta": {"key": "l4proto"}}, {"set": ["udp", "icmp"]}), ACCEPT],
        [match({"ct": {"key": "status"}}, "dnat", "in"), ACCEPT],
        [match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), ACCEPT],
        [match({"&": [{"meta": {"key": "mark"}}, 0xFF]}, 1), ACCEPT],
        [match({"meta": {"key": "skuid"}}, 0, "!="), ACCEPT],
        [match(DPORT, {"set": [80, {"range": [8000, 9000]}]}), ACCEPT],
        [match(DADDR, {"set": [{"prefix": {"addr": "10.0.0.0", "len": 8}}]}), ACCEPT],
        [match(DADDR, "@home"), ACCEPT],
        [{"vmap": {"key": OUT, "data": {"set": [["wan0", ACCEPT], ["wg0", DROP]]}}}],
        [{"vmap": {"key": {"concat": [IN, OUT]}, "data": "@ways"}}],
        [{"jump": {"target": "other"}}],
        [match({"meta": {"key": "cpu"}}, 0), DROP],
        [{"limit": {"rate": 1}}, {"reject": None}],
    ],
)
def test_nft_stops_what_no_rule_accepts(expressions: list[dict[str, object]]) -> None:
    other = [[match(OUT, "wan0"), ACCEPT]]
    named = {
        "inet own home": [{"prefix": {"addr": "192.168.0.0", "len": 16}}],
        "inet own ways": [[{"concat": ["lan0", "wan0"]}, ACCEPT]],
    }
    first, answer = passages(ruleset=own_table(ESTABLISHED, expressions, other=other), named=named)
    assert (first.verdict, answer.verdict) == (BLOCKED, PASSES)


@pytest.mark.parametrize(
    "expressions",
    [
        [ACCEPT],
        [{"counter": None}, match(IN, "lan0"), {"log": None}, ACCEPT],
        [match(OUT, {"set": ["wan0", "wg0"]}), ACCEPT],
        [match(OUT, "wg*"), ACCEPT],
        [match(OUT, "wan0", "!="), ACCEPT],
        [match(STATE, "new"), ACCEPT],
        [match(STATE, {"set": ["new", "untracked"]}), ACCEPT],
        [match(DPORT, {"range": [1, 1024]}), ACCEPT],
        [match(DPORT, 1024, "<"), ACCEPT],
        [match({"payload": {"protocol": "th", "field": "dport"}}, 443), ACCEPT],
        [match(FLAGS, "syn", "in"), ACCEPT],
        [match({"&": [FLAGS, ["syn", "ack"]]}, "syn"), ACCEPT],
        [match(FLAGS, "syn"), ACCEPT],
        [match(FLAGS, ["fin", "syn", "rst", "psh", "ack", "urg"], "!"), DROP],
        [match(SADDR, {"prefix": {"addr": "192.168.7.0", "len": 24}}), ACCEPT],
        [match(DADDR, {"set": [{"range": ["10.0.0.0", "10.9.9.9"]}]}, "!="), ACCEPT],
        [match(DADDR, "@blocked"), ACCEPT],
        [match({"meta": {"key": "mark"}}, 0xCA6C), ACCEPT],
        [{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}, match({"meta": {"key": "mark"}}, 7), ACCEPT],
        [match({"concat": [IN, OUT]}, {"set": [{"concat": ["lan0", "wg0"]}]}), ACCEPT],
        [{"vmap": {"key": STATE, "data": {"set": [["invalid", DROP], ["new", {"goto": {"target": "other"}}]]}}}],
        [match(SADDR, "192.168.7.66"), DROP],
    ],
)
def test_nft_lets_pass_what_a_rule_accepts_first(expressions: list[dict[str, object]]) -> None:
    named = {"inet own blocked": [{"elem": {"val": "198.18.0.10", "timeout": 60}}]}
    last = [match(IN, "lan0"), ACCEPT] if expressions[-1] == DROP else [match(OUT, "wan0"), DROP]
    table = own_table(ESTABLISHED, expressions, last, other=[[ACCEPT]])
    assert [each.verdict for each in passages(ruleset=table, named=named)] == [PASSES, PASSES]


@pytest.mark.parametrize(
    "expressions",
    [
        [{"limit": {"rate": 1}}, ACCEPT],
        [match({"meta": {"key": "hour"}}, "08:00"), ACCEPT],
        [match(DADDR, "@lost"), ACCEPT],
        [{"xt": {"type": "match", "name": "conntrack"}}, ACCEPT],
        [{"queue": {"num": 0}}],
        [{"meter": {"key": SADDR, "stmt": {"limit": {"rate": 10, "per": "second", "inv": True}}}}, ACCEPT],
        [{"vmap": {"key": OUT, "data": "@lost"}}],
        [{"vmap": {"key": {"numgen": {"mode": "random", "mod": 2}}, "data": {"set": [[0, ACCEPT], [1, DROP]]}}}],
        [match({"ct": {"key": "mark"}}, 1), ACCEPT],
        [match(SADDR, "192.168.7.66"), ACCEPT],
        [{"of a newer nft": None}],
    ],
)
def test_nft_is_unknown_by_the_rule_that_is_not_understood(expressions: list[dict[str, object]]) -> None:
    first, _ = passages(ruleset=own_table(ESTABLISHED, expressions))
    assert (first.verdict, rule(first)) == (UNKNOWN, "handle 12")


@pytest.mark.parametrize(
    "comparison",
    [
        match({"&": [FLAGS, ["fin", "syn", "rst", "ack"]]}, "syn", "!="),
        match({"&": [FLAGS, ["fin", "syn", "rst", "psh", "ack", "urg"]]}, 0),
        match(FLAGS, ["fin", "syn", "rst", "psh", "ack", "urg"], "!"),
    ],
)
def test_a_rule_of_nft_about_tcp_flags_lets_a_question_by_udp_pass(comparison: dict[str, object]) -> None:
    table = own_table([comparison, match(STATE, "new", "in"), DROP], policy="accept", hook="input")
    assert question(ruleset=table).verdict is PASSES


@pytest.mark.parametrize(
    ("comparison", "verdicts"),
    [
        (match(FLAGS, "syn"), [BLOCKED, PASSES]),
        (match({"&": [FLAGS, ["syn", "ack"]]}, ["syn", "ack"]), [PASSES, BLOCKED]),
        (match({"&": [FLAGS, ["syn", "ack"]]}, ["syn", "ack"], "!="), [BLOCKED, PASSES]),
        (match(FLAGS, {"set": ["syn", "rst"]}), [BLOCKED, PASSES]),
    ],
)
def test_tcp_flags_of_nft_that_are_to_be_equal_are_all_compared(
    comparison: dict[str, object], verdicts: list[Verdict]
) -> None:
    table = own_table([comparison, DROP], policy="accept")
    assert [each.verdict for each in passages(ruleset=table)] == verdicts


def test_a_table_of_the_other_family_does_not_matter() -> None:
    assert passages(ruleset=own_table(family="ip6"))[0].verdict is PASSES
    assert passages(ruleset=own_table(family="ip6"), family=6)[0].verdict is BLOCKED


def test_each_table_that_stops_a_packet_is_named() -> None:
    first, _ = passages(filter_table(ANSWERS), own_table(ESTABLISHED))
    assert rule(first) == "-P FORWARD DROP; policy drop"


def test_a_table_that_accepts_does_not_open_another() -> None:
    first, _ = passages(filter_table(ANSWERS), own_table([ACCEPT]))
    assert (first.verdict, rule(first)) == (BLOCKED, "-P FORWARD DROP")


def test_nft_opens_at_the_head_of_the_chain_that_stops() -> None:
    first, answer = passages(ruleset=own_table())
    assert remedy(first) == "nft insert rule inet own way iifname lan0 oifname wg0 accept"
    assert remedy(answer) == (
        "nft insert rule inet own way iifname wg0 oifname lan0 ct state established,related accept"
    )


def test_a_chain_that_jumps_to_itself_for_ever_is_unknown() -> None:
    first, _ = passages(ruleset=own_table([{"jump": {"target": "a"}}], a=[[{"jump": {"target": "a"}}]]))
    assert first.verdict is UNKNOWN
