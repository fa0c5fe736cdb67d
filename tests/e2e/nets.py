"""A gateway as people have it: a guest LAN and Docker's bridge beside the LAN, a global address on the LAN's interface.

The WAN's segment and the tunnel's peer know the way to all of it, and the owner's firewall lets port 53 in from anywhere.
"""

import json
import subprocess
import sys

from fresh_host import HERE, FreshHost
from lab import BLOCKED, CLIENT, GATEWAY_LAN, GATEWAY_WAN, GATEWAY_WAN6, TUNNEL, TUNNEL6, Lab

#: An address of the LAN's interface that the Internet can reach.
GLOBAL = "2001:db8:44::1"
GUEST, DOCKER = "192.168.8.1", "172.17.0.1"
SERVERS = (GATEWAY_LAN, GLOBAL, GUEST, DOCKER)
NONE, ANSWERED = ["none"] * 2, [BLOCKED] * 2
#: How the client asks: from the LAN, from the guest LAN and from a container, at the own address and at others.
INSIDE = (
    *(GATEWAY_LAN, GLOBAL, f"192.168.8.10@{GUEST}%eth1", f"172.17.0.2@{DOCKER}%eth2"),
    *(f"192.168.8.10@{GATEWAY_LAN}%eth1", f"172.17.0.2@{GATEWAY_LAN}%eth2"),
)


def widen(lab: Lab) -> None:
    for table, name, address, peer, there in (
        ("1001", "guest0", f"{GUEST}/24", "eth1", "192.168.8.10/24"),
        ("1002", "docker0", f"{DOCKER}/16", "eth2", "172.17.0.2/16"),
    ):
        words = ("link", "add", name, "type", "veth", "peer", "name", peer, "netns", lab.client.name)
        subprocess.run(["ip", "-n", lab.gateway.name, *words], check=True)
        lab.gateway.run("sh", "-ec", f"ip address add {address} dev {name}; ip link set {name} up")
        source, gateway = (text.partition("/")[0] for text in (there, address))
        lab.client.run("sh", "-ec", f"ip address add {there} dev {peer}; ip link set {peer} up; "
                       f"ip rule add from {source} lookup {table}; "
                       f"ip route add default via {gateway} dev {peer} table {table}")  # fmt: skip
    opened = "".join(
        f"{tool} -I INPUT -p {protocol} --dport 53 -j ACCEPT; "
        for tool in ("iptables", "ip6tables")
        for protocol in ("udp", "tcp")
    )
    for host, script in (
        (lab.gateway, f"ip -6 address add {GLOBAL}/64 dev lan0 nodad; {opened}"),
        (lab.client, "ip -6 address add 2001:db8:44::10/64 dev eth0 nodad"),
        (lab.isp, "ip route add 192.168.0.0/16 via 203.0.113.2; ip route add 172.17.0.0/16 via 203.0.113.2; "
                  "ip -6 route add 2001:db8:44::/64 via 2001:db8:1::2"),
        (lab.far, "ip route add 192.168.0.0/16 dev wg0; ip route add 172.17.0.0/16 dev wg0; "
                  "ip -6 route add 2001:db8:44::/64 dev wg0"),
    ):  # fmt: skip
        host.run("sh", "-ec", script)


def asked(host: FreshHost, *ways: str, user: int = 0) -> dict[str, list[str]]:
    who = ("setpriv", "--reuid", str(user), "--clear-groups") if user else ()
    found = host.run(*who, sys.executable, HERE / "asked.py", "blocked.example", *ways).stdout
    return dict(json.loads(found))


def answers_from_outside(lab: Lab) -> set[str]:
    """All that the WAN's segment and the tunnel's peer got, at any address of the gateway."""
    found = [asked(lab.isp, *SERVERS, GATEWAY_WAN, GATEWAY_WAN6), asked(lab.far, *SERVERS, TUNNEL, TUNNEL6)]
    return {answer for each in found for answers in each.values() for answer in answers} - {"none"}


def crafted(host: FreshHost, device: str, gateway: FreshHost, other: str, *words: str) -> str:
    """What comes back for crafted packets that ``host`` sends to the interface ``other`` of ``gateway``."""
    mac = gateway.run("cat", f"/sys/class/net/{other}/address").stdout.strip()
    return host.run(sys.executable, HERE / "crafted.py", device, mac, *words).stdout.strip()


def in_fragments(lab: Lab) -> list[str]:
    """The answers to questions in fragments: from the WAN's segment by both families, and from the LAN."""
    name = ("53", "blocked.example", "fragments")
    return [
        crafted(lab.isp, "gw0", lab.gateway, "wan0", "203.0.113.1", GATEWAY_LAN, *name),
        crafted(lab.isp, "gw0", lab.gateway, "wan0", "2001:db8:1::1", GLOBAL, *name),
        crafted(lab.client, "eth0", lab.gateway, "lan0", CLIENT, GATEWAY_LAN, *name),
    ]
