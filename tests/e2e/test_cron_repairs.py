"""``update --reload`` with nothing new repairs the host: plumbing, daemons and the tunnel's endpoint."""

import itertools
import json
import time
from collections.abc import Iterator

import pytest
from lab import ENDPOINT, TUNNEL, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: Another address of the far end.
MOVED = "198.51.100.52"
KILL_MAIN = "kill $(cat /run/dnsmasq/dnsmasq.pid); rm -f /run/dnsmasq/dnsmasq.pid; sleep 0.3"
#: What is broken -> how, by backend.
FAULTS: dict[str, dict[str, str]] = {
    "the rule set is flushed": {
        # As /etc/nftables.conf begins. The lab's own rule is put back.
        "": "nft flush ruleset; iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE",
    },
    "the chain is flushed": {
        "iptables": "iptables -t mangle -F GFWLIST",
        "nftables": "nft flush chain inet gfwtools GFWLIST",
    },
    "the ip rule is deleted": {"": "ip rule del pref 5181"},
    "the table is flushed": {"": "ip route flush table 51820"},
    "the set is deleted": {
        # nf_tables lets go of the set a moment after the rules are gone.
        "iptables": "iptables -t mangle -F GFWLIST; iptables -t mangle -F GFWLIST_KILL; for i in 1 2 3 4 5 6 7 8 9; do "
        "ipset destroy gfwlist 2>/dev/null && exit 0; sleep 0.1; done; exit 1",
        "nftables": "for c in GFWLIST GFWLIST_KILL; do nft flush chain inet gfwtools $c; done; "
        "nft delete set inet gfwtools gfwlist4",
    },
    "dnsmasq is dead": {"": KILL_MAIN},
    "dnsmasq was started with another configuration": {
        "": f"{KILL_MAIN}; dnsmasq --conf-file=/etc/elsewhere.conf --pid-file=/run/dnsmasq/dnsmasq.pid"
    },
}
ELSEWHERE = "user=root\nno-resolv\nserver=192.0.2.53\nlisten-address=127.0.0.1,192.168.7.1\nbind-interfaces\n"


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab() as lab:
        set_up(lab, *request.param)
        yield lab


def set_up(lab: Lab, backend: str, layout: str) -> None:
    lab.configure(backend, layout)
    lab.bootstrap()
    lab.gateway.write("/etc/elsewhere.conf", ELSEWHERE)
    assert opened(lab) == TUNNEL


def config_has(lab: Lab, value: str) -> bool:
    return f'"{value}"' in lab.gateway.read("/etc/gfwtools/config.toml")


def breaks(lab: Lab, scripts: dict[str, str]) -> None:
    backend = "iptables" if config_has(lab, "iptables") else "nftables"
    lab.gateway.run("sh", "-ec", scripts[""] if "" in scripts else scripts[backend])


def opened(lab: Lab) -> str:
    """Who the blocked site saw when the LAN's client has asked for its name and visited it."""
    try:
        address = lab.resolve(lab.client, "blocked.example")
    except AssertionError:  # dnsmasq does not answer
        return "no answer"
    return lab.visit(lab.client, address, 1) if address else "no address"


def cron(lab: Lab, code: int = 0) -> str:
    """What a run of cron writes into the log."""
    done = lab.gateway.gfwtools("-q", "update", "--reload", code=code)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("what", FAULTS)
def test_what_cron_can_repair_it_repairs(lab: Lab, what: str) -> None:
    breaks(lab, FAULTS[what])
    assert opened(lab) != TUNNEL
    cron(lab)
    assert opened(lab) == TUNNEL


def test_of_a_repair_there_is_one_line_in_the_log_and_none_on_a_healthy_host(lab: Lab) -> None:
    assert cron(lab) == ""
    breaks(lab, FAULTS["the ip rule is deleted"])
    assert cron(lab) == "gfwtools: repaired: ip rule 5181 (IPv4)\n"
    assert cron(lab) == ""


