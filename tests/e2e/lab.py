"""Four hosts: a LAN client, the gateway under test, an ISP that blocks, and the far end of a real WireGuard tunnel.

::

    client ── lan0 ── gateway ── wan0 ── ISP ── far end (clean resolver 8.8.8.8, blocked site)
                         └──────── wg0 ─────────┘

The ISP drops what goes to the blocked site and to the clean resolver, and its own resolver lies about blocked names. The
sites tell who they saw. IPv6 is native at the ISP; the tunnel has it where it is asked for.
"""

import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from types import TracebackType

import host_tree
from fresh_host import HERE, RESTART, FreshHost

CLEAN = "8.8.8.8"
ISP_DNS = "192.0.2.53"
POISON = "192.0.2.66"
BLOCKED, BLOCKED6 = "198.18.0.10", "2001:db8:bad::10"
FREE, FREE6 = "198.51.100.80", "2001:db8:f::80"
ENDPOINT = "198.51.100.51"
GATEWAY_WAN, GATEWAY_WAN6 = "203.0.113.2", "2001:db8:1::2"
GATEWAY_LAN = "192.168.7.1"
CLIENT = "192.168.7.10"
TUNNEL, TUNNEL6 = "10.7.0.2", "fd00:7::2"
NAMES = {
    "blocked.example": (BLOCKED, BLOCKED6),
    "ok.blocked.example": (FREE, FREE6),
    "free.example": (FREE, FREE6),
    "endpoint.blocked.example": (ENDPOINT, "2001:db8:e::1"),
}
LIST = "[AutoProxy 0.2.9]\n||blocked.example\n@@||ok.blocked.example\n|http://198.18.0.99/\n"


