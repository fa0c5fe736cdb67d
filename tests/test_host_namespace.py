"""The plumbing in a network namespace, with the real ipset, iptables, nft, ip and sysctl, for both backends."""

import ctypes
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Literal

import pytest

from gfwtools.config.model import Config, Host, PolicyConfig
from gfwtools.diagnose.host import check
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.errors import HostError
from gfwtools.plumbing import learned, updown
from gfwtools.plumbing.plan import State
from gfwtools.plumbing.updown import down, look, look_for_down
from gfwtools.render import ipset, nftables
from gfwtools.system.commands import Command, CommandError, System
from gfwtools.system.step import Step, script

pytestmark = pytest.mark.e2e

Backend = Literal["iptables", "nftables"]
POLICY = PolicyConfig(interface="tun-a", seeds=(ip_network("91.108.4.0/22"),), routes=(ip_network("192.168.58.0/24"),))
SECOND = PolicyConfig(name="work", set="work", mark=0xBEEF, table=51900, interface="tun-b", nat="snat:10.8.0.2")
THEIRS = """table inet theirs {
    chain input {
        type filter hook input priority 0;
        tcp dport 22 accept
    }
}
"""
_numbers = itertools.count()


def _setns(descriptor: int) -> None:
    """setns(2), which Python has from 3.12 on: this thread goes into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def up(config: Config, runner: "Namespace") -> list[Step]:
    """Up as the command does it."""
    return updown.up(config, runner, clear_caches=Dnsmasq(config, runner).clear_caches)


class Namespace:
    """A :class:`~gfwtools.system.commands.Runner` in a network namespace of its own, that can be told to fail.

    Within the context this thread is in that namespace, and so is what it runs: nsenter(1) would take as long as most
    of the commands themselves.
    """

    def __init__(self) -> None:
        self.name = f"gfw-{os.getpid()}-{next(_numbers)}"
        self.changes: list[Command] = []
        self.fails: Callable[[int, Command], bool] = lambda number, command: False
        self._system = System()

    def __enter__(self) -> "Namespace":
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self._before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        namespace = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        _setns(namespace)
        os.close(namespace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _setns(self._before)
        os.close(self._before)
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def has(self, tool: str) -> bool:
        return self._system.has(tool)

    def read(self, *argv: str) -> str:
        return self._system.read(*argv)

    def ask(self, *argv: str) -> str | None:
        return self._system.ask(*argv)

    def change(self, command: Command) -> None:
        self.changes.append(command)
        if self.fails(len(self.changes) - 1, command):
            raise CommandError(str(command), "told to fail")
        self._system.change(command)

    def run(self, line: str, stdin: str = "") -> None:
        self._system.change(Command(tuple(line.split()), stdin))

    def snapshot(self) -> dict[str, str]:
        """Everything that the plumbing could touch, as the tools print it."""
        commands = [
            "iptables-save",
            "ip6tables-save",
            "nft list ruleset",
            "ip -4 rule",
            "ip -6 rule",
            "ip -4 route show table all",
            "ip -6 route show table all",
            "ipset save",
            "sysctl -a --pattern ^net\\.ipv[46]\\.(conf|ip_forward)",
        ]
        seen = {command: self.read(*command.split()) for command in commands}
        # iptables-save writes the time.
        return {
            command: "\n".join(line for line in text.splitlines() if not line.startswith("#"))
            for command, text in seen.items()
        }


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A host with a WAN and two tunnels: ``tun-a`` carries IPv6, ``tun-b`` does not."""
    with Namespace() as made:
        made.run("ip link set lo up")
        for name, other in (("wan", "isp"), ("tun-a", "far-a"), ("tun-b", "far-b")):
            made.run(f"ip link add {name} type veth peer name {other}")
            # No link-local addresses: their detection ends at a moment of its own choice.
            for end in (name, other):
                made.run(f"ip link set {end} addrgenmode none")
                made.run(f"ip link set {end} up")
        made.run("ip addr add 203.0.113.2/24 dev wan")
        made.run("ip route add default via 203.0.113.1")
        made.run("ip addr add 10.9.0.2/24 dev tun-a")
        made.run("ip -6 addr add fd00:9::2/64 dev tun-a nodad")
        made.run("ip addr add 10.8.0.2/24 dev tun-b")
        yield made


