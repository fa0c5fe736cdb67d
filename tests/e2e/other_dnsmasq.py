"""A second dnsmasq on the gateway of a lab, for a network of its own: started as libvirt, LXC or NetworkManager do."""

import sys

from lab import Lab

#: The network of libvirt, and where its dnsmasq answers.
BRIDGE, ADDRESS = "virbr0", "192.168.122.1"
LIBVIRT_CONF = "/var/lib/libvirt/dnsmasq/default.conf"
_LIBVIRT = """strict-order
user=root
pid-file=/run/libvirt/network/default.pid
except-interface=lo
{binds}
dhcp-range=192.168.122.2,192.168.122.254,255.255.255.0
dhcp-no-override
dhcp-authoritative
dhcp-lease-max=253
dhcp-leasefile=/var/lib/libvirt/dnsmasq/default.leases
dhcp-hostsfile=/var/lib/libvirt/dnsmasq/default.hostsfile
addn-hosts=/var/lib/libvirt/dnsmasq/default.addnhosts
"""
#: How libvirt has it bind: dnsmasq since 2.63, and before.
BINDS = {
    "bind-dynamic": f"bind-dynamic\ninterface={BRIDGE}",
    "bind-interfaces": f"bind-interfaces\nlisten-address={ADDRESS}",
}
_RESOLVE = """
import sys
from gfwtools.dnsmasq.daemon import Daemon
print(*map(str, Daemon(sys.argv[1]).ask(sys.argv[2]).addresses))
"""


def make_network(lab: Lab, name: str, address: str, kind: str = "bridge") -> None:
    link = f"{name} type {kind}"
    lab.gateway.run("sh", "-ec", f"ip link add {link}; ip address add {address}/24 dev {name}; ip link set {name} up")


def libvirt(lab: Lab, binds: str = "bind-dynamic") -> None:
    """A bridge with libvirt's dnsmasq, beside a dnsmasq of the host that leaves it alone."""
    lab.gateway.write("/etc/dnsmasq.conf", "user=root\nlisten-address=127.0.0.1\nbind-interfaces\n")
    if lab.gateway.run("sh", "-c", "[ -e /run/dnsmasq/dnsmasq.pid ]", code=None).returncode == 0:
        lab.gateway.run("sh", "/etc/restart-dns")
    make_network(lab, BRIDGE, ADDRESS)
    for name in ("hostsfile", "addnhosts"):
        lab.gateway.write(f"/var/lib/libvirt/dnsmasq/default.{name}", "")
    lab.gateway.write(LIBVIRT_CONF, _LIBVIRT.format(binds=BINDS[binds]))
    lab.gateway.run("mkdir", "-p", "/run/libvirt/network")
    start_libvirt(lab)


def start_libvirt(lab: Lab) -> None:
    lab.gateway.run("dnsmasq", f"--conf-file={LIBVIRT_CONF}")


def restart_libvirt(lab: Lab) -> None:
    """As after ``virsh net-destroy default`` and ``net-start``."""
    end = "pid=$(cat $1); kill $pid; while grep -qs '^State:.[^ZX]' /proc/$pid/status; do sleep 0.02; done"
    lab.gateway.run("sh", "-ec", end, "sh", "/run/libvirt/network/default.pid")
    start_libvirt(lab)


def asked_at(lab: Lab, address: str, name: str) -> str:
    """What is answered at an address of the gateway."""
    return lab.gateway.run(sys.executable, "-c", _RESOLVE, address, name).stdout.strip()
