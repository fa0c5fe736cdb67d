"""What happens around a gateway of the lab when its ISP gives it other resolvers."""

from lab import ISP_DNS, Lab

NEW_DNS = "192.0.2.54"


def move_isp_resolver(lab: Lab) -> None:
    """The ISP's resolver answers at another address from now on, and not at the old one."""
    lab.isp.run("sh", "-ec", "kill $(cat /run/dnsmasq/dnsmasq.pid); rm -f /run/dnsmasq/dnsmasq.pid")
    text = lab.isp.read("/etc/dnsmasq.conf")
    lab.isp.write("/etc/dnsmasq.conf", text.replace(f"listen-address={ISP_DNS}", f"listen-address={NEW_DNS}"))
    lab.isp.run("ip", "address", "add", NEW_DNS, "dev", "lo")
    lab.isp.run("dnsmasq", "--conf-file=/etc/dnsmasq.conf", "--pid-file=/run/dnsmasq/dnsmasq.pid")


def replace(lab: Lab, path: str, text: str) -> None:
    """As the programs do that maintain such a file: a new one beside it takes its place."""
    lab.gateway.write(f"{path}.tmp", text)
    lab.gateway.run("mv", f"{path}.tmp", path)
