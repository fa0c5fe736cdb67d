"""The kinds of hosts: who manages the network and resolv.conf, which firewall runs, what marks the packets.

Each part says which packages it needs, which files it writes, which units it enables, and how it gets a new lease.
"""

from dataclasses import dataclass, field

from debian import PREFIX
from machine import Machine
from paths import REPO
from surroundings import ENDPOINT_NAME, ENDPOINT_PORT, HOST_LAN, LIST_URL, TUNNEL, Surroundings

__all__ = ["FIREWALLS", "HOSTS", "NETWORKS", "Host", "install"]


@dataclass(frozen=True)
class Part:
    """One program, or several, that a host has beside what every host has."""

    packages: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    #: Run on the disk before the first boot, without a network.
    commands: tuple[tuple[str, ...], ...] = ()
    #: What an upgrade or an administrator restarts, in the order of the events.
    services: tuple[str, ...] = ()
    #: Gets another lease.
    renew: tuple[tuple[str, ...], ...] = ()
    #: Whether resolv.conf follows the lease. One that is static fails with its resolver, gfwtools or not.
    follows: bool = True
    #: In the words of the page.
    network: str = ""
    resolver: str = ""


def _enable(*units: str) -> tuple[str, ...]:
    return "systemctl", "-q", "enable", *units


_STATIC_RESOLV_CONF = {"/etc/resolv.conf": "nameserver 100.64.3.1\n"}
_NETWORKD = {
    "/etc/systemd/network/eth0.network": "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n",
    "/etc/systemd/network/lan0.network": f"[Match]\nName=lan0\n[Network]\nAddress={HOST_LAN}/24\n",
}
# Not `networkctl renew`: DHCP refuses the old address by a broadcast, which networkd does not hear until its timer T2.
_RECONFIGURE = (("networkctl", "reconfigure", "eth0"),)
_INTERFACES = {
    "/etc/network/interfaces": "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n\n"
    f"auto lan0\niface lan0 inet static\n    address {HOST_LAN}/24\n"
}
_IFUP = (("ifdown", "eth0"), ("ifup", "eth0"))
_NM = "/etc/NetworkManager"

NETWORKS = {
    "networkd": Part(
        files=_NETWORKD | _STATIC_RESOLV_CONF,
        commands=(_enable("systemd-networkd.service"),),
        services=("systemd-networkd.service",),
        renew=_RECONFIGURE,
        follows=False,
        network="systemd-networkd",
        resolver="none: a static resolv.conf",
    ),
    "resolved": Part(
        packages=("systemd-resolved",),
        files=_NETWORKD,
        commands=(_enable("systemd-networkd.service", "systemd-resolved.service"),),
        services=("systemd-networkd.service", "systemd-resolved.service"),
        renew=_RECONFIGURE,
        network="systemd-networkd",
        resolver="systemd-resolved",
    ),
    "nm": Part(
        packages=("network-manager",),
        files={
            f"{_NM}/system-connections/wan.nmconnection": "[connection]\nid=wan\ntype=ethernet\ninterface-name=eth0\nzone=external\n"
            "[ipv4]\nmethod=auto\n[ipv6]\nmethod=disabled\n",
            f"{_NM}/system-connections/lan.nmconnection": "[connection]\nid=lan\ntype=ethernet\ninterface-name=lan0\nzone=trusted\n"
            f"[ipv4]\nmethod=manual\naddress1={HOST_LAN}/24\n[ipv6]\nmethod=disabled\n",
            # It leaves cards of type veth alone, which these are and a real host's are not.
            f"{_NM}/conf.d/cards.conf": "[device-cards]\nmatch-device=interface-name:eth0,interface-name:lan0\nmanaged=1\n",
        },
        commands=(
            (
                "chmod",
                "600",
                f"{_NM}/system-connections/wan.nmconnection",
                f"{_NM}/system-connections/lan.nmconnection",
            ),
            _enable("NetworkManager.service"),
        ),
        services=("NetworkManager.service",),
        renew=(("nmcli", "connection", "up", "wan"),),
        network="NetworkManager",
        resolver="NetworkManager",
    ),
    "dhclient": Part(
        packages=("ifupdown", "isc-dhcp-client"),
        files=_INTERFACES,
        renew=_IFUP,
        network="ifupdown, dhclient",
        resolver="dhclient",
    ),
    "dhcpcd": Part(
        packages=("ifupdown", "dhcpcd-base"),
        files=_INTERFACES,
        renew=(("dhcpcd", "--rebind", "eth0"),),
        network="ifupdown, dhcpcd",
        resolver="dhcpcd",
    ),
    "resolvconf": Part(
        packages=("ifupdown", "isc-dhcp-client", "resolvconf"),
        files=_INTERFACES,
        renew=_IFUP,
        network="ifupdown, dhclient",
        resolver="resolvconf",
    ),
    "openresolv": Part(
        packages=("ifupdown", "dhcpcd-base", "openresolv"),
        files=_INTERFACES,
        renew=(("dhcpcd", "--rebind", "eth0"),),
        network="ifupdown, dhcpcd",
        resolver="openresolv",
    ),
}

