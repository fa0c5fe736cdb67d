"""What is beside the host under test: the ISP with its DHCP and its lies, the far end of the tunnel, a client of the LAN.

::

    client ── lan0 ── host ── eth0 ── ISP ── far end (clean resolver 8.8.8.8, blocked sites)
                        └───── wg0 ─────────┘

The ISP drops what goes to a blocked site or to the clean resolver, counts it and writes it down; so it does with
questions about blocked names. The sites say whom they saw.
"""

import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from counting import Count
from fresh_host import HERE as E2E
from fresh_host import FreshHost

__all__ = ["BLOCKED", "CLIENT", "DIRECT", "HOST_LAN", "LIST", "POISON", "TUNNEL", "Leaks", "Lease", "Surroundings"]

CLEAN = "8.8.8.8"
POISON = "192.0.2.66"
DIRECT = "192.0.2.33"
#: The site of every name below blocked.example, and one that the list has by its address.
BLOCKED, BLOCKED_ADDRESS = "198.18.7.7", "198.18.9.9"
ENDPOINT, ENDPOINT_NAME, ENDPOINT_PORT = "192.0.2.2", "vpn.example.net", 4500
HOST_LAN, CLIENT = "10.44.0.1", "10.44.0.9"
TUNNEL, TUNNEL_PEER = "10.66.0.2", "10.66.0.1"
LIST_URL = f"http://{DIRECT}:8000/gfwlist.txt"
LIST = f"[AutoProxy 0.2.9]\n||blocked.example\n|http://{BLOCKED_ADDRESS}/\n"


@dataclass(frozen=True)
class Lease:
    """What the ISP's DHCP gives: an address, and the resolver, the only one of the ISP's that then answers."""

    first: str
    last: str
    resolver: str

    def has(self, address: str) -> bool:
        return IPv4Address(self.first) <= IPv4Address(address) <= IPv4Address(self.last)


LEASES = (Lease("100.64.3.100", "100.64.3.109", "100.64.3.1"), Lease("100.64.3.110", "100.64.3.119", "100.64.3.53"))


@dataclass(frozen=True)
class Leaks:
    """What the ISP saw of blocked sites."""

    packets: int
    questions: int

    def __sub__(self, other: "Leaks") -> "Leaks":
        return Leaks(self.packets - other.packets, self.questions - other.questions)

    def __bool__(self) -> bool:
        return bool(self.packets or self.questions)


_SILENT = """table ip silent {{
    chain input {{
        type filter hook input priority filter;
        meta l4proto {{ tcp, udp }} th dport 53 ip daddr {{ {} }} drop
    }}
}}
"""