class Lab:
    """Use it as a context manager."""

    def __init__(self, *, ipv6: bool = False, rp_filter: int = 0, src_valid_mark: int = 0) -> None:
        self.ipv6 = ipv6
        self.rp_filter = rp_filter
        self.src_valid_mark = src_valid_mark
        self._stack = ExitStack()

    def __enter__(self) -> "Lab":
        try:
            self.client, self.gateway, self.isp, self.far = (self._stack.enter_context(FreshHost()) for _ in range(4))
            self._links()
            self._tunnel()
            self._services()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    # ------------------------------------------------------------ how it is built

    def _links(self) -> None:
        self._link(
            self.client,
            "eth0",
            [f"{CLIENT}/24", "fd00:1::10/64"],
            self.gateway,
            "lan0",
            [f"{GATEWAY_LAN}/24", "fd00:1::1/64"],
        )
        self._link(
            self.gateway,
            "wan0",
            [f"{GATEWAY_WAN}/30", f"{GATEWAY_WAN6}/64"],
            self.isp,
            "gw0",
            ["203.0.113.1/30", "2001:db8:1::1/64"],
        )
        self._link(
            self.isp,
            "far0",
            ["198.51.100.50/29", "2001:db8:e::2/64"],
            self.far,
            "wan0",
            [f"{ENDPOINT}/29", "2001:db8:e::1/64"],
        )
        self.client.run("ip", "route", "add", "default", "via", GATEWAY_LAN)
        self.client.run("ip", "-6", "route", "add", "default", "via", "fd00:1::1")
        for host, via4, via6 in (
            (self.gateway, "203.0.113.1", "2001:db8:1::1"),
            (self.far, "198.51.100.50", "2001:db8:e::2"),
        ):
            host.run("ip", "route", "add", "default", "via", via4)
            host.run("ip", "-6", "route", "add", "default", "via", via6)
        _shell(
            self.isp,
            f"ip address add {ISP_DNS} dev lo; ip address add {POISON} dev lo; ip address add {FREE} dev lo; "
            f"ip -6 address add {FREE6} dev lo; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; "
            # What is blocked is dropped without a word, and counted.
            f"iptables -t raw -A PREROUTING -d {CLEAN} -j DROP; iptables -t raw -A PREROUTING -d 198.18.0.0/24 -j DROP; "
            "ip6tables -t raw -A PREROUTING -d 2001:db8:bad::/48 -j DROP; "
            "ip -6 route add fd00:1::/64 via 2001:db8:1::2",
        )
        _shell(
            self.far,
            f"ip address add {CLEAN} dev lo; ip address add {BLOCKED} dev lo; ip address add 198.18.0.99 dev lo; "
            f"ip -6 address add {BLOCKED6} dev lo",
        )
        # The gateway is a gateway already: it translates its LAN to the WAN's address.
        _shell(
            self.gateway,
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; "
            "iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE; "
            f"sysctl -qw net.ipv4.conf.all.rp_filter={self.rp_filter} net.ipv4.conf.default.rp_filter={self.rp_filter} "
            f"net.ipv4.conf.wan0.rp_filter={self.rp_filter} net.ipv4.conf.lan0.rp_filter={self.rp_filter} "
            f"net.ipv4.conf.all.src_valid_mark={self.src_valid_mark}",
        )

    def _link(
        self, one: FreshHost, name: str, addresses: list[str], other: FreshHost, other_name: str, others: list[str]
    ) -> None:
        command = [
            "ip",
            "-n",
            one.name,
            "link",
            "add",
            name,
            "type",
            "veth",
            "peer",
            "name",
            other_name,
            "netns",
            other.name,
        ]
        subprocess.run(command, check=True)
        for host, device, listed in ((one, name, addresses), (other, other_name, others)):
            lines = [f"ip address add {address} dev {device}{' nodad' if ':' in address else ''}" for address in listed]
            _shell(host, "; ".join([f"ip link set {device} up", *lines]))

    def _tunnel(self) -> None:
        keys = {}
        for host in (self.gateway, self.far):
            private = host.run("wg", "genkey").stdout
            keys[host] = private, host.run("wg", "pubkey", stdin=private).stdout.strip()
        # The far end first: a handshake that nobody hears is tried again after five seconds only.
        for host, other in ((self.far, self.gateway), (self.gateway, self.far)):
            program = host.start("wireguard-go", "--foreground", "wg0")
            peer = f"[Peer]\nPublicKey = {keys[other][1]}\n"
            if host is self.gateway:
                peer += f"Endpoint = {ENDPOINT}:51820\nAllowedIPs = 0.0.0.0/0, ::/0\nPersistentKeepalive = 5\n"
            else:
                peer += f"AllowedIPs = {TUNNEL}/32, {TUNNEL6}/128\n"
            text = (
                f"[Interface]\nPrivateKey = {keys[host][0]}"
                + ("ListenPort = 51820\n" if host is self.far else "")
                + peer
            )
            host.write("/run/wg.conf", text, 0o600)
            deadline = time.monotonic() + 30
            while host.run("wg", "setconf", "wg0", "/run/wg.conf", code=None).returncode:
                assert time.monotonic() < deadline, f"wireguard-go did not start: {program.poll()}"
                time.sleep(0.05)
            mine, mine6 = (f"{TUNNEL}/24", f"{TUNNEL6}/64") if host is self.gateway else ("10.7.0.1/24", "fd00:7::1/64")
            _shell(host, f"ip address add {mine} dev wg0; ip link set wg0 mtu 1420 up")
            if self.ipv6:
                _shell(host, f"ip -6 address add {mine6} dev wg0 nodad")

        deadline = time.monotonic() + 30
        while re.search(r"\t0$", self.gateway.run("wg", "show", "wg0", "latest-handshakes").stdout):
            assert time.monotonic() < deadline, "the tunnel does not come up"
            time.sleep(0.05)

    def _services(self) -> None:
        clean = "".join(f"address=/{name}/{four}\naddress=/{name}/{six}\n" for name, (four, six) in NAMES.items())
        lies = clean.replace(f"/blocked.example/{BLOCKED}\n", f"/blocked.example/{POISON}\n").replace(
            BLOCKED6, "2001:db8:dead::1"
        )
        for host, address, text in ((self.far, CLEAN, clean), (self.isp, ISP_DNS, lies)):
            host.write(
                "/etc/dnsmasq.conf",
                f"user=root\nno-resolv\nno-hosts\nlocal-ttl=300\nlisten-address={address}\nbind-interfaces\n{text}",
            )
            host.run("dnsmasq", "--conf-file=/etc/dnsmasq.conf", "--pid-file=/run/dnsmasq/dnsmasq.pid")
        self.isp.start(sys.executable, HERE / "site.py", FREE, FREE6, POISON, ready=True)
        self.far.start(sys.executable, HERE / "site.py", BLOCKED, BLOCKED6, "198.18.0.99", ready=True)
        for host, resolver in ((self.gateway, ISP_DNS), (self.client, GATEWAY_LAN)):
            host.write("/etc/resolv.conf", f"nameserver {resolver}\n")
        self.gateway.write("/etc/restart-dns", RESTART)
        self.gateway.write("/etc/dnsmasq.conf", "user=root\n")
        if host_tree.with_dnsmasq_package():
            # The package starts its service when it is installed.
            self.gateway.run("sh", "/etc/restart-dns")

    # ------------------------------------------------------------ what is done in it

    def configure(self, backend: str = "auto", layout: str = "paired", *, gateway: bool = True, more: str = "") -> None:
        """What a user writes before bootstrap: where the list is, and how dnsmasq is restarted here."""
        self.gateway.write("/etc/list.txt", LIST)
        self.gateway.write(
            "/etc/gfwtools/config.toml",
            f'[dns]\nlayout = "{layout}"\nmanager = "command"\nrestart = ["/usr/bin/env", "sh", "/etc/restart-dns"]\n'
            f'[host]\nbackend = "{backend}"\ngateway = {str(gateway).lower()}\n'
            f'[policy.gfwlist]\nsources = ["/etc/list.txt"]\n{more}',
        )

    def bootstrap(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.gateway.gfwtools("bootstrap", "--interface", "wg0", "--init", "none", "--yes", *args, code=code)

    def resolve(self, host: FreshHost, name: str, kind: str = "A") -> str | None:
        """The address that ``host`` gets by its own resolv.conf."""
        server = re.findall(r"^nameserver (\S+)", host.read("/etc/resolv.conf"), re.MULTILINE)[0]
        output = host.run(sys.executable, HERE / "ask.py", server, "53", stdin=name).stdout
        four, six = json.loads(output)[name]
        return four if kind == "A" else six

    def visit(self, host: FreshHost, address: str, seconds: float = 3) -> str:
        return host.run(sys.executable, HERE / "visit.py", address, str(seconds)).stdout.strip()

    def open(self, host: FreshHost, name: str, kind: str = "A") -> str:
        """Resolve a name and visit the site: who it saw, or an error."""
        address = self.resolve(host, name, kind)
        return self.visit(host, address) if address else "no address"

    def leaked(self) -> int:
        """Packets to what is blocked that the ISP saw and dropped."""
        packets = 0
        for tool in ("iptables", "ip6tables"):
            text = self.isp.run(tool, "-t", "raw", "-nvxL", "PREROUTING").stdout
            packets += sum(int(line.split()[0]) for line in text.splitlines()[2:])
        return packets


def _shell(host: FreshHost, script: str) -> None:
    host.run("sh", "-ec", script)