@pytest.fixture(params=["iptables", "nftables"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return "iptables" if request.param == "iptables" else "nftables"


@pytest.fixture
def config(backend: Backend, tmp_path: Path) -> Config:
    (tmp_path / "etc/iproute2/rt_tables.d").mkdir(parents=True)
    return Config(host=Host(backend=backend, gateway=True), policies=(POLICY, SECOND), root=tmp_path)


def etc(config: Config) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in config.paths.at("/etc").rglob("*") if path.is_file()}


def element(config: Config, namespace: Namespace, address: str) -> bool:
    """Is the address in the set that dnsmasq fills?"""
    name = POLICY.set
    if config.host.backend == "iptables":
        return namespace.ask("ipset", "test", name, address) is not None
    return namespace.ask("nft", "get", "element", "inet", "gfwtools", f"{name}4", f"{{ {address} }}") is not None


def learn(config: Config, namespace: Namespace, *addresses: str) -> None:
    """What dnsmasq does."""
    for address in addresses:
        if config.host.backend == "iptables":
            namespace.run(f"ipset add {POLICY.set} {address}")
        else:
            namespace.run("nft -f -", f"add element inet gfwtools {POLICY.set}4 {{ {address} }}\n")


def flush(config: Config, namespace: Namespace) -> None:
    """What somebody does by mistake."""
    chain = (
        "iptables -t mangle -F GFWLIST"
        if config.host.backend == "iptables"
        else "nft flush chain inet gfwtools GFWLIST"
    )
    namespace.run(chain)


def bad(config: Config, namespace: Namespace) -> list[str]:
    return [f"{piece.name} {piece.detail}" for piece in look(config, namespace).pieces if piece.state is not State.OK]


def test_after_up_every_piece_is_there(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    assert bad(config, namespace) == []


def test_the_second_up_runs_no_changing_command(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    namespace.changes.clear()
    assert up(config, namespace) == []
    assert namespace.changes == []


def test_down_leaves_the_host_as_it_was_byte_for_byte(config: Config, namespace: Namespace) -> None:
    before, files = namespace.snapshot(), etc(config)
    up(config, namespace)
    assert namespace.snapshot() != before
    down(config, namespace)
    assert namespace.snapshot() == before
    assert etc(config) == files


def test_the_second_down_runs_no_changing_command(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    down(config, namespace)
    namespace.changes.clear()
    assert down(config, namespace) == []
    assert namespace.changes == []


def test_down_works_when_the_interfaces_are_gone(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    for name in ("tun-a", "tun-b"):
        namespace.run(f"ip link del {name}")
    down(config, namespace)
    assert "GFWLIST" not in str(namespace.snapshot())
    assert "proto 202" not in str(namespace.snapshot())


def test_each_step_that_fails_leaves_the_host_as_it_was(config: Config, namespace: Namespace) -> None:
    before, files = namespace.snapshot(), etc(config)
    steps = look(config, namespace).steps
    commands = [command for step in steps for command in step.do]
    assert len(commands) > 10
    for number, command in enumerate(commands):
        namespace.changes.clear()
        namespace.fails = lambda at, _, number=number: at == number
        with pytest.raises(HostError, match="told to fail; the host is as it was before"):
            up(config, namespace)
        assert namespace.changes[number] == command
        assert namespace.snapshot() == before, command
        assert etc(config) == files
    namespace.fails = lambda at, command: False
    up(config, namespace)
    assert bad(config, namespace) == []


def test_each_step_of_down_that_fails_leaves_the_plumbing_whole(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    learn(config, namespace, "1.2.3.4")
    for number in range(sum(len(step.do) for step in look_for_down(config, namespace).steps)):
        namespace.changes.clear()
        namespace.fails = lambda at, _, number=number: at == number
        with pytest.raises(HostError, match="told to fail; the host is as it was before"):
            down(config, namespace)
        namespace.fails = lambda at, command: False
        assert bad(config, namespace) == []
        assert element(config, namespace, "1.2.3.4")


def test_foreign_rules_sets_and_tables_are_not_touched(config: Config, namespace: Namespace) -> None:
    namespace.run("ipset create theirs hash:ip")
    namespace.run("iptables -t mangle -A OUTPUT -d 198.51.100.1 -j MARK --set-mark 7")
    namespace.run("iptables -t nat -A POSTROUTING -o wan -j MASQUERADE")
    namespace.run("ip6tables -t mangle -P FORWARD DROP")
    namespace.run("nft -f -", THEIRS)
    namespace.run("ip rule add pref 100 fwmark 7 lookup 100")
    namespace.run("ip rule add pref 5180 lookup main suppress_prefixlength 0")
    namespace.run("ip route add default dev wan table 100")
    namespace.run("ip route add 192.168.58.0/24 dev tun-a")
    before = namespace.snapshot()
    up(config, namespace)
    assert bad(config, namespace) == []
    up(config, namespace)
    down(config, namespace)
    assert namespace.snapshot() == before


def test_a_flushed_rule_is_named_and_mended_and_nothing_learned_is_lost(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    learn(config, namespace, "1.2.3.4")
    flush(config, namespace)
    named = bad(config, namespace)
    assert any("GFWLIST" in name and "policy gfwlist" in name for name in named)
    up(config, namespace)
    assert bad(config, namespace) == []
    assert element(config, namespace, "1.2.3.4")


def test_a_deleted_ip_rule_and_route_are_named_and_mended(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    namespace.run("ip rule del pref 5181")
    namespace.run("ip -6 route del unreachable default table 51820 metric 4278198272")
    namespace.run("sysctl -qw net/ipv4/conf/tun-a/rp_filter=1")
    named = " ".join(bad(config, namespace))
    assert "ip rule 5181 (IPv4)" in named
    assert "kill switch in table 51820 (IPv6)" in named
    assert "sysctl net/ipv4/conf/tun-a/rp_filter 1, should be 2" in named
    assert len(up(config, namespace)) == 3
    assert bad(config, namespace) == []


def test_check_host_names_what_is_missing_and_what_mends_it(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    namespace.run("ip rule del pref 5181")
    finding = next(finding for finding in check(config, namespace) if "5181 (IPv4)" in finding.name)
    assert (finding.state, finding.remedy) == (State.MISSING, "gfwtools up")


def test_learned_addresses_survive_down_and_up(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    learn(config, namespace, "1.2.3.4", "91.108.4.7")
    down(config, namespace)
    assert set(learned.load(config)["gfwlist"]) >= {ip_network("1.2.3.4").network_address}
    up(config, namespace)
    assert element(config, namespace, "1.2.3.4")
    assert learned.load(config)["gfwlist"] == ()


def test_learned_addresses_move_to_the_other_backend(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    learn(config, namespace, "1.2.3.4")
    other: Backend = "nftables" if config.host.backend == "iptables" else "iptables"
    changed = config._replace(host=config.host._replace(backend=other))
    up(changed, namespace)
    assert element(changed, namespace, "1.2.3.4")
    assert bad(changed, namespace) == []
    named = namespace.snapshot()
    assert ("GFWLIST" in named["iptables-save"]) == (other == "iptables")
    assert ("table inet gfwtools" in named["nft list ruleset"]) == (other == "nftables")


def test_what_an_earlier_configuration_wanted_goes(config: Config, namespace: Namespace) -> None:
    before = namespace.snapshot()
    up(config, namespace)
    smaller = config._replace(host=config.host._replace(gateway=False), policies=(POLICY._replace(routes=()),))
    up(smaller, namespace)
    seen = namespace.snapshot()
    assert "work" not in seen["ipset save"] + seen["nft list ruleset"]
    assert "51900" not in seen["ip -4 rule"]
    assert "192.168.58.0/24" not in seen["ip -4 route show table all"]
    assert "net.ipv4.ip_forward = 0" in seen["sysctl -a --pattern ^net\\.ipv[46]\\.(conf|ip_forward)"]
    assert bad(smaller, namespace) == []
    down(smaller, namespace)
    assert namespace.snapshot() == before


def test_without_the_interface_marked_packets_are_refused(config: Config, namespace: Namespace) -> None:
    namespace.run("ip link del tun-a")
    up(config, namespace)
    assert look(config, namespace).interfaces_down(config)[0].startswith("tun-a: there is no such interface")
    assert namespace.ask("ip", "route", "get", "8.8.8.8", "mark", "0xca6c") is None
    assert "dev tun-b" in namespace.read("ip", "route", "get", "8.8.8.8", "mark", "0xbeef")


def test_a_tunnel_that_went_down_and_up_needs_one_step_a_route(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    namespace.run("ip link set tun-a down")
    assert namespace.ask("ip", "route", "get", "8.8.8.8", "mark", "0xca6c") is None
    namespace.run("ip link set tun-a up")
    namespace.run("ip -6 addr add fd00:9::2/64 dev tun-a nodad")  # which the kernel drops with the link
    done = up(config, namespace)
    assert all(step.what.startswith("ip route") for step in done)
    assert "dev tun-a" in namespace.read("ip", "route", "get", "8.8.8.8", "mark", "0xca6c")


def test_ipv6_takes_the_tunnel_that_has_it_and_is_refused_where_not(config: Config, namespace: Namespace) -> None:
    namespace.run("ip -6 addr add 2001:db8::2/64 dev wan nodad")
    namespace.run("ip -6 route add default via 2001:db8::1")
    up(config, namespace)
    assert "dev wan" in namespace.read("ip", "-6", "route", "get", "2001:db8:1::1")
    assert "dev tun-a" in namespace.read("ip", "-6", "route", "get", "2001:db8:1::1", "mark", "0xca6c")
    assert namespace.ask("ip", "-6", "route", "get", "2001:db8:1::1", "mark", "0xbeef") is None


def test_the_dry_run_is_a_script_that_does_the_same(config: Config, namespace: Namespace, tmp_path: Path) -> None:
    text = script(look(config, namespace).steps)
    namespace.run("sh -s", text)
    assert bad(config, namespace) == []


# With ipset, seeds and learned addresses share a set: there `update` takes the old seeds out.
@pytest.mark.parametrize("backend", ["nftables"], indirect=True)
def test_a_seed_that_is_in_no_list_any_more_is_named_and_goes(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    namespace.run("nft -f -", "add element inet gfwtools gfwlist_seed6 { 2001:db8::/32 }\n")
    assert bad(config, namespace) == ["seeds of gfwlist_seed6 0"]
    up(config, namespace)
    assert bad(config, namespace) == []


# In our own table of nftables there are no sets of other people.
@pytest.mark.parametrize("backend", ["iptables"], indirect=True)
def test_a_set_of_another_kind_under_our_name_is_an_error_before_anything_runs(
    config: Config, namespace: Namespace
) -> None:
    namespace.run("ipset create gfwlist hash:ip")
    with pytest.raises(HostError, match=r"set gfwlist is hash:ip family inet maxelem 65536 and should be hash:net"):
        up(config, namespace)
    assert namespace.changes == []


@pytest.mark.parametrize("backend", ["iptables"], indirect=True)
def test_a_chain_of_somebody_elses_with_our_name_is_an_error_and_down_leaves_it(
    config: Config, namespace: Namespace
) -> None:
    namespace.run("ip6tables -t mangle -N GFWLIST")
    namespace.run("ip6tables -t mangle -A GFWLIST -d 2001:db8::1 -j DROP")
    namespace.run("ip6tables -t mangle -A OUTPUT -d 2001:db8::1 -j GFWLIST")
    before = namespace.snapshot()
    with pytest.raises(HostError, match="rename it: ip6tables -t mangle -E GFWLIST OTHER"):
        up(config, namespace)
    down(config, namespace)
    assert namespace.snapshot() == before
    namespace.run("ip6tables -t mangle -E GFWLIST OTHER")
    up(config, namespace)
    assert bad(config, namespace) == []
    assert "-A OTHER -d 2001:db8::1/128 -j DROP" in namespace.read("ip6tables-save")


@pytest.mark.parametrize("backend", ["iptables"], indirect=True)
def test_jumps_to_our_chain_that_somebody_has_added_go_with_it(config: Config, namespace: Namespace) -> None:
    namespace.run("iptables -t mangle -N THEIRS")
    before = namespace.snapshot()
    up(config, namespace)
    namespace.run("iptables -t mangle -A THEIRS -s 192.168.1.7 -g GFWLIST")
    namespace.run("iptables -t mangle -A FORWARD -i lan -j GFWLIST")
    assert bad(config, namespace) == [
        "iptables mangle FORWARD not wanted: -i lan -j GFWLIST",
        "iptables mangle THEIRS not wanted: -s 192.168.1.7/32 -g GFWLIST",
    ]
    down(config, namespace)
    assert namespace.snapshot() == before


def test_the_endpoint_is_guarded_in_a_real_wireguard_tunnel(config: Config, namespace: Namespace) -> None:
    name = f"w{os.getpid()}"
    with subprocess.Popen(["wireguard-go", "-f", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tunnel:
        try:
            deadline = time.monotonic() + 10
            while namespace.ask("wg", "show", name) is None:
                assert time.monotonic() < deadline, "wireguard-go does not come up"
                time.sleep(0.02)
            key = namespace.read("wg", "genkey").strip()
            public = subprocess.run(["wg", "pubkey"], input=key, capture_output=True, text=True, check=True).stdout
            peer = f"peer {public.strip()} allowed-ips 0.0.0.0/0 endpoint 203.0.113.9:51820"
            namespace.run(f"wg set {name} {peer}")
            namespace.run(f"ip addr add 10.7.0.2/24 dev {name}")
            namespace.run(f"ip link set {name} up")
            real = config._replace(policies=(PolicyConfig(interface=name),))
            up(real, namespace)
            rules = namespace.read("iptables-save") + namespace.read("nft", "list", "ruleset")
            assert "203.0.113.9" in rules
            found = {finding.name: finding.state for finding in check(real, namespace)}
            assert found["endpoint 203.0.113.9"] is State.OK
            namespace.run(f"wg set {name} {peer.replace('113.9', '113.8')}")
            assert any("203.0.113.8" in name for name in bad(real, namespace))
            up(real, namespace)
            assert bad(real, namespace) == []
            down(real, namespace)
        finally:
            tunnel.terminate()


def test_ten_thousand_seeds_are_loaded_whole(config: Config, namespace: Namespace) -> None:
    up(config, namespace)
    networks = [ip_network((0x0B000000 + number * 0x8000, 17)) for number in range(0, 20000, 2)]
    path = config.paths.ipset("gfwlist") if config.host.backend == "iptables" else config.paths.nft("gfwlist")
    path.write_text((ipset if config.host.backend == "iptables" else nftables).seed(POLICY, networks))
    up(config, namespace)
    namespace.changes.clear()
    assert up(config, namespace) == []
    assert namespace.changes == []
