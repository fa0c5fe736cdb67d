"""What is in the way of bootstrap is told at once, each thing with its remedy; what is ours is never in the way."""

import json
from pathlib import Path

import pytest
from paths import REPO
from recorder import Recorder

from gfwtools.config.load import loads
from gfwtools.config.model import Config
from gfwtools.setup.preflight import Problem, preflight

VERSION = "Dnsmasq version {} Copyright (c) 2000-2024 Simon Kelley\nCompile time options: IPv6 {}\n"
LINKS = [
    {"ifname": "lo", "flags": ["UP"], "mtu": 65536},
    {"ifname": "eth0", "flags": ["UP"], "mtu": 1500},
    {
        "ifname": "wg0",
        "flags": ["UP"],
        "mtu": 1420,
        "addr_info": [{"local": "10.9.9.2", "prefixlen": 24, "scope": "global"}],
    },
]
RULES = [
    {"priority": 0, "src": "all", "table": "255", "protocol": "2"},
    {"priority": 32766, "src": "all", "table": "254", "protocol": "2"},
]
RULE_4 = ("ip", "-4", "-N", "-d", "-j", "rule")
TABLE_4 = ("ip", "-4", "-N", "-d", "-j", "route", "show", "table", "51820")
SS = ("ss", "-H", "-lntup", "sport = 53")
TOOLS = frozenset({"ip", "sysctl", "dnsmasq", "ipset", "iptables-save", "iptables-restore", "nft"})
Answers = dict[tuple[str, ...], str]


