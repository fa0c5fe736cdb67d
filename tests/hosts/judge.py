"""The truth about a host, seen from outside, and whether `check host` says the same."""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from fresh_host import HERE as E2E
from machine import Machine
from surroundings import BLOCKED, DIRECT, HOST_LAN, POISON, TUNNEL, Lease, Surroundings

__all__ = ["Judge", "client_faults", "snapshot"]

#: How long a host may take until it works again after an event, in seconds.
PATIENCE = 30.0
#: Lines of the journal that are right.
_NO_NOISE = (
    # systemd-resolved asks dnsmasq, and names it in the file of the ISP's resolvers, which dnsmasq follows by itself.
    "ignoring nameserver 127.0.0.1 - local interface",
    # Debian's: dnsmasq.service registers itself by `resolvconf -a lo.dnsmasq`, and systemd-resolved's resolvconf refuses.
    "Failed to set DNS configuration: Link lo is loopback device.",
)
_VISIT = (E2E / "visit.py").read_text("utf-8")


@dataclass(frozen=True)
class View:
    """Who asks and visits: the host itself, or a client of its LAN."""

    name: str
    resolve: Callable[[str], str]
    visit: Callable[[str], str]


class Judge:
    def __init__(self, machine: Machine, around: Surroundings) -> None:
        self._machine = machine
        self._around = around
        self._asked = 0
        self.serves_lan = True
        self._leaks = around.leaks()
        self._records = len(around.records())
        self.views = (
            View("host", self._host_resolves, self._host_visits),
            View("LAN client", self._client_resolves, self._client_visits),
        )

    # ------------------------------------------------------------ one question each

    def _host_resolves(self, name: str) -> str:
        found = self._machine.run("timeout", "5", "getent", "ahostsv4", name, code=None).stdout
        return found.split()[0] if found else "no answer"

    def _host_visits(self, address: str) -> str:
        return self._machine.run("python3", "-", address, "2", stdin=_VISIT, code=None).stdout.strip()

    def _client_resolves(self, name: str) -> str:
        asked = self._around.client.run(sys.executable, E2E / "ask.py", HOST_LAN, "53", stdin=name, code=None)
        return json.loads(asked.stdout)[name][0] or "no address" if asked.returncode == 0 else "no answer"

    def _client_visits(self, address: str) -> str:
        return self._around.client.run(sys.executable, E2E / "visit.py", address, "2").stdout.strip()

    def _name(self, below: str) -> str:
        """A name that no cache knows."""
        self._asked += 1
        return f"n{self._asked}.{below}"

    # ------------------------------------------------------------ the verdicts

    def faults(self) -> list[str]:
        """What is wrong after an event, once the host had time to settle; nothing where all is well."""
        found = self._settled(self._wrong)
        # On a broken host it is asked once; on one that works it may still see what was wrong a moment ago.
        verdict = self._green_on_a_broken_host() if found else self._settled(self._red_on_a_working_host)
        return [*found, *verdict, *self.new_leaks(), *self._failed_units()]

    def free_faults(self) -> list[str]:
        """What is wrong with a host that has no gfwtools, or none yet: free names have to open."""
        return self._settled(lambda: self._free_wrong(self.views if self.serves_lan else self.views[:1]))

    def lease_faults(self, lease: Lease) -> list[str]:
        """What is wrong with a host that asked for another lease: else nothing happened, and nothing was tested."""
        return self._settled(lambda: self._lease_wrong(lease))

    def learn_who_is_served(self) -> None:
        """Whether dnsmasq served the LAN before gfwtools: Debian's cannot where systemd-resolved has port 53."""
        self.serves_lan = not self._free_wrong(self.views[1:])

    def new_leaks(self) -> list[str]:
        """What the ISP saw of blocked sites since this was asked the last time."""
        leaks, records = self._around.leaks(), self._around.records()
        new, lines = leaks - self._leaks, records[self._records :]
        self._leaks, self._records = leaks, len(records)
        if not new:
            return []
        shown = "".join(f"\n      {line}" for line in lines[:6])
        return [f"the ISP saw {new.packets} packets of blocked sites and {new.questions} questions{shown}"]

    def forget_leaks(self) -> None:
        """What came before bootstrap, or after teardown, is no leak."""
        self.new_leaks()

    def _settled(self, wrong: Callable[[], list[str]]) -> list[str]:
        deadline = time.monotonic() + PATIENCE
        while (found := wrong()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def _wrong(self) -> list[str]:
        return [*self._free_wrong(self.views), *self._blocked_wrong()]

    def _free_wrong(self, views: tuple[View, ...]) -> list[str]:
        found = []
        for view in views:
            name = self._name("free.example")
            if (answer := view.resolve(name)) != DIRECT:
                found.append(f"{view.name}: the free name {name} gives {answer}, not {DIRECT}")
            elif not (saw := view.visit(answer)).startswith("100.64.3."):
                found.append(f"{view.name}: the free site {answer} sees {saw}, not an address of the ISP")
        return found

    def _blocked_wrong(self) -> list[str]:
        found = []
        for view in self.views:
            name, arrived = self._name("blocked.example"), self._around.arrived()
            if (answer := view.resolve(name)) != BLOCKED:
                lie = " (the ISP's lie)" if answer == POISON else ""
                found.append(f"{view.name}: the blocked name {name} gives {answer}{lie}, not {BLOCKED}")
            elif (saw := view.visit(answer)) != TUNNEL:
                found.append(f"{view.name}: the blocked site {answer} sees {saw}, not {TUNNEL}")
            elif self._around.arrived() == arrived:
                found.append(f"{view.name}: no packet of {answer} came to the far end")
        return found

    def _lease_wrong(self, lease: Lease) -> list[str]:
        shown = self._machine.run("ip", "-4", "-o", "address", "show", "eth0").stdout
        addresses = re.findall(r" inet ([0-9.]+)", shown)
        if any(lease.has(address) for address in addresses):
            return []
        return [f"eth0 has {' '.join(addresses) or 'no address'}, none of {lease.first} to {lease.last}"]

    def _red(self) -> list[str]:
        """What `check host` says is wrong."""
        done = self._machine.run("gfwtools", "check", "host", "--json", code=None)
        try:
            pieces = json.loads(done.stdout)
        except ValueError:
            return [f"check host gave {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}"]
        states = "OK", "UNKNOWN"
        return [f"{one['state']} {one['name']}: {one['detail']}" for one in pieces if one["state"] not in states]

    def _green_on_a_broken_host(self) -> list[str]:
        return [] if self._red() else ["check host is green on a broken host"]

    def _red_on_a_working_host(self) -> list[str]:
        return [f"check host, while all works: {line}" for line in self._red()]

    def _failed_units(self) -> list[str]:
        failed = self._machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", code=None).stdout
        return [f"failed: {line.split()[0]}" for line in failed.splitlines() if line.strip()]

    def noise(self) -> list[str]:
        """What the journal of this boot has of our services at warning or worse."""
        since = f"--since=@{self._machine.booted:.0f}"
        units = ("gfwtools*", "dnsmasq.service")
        chosen = [word for unit in units for word in ("-u", unit)]
        journal = self._machine.run("journalctl", since, "-q", "-o", "cat", "-p", "warning", *chosen, code=None).stdout
        words = re.compile("chown of PID file|ignoring resolv-file|there is no such interface")
        more = self._machine.run("journalctl", since, "-q", "-o", "cat", code=None).stdout
        lines = [*journal.splitlines(), *(line for line in more.splitlines() if words.search(line))]
        return [f"journal: {line}" for line in dict.fromkeys(lines) if line not in _NO_NOISE]


# ------------------------------------------------------------------------------------------------- before and after

#: Left out: caches, the configuration of gfwtools, and etc/runit, which the package dnsmasq makes when it is reinstalled.
#: Of the units those that go on: a service that has ended ran for the first boot only, or is started when it is asked.
_SNAPSHOT = r"""
cd /
echo "# files"
find etc -xdev ! -path 'etc/gfwtools*' ! -name '*.cache' ! -path etc/machine-id ! -path 'etc/.*' ! -path 'etc/runit/*' -printf '%p %y %m %U:%G %l\n' | sort
echo "# contents"
find etc -xdev -type f ! -path 'etc/gfwtools*' ! -name '*.cache' ! -path etc/machine-id ! -path 'etc/.*' | sort | xargs -d '\n' sha256sum
echo "# resolv.conf"
cat /etc/resolv.conf
for family in -4 -6; do
    echo "# ip $family"
    ip "$family" rule
    ip "$family" route show table all | grep -v -e fe80 -e ff00 | sed 's/ expires [0-9]*sec//; s/ *$//' | sort
done
echo "# sets"
ipset list -n
echo "# kernel parameters"
sysctl -a 2>/dev/null | grep -E '^net\.ipv[46]\.(conf\..*\.(rp_filter|forwarding|accept_ra|src_valid_mark|route_localnet)|ip_forward)' | sort
echo "# units"
systemctl list-unit-files --no-legend --plain | awk '{print $1, $2}' | sort
echo "# active"
systemctl list-units --no-legend --plain --type=service,timer,path,socket --state=running,waiting,listening | awk '{print $1, $3, $4}' | grep -v -e '^user' -e '^session' -e '^systemd-hostnamed' -e 'dispatcher' | sort
echo "# processes"
ps -eo comm= | grep -v -e '^ps$' -e '^sh$' -e '^sort$' -e '^grep$' -e '^(' -e '^systemd-hostnam' -e '^nm-dispatcher' | sort -u
"""


def snapshot(machine: Machine) -> list[str]:
    """What teardown gives back: files, rules, routes, sets, kernel parameters, units. A line each, below its heading."""
    found = [*machine.run("sh", "-c", _SNAPSHOT).stdout.splitlines(), "# rules", *_rules(machine)]
    heading, lines = "", []
    for line in found:
        if line.startswith("# "):
            heading = line[2:]
        else:
            lines.append(f"{heading}: {line}")
    return lines


def _rules(machine: Machine) -> list[str]:
    """The rules of the kernel, without counters; an empty chain that accepts is no rule: a look at iptables makes some."""
    listed = json.loads(machine.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    lines = []
    for item in listed:
        for kind, value in item.items():
            if kind == "metainfo" or kind == "table":
                continue
            if kind == "chain" and value.get("policy", "accept") == "accept":
                continue
            text = json.dumps({key: value[key] for key in value if key not in ("handle", "elem")}, sort_keys=True)
            lines.append(f"{kind} " + re.sub(r'\{"counter": \{[^}]*\}\}', "counter", text))
    # A chain of firewalld has its zones in the order in which NetworkManager named them.
    return sorted(lines, key=lambda line: line if '"table": "firewalld"' in line else "")


def client_faults(lines: list[str]) -> list[str]:
    """What the client of the LAN (client.py) may never see, whatever happens to its gateway."""
    found = []
    for started, answer, saw in map(json.loads, lines):
        when = time.strftime("%H:%M:%S", time.gmtime(started))
        if answer == POISON:
            found.append(f"LAN client at {when}: the blocked name gave the ISP's lie")
        elif saw and not saw.startswith("error") and saw != TUNNEL:
            found.append(f"LAN client at {when}: {answer} saw {saw}")
    return found[:5]