_NAT = """table ip home {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "eth0" masquerade
    }
}
"""
FIREWALLS = {
    # A gateway translates its LAN, whoever does it.
    "none": Part(
        files={
            "/etc/nat.nft": _NAT,
            "/etc/systemd/system/nat.service": "[Unit]\nDescription=NAT for the LAN\nBefore=network-pre.target\n"
            "Wants=network-pre.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=nft -f /etc/nat.nft\n"
            "[Install]\nWantedBy=multi-user.target\n",
        },
        commands=(_enable("nat.service"),),
    ),
    "nftables": Part(
        files={
            "/etc/nftables.conf": "#!/usr/sbin/nft -f\nflush ruleset\n\ntable inet filter {\n    chain input {\n"
            "        type filter hook input priority filter; policy drop;\n        ct state established,related accept\n"
            '        iifname { "lo", "lan0" } accept\n        meta l4proto icmp accept\n    }\n    chain forward {\n'
            "        type filter hook forward priority filter; policy drop;\n        ct state established,related accept\n"
            f'        iifname "lan0" accept\n    }}\n}}\n{_NAT}'
        },
        commands=(_enable("nftables.service"),),
        services=("nftables.service",),
    ),
    "ufw": Part(
        packages=("ufw",),
        commands=(
            ("sed", "-i", 's/^DEFAULT_FORWARD_POLICY=.*/DEFAULT_FORWARD_POLICY="ACCEPT"/', "/etc/default/ufw"),
            (
                "sed",
                "-i",
                "1i *nat\\n:POSTROUTING ACCEPT [0:0]\\n-F POSTROUTING\\n-A POSTROUTING -o eth0 -j MASQUERADE\\nCOMMIT",
                "/etc/ufw/before.rules",
            ),
            ("ufw", "allow", "in", "on", "lan0"),
            ("sed", "-i", "s/^ENABLED=.*/ENABLED=yes/", "/etc/ufw/ufw.conf"),
            _enable("ufw.service"),
        ),
        services=("ufw.service",),
    ),
    "firewalld": Part(
        packages=("firewalld",),
        commands=(
            ("firewall-offline-cmd", "-q", "--zone=external", "--add-interface=eth0"),
            ("firewall-offline-cmd", "-q", "--zone=trusted", "--add-interface=lan0"),
            _enable("firewalld.service"),
        ),
        services=("firewalld.service",),
    ),
}