def healthy() -> Answers:
    return {
        ("dnsmasq", "--version"): VERSION.format("2.90", "ipset nftset"),
        ("ipset", "list", "-n"): "",
        ("nft", "list", "tables"): "",
        ("ip", "-j", "link"): json.dumps(LINKS),
        ("ip", "-j", "address"): json.dumps(LINKS),
        ("ip", "-6", "-j", "rule"): "[]",
        RULE_4: json.dumps(RULES),
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text("nameserver 203.0.113.1\n")
    return tmp_path


def look(
    root: Path, answers: Answers | None = None, text: str = "", tools: frozenset[str] = TOOLS, is_root: bool = True
) -> list[Problem]:
    config: Config = loads(text, root=root)
    runner = Recorder({**healthy(), **(answers or {})}, tools=tools)
    problems = preflight(config, runner, is_root=is_root)
    assert runner.changes == []
    assert all(problem.remedy and "\n" not in str(problem) for problem in problems)
    return problems


def only(problems: list[Problem], *words: str) -> None:
    """There is one problem, and it and its remedy say all of these."""
    assert len(problems) == 1, problems
    assert [word for word in words if word not in str(problems[0])] == []


def rule(**entry: object) -> Answers:
    return {RULE_4: json.dumps([*RULES, {"src": "all", "protocol": "0", **entry}])}


def test_nothing_is_in_the_way_on_a_healthy_host(root: Path) -> None:
    assert look(root) == []


def test_all_problems_are_told_at_once(root: Path) -> None:
    answers = {
        **rule(priority=5180, table="100"),
        SS: 'udp UNCONN 0 0 0.0.0.0:53 0.0.0.0:* users:(("named",pid=9,fd=3))\n',
        ("dnsmasq", "--version"): VERSION.format("2.76", "ipset"),
    }
    problems = look(root, answers, '[policy.gfwlist]\ninterface = "tun9"\n', is_root=False)
    told = " ".join(map(str, problems))
    for word in ("root", "2.76", "tun9", "5180", "named"):
        assert word in told
    assert len(problems) == 5


# ---------------------------------------------------------------- programs


def test_who_is_not_root_is_told(root: Path) -> None:
    only(look(root, is_root=False), "not root", "sudo")


@pytest.mark.parametrize(("tool", "package"), [("ip", "iproute2"), ("sysctl", "procps"), ("dnsmasq", "dnsmasq")])
def test_a_missing_program_is_named_with_its_package(root: Path, tool: str, package: str) -> None:
    only(look(root, tools=TOOLS - {tool}), tool, f"install {package}")


@pytest.mark.parametrize(("version", "old"), [("2.79", True), ("2.80", False), ("2.90", False), ("2.9", True)])
def test_a_dnsmasq_before_2_80_is_too_old(root: Path, version: str, old: bool) -> None:
    problems = look(root, {("dnsmasq", "--version"): VERSION.format(version, "ipset nftset")})
    assert [problem.what for problem in problems] == ([f"dnsmasq {version} is too old"] if old else [])


def test_a_dnsmasq_without_the_backends_sets_is_told_with_the_other_backend(root: Path) -> None:
    answers: Answers = {("dnsmasq", "--version"): VERSION.format("2.85", "ipset")}
    only(look(root, answers, '[host]\nbackend = "nftables"\n'), "without nftset", "--backend iptables")


def test_a_kernel_without_sets_is_told_with_what_to_load(root: Path) -> None:
    config = loads('[host]\nbackend = "iptables"\n', root=root)
    answers = {key: value for key, value in healthy().items() if key[0] != "ipset"}
    only(preflight(config, Recorder(answers, tools=TOOLS), is_root=True), "kernel has no ipset", "load ip_set")


# ---------------------------------------------------------------- interfaces


def test_a_missing_interface_is_told_with_those_that_exist(root: Path) -> None:
    problems = look(root, text='[policy.gfwlist]\ninterface = "tun9"\n')
    only(problems, "no interface tun9", "eth0, wg0", "--interface")


DEFAULT_4 = ("ip", "-4", "-N", "-d", "-j", "route", "show", "default")


def kind_of_wg0(link_type: str, kind: str = "", *flags: str, default: str = "eth0") -> Answers:
    """A host whose wg0 is an interface of another kind."""
    link = {**LINKS[2], "link_type": link_type, "flags": ["UP", *flags], "linkinfo": {"info_kind": kind}}
    links = [{**LINKS[0], "link_type": "loopback"}, {**LINKS[1], "link_type": "ether"}, link]
    return {
        ("ip", "-j", "-d", "link"): json.dumps(links),
        DEFAULT_4: json.dumps([{"dst": "default", "dev": default}]),
    }


@pytest.mark.parametrize(
    "answers",
    [
        kind_of_wg0("none", "wireguard", "NOARP"),
        kind_of_wg0("ether", "dummy", "NOARP"),
        kind_of_wg0("ether", "tun"),
        kind_of_wg0("ppp", "ppp", "POINTOPOINT", "NOARP"),
        kind_of_wg0("gre", "gre", "NOARP"),
        kind_of_wg0("none"),
    ],
)
def test_every_kind_of_tunnel_is_accepted(root: Path, answers: Answers) -> None:
    assert look(root, answers) == []


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (kind_of_wg0("ether"), "it is an Ethernet interface"),
        (kind_of_wg0("ether", "bridge"), "it is an Ethernet interface"),
        (kind_of_wg0("ether", "vlan"), "it is an Ethernet interface"),
        (kind_of_wg0("ether", default="wg0"), "it has the default route, to the ISP"),
        (kind_of_wg0("ppp", "ppp", "POINTOPOINT", "NOARP", default="wg0"), "it has the default route, to the ISP"),
    ],
)
def test_the_lan_and_the_way_to_the_isp_are_no_tunnel(root: Path, answers: Answers, reason: str) -> None:
    only(look(root, answers), f"wg0 is not a tunnel: {reason}", "bring the tunnel up", "--interface")


def test_a_wireguard_tunnel_with_the_default_route_is_still_reported_with_table_off(root: Path) -> None:
    only(look(root, kind_of_wg0("none", "wireguard", "NOARP", default="wg0")), "all traffic", "`Table = off`")


@pytest.mark.parametrize(
    ("key", "word"), [('nat = "snat:2001:db8::1"', "nat"), ('routes = ["2001:db8::/32"]', "routes")]
)
def test_an_address_of_a_family_that_the_tunnel_lacks_is_told(root: Path, key: str, word: str) -> None:
    only(look(root, text=f"[policy.gfwlist]\n{key}\n"), f"policy.gfwlist.{word}", "IPv6", "wg0 has no such address")


