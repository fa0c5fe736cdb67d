"""``bootstrap`` proven by packets: blocked through a real WireGuard tunnel, everything else directly."""

import itertools
import json
from collections.abc import Iterator

import pytest
from given_back import everything
from lab import (
    BLOCKED,
    BLOCKED6,
    ENDPOINT,
    FREE,
    GATEWAY_WAN,
    GATEWAY_WAN6,
    ISP_DNS,
    LIST,
    POISON,
    TUNNEL,
    TUNNEL6,
    Lab,
)

pytestmark = pytest.mark.e2e

BACKENDS = ["iptables", "nftables"]
LAYOUTS = ["paired", "split"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def test_the_lab_blocks_and_lies_before_bootstrap(lab: Lab) -> None:
    assert lab.open(lab.gateway, "free.example") == GATEWAY_WAN
    assert lab.resolve(lab.gateway, "blocked.example") == POISON
    assert lab.visit(lab.gateway, BLOCKED, 1) == "error: timed out"
    assert lab.leaked() > 0
    assert lab.visit(lab.gateway, "2001:db8:f::80") == GATEWAY_WAN6


@pytest.mark.parametrize(("backend", "layout"), list(itertools.product(BACKENDS, LAYOUTS)))
def test_blocked_goes_through_the_tunnel_and_free_directly_for_the_host_and_its_lan(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.bootstrap()
        for host in (lab.gateway, lab.client):
            assert lab.open(host, "blocked.example") == TUNNEL
            assert lab.open(host, "free.example") == GATEWAY_WAN
            assert lab.open(host, "ok.blocked.example") == GATEWAY_WAN  # an exception
            assert lab.visit(host, "198.18.0.99") == TUNNEL  # an IP rule
        assert lab.leaked() == 0


@pytest.mark.parametrize(("rp_filter", "src_valid_mark"), list(itertools.product((0, 1, 2), (0, 1))))
def test_it_works_whatever_the_reverse_path_filter(backend: str, rp_filter: int, src_valid_mark: int) -> None:
    with Lab(rp_filter=rp_filter, src_valid_mark=src_valid_mark) as lab:
        lab.configure(backend)
        lab.bootstrap()
        for host in (lab.gateway, lab.client):
            assert lab.open(host, "blocked.example") == TUNNEL
            assert lab.open(host, "free.example") == GATEWAY_WAN


def test_ipv6_is_tunnelled_where_the_tunnel_has_it(backend: str) -> None:
    with Lab(ipv6=True) as lab:
        lab.configure(backend)
        lab.bootstrap()
        assert lab.resolve(lab.gateway, "blocked.example", "AAAA") == BLOCKED6
        for host in (lab.gateway, lab.client):
            assert lab.open(host, "blocked.example", "AAAA") == TUNNEL6
        assert lab.open(lab.gateway, "free.example", "AAAA") == GATEWAY_WAN6
        assert lab.leaked() == 0


def test_ipv6_is_refused_and_never_leaked_where_the_tunnel_has_none(lab: Lab, backend: str) -> None:
    lab.configure(backend)
    lab.bootstrap()
    assert lab.resolve(lab.gateway, "blocked.example", "AAAA") == BLOCKED6
    for host in (lab.gateway, lab.client):
        assert lab.open(host, "blocked.example", "AAAA").startswith("error: "), host
        assert lab.open(host, "free.example", "AAAA") != "no address"
    assert lab.leaked() == 0


def test_with_the_tunnel_down_nothing_leaves_by_the_wan_and_up_again_it_works(lab: Lab, backend: str) -> None:
    lab.configure(backend)
    lab.bootstrap()
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    lab.gateway.run("ip", "link", "set", "wg0", "down")
    assert lab.visit(lab.gateway, BLOCKED, 1).startswith("error: ")
    assert lab.visit(lab.client, BLOCKED, 1).startswith("error: ")
    assert lab.leaked() == 0
    lab.gateway.run("ip", "link", "set", "wg0", "up")
    lab.gateway.gfwtools("up")
    assert lab.visit(lab.client, BLOCKED) == TUNNEL
    assert lab.visit(lab.gateway, BLOCKED) == TUNNEL


def test_the_endpoint_in_the_set_does_not_kill_the_tunnel(lab: Lab, backend: str) -> None:
    lab.configure(backend)
    lab.bootstrap()
    assert lab.resolve(lab.gateway, "endpoint.blocked.example") == ENDPOINT
    assert lab.open(lab.gateway, "blocked.example") == TUNNEL
    assert lab.open(lab.client, "blocked.example") == TUNNEL


def test_a_second_bootstrap_runs_no_changing_command(lab: Lab, backend: str) -> None:
    lab.configure(backend, "split")
    lab.bootstrap()
    before = everything(lab)
    result = lab.gateway.gfwtools("-v", "bootstrap", "--interface", "wg0", "--init", "none", "--yes")
    assert "+ " not in result.stderr
    assert "wrote" not in result.stdout
    assert everything(lab) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_teardown_leaves_no_trace(lab: Lab, backend: str, layout: str) -> None:
    lab.configure(backend, layout)
    before = everything(lab)
    lab.bootstrap()
    assert everything(lab) != before
    lab.gateway.gfwtools("teardown", "--yes")
    assert everything(lab) == before
    assert lab.gateway.run("ls", "/etc/gfwtools/config.toml").returncode == 0
    lab.gateway.gfwtools("teardown", "--yes", "--purge")
    assert everything(lab) == before
    assert lab.gateway.run("sh", "-c", "ls -d /etc/gfwtools /var/lib/gfwtools 2>/dev/null", code=None).stdout == ""


def test_the_dry_run_names_every_file_that_the_run_writes_and_changes_nothing(lab: Lab, backend: str) -> None:
    lab.configure(backend, "split")
    before = everything(lab)
    script = lab.bootstrap("--dry-run").stdout
    assert everything(lab) == before
    wrote = [line.removeprefix("wrote ") for line in lab.bootstrap().stdout.splitlines() if line.startswith("wrote ")]
    assert len(wrote) >= 5
    assert [path for path in wrote if f" {path}" not in script] == []


def test_down_and_up_bring_the_learned_addresses_back(lab: Lab, backend: str) -> None:
    lab.configure(backend)
    lab.bootstrap()
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    lab.gateway.gfwtools("down")
    assert lab.visit(lab.gateway, BLOCKED, 1) == "error: timed out"
    lab.gateway.gfwtools("up")
    # Without asking dnsmasq again: the client has the address in a cache of its own.
    assert lab.visit(lab.client, BLOCKED) == TUNNEL


def test_after_a_flush_of_the_sets_up_has_a_name_in_dnsmasqs_cache_tunnelled_again(lab: Lab, backend: str) -> None:
    lab.configure(backend)
    lab.bootstrap()
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    if backend == "iptables":
        lab.gateway.run("ipset", "flush", "gfwlist")
    else:
        for name in ("gfwlist4", "gfwlist_seed4"):
            lab.gateway.run("nft", "flush", "set", "inet", "gfwtools", name)
    lab.gateway.gfwtools("up")
    # An answer from the cache would add nothing to the set.
    assert lab.open(lab.client, "blocked.example") == TUNNEL


def test_somebody_flushes_a_rule_and_check_host_names_it_and_up_mends_it(lab: Lab, backend: str) -> None:
    lab.configure(backend)
    lab.bootstrap()
    lab.gateway.gfwtools("check", "host")
    if backend == "iptables":
        lab.gateway.run("iptables", "-t", "mangle", "-F", "OUTPUT")
    else:
        lab.gateway.run("nft", "flush", "chain", "inet", "gfwtools", "output")
    lab.gateway.run("ip", "rule", "del", "pref", "5181")
    findings = json.loads(lab.gateway.gfwtools("check", "host", "--json", code=1).stdout)
    assert all(set(finding) == {"name", "state", "detail", "remedy"} for finding in findings)
    bad = {finding["name"] for finding in findings if finding["state"] != "OK"}
    assert any("OUTPUT" in name or "output" in name for name in bad), bad
    assert any("5181" in name for name in bad), bad
    lab.gateway.gfwtools("up")
    lab.gateway.gfwtools("check", "host")


def test_what_is_in_the_way_is_told_all_at_once_and_nothing_is_changed(lab: Lab) -> None:
    lab.configure()
    before = everything(lab)
    lab.gateway.run("ip", "rule", "add", "pref", "77", "fwmark", "0xca6c", "lookup", "main")
    lab.gateway.run("ip", "rule", "add", "pref", "5180", "to", "192.0.2.0/24", "lookup", "main")
    lab.gateway.run("ip", "route", "add", "192.0.2.128/25", "dev", "lan0", "table", "51820")
    result = lab.gateway.gfwtools("bootstrap", "--interface", "wg7", "--init", "none", "--yes", code=1)
    for message in ("no interface wg7", "0xca6c", "51820", "5180"):
        assert message in result.stderr
    assert "4 problems to fix first" in result.stderr
    for rule in ("77", "5180"):
        lab.gateway.run("ip", "rule", "del", "pref", rule)
    lab.gateway.run("ip", "route", "flush", "table", "51820")
    assert everything(lab) == before


def test_when_dnsmasq_does_not_come_up_the_host_is_as_it_was(lab: Lab, backend: str) -> None:
    lab.configure(backend)
    lab.gateway.write("/etc/restart-dns", "exit 7\n")
    before = everything(lab)
    result = lab.bootstrap(code=1)
    assert "restart dnsmasq" in result.stderr
    assert everything(lab) == before


def test_two_policies_with_two_tunnels_work_side_by_side(lab: Lab, backend: str) -> None:
    lab.gateway.run(
        "sh",
        "-ec",
        "ip link add tun1 type veth peer name tun1p; ip address add 10.8.0.2/24 dev tun1; ip link set tun1 up; ip link set tun1p up",
    )
    lab.gateway.write("/etc/work.txt", "work.example\n")
    lab.configure(
        backend,
        more='[policy.work]\nformat = "domains"\nsources = ["/etc/work.txt"]\ninterface = "tun1"\nseeds = ["198.51.100.128/25"]\n',
    )
    lab.bootstrap()
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    route = lab.gateway.run("ip", "-j", "route", "get", "198.51.100.200", "mark", str(0xCA6D)).stdout
    assert json.loads(route)[0]["dev"] == "tun1"
    assert lab.open(lab.client, "free.example") == GATEWAY_WAN


def test_a_list_that_grows_is_taken_up_by_the_cron_job(lab: Lab, backend: str) -> None:
    lab.configure(backend, "split")
    lab.bootstrap()
    assert lab.open(lab.client, "free.example") == GATEWAY_WAN
    lab.gateway.write("/etc/list.txt", LIST + "||free.example\n")
    lab.gateway.gfwtools("-q", "update", "--reload")
    # The clean resolver is asked now; its answer is the same site, which only the ISP reaches: the way is the tunnel's.
    assert lab.resolve(lab.gateway, "free.example") == FREE
    assert lab.visit(lab.gateway, FREE, 1) != GATEWAY_WAN


def test_an_existing_configuration_keeps_every_byte_and_refuses_an_option_against_it(lab: Lab) -> None:
    lab.configure("nftables", "split")
    before = lab.gateway.read("/etc/gfwtools/config.toml")
    result = lab.bootstrap("--backend", "iptables", code=1)
    assert "host.backend is 'nftables' there" in result.stderr
    lab.bootstrap("--backend", "nftables", "--gateway", "--layout", "split")
    assert lab.gateway.read("/etc/gfwtools/config.toml") == before


def test_a_fresh_host_gets_a_configuration_with_every_key_and_its_backend(lab: Lab) -> None:
    from gfwtools.config.load import loads

    lab.gateway.run("rm", "-rf", "/etc/gfwtools")
    lab.gateway.gfwtools("bootstrap", "--interface", "wg0", "--gateway", "--init", "none", "--yes", code=None)
    config = loads(lab.gateway.read("/etc/gfwtools/config.toml"))
    assert config.host.gateway
    assert config.host.backend == "iptables"
    assert lab.gateway.read("/etc/gfwtools/config.toml").count("#") > 30


def test_a_second_policy_in_the_split_layout_has_a_second_dnsmasq_of_its_own(lab: Lab, backend: str) -> None:
    make = "ip link add tun1 type veth peer name tun1p; ip address add 10.8.0.2/24 dev tun1; ip link set tun1 up"
    lab.gateway.run("sh", "-ec", f"{make}; ip link set tun1p up")
    lab.gateway.write("/etc/work.txt", "work.example\n")
    lab.configure(backend, "split")
    before = everything(lab)
    lab.bootstrap()
    more = '[policy.work]\nformat = "domains"\nsources = ["/etc/work.txt"]\ninterface = "tun1"\n'
    lab.configure(backend, "split", more=more)
    lab.bootstrap()
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    for policy in ("gfwlist", "work"):
        assert lab.gateway.run("ls", f"/run/gfwtools/dns-{policy}.pid").returncode == 0
    lab.gateway.gfwtools("teardown", "--yes")
    assert everything(lab) == before


def test_a_second_bootstrap_that_fails_takes_back_only_what_it_did(lab: Lab, backend: str) -> None:
    lab.configure(backend)
    lab.bootstrap()
    make = "ip link add tun1 type veth peer name tun1p; ip address add 10.8.0.2/24 dev tun1; ip link set tun1 up"
    lab.gateway.run("sh", "-ec", f"{make}; ip link set tun1p up")
    lab.gateway.write("/etc/work.txt", "work.example\n")
    more = 'granularity = "host"\n[policy.work]\nformat = "domains"\nsources = ["/etc/work.txt"]\ninterface = "tun1"\n'
    lab.configure(backend, more=more)
    restart = lab.gateway.read("/etc/restart-dns")
    lab.gateway.write("/etc/restart-dns", f"[ -e /etc/dnsmasq.d/work.conf ] && exit 7\n{restart}")
    unchanged = everything(lab)
    lab.bootstrap(code=1)
    assert everything(lab) == unchanged
    lab.gateway.write("/etc/restart-dns", restart)
    assert lab.open(lab.client, "blocked.example") == TUNNEL


def test_what_was_written_between_two_bootstraps_is_what_teardown_gives_back(lab: Lab) -> None:
    lab.configure()
    lab.bootstrap()
    lab.gateway.write("/etc/resolv.conf", f"nameserver {ISP_DNS}\nsearch lan.example\n")
    lab.gateway.run("sh", "-c", "echo log-queries >>/etc/dnsmasq.conf; chown 1234:1234 /etc/dnsmasq.conf")
    lab.bootstrap()
    lab.gateway.gfwtools("teardown", "--yes")
    assert lab.gateway.read("/etc/resolv.conf") == f"nameserver {ISP_DNS}\nsearch lan.example\n"
    assert lab.gateway.read("/etc/dnsmasq.conf") == "user=root\nlog-queries\n"
    assert lab.gateway.run("stat", "-c", "%u:%g", "/etc/dnsmasq.conf").stdout == "1234:1234\n"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_somebody_elses_file_at_our_place_is_kept_and_given_back(lab: Lab, backend: str, layout: str) -> None:
    lab.configure(backend, layout)
    lab.gateway.write("/etc/dnsmasq.d/gfwlist.conf", "# mine\nserver=/my.corp/10.0.0.1\n")
    lab.gateway.run("chown", "1234:1234", "/etc/dnsmasq.d/gfwlist.conf")
    before = everything(lab)
    told = lab.bootstrap()
    assert (
        "/etc/dnsmasq.d/gfwlist.conf: not written by gfwtools; it is replaced, and teardown gives it back"
        in told.stderr
    )
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    lab.bootstrap()
    lab.gateway.gfwtools("update", "--force")
    assert "put back /etc/dnsmasq.d/gfwlist.conf" in lab.gateway.gfwtools("teardown", "--yes").stdout
    assert everything(lab) == before
    assert lab.gateway.run("stat", "-c", "%u:%g", "/etc/dnsmasq.d/gfwlist.conf").stdout == "1234:1234\n"
    # The state still knows the path; what is there now is not ours all the same.
    assert "put back" not in lab.gateway.gfwtools("teardown", "--yes").stdout
    assert everything(lab) == before
    lab.bootstrap()
    lab.gateway.gfwtools("teardown", "--yes")
    assert everything(lab) == before


def test_a_file_of_ours_that_somebody_has_edited_is_no_original(lab: Lab) -> None:
    lab.configure()
    before = everything(lab)
    lab.bootstrap()
    for path in ("/etc/resolv.conf", "/etc/dnsmasq.d/00-gfwtools.conf"):
        lab.gateway.run("sh", "-c", f"echo '# edited' >>{path}")
    lab.bootstrap()
    lab.gateway.gfwtools("teardown", "--yes")
    assert everything(lab) == before


def test_a_teardown_that_leaves_an_edited_file_says_how_to_go_back(lab: Lab) -> None:
    lab.configure()
    before = everything(lab)
    lab.bootstrap()
    lab.gateway.run("sh", "-c", "echo '# edited' >>/etc/resolv.conf")
    done = lab.gateway.gfwtools("teardown", "--yes", "--purge")
    assert "put back /etc/resolv.conf" not in done.stdout
    _, _, command = done.stderr.partition("it is not touched; what was there before: ")
    lab.gateway.run("sh", "-c", command)
    assert everything(lab) == before


def test_a_teardown_with_nothing_to_undo_leaves_dnsmasq_alone(lab: Lab) -> None:
    lab.configure()
    lab.gateway.run("sh", "/etc/restart-dns")
    before = lab.gateway.read("/run/dnsmasq/dnsmasq.pid")
    lab.gateway.gfwtools("teardown", "--yes")
    assert lab.gateway.read("/run/dnsmasq/dnsmasq.pid") == before


def test_a_port_that_resolv_conf_cannot_name_is_in_the_way(lab: Lab) -> None:
    lab.configure()
    lab.gateway.write("/etc/dnsmasq.conf", "user=root\nport=5353\n")
    assert "port=5353" in lab.bootstrap(code=1).stderr