@dataclass(frozen=True)
class Host:
    """One row of the page."""

    suite: str
    network: str
    firewall: str
    backend: str
    layout: str
    container: bool = False

    @property
    def name(self) -> str:
        where = "container" if self.container else "machine"
        return f"{self.suite}-{self.network}-{self.firewall}-{self.backend}-{self.layout}-{where}"

    @property
    def parts(self) -> tuple[Part, Part]:
        return NETWORKS[self.network], FIREWALLS[self.firewall]

    @property
    def packages(self) -> tuple[str, ...]:
        return tuple(package for part in self.parts for package in part.packages)

    @property
    def services(self) -> tuple[str, ...]:
        """What is restarted: the kind's, then what every host has."""
        return (*(name for part in self.parts for name in part.services), "dnsmasq.service", "wg-quick@wg0.service")


#: Each suite, network, firewall, backend, layout and machine or container at least twice, and not each with each.
HOSTS = (
    Host("bookworm", "networkd", "nftables", "nftables", "split"),
    Host("trixie", "dhcpcd", "none", "iptables", "paired", container=True),
    Host("bookworm", "networkd", "none", "iptables", "paired", container=True),
    Host("bookworm", "resolved", "ufw", "iptables", "split"),
    Host("bookworm", "nm", "firewalld", "nftables", "paired"),
    Host("bookworm", "dhclient", "none", "nftables", "split", container=True),
    Host("bookworm", "resolvconf", "ufw", "nftables", "paired"),
    Host("bookworm", "openresolv", "nftables", "iptables", "split"),
    Host("trixie", "networkd", "firewalld", "iptables", "split", container=True),
    Host("trixie", "resolved", "nftables", "nftables", "paired", container=True),
    Host("trixie", "nm", "none", "iptables", "split", container=True),
    Host("trixie", "dhclient", "firewalld", "nftables", "split"),
    Host("trixie", "dhcpcd", "ufw", "nftables", "split"),
    Host("trixie", "openresolv", "none", "nftables", "paired"),
)


def install(host: Host, machine: Machine, around: Surroundings) -> None:
    """Everything on the disk but what bootstrap does; the first boot is next."""
    _install_gfwtools(machine)
    files = {
        "/etc/sysctl.d/gateway.conf": "net.ipv4.ip_forward=1\n",
        "/etc/gfwtools/config.toml": f'[dns]\nlayout = "{host.layout}"\n[host]\nbackend = "{host.backend}"\n'
        f'gateway = true\n[policy.gfwlist]\nsources = ["{LIST_URL}"]\n',
    }
    commands: list[tuple[str, ...]] = [_enable("wg-quick@wg0.service")]
    for part in host.parts:
        files |= part.files
        commands += part.commands
    for path, text in files.items():
        machine.write(path, text)
    machine.write(
        "/etc/wireguard/wg0.conf",
        f"[Interface]\nPrivateKey = {around.private_key}\nAddress = {TUNNEL}/32\nTable = off\n\n"
        f"[Peer]\nPublicKey = {around.peer_key}\nEndpoint = {ENDPOINT_NAME}:{ENDPOINT_PORT}\nAllowedIPs = 0.0.0.0/0\n"
        "PersistentKeepalive = 5\n",
        0o600,
    )
    for command in commands:
        machine.prepare(*command)


def _install_gfwtools(machine: Machine) -> None:
    """As `make install` leaves it: the locked packages are in a layer of the disk (debian.py), this checkout beside them."""
    [site] = machine.prepare("sh", "-c", f"echo /{PREFIX}/lib/python3*/site-packages").split()
    machine.copy(REPO / "gfwtools", f"{site.lstrip('/')}/gfwtools")
    machine.write(
        f"/{PREFIX}/bin/gfwtools",
        f"#!/{PREFIX}/bin/python3\nimport sys\nfrom gfwtools.__main__ import main\nsys.exit(main())\n",
        0o755,
    )
    machine.prepare(f"/{PREFIX}/bin/python3", "-m", "compileall", "-q", f"{site}/gfwtools")
    machine.prepare("ln", "-s", f"/{PREFIX}/bin/gfwtools", "/usr/local/bin/gfwtools")