# ---------------------------------------------------------------- preferences, marks, tables


def test_a_taken_preference_is_told_with_who_has_it(root: Path) -> None:
    only(look(root, rule(priority=5181, table="100")), "preference 5181", "lookup 100", "host.preference")


def test_a_taken_mark_is_told_with_who_has_it(root: Path) -> None:
    only(look(root, rule(priority=77, fwmark="0xca6c", table="100")), "mark 0xca6c", "77:", "lookup 100")


def test_a_mask_that_lets_our_mark_through_takes_it_too(root: Path) -> None:
    only(look(root, rule(priority=77, fwmark="0x6c", fwmask="0xff", table="100")), "mark 0xca6c")


def test_a_table_that_other_rules_lead_to_is_taken(root: Path) -> None:
    only(look(root, rule(priority=77, src="10.1.0.0", srclen=16, table="51820")), "table 51820", "from 10.1.0.0/16")


def test_a_table_with_a_route_elsewhere_is_taken(root: Path) -> None:
    route = [{"type": "1", "dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "protocol": "3"}]
    only(look(root, {TABLE_4: json.dumps(route)}), "table 51820", "via 192.0.2.1 dev eth0", "policy.gfwlist.table")


@pytest.mark.parametrize(
    "entry",
    [
        {"priority": 5180, "table": "254", "suppress_prefixlen": 0, "protocol": "202"},
        {"priority": 5181, "fwmark": "0xca6c", "table": "51820", "protocol": "202"},
        {"priority": 5180, "table": "254", "suppress_prefixlen": 0},
        {"priority": 5181, "fwmark": "0xca6c", "table": "51820"},
        {"priority": 77, "fwmark": "0xbeef", "table": "100"},
    ],
)
def test_our_rules_and_equal_ones_and_others_elsewhere_are_no_problem(root: Path, entry: dict[str, object]) -> None:
    assert look(root, rule(**entry)) == []


@pytest.mark.parametrize(
    "route",
    [
        {"type": "1", "dst": "default", "dev": "wg0", "protocol": "202"},
        {"type": "7", "dst": "default", "protocol": "202"},
        {"type": "1", "dst": "default", "dev": "wg0", "protocol": "3"},
    ],
)
def test_our_routes_and_equal_ones_are_no_problem(root: Path, route: dict[str, str]) -> None:
    assert look(root, {TABLE_4: json.dumps([route])}) == []


SAVED = "*mangle\n:OUTPUT ACCEPT [0:0]\n{}\nCOMMIT\n"


@pytest.mark.parametrize(
    "line",
    [
        "-A OUTPUT -m set --match-set x dst -j MARK --set-xmark 0xca6c/0xffffffff",
        "-A OUTPUT -m mark --mark 0xca6c -j ACCEPT",
        "-A OUTPUT -j MARK --set-mark 51820",
    ],
)
def test_a_foreign_iptables_rule_with_our_mark_is_shown(root: Path, line: str) -> None:
    only(look(root, {("iptables-save",): SAVED.format(line)}), "mark 0xca6c", "iptables -t mangle", line)


@pytest.mark.parametrize(
    "line",
    [
        '-A GFWLIST -m comment --comment "gfwtools: policy gfwlist" -j MARK --set-xmark 0xca6c/0xffffffff',
        "-A OUTPUT -m connmark --mark 0xca6c -j ACCEPT",
        "-A OUTPUT -m mark --mark 0xbeef -j ACCEPT",
    ],
)
def test_our_iptables_rules_and_other_marks_are_no_problem(root: Path, line: str) -> None:
    assert look(root, {("iptables-save",): SAVED.format(line)}) == []


def test_a_chain_of_somebody_elses_with_our_name_is_told_before_it_is_emptied(root: Path) -> None:
    saved = {("iptables-save",): "*mangle\n:GFWLIST - [0:0]\n-A GFWLIST -d 192.0.2.1/32 -j DROP\nCOMMIT\n"}
    only(look(root, saved), "chain iptables mangle GFWLIST", "rename it: iptables -t mangle -E GFWLIST OTHER")
    assert look(root, saved, "[host]\nbackend = 'nftables'\n") == []


def test_a_foreign_nft_rule_with_our_mark_is_shown_with_its_table(root: Path) -> None:
    text = "table inet theirs {\n\tchain c {\n\t\tmeta mark set 0x0000ca6c\n\t\tct mark 0x0000ca6c accept\n\t}\n}\n"
    only(look(root, {("nft", "-t", "list", "ruleset"): text}), "table inet theirs", "meta mark set 0x0000ca6c")


def test_our_nft_table_is_no_problem(root: Path) -> None:
    text = "table inet gfwtools {\n\tchain gfwlist {\n\t\tmeta mark set 0x0000ca6c\n\t}\n}\n"
    assert look(root, {("nft", "-t", "list", "ruleset"): text}) == []


def test_a_tunnel_that_marks_its_own_packets_with_our_mark_is_told(root: Path) -> None:
    only(look(root, {("wg", "show", "wg0", "fwmark"): "0xca6c\n"}), "wg0 marks its own packets", "wg set wg0 fwmark 0")


def test_a_program_where_the_second_dnsmasq_has_to_listen_is_told(root: Path) -> None:
    asked = ("ss", "-H", "-lntup", "sport = 5354")
    text = 'udp UNCONN 0 0 127.0.0.1:5354 0.0.0.0:* users:(("{}",pid={},fd=4))\n'
    split = "[dns]\nlayout = 'split'\n"
    only(look(root, {asked: text.format("stubby", 77)}, split), "port 5354", "stubby (process 77)", "end it")
    assert look(root, {asked: text.format("stubby", 77)}) == []
    (root / "run/gfwtools").mkdir(parents=True)
    (root / "run/gfwtools/dns-gfwlist.pid").write_text("78\n")
    assert look(root, {asked: text.format("dnsmasq", 78)}, split) == []


# ---------------------------------------------------------------- wg-quick

CATCH_ALL = {"priority": 32765, "not": None, "fwmark": "0xca6c", "table": "51820"}


def wireguard(root: Path, text: str) -> None:
    (root / "etc/wireguard").mkdir()
    (root / "etc/wireguard/wg0.conf").write_text(text)


def test_wg_quicks_catch_all_rule_is_told_with_table_off(root: Path) -> None:
    route = [{"type": "1", "dst": "default", "dev": "wg0", "protocol": "3"}]
    answers = {**rule(**CATCH_ALL), TABLE_4: json.dumps(route), ("wg", "show", "wg0", "fwmark"): "0xca6c\n"}
    only(
        look(root, answers), "wg0", "32765: not from all fwmark 0xca6c lookup 51820", "`Table = off`", "wg-quick up wg0"
    )


@pytest.mark.parametrize("networks", ["0.0.0.0/0", "10.0.0.0/8,0.0.0.0/0, ::/0", "::/0", "0.0.0.0/1, 128.0.0.0/1"])
def test_a_file_with_all_addresses_and_no_table_off_is_told(root: Path, networks: str) -> None:
    wireguard(root, f"[Interface]\nPrivateKey = x\nAddress = 10.8.0.2/32\n[Peer]\nAllowedIPs = {networks} # all\n")
    only(look(root), "/etc/wireguard/wg0.conf", "AllowedIPs", "`Table = off`")


#: What `wg setconf` reads; examples/wg0.conf has the same keys.
SETCONF = "[Interface]\nPrivateKey = x\n[Peer]\nAllowedIPs = 0.0.0.0/0\n"


def test_a_file_for_wg_setconf_is_not_wg_quicks_and_no_problem(root: Path) -> None:
    wireguard(root, SETCONF)
    assert look(root) == []


def test_the_example_without_wg_quick_passes_preflight(root: Path) -> None:
    wireguard(root, (REPO / "examples/wg0.conf").read_text())
    assert look(root) == []


@pytest.mark.parametrize("verb", ["is-enabled", "is-active"])
def test_a_file_that_wg_quicks_service_reads_is_wg_quicks(root: Path, verb: str) -> None:
    wireguard(root, SETCONF)
    unit = ("systemctl", f"--root={root}", verb, "wg-quick@wg0.service")
    only(look(root, {unit: "yes\n"}), "/etc/wireguard/wg0.conf", "AllowedIPs", "`Table = off`")


def test_a_file_that_openrcs_service_of_wg_quick_reads_is_wg_quicks(root: Path) -> None:
    wireguard(root, SETCONF)
    (root / "etc/runlevels/default").mkdir(parents=True)
    (root / "etc/runlevels/default/wg-quick.wg0").symlink_to("/etc/init.d/wg-quick.wg0")
    only(look(root), "/etc/wireguard/wg0.conf", "AllowedIPs", "`Table = off`")


@pytest.mark.parametrize(
    "text",
    [
        "[Interface]\nTable = off\n[Peer]\nAllowedIPs = 0.0.0.0/0\n",
        "[interface]\ntable=off # we route\n[peer]\nallowedips=0.0.0.0/0,::/0\n",
        "[Interface]\nTable = 1234\n[Peer]\nAllowedIPs = 0.0.0.0/0\n",
        "[Interface]\nAddress = 10.8.0.2/32\n[Peer]\nAllowedIPs = 10.0.0.0/8\n",
    ],
)
def test_a_file_that_takes_not_all_traffic_is_no_problem(root: Path, text: str) -> None:
    wireguard(root, text)
    assert look(root) == []


def test_the_rule_and_the_file_of_one_interface_are_one_problem(root: Path) -> None:
    wireguard(root, "[Interface]\nAddress = 10.8.0.2/32\n[Peer]\nAllowedIPs = 0.0.0.0/0\n")
    assert len(look(root, rule(**CATCH_ALL))) == 1


def test_a_default_route_into_the_tunnel_is_told(root: Path) -> None:
    routes = [{"dst": "default", "dev": "eth0", "metric": 100}, {"dst": "default", "dev": "wg0"}]
    only(
        look(root, {("ip", "-4", "-N", "-d", "-j", "route", "show", "default"): json.dumps(routes)}),
        "wg0",
        "all traffic",
    )


# ---------------------------------------------------------------- OpenRC


def test_all_that_openrc_lacks_is_said_in_one_run(root: Path) -> None:
    (root / "run/openrc").mkdir(parents=True)
    (root / "run/openrc/softlevel").write_text("default\n")
    problems = " ".join(map(str, look(root)))
    assert all(word in problems for word in ("rc-service:", "rc-update:", "no service local", "--init none"))
    (root / "etc/init.d").mkdir()
    (root / "etc/init.d/local").write_text("#!/sbin/openrc-run\n")
    assert "no service local" in " ".join(map(str, look(root))), "it is not executable"
    (root / "etc/init.d/local").chmod(0o755)
    assert look(root, tools=TOOLS | {"rc-service", "rc-update"}) == []


# ---------------------------------------------------------------- port 53 and resolvers


@pytest.mark.parametrize("address", ["0.0.0.0:53", "*:53", "[::]:53", "127.0.0.1:53", "127.0.0.1%lo:53"])
def test_a_program_at_port_53_is_named(root: Path, address: str) -> None:
    line = f'udp UNCONN 0 0 {address} 0.0.0.0:* users:(("unbound",pid=812,fd=5))\n'
    only(
        look(root, {SS: line + line.replace("udp", "tcp")}), "port 53", "unbound (process 812)", "disable --now unbound"
    )


def process(root: Path, pid: int, words: str, unit: str = "", parent: int = 1) -> None:
    """What the kernel says of a process (proc(5), cgroups(7))."""
    place = root / f"proc/{pid}"
    place.mkdir(parents=True)
    (place / "cmdline").write_text(words.replace(" ", "\0") + "\0")
    (place / "cgroup").write_text(f"0::/system.slice/{unit or 'session-1.scope'}\n")
    (place / "stat").write_text(f"{pid} ({words.split()[0]}) S {parent} 0 0\n")


def with_systemd(root: Path, answers: Answers) -> Answers:
    (root / "run/systemd/system").mkdir(parents=True)
    return {("systemctl", "show", "--property=MainPID", "--value", "dnsmasq.service"): "700\n", **answers}


def listening(address: str, *pids: int, program: str = "dnsmasq") -> Answers:
    users = ",".join(f'("{program}",pid={pid},fd=5)' for pid in pids)
    return {SS: f"udp UNCONN 0 0 {address}:53 0.0.0.0:* users:({users})\n"}


def test_the_unit_of_the_program_at_port_53_is_named(root: Path) -> None:
    process(root, 812, "/usr/sbin/ads-dns", "ads.service")
    answers = with_systemd(root, listening("0.0.0.0", 812, program="ads-dns"))
    only(look(root, answers), "ads-dns (process 812, ads.service)", "systemctl disable --now ads.service")


def test_a_second_dnsmasq_at_every_address_is_named_with_unit_and_way_out(root: Path) -> None:
    process(root, 812, "dnsmasq -C /etc/ap.conf", "ap.service")
    answers = with_systemd(root, listening("0.0.0.0", 812))
    only(
        look(root, answers),
        "dnsmasq (process 812, /etc/ap.conf, ap.service) at 0.0.0.0",
        "systemctl disable --now ap.service",
        "bind-interfaces in /etc/ap.conf",
    )


def test_a_dnsmasq_that_was_started_by_hand_is_not_the_service(root: Path) -> None:
    process(root, 812, "dnsmasq")
    only(look(root, with_systemd(root, listening("127.0.0.1", 812))), "dnsmasq (process 812)", "kill 812")


@pytest.mark.parametrize(("pid", "parent"), [(700, 1), (812, 700), (812, 790)])
def test_the_services_dnsmasq_and_its_children_are_no_problem(root: Path, pid: int, parent: int) -> None:
    process(root, 790, "dnsmasq", "dnsmasq.service", parent=700)
    process(root, pid, "dnsmasq", "dnsmasq.service", parent=parent)
    assert look(root, with_systemd(root, listening("0.0.0.0", pid))) == []


def test_the_dnsmasq_of_network_manager_gives_up_the_port_by_itself(root: Path) -> None:
    process(
        root, 812, "dnsmasq --conf-file=/dev/null --pid-file=/run/NetworkManager/dnsmasq.pid", "NetworkManager.service"
    )
    assert look(root, with_systemd(root, listening("127.0.0.1", 812))) == []


@pytest.mark.parametrize(
    "line",
    [
        'udp UNCONN 0 0 127.0.0.1:53 0.0.0.0:* users:(("dnsmasq",pid=812,fd=5))',
        'udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=812,fd=5))',
        'udp UNCONN 0 0 10.0.3.1:53 0.0.0.0:* users:(("named",pid=812,fd=5))',
    ],
)
def test_dnsmasq_and_resolved_and_other_addresses_are_no_problem(root: Path, line: str) -> None:
    assert look(root, {SS: line}) == []


def test_a_program_at_the_lans_address_is_in_the_way_of_a_gateway(root: Path) -> None:
    line = 'udp UNCONN 0 0 192.168.7.1:53 0.0.0.0:* users:(("named",pid=812,fd=5))'
    text = '[host]\ngateway = true\n[dns]\nlisten = ["192.168.7.1"]\n'
    only(look(root, {SS: line}, text), "named")


def test_without_any_resolver_the_key_is_named(root: Path) -> None:
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    only(look(root), "no resolver", "dns.resolvers")
    (root / "etc/dnsmasq.conf").write_text("server=203.0.113.1\n")
    assert look(root) == []