class Surroundings:
    """Use it as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._resolver: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Surroundings":
        try:
            self.isp, self.far, self.client = (self._stack.enter_context(FreshHost()) for _ in range(3))
            self._networks()
            self._tunnel()
            self._services()
            self._counters()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def cables(self) -> tuple[tuple[str, str, str], ...]:
        """The host's network cards, and where they lead to."""
        return ("eth0", self.isp.name, "cust"), ("lan0", self.client.name, "eth0")

    # ------------------------------------------------------------ how it is built

    def _networks(self) -> None:
        # Bridges: the cable to the host is made anew with each boot, their side stays.
        for host, bridge in ((self.isp, "cust"), (self.client, "eth0")):
            host.run("ip", "link", "add", bridge, "type", "bridge")
            host.run("ip", "link", "set", bridge, "up")
        cable = ["link", "add", "far0", "type", "veth", "peer", "name", "eth0", "netns", self.far.name]
        subprocess.run(["ip", "-n", self.isp.name, *cable], check=True)
        for host, device in ((self.isp, "far0"), (self.far, "eth0")):
            host.run("ip", "link", "set", device, "up")
        for host, address, device in (
            *((self.isp, f"{lease.resolver}/24", "cust") for lease in LEASES),
            (self.isp, "192.0.2.1/28", "far0"),
            (self.isp, f"{DIRECT}/32", "lo"),
            (self.far, f"{ENDPOINT}/28", "eth0"),
            *((self.far, f"{address}/32", "lo") for address in (CLEAN, BLOCKED, BLOCKED_ADDRESS)),
            (self.client, f"{CLIENT}/24", "eth0"),
        ):
            host.run("ip", "address", "add", address, "dev", device)
        self.client.run("ip", "route", "add", "default", "via", HOST_LAN)
        self.far.run("ip", "route", "add", "default", "via", "192.0.2.1")
        for host in (self.isp, self.far):
            host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for blocked in ("198.18.0.0/16", CLEAN):
            self.isp.run("iptables", "-t", "raw", "-A", "PREROUTING", "-i", "cust", "-d", blocked, "-j", "DROP")

    def _tunnel(self) -> None:
        self.private_key = self.far.run("wg", "genkey").stdout.strip()
        theirs = self.far.run("wg", "genkey").stdout.strip()
        self.peer_key = self.far.run("wg", "pubkey", stdin=theirs).stdout.strip()
        mine = self.far.run("wg", "pubkey", stdin=self.private_key).stdout.strip()
        self.far.write(
            "/run/wg.conf",
            f"[Interface]\nPrivateKey = {theirs}\nListenPort = {ENDPOINT_PORT}\n"
            f"[Peer]\nPublicKey = {mine}\nAllowedIPs = {TUNNEL}/32\n",
            0o600,
        )
        self.far.start("wireguard-go", "--foreground", "wg0")
        deadline = time.monotonic() + 30
        while self.far.run("wg", "setconf", "wg0", "/run/wg.conf", code=None).returncode:
            assert time.monotonic() < deadline, "wireguard-go did not start"
            time.sleep(0.05)
        self.far.run("ip", "address", "add", f"{TUNNEL_PEER}/24", "dev", "wg0")
        self.far.run("ip", "link", "set", "wg0", "mtu", "1420", "up")

    def _services(self) -> None:
        self.far.write(
            "/etc/dnsmasq.conf",
            f"user=root\nno-resolv\nno-hosts\nlisten-address={CLEAN}\nbind-interfaces\naddress=/#/{BLOCKED}\n",
        )
        self.far.run("dnsmasq", "--conf-file=/etc/dnsmasq.conf", "--pid-file=/run/dnsmasq.pid")
        self.lease(LEASES[0])
        self.isp.start(sys.executable, E2E / "site.py", DIRECT, ready=True)
        self.far.start(sys.executable, E2E / "site.py", BLOCKED, BLOCKED_ADDRESS, ready=True)
        self.publish(LIST)
        self.isp.start(sys.executable, "-m", "http.server", "-d", "/etc/www", "--bind", DIRECT, "8000")

    def _counters(self) -> None:
        self._packets = Count(self.isp, "prerouting", f'iifname "cust" ip daddr {{ 198.18.0.0/16, {CLEAN} }}')
        self._arrived = Count(self.far, "prerouting", 'iifname "wg0" ip daddr 198.18.0.0/16')
        # The counter is the judge. This says which packet it was, and when.
        what = ("-tttt", "-n", "-l", "-i", "any", "dst", "net", "198.18.0.0/16", "or", "dst", "host", CLEAN)
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gfw-isp-")))
        self._seen = folder / "packets"
        with self._seen.open("w") as seen:
            command = self.isp.inside(["tcpdump", "--immediate-mode", *what])
            recorder = subprocess.Popen(command, stdout=seen, stderr=subprocess.DEVNULL)
        self._stack.callback(recorder.wait)
        self._stack.callback(recorder.kill)

    # ------------------------------------------------------------ what is done in it

    def publish(self, text: str) -> None:
        """The list that its server gives from now on."""
        self.isp.write("/etc/www/gfwlist.txt", text)

    def lease(self, lease: Lease, *, others_answer: bool = False) -> None:
        """What DHCP gives from now on.

        :param others_answer: the ISP's other resolvers go on answering
        """
        self.isp.run("sh", "-c", "[ ! -e /run/isp.pid ] || kill $(cat /run/isp.pid); rm -f /run/isp.pid")
        self.isp.run("nft", "delete", "table", "ip", "silent", code=None)
        if not others_answer:
            silent = ", ".join(other.resolver for other in LEASES if other != lease)
            self.isp.run("nft", "-f", "-", stdin=_SILENT.format(silent))
        self.isp.write(
            "/etc/isp.conf",
            "user=root\nno-resolv\nno-hosts\nbind-interfaces\ninterface=cust\nexcept-interface=lo\nlog-queries\n"
            f"log-facility=/run/isp.log\ndhcp-leasefile=/run/leases\ndhcp-range={lease.first},{lease.last},2m\n"
            "dhcp-authoritative\nlog-dhcp\ndhcp-option=option:router,100.64.3.1\n"
            f"dhcp-option=option:dns-server,{lease.resolver}\ndhcp-option=option:domain-name,isp.example\n"
            f"address=/#/{DIRECT}\naddress=/{ENDPOINT_NAME}/{ENDPOINT}\naddress=/blocked.example/{POISON}\n",
        )
        deadline = time.monotonic() + 10
        while self.isp.run("dnsmasq", "--conf-file=/etc/isp.conf", "--pid-file=/run/isp.pid", code=None).returncode:
            assert time.monotonic() < deadline, "the ISP's dnsmasq does not start"
            time.sleep(0.1)

    # ------------------------------------------------------------ what is seen in it

    def leaks(self) -> Leaks:
        """Since the beginning."""
        return Leaks(self._packets.packets, len(self._questions()))

    def arrived(self) -> int:
        """Packets of blocked sites that came to the far end by the tunnel."""
        return self._arrived.packets

    def records(self) -> list[str]:
        """All packets and questions that :meth:`leaks` counts, each with its time."""
        return [*self._seen.read_text("ascii", "replace").splitlines(), *self._questions()]

    def _questions(self) -> list[str]:
        log = self.isp.read("/run/isp.log")
        return [line for line in log.splitlines() if re.search(r" query\[\w+\] \S*\bblocked\.example ", line)]