def test_a_host_that_was_repaired_is_in_order(lab: Lab) -> None:
    breaks(lab, FAULTS["the rule set is flushed"])
    breaks(lab, FAULTS["dnsmasq is dead"])
    line = cron(lab)
    assert line.count("\n") == 1
    assert "restarted dnsmasq" in line
    assert all(piece["state"] == "OK" for piece in json.loads(lab.gateway.gfwtools("check", "host", "--json").stdout))


def test_it_repairs_the_host_though_no_mirror_answers(lab: Lab) -> None:
    own = lab.gateway.read("/etc/gfwtools/config.toml")
    lab.gateway.write("/etc/gfwtools/config.toml", own.replace('"/etc/list.txt"', '"http://mirror.blocked.example/"'))
    try:
        breaks(lab, FAULTS["dnsmasq is dead"])
        assert "repaired: restarted" in cron(lab, code=1)
        assert opened(lab) == TUNNEL
    finally:
        lab.gateway.write("/etc/gfwtools/config.toml", own)


def test_what_was_taken_down_by_hand_stays_down_until_up(lab: Lab) -> None:
    lab.gateway.gfwtools("down")
    try:
        assert cron(lab) == ""
        assert opened(lab) != TUNNEL
        found = lab.gateway.gfwtools("check", "host", code=1).stdout
        assert "taken down by `gfwtools down`" in found
        assert "taken down by `gfwtools down`" in " ".join(lab.gateway.gfwtools("status").stdout.split())
    finally:
        lab.gateway.gfwtools("up")
    assert opened(lab) == TUNNEL
    breaks(lab, FAULTS["the ip rule is deleted"])
    assert "repaired" in cron(lab)


def test_after_a_reboot_cron_brings_up_what_was_taken_down_before_it(lab: Lab) -> None:
    lab.gateway.gfwtools("down")
    lab.gateway.run("rm", "/run/gfwtools/down")  # as /run is after a boot
    assert "repaired" in cron(lab)
    assert opened(lab) == TUNNEL


def test_the_option_of_units_leaves_down_what_was_taken_down(lab: Lab) -> None:
    lab.gateway.gfwtools("down")
    assert "stays down" in lab.gateway.gfwtools("up", "--unless-down").stdout
    lab.gateway.gfwtools("up")
    breaks(lab, FAULTS["the ip rule is deleted"])
    assert "ip rule 5181" in lab.gateway.gfwtools("up", "--unless-down").stdout


def test_what_cannot_be_repaired_is_named_with_what_to_do(lab: Lab) -> None:
    good = lab.gateway.read("/etc/dnsmasq.conf")
    lab.gateway.write("/etc/dnsmasq.conf", f"{good}nonsense\n")
    breaks(lab, FAULTS["dnsmasq is dead"])
    line = cron(lab, code=1)
    assert "not repaired" in line
    assert "bad option" in line
    breaks(lab, FAULTS["the ip rule is deleted"])
    assert "repaired: ip rule 5181 (IPv4)" in cron(lab, code=1), "the other parts are repaired all the same"
    lab.gateway.write("/etc/dnsmasq.conf", good)
    assert "repaired: restarted" in cron(lab)
    assert opened(lab) == TUNNEL


def test_with_the_manager_none_a_dead_dnsmasq_is_named_and_not_started(lab: Lab) -> None:
    own = lab.gateway.read("/etc/gfwtools/config.toml")
    lab.gateway.write("/etc/gfwtools/config.toml", own.replace('manager = "command"', 'manager = "none"'))
    breaks(lab, FAULTS["dnsmasq is dead"])
    line = cron(lab, code=1)
    assert "dnsmasq does not answer at 127.0.0.1#53" in line
    assert 'dns.manager = "none"' in line
    assert opened(lab) == "no answer"
    lab.gateway.write("/etc/gfwtools/config.toml", own)
    cron(lab)
    assert opened(lab) == TUNNEL


