"""Other programs' firewalls on a lab's gateway: the real ufw and firewalld, and what Docker leaves behind."""

import shutil
from pathlib import Path

import pytest
from fresh_host import FreshHost

UFW_DEFAULTS = """\
IPV6=yes
DEFAULT_INPUT_POLICY="DROP"
DEFAULT_OUTPUT_POLICY="ACCEPT"
DEFAULT_FORWARD_POLICY="DROP"
DEFAULT_APPLICATION_POLICY="SKIP"
MANAGE_BUILTINS=no
IPT_SYSCTL=/etc/ufw/sysctl.conf
IPT_MODULES=""
"""
#: A system bus for firewalld alone.
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow receive_type="method_call"/>
    <allow send_type="signal"/><allow receive_type="signal"/>
    <allow send_requested_reply="true"/><allow receive_requested_reply="true"/>
  </policy>
</busconfig>
"""


#: Protocols that the stock services of firewalld name.
PROTOCOLS = "igmp 2 IGMP\nah 51 AH\nospf 89 OSPF\nvrrp 112 VRRP\nsctp 132 SCTP\ndccp 33 DCCP\n"


def need(program: str) -> None:
    """Where systemd runs, the package would start this program on the host that tests: the test is skipped there."""
    if shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin") is None:
        is_live = Path("/run/systemd/system").is_dir()
        (pytest.skip if is_live else pytest.fail)(f"no {program}; its package would start it here (make packages)")


def start_ufw(host: FreshHost) -> None:
    """ufw with its package's own files: it forwards from the LAN to the WAN, and serves the LAN."""
    need("ufw")
    host.write("/etc/default/ufw", UFW_DEFAULTS)
    host.write("/etc/ufw/sysctl.conf", "")
    host.run("mkdir", "-p", "/etc/ufw/applications.d")
    for folder in (Path("/usr/share/ufw"), Path("/usr/share/ufw/iptables")):
        for path in folder.glob("*.rules"):
            host.write(f"/etc/ufw/{path.name}", path.read_text(), 0o640)
    host.write("/etc/ufw/ufw.conf", "ENABLED=no\nLOGLEVEL=low\n")
    for line in ("allow in on lan0", "route allow in on lan0 out on wan0", "--force enable"):
        host.run("ufw", *line.split())


def start_firewalld(host: FreshHost) -> None:
    """firewalld as its package has it: the LAN in the zone internal, the WAN in external."""
    need("firewalld")
    host.write("/etc/bus.conf", BUS)
    host.write("/etc/protocols", host.read("/etc/protocols") + PROTOCOLS)
    host.run("mkdir", "-p", "/run/dbus", "/run/firewalld", "/etc/firewalld/zones", "/etc/firewalld/policies")
    host.run("dbus-daemon", "--config-file=/etc/bus.conf", "--fork", "--nopidfile")
    host.write("/etc/firewalld/firewalld.conf", "DefaultZone=public\nFirewallBackend=nftables\nIPv6_rpfilter=yes\n")
    host.start("/usr/bin/python3", "-s", "/usr/sbin/firewalld", "--nofork", "--nopid")
    host.run("sh", "-c", "for i in $(seq 100); do firewall-cmd --state 2>/dev/null && exit 0; sleep 0.1; done; exit 1")
    for line in (
        "--zone=internal --change-interface=lan0",
        "--zone=external --change-interface=wan0",
        "--zone=internal --add-service=dns",
        "--new-policy=lan-wan",
        "--policy=lan-wan --add-ingress-zone=internal",
        "--policy=lan-wan --add-egress-zone=external",
        "--policy=lan-wan --set-target=ACCEPT",
    ):
        host.run("firewall-cmd", "--permanent", *line.split())
    host.run("firewall-cmd", "--reload")