@pytest.mark.parametrize("lab", [pair for pair in PAIRS if "split" in pair], ids="-".join, indirect=True)
@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_a_second_dnsmasq_that_is_dead_or_hangs_is_restarted(lab: Lab, signal: str) -> None:
    restart = lab.gateway.read("/etc/restart-dns")
    lab.gateway.write("/etc/restart-dns", restart.replace('kill "$number"', 'kill -KILL "$number"'))
    # The main one has the answer in its cache, too.
    kill = f"kill -{signal} $(cat /run/gfwtools/dns-gfwlist.pid); kill -HUP $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.3"
    lab.gateway.run("sh", "-ec", kill)
    assert opened(lab) != TUNNEL
    assert "repaired: restarted" in cron(lab)
    assert opened(lab) == TUNNEL
    lab.gateway.write("/etc/restart-dns", restart)


def test_a_tunnel_whose_endpoint_was_moved_into_the_set_is_let_out_of_itself(lab: Lab) -> None:
    move_far_end(lab, MOVED)
    add_to_set(lab, MOVED)
    lab.gateway.run("sh", "-ec", f"wg set wg0 peer $(wg show wg0 peers) endpoint {MOVED}:51820")
    assert opened(lab) != TUNNEL
    assert "repaired" in cron(lab)
    require_tunnel(lab)
    move_far_end(lab, ENDPOINT)
    lab.gateway.run("sh", "-ec", f"wg set wg0 peer $(wg show wg0 peers) endpoint {ENDPOINT}:51820")
    cron(lab)
    require_tunnel(lab)


def test_a_dead_tunnel_follows_the_name_of_its_endpoint_into_the_set(lab: Lab) -> None:
    key = lab.gateway.run("wg", "show", "wg0", "peers").stdout.strip()
    lab.gateway.write("/etc/wireguard/wg0.conf", f"[Peer]\nPublicKey = {key}\nEndpoint = vpn.example:51820\n")
    name_far_end(lab, ENDPOINT)
    assert cron(lab) == ""
    for address in (MOVED, ENDPOINT):
        add_to_set(lab, address)
        name_far_end(lab, address)
        assert cron(lab) == "", "a tunnel that works is left alone"
        move_far_end(lab, address)
        assert opened(lab) != TUNNEL
        assert f"vpn.example, the endpoint of wg0, is {address} now" in cron(lab)
        require_tunnel(lab)
        assert cron(lab) == ""
    lab.gateway.run("rm", "/etc/wireguard/wg0.conf")


def test_an_endpoint_without_an_address_is_named_where_the_tunnel_is_dead(lab: Lab) -> None:
    key = lab.gateway.run("wg", "show", "wg0", "peers").stdout.strip()
    lab.gateway.write("/etc/wireguard/wg0.conf", f"[Peer]\nPublicKey = {key}\nEndpoint = gone.example:51820\n")
    assert cron(lab) == ""
    lab.far.run("ip", "link", "set", "wg0", "down")
    line = cron(lab, code=1)
    assert "its endpoint gone.example has no address" in line
    assert "allow.txt" in line
    lab.far.run("ip", "link", "set", "wg0", "up")
    lab.gateway.run("rm", "/etc/wireguard/wg0.conf")
    require_tunnel(lab)


def test_an_update_beside_a_failed_repair_is_shown_whole_and_ends_with_one(lab: Lab) -> None:
    key = lab.gateway.run("wg", "show", "wg0", "peers").stdout.strip()
    lab.gateway.write("/etc/wireguard/wg0.conf", f"[Peer]\nPublicKey = {key}\nEndpoint = gone.example:51820\n")
    before = lab.gateway.read("/etc/gfwtools/deny.txt")
    lab.gateway.write("/etc/gfwtools/deny.txt", f"{before}no-domain..example\n")
    lab.far.run("ip", "link", "set", "wg0", "down")
    done = lab.gateway.gfwtools("update", "--reload", "--json", code=1)
    warned, _, failed = done.stderr.partition("not repaired")
    assert "no-domain..example" in warned
    assert "gone.example" in failed
    assert [policy["policy"] for policy in json.loads(done.stdout)["policies"]] == ["gfwlist"]
    shown = lab.gateway.gfwtools("update", "--reload", code=1)
    assert "gfwlist: nothing new" in shown.stdout
    assert "gone.example" in shown.stderr
    lab.far.run("ip", "link", "set", "wg0", "up")
    lab.gateway.run("rm", "/etc/wireguard/wg0.conf")
    lab.gateway.write("/etc/gfwtools/deny.txt", before)
    require_tunnel(lab)
    cron(lab)


def test_an_endpoint_without_an_address_stops_no_other_one_from_being_followed(lab: Lab) -> None:
    key = lab.gateway.run("wg", "show", "wg0", "peers").stdout.strip()
    other = lab.gateway.run("sh", "-c", "wg genkey | wg pubkey").stdout.strip()
    lab.gateway.run("wg", "set", "wg0", "peer", other, "endpoint", "203.0.113.99:51820")
    lab.gateway.write(
        "/etc/wireguard/wg0.conf",
        f"[Peer]\nPublicKey = {other}\nEndpoint = gone.example:51820\n"
        f"[Peer]\nPublicKey = {key}\nEndpoint = vpn.example:51820\n",
    )
    name_far_end(lab, MOVED)
    move_far_end(lab, MOVED)
    assert f"vpn.example, the endpoint of wg0, is {MOVED} now" in cron(lab, code=1)
    lab.gateway.run("wg", "set", "wg0", "peer", other, "remove")
    name_far_end(lab, ENDPOINT)
    move_far_end(lab, ENDPOINT)
    cron(lab)
    lab.gateway.run("rm", "/etc/wireguard/wg0.conf")
    require_tunnel(lab)


def move_far_end(lab: Lab, address: str) -> None:
    """The far end has another address from now on, and no longer the one before."""
    lab.far.run(
        "sh",
        "-ec",
        f"ip -4 address flush dev wan0; ip address add {address}/29 dev wan0; ip route replace default via 198.51.100.50",
    )


def name_far_end(lab: Lab, address: str) -> None:
    """The ISP's resolver has another address for ``vpn.example`` from now on."""
    other = [line for line in lab.isp.read("/etc/dnsmasq.conf").splitlines() if "vpn.example" not in line]
    lab.isp.write("/etc/dnsmasq.conf", "\n".join([*other, f"address=/vpn.example/{address}", ""]))
    lab.isp.run("sh", "-ec", "kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.3; "
                "exec dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid")  # fmt: skip
    lab.gateway.run("sh", "-ec", "kill -HUP $(cat /run/dnsmasq/dnsmasq.pid)")  # its cache


def add_to_set(lab: Lab, address: str) -> None:
    if config_has(lab, "iptables"):
        lab.gateway.run("ipset", "-exist", "add", "gfwlist", address)
    else:
        lab.gateway.run("nft", "add", "element", "inet", "gfwtools", "gfwlist4", f"{{ {address} }}")


def require_tunnel(lab: Lab) -> None:
    """WireGuard tries a lost handshake again after five seconds."""
    deadline = time.monotonic() + 30
    while opened(lab) != TUNNEL:
        assert time.monotonic() < deadline, "the tunnel does not come back"


def test_a_host_that_was_never_set_up_is_not_set_up_by_an_update() -> None:
    with Lab() as lab:
        lab.configure("iptables", "paired")
        lab.gateway.run("sh", "/etc/restart-dns")
        lab.gateway.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")
        lab.gateway.gfwtools("-q", "update", "--reload", code=None)
        assert "5181" not in lab.gateway.run("ip", "rule").stdout
